"""A stand-in for a host's MPI: a library and a launcher of another version than the image's.

Wheels of MPICH and Open MPI, locked in `host-mpi.txt`, lie in the store; unpacked there, they are
one folder that a container sees at `MOUNTED`, with the same libraries in three arrangements.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from packaging.version import InvalidVersion, Version

from lading import net, requirements, uv
from lading.errors import LadingError
from lading.requirements import Pin
from lading.store import Artifact, Gone, Source, Store

MOUNTED = "/host/mpi"
SONAMES = {"mpich": "libmpi.so.12", "openmpi": "libmpi.so.40"}
NAMES = {"mpich": "MPICH", "openmpi": "Open MPI"}
VENDORS = "libmpi_gnu_91.so.12"
"""What Cray calls the library that others ask for as libmpi.so.12."""

LIB = "lib"
"""The library under its own name, with all that it needs."""
VENDOR = "vendor"
"""Under a vendor's name, and the usual one as a link to it, as Cray ships it. MPICH only."""
NEEDS = "needs"
"""What the library needs, without itself: for where it is bound over the image's own."""
LAYOUT = "host-mpi-1"
"""The name of the unpacked folder in the store; raised when it is laid out in another way."""


@dataclass(frozen=True, kw_only=True)
class HostMpi:
    """A stand-in, unpacked: its folder on this machine, and the glibc that it needs ("2.28")."""

    flavour: str
    version: str
    glibc: str
    folder: Path

    @property
    def name(self) -> str:
        return f"{NAMES[self.flavour]} {self.version}"

    @property
    def library(self) -> Path:
        return self.folder / LIB / SONAMES[self.flavour]

    @property
    def ways(self) -> tuple[str, ...]:
        """The folders that hold the library by a name that programs ask for."""
        return (LIB, VENDOR) if self.flavour == "mpich" else (LIB,)


@dataclass(frozen=True, kw_only=True)
class NoHost:
    """There is no stand-in for this image, and why."""

    why: str


Finder = Callable[[str, str], HostMpi | NoHost]
"""The stand-in for an image whose MPI has this version, and whose glibc is this."""


@cache
def locked() -> tuple[Pin, ...]:
    """The stand-ins there are: the newest first."""
    path = Path(__file__).with_name("host-mpi.txt")
    return requirements.parse(path.read_text(), path.name)


def finder(
    flavour: str,
    platform: str,
    store: Store,
    environ: Mapping[str, str],
    advance: Callable[[int], None] = lambda _: None,
) -> Finder:
    """Finds a stand-in for a platform ("linux/amd64"); what is not in the store is downloaded."""

    def find(version: str, glibc: str) -> HostMpi | NoHost:
        pin = choose(locked(), flavour, platform, version, glibc)
        if isinstance(pin, NoHost):
            return pin
        try:
            return fetched(pin, flavour, platform, store, environ, advance)
        except (uv.NotResolved, Gone) as error:
            said = error.why.splitlines()
            return NoHost(
                why=f"{pin.requirement}, which stands in for a host's MPI, is not to be had from "
                f"the index: {said[0] if said else error.what}"
            )

    return find


def choose(
    pins: Iterable[Pin], flavour: str, platform: str, version: str, glibc: str
) -> Pin | NoHost:
    """The first of another version than the image's that the image's glibc can load.

    Where either is unknown (empty), it stands in nothing's way.
    """
    ours = [
        pin
        for pin in pins
        if pin.name == flavour
        and pin.artifact.name.endswith(f"_{uv.MACHINES[platform]}.whl")
        and _base(pin.version) != _base(version)
    ]
    if not ours:
        return NoHost(why=f"there is no other {NAMES[flavour]} for {platform} to stand in")
    loaded = [pin for pin in ours if not glibc or uv.numbers(needed(pin)) <= uv.numbers(glibc)]
    if not loaded:
        least = min(map(needed, ours), key=uv.numbers)
        return NoHost(
            why=f"the image has glibc {glibc}, and the MPI that stands in for a host's needs "
            f"{least}; on a host as old as the image it may well work"
        )
    return loaded[0]


def expected(flavour: str, platform: str, own: Container[str], glibc: str) -> Pin | None:
    """The one that an image will get whose MPI has one of these versions, by all that is known of
    it before it runs; None where there is none.
    """
    same = next((pin.version for pin in locked() if pin.name == flavour and pin.version in own), "")
    pin = choose(locked(), flavour, platform, same, glibc)
    return None if isinstance(pin, NoHost) else pin


def there(pin: Pin, store: Store) -> bool:
    """Whether the store has it, as a wheel or unpacked."""
    return store.has_derived(pin.artifact.sha256, LAYOUT) or store.has(pin.artifact)


def needed(pin: Pin) -> str:
    """The glibc that a wheel needs, by its tag (PEP 600): "2.28"."""
    found = re.search(r"manylinux_(\d+)_(\d+)_", pin.artifact.name)
    return f"{found[1]}.{found[2]}" if found else ""


def _base(version: str) -> str:
    try:
        return Version(version).base_version
    except InvalidVersion:
        return version


def fetched(
    pin: Pin,
    flavour: str,
    platform: str,
    store: Store,
    environ: Mapping[str, str],
    advance: Callable[[int], None] = lambda _: None,
) -> HostMpi:
    """The stand-in, in the store and unpacked. Raises as `Store.fetch` does."""

    def sources(lacking: Sequence[Artifact]) -> Mapping[str, Sequence[Source]]:
        # Any Python does: the wheels hold none.
        target = uv.Target(python_version="3.12", glibc=needed(pin), platform=platform)
        return uv.sources_of(uv.locate([pin], target, environment=net.uv_environment(environ)))

    if not there(pin, store):
        store.fetch([pin.artifact], sources, advance, environ=environ)
    wheel = store.path(pin.artifact.sha256)
    return HostMpi(
        flavour=flavour,
        version=_base(pin.version),
        glibc=needed(pin),
        folder=store.derived(
            pin.artifact.sha256, LAYOUT, lambda folder: unpack(wheel, folder, flavour)
        ),
    )


def unpack(wheel: Path, folder: Path, flavour: str) -> None:
    """Lays out a wheel of MPI: bin, lib and the like, and the libraries in two arrangements more.

    A library finds what it needs from where it lies ($ORIGIN), so that links to all of it stand
    beside it each time. Raises `LadingError` for a wheel that is none of MPI.
    """
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            parts = PurePosixPath(member.filename).parts
            if len(parts) < 4 or parts[1] != "data" or ".." in parts or member.is_dir():
                continue
            if not parts[0].endswith(".data") or parts[2] == "include":
                continue
            path = folder.joinpath(*parts[2:])
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
            # An ordinary user of the image runs and reads them.
            path.chmod(0o755)
    library = folder / LIB / SONAMES[flavour]
    if not library.is_file():
        raise LadingError(f"{wheel.name} holds no {SONAMES[flavour]}")
    # Not the few words for a linker that such a wheel calls libmpi.so.
    others = [path for path in library.parent.iterdir() if not path.name.startswith("libmpi.so")]
    for name in (VENDOR, NEEDS):
        (folder / name).mkdir()
        for path in others:
            (folder / name / path.name).symlink_to(f"../{LIB}/{path.name}")
    (folder / VENDOR / VENDORS).hardlink_to(library)
    (folder / VENDOR / SONAMES[flavour]).symlink_to(VENDORS)
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
