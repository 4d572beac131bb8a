# fftw 4.0.2 on debian-13: written by lading; what it leaves is kept in the store.

# fftw 4.0.2 is compiled on debian-13, with no network.
FROM localhost/lading/base/debian-13:0123 AS build

# The times that steps write: the locks' date, never the clock.
ARG SOURCE_DATE_EPOCH="1795305600"

# What asks for it by this name is not told what an engine calls its container.
ARG HOSTNAME="localhost"

# What it is built with.
RUN --mount=type=bind,source=apt,target=/dev/shm/lading/apt \
    : lent 737b601789f0cdc8 && \
    sh /dev/shm/lading/apt/install.sh

# From sources.fftw.
ARG FFTW_VERSION="4.0.2"

# From sources.fftw.
ARG FFTW_CMAKE_OPTIONS="-DENABLE_MPI=ON"

# From sources.fftw.
ARG FFTW_MAKE_OPTIONS="-v"

# The tarball is lent to this step.
RUN --mount=type=bind,source=source,target=/dev/shm/lading/source \
    : lent e113269ef34bb8b0 && \
    mkdir -p /lading/unpacked /lading/out && \
    tar -xf /dev/shm/lading/source/fftw-4.0.2.tar.gz \
        -C /lading/unpacked --no-same-owner && \
    set -- /lading/unpacked/* && \
    if [ $# = 1 ] && [ -d "$1" ]; then mv "$1" /lading/source; \
        else mv /lading/unpacked /lading/source; fi

# Where it is compiled does not show in what is, and leaves no trace.
ENV HOME="/dev/shm" \
    CFLAGS="-O2 -ffile-prefix-map=/lading/source=." \
    CXXFLAGS="-O2 -ffile-prefix-map=/lading/source=."

# CMake: configured …
RUN umask 022 && \
    cd /lading/source && \
    cmake -S . -B build -DCMAKE_BUILD_TYPE=Release $FFTW_CMAKE_OPTIONS

# … compiled on all cores …
RUN umask 022 && \
    cd /lading/source && \
    cmake --build build -j $(nproc) $FFTW_MAKE_OPTIONS

# … and installed aside.
RUN umask 022 && \
    cd /lading/source && \
    export DESTDIR=/lading/out && \
    cmake --install build

# What came out, and what is taken from it.
FROM scratch

# Nothing else is kept.
COPY --from=build ["/lading/out/", "/"]

# What this image is called by: the sha256 of everything it is made from.
LABEL "lading.key"="k"
