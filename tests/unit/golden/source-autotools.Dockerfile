# mpich 4.0.2 on debian-13: written by lading; what it leaves is kept in the store.

# mpich 4.0.2 is compiled on debian-13, with no network.
FROM localhost/lading/base/debian-13:0123 AS build

# The times that steps write: the locks' date, never the clock.
ARG SOURCE_DATE_EPOCH="1795305600"

# What asks for it by this name is not told what an engine calls its container.
ARG HOSTNAME="localhost"

# What it is built with.
RUN --mount=type=bind,source=apt,target=/dev/shm/lading/apt \
    : lent 737b601789f0cdc8 && \
    sh /dev/shm/lading/apt/install.sh

# hwloc 2.11, to build against.
ADD ["sources/hwloc.tar", "/"]

# Its libraries are found.
RUN if command -v ldconfig >/dev/null; then ldconfig; fi

# From sources.mpich.
ARG MPICH_VERSION="4.0.2"

# From sources.mpich.
ARG MPICH_CONFIGURE_OPTIONS="--prefix=/usr --with-x=v4.0.2 CFLAGS='-O3 -g'"

# From sources.mpich.
ARG MPICH_MAKE_OPTIONS="V=1"

# From sources.mpich.
ARG MPICH_INSTALL_OPTIONS="prefix=/usr"

# The tarball is lent to this step.
RUN --mount=type=bind,source=source,target=/dev/shm/lading/source \
    : lent 73f3687863e578ff && \
    mkdir -p /lading/unpacked /lading/out && \
    tar -xf /dev/shm/lading/source/mpich-4.0.2.tar.gz \
        -C /lading/unpacked --no-same-owner && \
    set -- /lading/unpacked/* && \
    if [ $# = 1 ] && [ -d "$1" ]; then mv "$1" /lading/source; \
        else mv /lading/unpacked /lading/source; fi && \
    patch -d /lading/source -p1 </dev/shm/lading/source/patches/0 && \
    patch -d /lading/source -p1 </dev/shm/lading/source/patches/1

# Where it is compiled does not show in what is, and leaves no trace.
ENV HOME="/dev/shm" \
    CFLAGS="-O3" \
    CXXFLAGS="-O2 -ffile-prefix-map=/lading/source=." \
    FFLAGS="-fallow -x='y z'"

# autotools: configured …
RUN umask 022 && \
    cd /lading/source && \
    eval "./configure $MPICH_CONFIGURE_OPTIONS"

# … compiled on all cores …
RUN umask 022 && \
    cd /lading/source && \
    make -j $(nproc) $MPICH_MAKE_OPTIONS

# … and installed aside.
RUN umask 022 && \
    cd /lading/source && \
    make install DESTDIR=/lading/out $MPICH_INSTALL_OPTIONS

# `then:` of sources.mpich.
RUN umask 022 && \
    cd /lading/source && \
    export DESTDIR=/lading/out && \
    echo 4.0.2 >"$DESTDIR/usr/version"

# `then:` of sources.mpich.
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
