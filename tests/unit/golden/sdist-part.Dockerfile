# the wheel of docopt==0.6.2: written by lading; what it leaves is kept in the store.

# docopt==0.6.2 has no wheel, or none is wanted: it is built here, with no network.
FROM localhost/lading/base/debian-13:1f83664091ee53f0 AS build

# The times that steps write: the locks' date, never the clock.
ARG SOURCE_DATE_EPOCH="1793491200"

# Built from locked build requirements; only the wheel leaves.
RUN --mount=type=bind,source=pip,target=/dev/shm/lading/pip \
    : lent 4500266ece7db45b && \
    umask 022 && \
    export HOME=/dev/shm UV_NO_CACHE=1 UV_OFFLINE=1 UV_NO_CONFIG=1 UV_NO_PROGRESS=1 \
        UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=hardlink && \
    /dev/shm/lading/pip/bin/uv build --wheel --quiet --no-index --out-dir /lading/out \
        --python /usr/bin/python3 \
        --find-links /dev/shm/lading/pip/build \
        /dev/shm/lading/pip/sdist/docopt-0.6.2.tar.gz && \
    rm -f /lading/out/.gitignore

# What came out, and what is taken from it.
FROM scratch

# Nothing else is kept.
COPY --from=build ["/lading/out/", "/"]

# What this image is called by: the sha256 of everything it is made from.
LABEL "lading.key"="k"
