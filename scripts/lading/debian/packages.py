"""Debian packages as a lock names them, and what follows from their names and versions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from msgspec import Struct

from lading.errors import DeclarationError, LadingError
from lading.facts import Facts
from lading.store.download import Source

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PLATFORMS: Mapping[str, str] = {
    "linux/386": "i386",
    "linux/amd64": "amd64",
    "linux/arm/v7": "armhf",
    "linux/arm64": "arm64",
    "linux/arm64/v8": "arm64",
    "linux/ppc64le": "ppc64el",
    "linux/riscv64": "riscv64",
    "linux/s390x": "s390x",
}
"""What the OCI image specification calls a platform, and Debian an architecture."""

_OCI: Mapping[str, tuple[str, str]] = {
    "arm64": ("arm64", "v8"),
    "armhf": ("arm", "v7"),
    "i386": ("386", ""),
    "ppc64el": ("ppc64le", ""),
}
"""Architecture and variant in the OCI specification, where they are not Debian's name."""


class Deb(Struct, frozen=True, kw_only=True):
    """One binary package: what it is, never where.

    version: with its epoch, "1:2.41-5".
    architecture: the package's own: "amd64" or "all".
    path: the archive and the path in it: "debian:pool/main/…", "debian-security:pool/updates/…".
    size: bytes. sha256: hexadecimal.
    """

    name: str
    version: str
    architecture: str
    path: str
    size: int
    sha256: str

    @property
    def archive(self) -> str:
        """Which of the mirrors has it: "debian" or "debian-security"."""
        return self.path.partition(":")[0]

    @property
    def file(self) -> str:
        """The name of its file in the pool (there, versions stand without their epoch)."""
        return self.path.rpartition("/")[2]


def debian_architecture(architecture: str) -> str:
    """Debian's name of an architecture, from the OCI specification's or its own.

    >>> debian_architecture("ppc64le"), debian_architecture("arm/v7"), debian_architecture("amd64")
    ('ppc64el', 'armhf', 'amd64')

    Raises `DeclarationError` for one that Debian isn't made for.
    """
    platform = architecture if architecture.startswith("linux/") else f"linux/{architecture}"
    if platform in PLATFORMS:
        return PLATFORMS[platform]
    if architecture in PLATFORMS.values():
        return architecture
    raise DeclarationError(
        f"there is no Debian for the architecture {architecture}",
        do=f"use one of the platforms {', '.join(sorted(PLATFORMS))}",
    )


def upstream_version(version: str) -> str:
    """A version without its epoch and its Debian revision (Debian policy 5.6.12).

    >>> upstream_version("1:3.13.5-2+deb13u1")
    '3.13.5'
    """
    without_epoch = version.partition(":")[2] if ":" in version else version
    return without_epoch.rpartition("-")[0] or without_epoch


def facts_of(debs: Sequence[Deb]) -> Facts:
    """The facts of the base that consists of these packages, with nothing started."""
    versions = {deb.name: deb.version for deb in debs}
    python, python_version = python_of(debs)
    glibc = versions.get("libc6", "") or versions.get("libc6.1", "")
    release = re.match(r"\d+", versions.get("base-files", ""))
    return Facts(
        python=python,
        python_version=python_version,
        glibc=_numbers(upstream_version(glibc)),
        os=f"debian {release[0]}" if release else "debian",
        package_manager="apt" if "apt" in versions else "",
    )


def python_of(debs: Sequence[Deb]) -> tuple[str, str]:
    """The interpreter's path and full version, where these packages bring one; python3-minimal
    says which X.Y is python3.
    """
    versions = {deb.name: deb.version for deb in debs}
    default = versions.get("python3-minimal", "")
    if not default:
        return "", ""
    series = ".".join(upstream_version(default).split(".")[:2])
    exact = versions.get(f"python{series}-minimal", default)
    # 3.14.0~rc2 is what Debian calls 3.14.0rc2.
    return "/usr/bin/python3", upstream_version(exact).replace("~", "").partition("+")[0]


def lacks_distutils(python_version: str) -> bool:
    """Whether uv can't use Debian's Python as it is: before 3.10 it wants distutils, which is
    part of Python, and on Debian a package of its own.
    """
    return tuple(int(part) for part in python_version.split(".")[:2]) < (3, 10)


def _numbers(version: str) -> str:
    found = re.match(r"\d+(\.\d+)*", version)
    return found[0] if found else ""


def locate(debs: Sequence[Deb], mirrors: Mapping[str, str]) -> dict[str, list[Source]]:
    """Where the packages are on these mirrors: sha256 → sources. Nothing is asked."""
    sources: dict[str, list[Source]] = {}
    for deb in debs:
        archive, _, path = deb.path.partition(":")
        if archive not in mirrors:
            raise LadingError(
                f"{deb.name} {deb.version} is locked from an archive called {archive!r}",
                why=f"known are {', '.join(sorted(mirrors))}",
                do="make the lock again: delete it, and `doit lock`",
            )
        sources.setdefault(deb.sha256, []).append(on_mirror(mirrors[archive], path))
    return sources


def on_mirror(mirror: str, path: str) -> Source:
    """A file on a mirror; a user and a password in the mirror's URL become credentials."""
    parts = urlsplit(mirror)
    auth = None
    if parts.username is not None:
        auth = (unquote(parts.username), unquote(parts.password or ""))
        mirror = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return Source(url=f"{mirror.rstrip('/')}/{quote(path, safe='/+~:')}", auth=auth)


def image_config(architecture: str, epoch: int) -> dict[str, Any]:
    """The configuration of the base's image, but for the layers (OCI image specification,
    "Image Configuration"). `architecture` as in `debian_architecture`; `epoch` in seconds.
    """
    debian = debian_architecture(architecture)
    name, variant = _OCI.get(debian, (debian, ""))
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "architecture": name,
        **({"variant": variant} if variant else {}),
        "os": "linux",
        "created": created,
        "config": {"Env": [f"PATH={PATH}"], "Cmd": ["/bin/bash"]},
        "history": [{"created": created, "created_by": "lading: mmdebstrap, from the base's lock"}],
    }
