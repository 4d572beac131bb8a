# glib 4.0.2 on debian-13: written by lading; what it leaves is kept in the store.

# glib 4.0.2 is compiled on debian-13, with no network.
FROM localhost/lading/base/debian-13:0123 AS build

# The times that steps write: the locks' date, never the clock.
ARG SOURCE_DATE_EPOCH="1795305600"

# What asks for it by this name is not told what an engine calls its container.
ARG HOSTNAME="localhost"

# From sources.glib.
ARG GLIB_VERSION="4.0.2"

# From sources.glib.
ARG GLIB_MESON_OPTIONS=""

# From sources.glib.
ARG GLIB_MAKE_OPTIONS=""

# The tarball is lent to this step.
RUN --mount=type=bind,source=source,target=/dev/shm/lading/source \
    : lent f6b78fbd9fb27b38 && \
    mkdir -p /lading/unpacked /lading/out && \
    tar -xf /dev/shm/lading/source/glib-4.0.2.tar.gz \
        -C /lading/unpacked --no-same-owner && \
    set -- /lading/unpacked/* && \
    if [ $# = 1 ] && [ -d "$1" ]; then mv "$1" /lading/source; \
        else mv /lading/unpacked /lading/source; fi

# Where it is compiled does not show in what is, and leaves no trace.
ENV HOME="/dev/shm" \
    CFLAGS="-O2 -ffile-prefix-map=/lading/source=." \
    CXXFLAGS="-O2 -ffile-prefix-map=/lading/source=."

# Meson: set up …
RUN umask 022 && \
    cd /lading/source && \
    meson setup build --buildtype=release $GLIB_MESON_OPTIONS

# … compiled on all cores …
RUN umask 022 && \
    cd /lading/source && \
    ninja -C build $GLIB_MAKE_OPTIONS

# … and installed aside.
RUN umask 022 && \
    cd /lading/source && \
    export DESTDIR=/lading/out && \
    meson install -C build --no-rebuild

# What came out, and what is taken from it.
FROM scratch

# Nothing else is kept.
COPY --from=build ["/lading/out/", "/"]

# What this image is called by: the sha256 of everything it is made from.
LABEL "lading.key"="k"
