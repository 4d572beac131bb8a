# all: written by lading from project.yaml and locks/; `doit dockerfile:all` writes it again.
# Everything it needs lies beside it. By hand (BuildKit; or podman build):
#   docker build --network none -t all:1.2 build/all/context

# The base debian-13, as locked.
FROM docker.io/library/python@sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff

# The times that steps write: the locks' date, 2026-11-22, never the clock.
ARG SOURCE_DATE_EPOCH="1795305600"

# Under Apptainer the host's ~/.local and PYTHONPATH would shadow what is installed here:
# PYTHONNOUSERSITE and an empty PYTHONPATH keep them out.
ENV LANG="C.UTF-8" \
    PYTHONNOUSERSITE="1" \
    PYTHONPATH="" \
    VIRTUAL_ENV="/opt/venv" \
    PATH="/opt/venv/bin:$PATH" \
    OMP_NUM_THREADS="1" \
    WEIRD="a\"b\$PATH\$c\\d"

# From `run:` in project.yaml.
RUN mkdir /opt/site

# The Python packages, into a virtual environment of their own. The wheels are lent to this one
# step and are never a layer; the hashes are checked once more; bytecode is compiled, but for
# the packages' own tests, so that a read-only image starts fast.
RUN --mount=type=bind,source=pip,target=/dev/shm/lading/pip \
    : lent 3fe1f44ed931010d && \
    umask 022 && \
    export HOME=/dev/shm UV_NO_CACHE=1 UV_OFFLINE=1 UV_NO_CONFIG=1 UV_NO_PROGRESS=1 \
        UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=hardlink && \
    /dev/shm/lading/pip/bin/uv venv --quiet --python /usr/bin/python3 /opt/venv && \
    /dev/shm/lading/pip/bin/uv pip install --quiet --python /opt/venv \
        --no-index --no-deps --require-hashes \
        --find-links /dev/shm/lading/pip/wheels \
        --requirements /dev/shm/lading/pip/requirements.txt && \
    PYTHONHASHSEED=0 /opt/venv/bin/python -S -B /dev/shm/lading/pip/bytecode.py /opt/venv/lib && \
    find /opt/venv -name uv_cache.json -delete && find /opt/venv -path '*.dist-info/RECORD' \
        -exec sed -i '/uv_cache\.json,/d' {} +

# recipes/site.cfg, from `files:`.
COPY ["files/0/site.cfg", "/etc/site.cfg"]

# From `run:` in project.yaml.
RUN python -V

# From `run:` in project.yaml.
RUN true

# What it was made from, for whoever has only the image.
COPY ["share", "/usr/share/lading/"]

# Labels that follow from the declarations and the locks.
LABEL "maintainer"="Somebody else" \
      "description"="A \"quoted\" \$text with \\ in it" \
      "org.opencontainers.image.title"="all" \
      "org.opencontainers.image.description"="A \"quoted\" \$text with \\ in it" \
      "org.opencontainers.image.version"="1.2" \
      "org.opencontainers.image.created"="2026-11-22T00:00:00Z" \
      "org.opencontainers.image.base.name"="docker.io/library/python:3.13-slim" \
      "org.opencontainers.image.base.digest"="sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff" \
      "python.version"="3.13.5" \
      "python.packages"="astropy==8.0.2" \
      "org.opencontainers.image.vendor"="Example" \
      "org.example/x"="y"

# Without a command: a shell.
CMD ["python", "-i"]

# What this image is called by: the sha256 of everything it is made from.
LABEL "lading.key"="k"
