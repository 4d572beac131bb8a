# 7zip.x-y 4.0.2 on debian-13: written by lading; what it leaves is kept in the store.

# 7zip.x-y 4.0.2 is compiled on debian-13, with no network.
FROM localhost/lading/base/debian-13:0123 AS build

# The times that steps write: the locks' date, never the clock.
ARG SOURCE_DATE_EPOCH="1795305600"

# What asks for it by this name is not told what an engine calls its container.
ARG HOSTNAME="localhost"

# From sources.7zip.x-y.
ARG _7ZIP_X_Y_VERSION="4.0.2"

# The tarball is lent to this step.
RUN --mount=type=bind,source=source,target=/dev/shm/lading/source \
    : lent b2626fcaa924794f && \
    mkdir -p /lading/unpacked /lading/out && \
    tar -xf /dev/shm/lading/source/'7zip+4.0.2~rc.tar.gz' \
        -C /lading/unpacked --no-same-owner && \
    set -- /lading/unpacked/* && \
    if [ $# = 1 ] && [ -d "$1" ]; then mv "$1" /lading/source; \
        else mv /lading/unpacked /lading/source; fi

# Where it is compiled does not show in what is, and leaves no trace.
ENV HOME="/dev/shm" \
    CFLAGS="-O2 -ffile-prefix-map=/lading/source=." \
    CXXFLAGS="-O2 -ffile-prefix-map=/lading/source=."

# From sources.7zip.x-y.
RUN umask 022 && \
    cd /lading/source && \
    export DESTDIR=/lading/out && \
    make -C v4.0.2

# From sources.7zip.x-y.
RUN umask 022 && \
    cd /lading/source && \
    export DESTDIR=/lading/out && \
    install -D 7z "$DESTDIR/usr/bin/7z"

# `then:` of sources.7zip.x-y.
RUN umask 022 && \
    cd /lading/source && \
    export DESTDIR=/lading/out && \
    true

# What came out, and what is taken from it.
FROM scratch

# Nothing else is kept.
COPY --from=build ["/lading/out/", "/"]

# What this image is called by: the sha256 of everything it is made from.
LABEL "lading.key"="k"
