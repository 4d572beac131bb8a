"""The locks of one revision, as what they pin: found by their files, with no declaration.

What project.yaml said then is not asked: an older lading may have read it otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from lading.errors import LadingError
from lading.layers import apt, apt_kind, pip_kind, source
from lading.layers import base as bases
from lading.layers.kind import AnyKind
from lading.layers.source_section import SourceBuild
from lading.moved import Pinned
from lading.project import Base, DebianBase

Whose = Literal["image", "base", "source"]
FOLDERS: Mapping[str, Whose] = {"images": "image", "bases": "base", "sources": "source"}


class Place(Struct, frozen=True, kw_only=True, order=True):
    """Whose locks lie in a folder, and for which platform."""

    whose: Whose
    name: str
    platform: str

    @property
    def folder(self) -> str:
        """The folder's path in the project."""
        above = next(folder for folder, whose in FOLDERS.items() if whose == self.whose)
        return f"locks/{above}/{self.name}/{self.platform}"

    def __str__(self) -> str:
        return f"{self.name}" if self.whose == "image" else f"{self.whose} {self.name}"


def place_of(path: str) -> Place | None:
    """Whose lock a file is, by its path in the project; None where it is no lock."""
    parts = path.split("/")
    if len(parts) < 5 or parts[0] != "locks" or parts[1] not in FOLDERS:
        return None
    return Place(whose=FOLDERS[parts[1]], name=parts[2], platform=parts[3])


class Part(Struct, frozen=True, kw_only=True):
    """One lock of a place as it was read: by which file it is known, and what it is.

    kind, lock: of a layer of an image; adopted: it is not as lading wrote it. pins: of any other.
    """

    key: str
    kind: AnyKind | None = None
    lock: Any = None
    adopted: bool = False
    pins: tuple[Pinned, ...] = ()


class Found(Struct, frozen=True, kw_only=True):
    """The locks of a place, and those that can't be read, in words."""

    parts: Mapping[str, Part]
    problems: tuple[str, ...] = ()


def read(place: Place, root: Path, names: Mapping[str, str]) -> Found:
    """The locks of a place below a folder that is laid out as a project. names: what bases that
    are images are called, by base.
    """
    folder = root / place.folder
    problems: list[str] = []
    parts: dict[str, Part] = {}

    def tried(key: str, ask: Callable[[], Part | None]) -> None:
        try:
            part = ask()
        except LadingError as error:
            problems.append(error.what.replace(f"{root}/", ""))
            return
        if part is not None:
            parts[key] = part

    if place.whose == "image":
        for kind in _kinds(folder):
            tried(kind.name, lambda kind=kind: _layer(kind, folder))  # type: ignore[misc]
    elif place.whose == "base":
        tried("base", lambda: _base(place.name, folder / "base.yaml", names))
    else:
        tried("source", lambda: _source(place.name, folder / source.FILE))
        for path in sorted(folder.glob("apt-*.yaml")):
            tried(path.name, lambda path=path: _tools(place.name, path))  # type: ignore[misc]
    return Found(parts=parts, problems=tuple(problems))


def _kinds(folder: Path) -> Iterable[AnyKind]:
    """The layers that have a lock there. A lock that is torn, or in conflict, is still one."""
    if (folder / "conda.lock").exists():
        from lading.layers.conda_kind import CONDA

        yield CONDA
    for below in sorted(folder.glob("conda/*/conda.lock")):
        from lading.layers.conda_named import Named

        yield Named(below.parent.name)
    if (folder / "requirements.txt").exists():
        yield pip_kind.PIP
    if (folder / apt.FILE).exists():
        yield apt_kind.APT


def _layer(kind: AnyKind, folder: Path) -> Part | None:
    try:
        lock, adopted = kind.read(folder), False
    except LadingError:
        lock, adopted = kind.adopted(folder), True
        if lock is None:
            raise
    return None if lock is None else Part(key=kind.name, kind=kind, lock=lock, adopted=adopted)


def _base(name: str, path: Path, names: Mapping[str, str]) -> Part | None:
    lock = bases.read(path)
    if lock is None:
        return None
    if lock.suite:
        base = Base(name=name, debian=DebianBase(suite=lock.suite))
    else:
        base = Base(name=name, image=names.get(name, name))
    return Part(key="base", pins=bases.contents(base, lock))


def _source(name: str, path: Path) -> Part | None:
    lock = source.read(path)
    if lock is None:
        return None
    return Part(
        key="source",
        pins=source.pinned(SourceBuild(name=name, version=lock.version, urls=()), lock),
    )


def _tools(name: str, path: Path) -> Part:
    base = path.name.removeprefix("apt-").removesuffix(".yaml")
    lock = apt.parse(path.read_text(encoding="utf-8", errors="replace"), str(path))
    return Part(key=path.name, pins=apt_kind.pinned(lock, f"to compile {name} on {base}"))


def pins(found: Found, other: Found) -> Sequence[Pinned]:
    """What the locks of a place pin; `other` are those it is compared with: what an adopted lock
    can't say of itself, it has from there.
    """
    said: list[Pinned] = []
    for part in found.parts.values():
        if part.kind is None:
            said += part.pins
            continue
        lock, beside = part.lock, other.parts.get(part.key)
        if part.adopted and beside is not None:
            lock = part.kind.completed(lock, beside.lock)
        said += part.kind.pinned(lock)
    return said
