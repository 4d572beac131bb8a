"""A real Apptainer in a folder of its own, on Debian 12 or newer, touching nothing else.

Debian has it in sid only, built for a newer glibc than a stable release has: the packages are
taken from the pool of the mirror that apt is set up with, checked by sha256, unpacked, and given
a glibc of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lading import debian
from lading.debian import Deb
from lading.errors import LadingError
from lading.store import Artifact, Store

PACKAGES = {
    "a/apptainer/apptainer_1.4.5-2_amd64.deb": (
        "26cf96e08fccb0e50ea0f285a5a19f940ee873d167a0680584fe6eba7d197d65"
    ),
    "g/glibc/libc6_2.41-12+deb13u4_amd64.deb": (
        "967aa62605721081c3eb2a17650611a792aa802d76a6511d1840242623d204c9"
    ),
    "s/squashfuse/squashfuse_0.1.105-1_amd64.deb": (
        "456c2a1d323cfa544a75b5ad9148058c69538e7dc565c75ad3d2be970e1c2dde"
    ),
    "s/squashfuse/libsquashfuse0_0.1.105-1_amd64.deb": (
        "336196fd543f90d18abd160500a7dec499954f92fb5e3631bded19ecc4a84538"
    ),
    "f/fuse3/libfuse3-3_3.14.0-4_amd64.deb": (
        "bf535cec5e965823fd03199b4029f9e9f3952111eb12824b5d2b96c8cca1a918"
    ),
}
SIZES = (18_690_072, 2_846_580, 22_720, 27_140, 88_108)
"""Bytes of the packages, in their order."""

HOST_LIBRARIES = "/usr/lib/x86_64-linux-gnu:/lib/x86_64-linux-gnu"
LINKS = {
    # Moved away from /, it looks for its etc and var beside usr and usr/lib.
    "usr/etc": "../etc",
    "usr/var": "../var",
    "usr/lib/etc": "../../etc",
    "usr/lib/var": "../../var",
}


class NotToBeHad(Exception):
    """Apptainer can't be had here; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Apptainer:
    """An Apptainer that runs."""

    program: Path
    environ: Mapping[str, str]

    @property
    def path(self) -> str:
        """A PATH with its own folder in front."""
        return f"{self.program.parent}{os.pathsep}{os.environ['PATH']}"

    def run(self, *arguments: str, **environ: str) -> str:
        """Runs it; it has to succeed. What it printed on standard output."""
        finished = subprocess.run(
            [str(self.program), *arguments],
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"
        return finished.stdout


def installed(prefix: Path, store: Store) -> Apptainer:
    """Unpacks a real Apptainer below `prefix`. Raises `NotToBeHad` with the reason."""
    for program in ("dpkg-deb", "mksquashfs", "patchelf"):
        if not shutil.which(program):
            raise NotToBeHad(f"{program} is not installed")
    debs = [
        Deb(
            name=path.rpartition("/")[2].partition("_")[0],
            version=path.split("_")[1],
            architecture="amd64",
            path=f"debian:pool/main/{path}",
            size=size,
            sha256=sha256,
        )
        for (path, sha256), size in zip(PACKAGES.items(), SIZES, strict=True)
    ]
    try:
        sources = debian.locate(debs, debian.mirrors(os.environ))
        wanted = [Artifact(name=deb.name, sha256=deb.sha256, size=deb.size) for deb in debs]
        store.fetch(wanted, lambda _: sources)
    except LadingError as error:
        raise NotToBeHad(f"its packages can't be had: {error}") from error
    prefix.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        for deb in debs:
            target = Path(name) if deb.name == "libc6" else prefix
            _run("dpkg-deb", "-x", store.path(deb.sha256), target)
        (prefix / "libc").mkdir()
        for library in Path(name).glob("usr/lib/x86_64-linux-gnu/*.so*"):
            shutil.copy2(library, prefix / "libc")
    _settle(prefix)
    return Apptainer(
        program=prefix / "usr/bin/apptainer",
        environ={
            **{key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ},
            "APPTAINER_CACHEDIR": str(prefix / "cache"),
            "APPTAINER_TMPDIR": str(prefix),
        },
    )


def _settle(prefix: Path) -> None:
    """Makes it work from where it lies."""
    (prefix / "var/lib/apptainer/mnt/session").mkdir(parents=True, exist_ok=True)
    for link, target in LINKS.items():
        (prefix / link).unlink(missing_ok=True)
        (prefix / link).symlink_to(target)
    # Without CAP_SYS_RESOURCE, root's `exec` dies asking for a full set of capabilities.
    config = prefix / "etc/apptainer/apptainer.conf"
    lines = config.read_text().splitlines()
    key = "root default capabilities"
    config.write_text(
        "".join(f"{key} = no\n" if line.startswith(key) else f"{line}\n" for line in lines)
    )
    loader = f"{prefix}/libc/ld-linux-x86-64.so.2"
    for program in ("usr/bin/apptainer", "usr/lib/x86_64-linux-gnu/apptainer/bin/starter"):
        own = f"{prefix}/libc:{HOST_LIBRARIES}"
        _patch(prefix / program, "--set-interpreter", loader, "--force-rpath", "--set-rpath", own)
    fuse = f"{prefix}/lib/x86_64-linux-gnu:{prefix}/usr/lib/x86_64-linux-gnu"
    for path in (
        *prefix.glob("usr/bin/squashfuse*"),
        *prefix.glob("usr/lib/x86_64-linux-gnu/libsquashfuse*.so.0.0.0"),
    ):
        _patch(path, "--force-rpath", "--set-rpath", fuse)


def _patch(path: Path, *arguments: str) -> None:
    _run("patchelf", *arguments, path)


def _run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
