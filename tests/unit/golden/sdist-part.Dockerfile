# the wheel of docopt==0.6.2: written by lading; what it leaves is kept in the store.

# docopt==0.6.2 has no wheel, or none is wanted: it is built here, with no network.
FROM localhost/lading/base/debian-13:492203095c5d604b AS build

# The times that steps write: the locks' date, never the clock.
ARG SOURCE_DATE_EPOCH="1793491200"

# What asks for it by this name is not told what an engine calls its container.
ARG HOSTNAME="localhost"

# Built from locked build requirements; only the wheel leaves. Compilers write the paths of what
# they read into it: where uv would choose names, each build would differ.
RUN --mount=type=bind,source=pip,target=/dev/shm/lading/pip \
    : lent 9d6b84a8d0c4f9e0 && \
    umask 022 && \
    export HOME=/dev/shm UV_NO_CACHE=1 UV_OFFLINE=1 UV_NO_CONFIG=1 UV_NO_PROGRESS=1 \
        UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=hardlink && \
    mkdir -p /lading/out /lading/source && \
    /usr/bin/python3 -c 'import shutil, sys; shutil.unpack_archive(*sys.argv[1:])' \
        /dev/shm/lading/pip/sdist/docopt-0.6.2.tar.gz /lading/source && \
    /dev/shm/lading/pip/bin/uv venv --quiet --python /usr/bin/python3 /lading/env && \
    /dev/shm/lading/pip/bin/uv pip install --quiet --python /lading/env --no-index --no-deps \
        --find-links /dev/shm/lading/pip/build \
        --requirements /dev/shm/lading/pip/environment.txt && \
    export PATH="/lading/env/bin:$PATH" && \
    /dev/shm/lading/pip/bin/uv build --wheel --quiet --no-index --out-dir /lading/out \
        --python /lading/env --no-build-isolation /lading/source/*/ && \
    rm -f /lading/out/.gitignore

# What came out, and what is taken from it.
FROM scratch

# Nothing else is kept.
COPY --from=build ["/lading/out/", "/"]

# What this image is called by: the sha256 of everything it is made from.
LABEL "lading.key"="k"
