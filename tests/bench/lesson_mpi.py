"""The lesson's way to an image with MPI: compilers, MPICH and mpi4py, all in the one image.

The same base and the same builder as ours. Only what this machine needs for its network is lent:
to the steps that ask for it, and it is in no layer. So is MPICH's tarball, which the lesson gets
by wget; nothing is pinned, but what mpi4py needs to be built at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from lading import debian
from lading.debian.aptroot import sources
from lading.layers import apt_resolve
from lading.layers import base as bases
from lading.layers import source as source_locks
from tests.bench.clock import Timed
from tests.bench.lesson import built
from tests.bench.network import LENT, lend
from tests.bench.workshop import NotMeasured, Workshop

TARBALL = "mpich.tar.xz"
PACKAGES = "build-essential ca-certificates gdb gfortran python3-dev python3-pip wget"
OPTIONS = (
    "--enable-fast=all,O3 --prefix=/usr --with-device=ch3 "
    "FFLAGS=-fallow-argument-mismatch FCFLAGS=-fallow-argument-mismatch"
)
"""The lesson's, with ch3; gfortran 10 and newer want the last two."""


def dockerfile(reference: str, version: str, requirements: str, settings: Mapping[str, str]) -> str:
    """The lesson's Dockerfile, for a base that has no pip and knows no mirror."""
    lent = " ".join(
        f"{name}={value}"
        for name, value in sorted(settings.items())
        if name in ("PIP_CONFIG_FILE", "NETRC")
    )
    mount = f"--mount=type=bind,source=lent,target={LENT}"
    return f"""\
FROM {reference}
RUN {mount} \\
    export APT_CONFIG={LENT}/apt.conf DEBIAN_FRONTEND=noninteractive \\
      && apt-get update -qq \\
      && apt-get -y --no-install-recommends install {PACKAGES} \\
      && apt-get clean all \\
      && rm -r /var/lib/apt/lists/*

ARG MPICH_VERSION="{version}"
ARG MPICH_CONFIGURE_OPTIONS="{OPTIONS}"
RUN {mount} \\
    mkdir -p /tmp/mpich-build \\
      && cd /tmp/mpich-build \\
      && tar xf {LENT}/{TARBALL} \\
      && cd mpich-${{MPICH_VERSION}} \\
      && ./configure ${{MPICH_CONFIGURE_OPTIONS}} \\
      && make -j$(nproc) \\
      && make install \\
      && ldconfig \\
      && cp -p examples/cpi /usr/bin/ \\
      && cd / \\
      && rm -rf /tmp/mpich-build

COPY requirements.in constraints.txt /
RUN {mount} \\
    {lent} PIP_CONSTRAINT=/constraints.txt \\
    pip3 install --no-cache-dir -r /{requirements}
CMD ["/bin/bash"]
"""


class MpiLesson:
    """The lesson's Dockerfile with its context, for the base and the pins of one of our images."""

    name = "localhost/lesson/mpi:1"

    def __init__(self, workshop: Workshop, image: str) -> None:
        """The tarball comes out of the store: the image is made before.

        Raises `NotMeasured` while the base or the source is not locked.
        """
        project = workshop.declared()
        declared = project.images[image]
        (name,) = declared.source
        lock = source_locks.read(
            source_locks.folder(project.root, name, project.platform) / source_locks.FILE
        )
        base = bases.read(bases.path(project.root, declared.base, project.platform))
        if lock is None or base is None:
            raise NotMeasured(f"{name} is not locked on {declared.base}")
        self._workshop = workshop
        self._context = workshop.folder / "lesson-mpi"
        lent = self._context / "lent"
        self._settings = lend(workshop.environ(), lent / "settings")
        shutil.copy(workshop.store.path(lock.artifact.sha256), lent / TARBALL)
        mirrors = debian.mirrors(workshop.environ())
        (lent / "sources.list").write_text(
            "".join(
                f"deb [signed-by={apt_resolve.KEYRING}] {mirror} {suite} main\n"
                for mirror, suite in sources(base.suite, mirrors)
            )
        )
        (lent / "apt.conf").write_text(apt_conf(self._settings))
        assert declared.pip is not None
        shutil.copy(workshop.source / declared.pip.requirements, self._context / "requirements.in")
        (self._context / "constraints.txt").write_text(
            "".join(f"{line}\n" for line in declared.pip.build_constraints)
        )
        text = dockerfile(
            bases.reference(project.bases[declared.base], base),
            lock.version,
            "requirements.in",
            self._settings,
        )
        (self._context / "Dockerfile").write_text(text)

    def build(self, kind: str) -> Timed:
        """Builds it with nothing cached, with the host's network, as a process."""
        return built(self._workshop.engine(kind), self.name, self._context, self._settings)


def apt_conf(settings: Mapping[str, str]) -> str:
    """Where apt finds what is lent to it; it downloads as root, whom all of that is readable to."""
    lines = [
        f'Dir::Etc::SourceList "{LENT}/sources.list";',
        'Dir::Etc::SourceParts "/dev/null";',
        'APT::Sandbox::User "root";',
    ]
    if "SSL_CERT_FILE" in settings:
        lines.append(f'Acquire::https::CAInfo "{settings["SSL_CERT_FILE"]}";')
    if "NETRC" in settings:
        lines.append(f'Dir::Etc::Netrc "{settings["NETRC"]}";')
    return "\n".join(lines) + "\n" + apt_resolve.proxies()
