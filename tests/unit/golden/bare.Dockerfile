# astropy: written by lading from project.yaml and locks/; `doit dockerfile:astropy` writes it
# again.
# Everything it needs lies beside it. By hand (BuildKit; or podman build):
#   docker build --network none -t astropy:2026.11.01 build/astropy/context

# The base debian-13, as locked.
FROM localhost/lading/base/debian-13:492203095c5d604b

# The times that steps write: the locks' date, 2026-11-01, never the clock.
ARG SOURCE_DATE_EPOCH="1793491200"

# Under Apptainer the host's ~/.local and PYTHONPATH would shadow what is installed here:
# PYTHONNOUSERSITE and an empty PYTHONPATH keep them out.
ENV LANG="C.UTF-8" \
    PYTHONNOUSERSITE="1" \
    PYTHONPATH=""

# What it was made from, for whoever has only the image.
COPY ["share", "/usr/share/lading/"]

# Labels that follow from the declarations and the locks.
LABEL "maintainer"="Example HPC Centre" \
      "org.opencontainers.image.title"="astropy" \
      "org.opencontainers.image.version"="2026.11.01" \
      "org.opencontainers.image.created"="2026-11-01T00:00:00Z" \
      "org.opencontainers.image.base.name"="debian:trixie" \
      "org.opencontainers.image.vendor"="Example"

# Without a command: a shell.
CMD ["/bin/bash"]

# What this image is called by: the sha256 of everything it is made from.
LABEL "lading.key"="k"
