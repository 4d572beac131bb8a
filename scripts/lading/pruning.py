"""What can go: what is there, whose it is, and what the locks still name. Nothing is removed here.

A thing goes when this project made it (claims.py) and no project that is known, and there, names
it. What a project names follows from its declaration and its locks as they lie there, by this
lading; of one that can't be read nobody knows it, and all that it may name stays.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.resources import files as resources
from pathlib import Path

from msgspec import Struct

from lading import claims
from lading.claims import ARTIFACT, DERIVED, IMAGE, Claims
from lading.engines.model import Listed
from lading.layers import base as bases
from lading.plan import AGAIN, KEY_LABEL, LENT, Part
from lading.state import State
from lading.steps import Content, Derived

DAY = 24 * 3600.0
"""Seconds after which half a file is one that nobody goes on with."""
PASSING = (AGAIN, "localhost/lading/part/", LENT)
"""What the names of images begin with that are there while something is made, and no longer."""
BASES = "localhost/lading/base/"

_SHA256 = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_KEY = re.compile(rf'^LABEL.*"{re.escape(KEY_LABEL)}"="([0-9a-f]{{64}})', re.MULTILINE)
_OURS = ("check.json", "build.log", "candidate.tar", "candidate.json", "context", "verify")
"""What lading writes into build/NAME."""
_RECORDS = ("check.json", "candidate.json")
"""Those of it that say a key, as a context's Dockerfile does."""


class Named(Struct, frozen=True, kw_only=True):
    """What projects name: artifacts by sha256 (keys of what is derived from one, too), keys of what
    is derived, keys of images, the names of bases.
    """

    sha256: frozenset[str] = frozenset()
    derived: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    bases: frozenset[str] = frozenset()

    def __or__(self, other: Named) -> Named:
        return Named(
            sha256=self.sha256 | other.sha256,
            derived=self.derived | other.derived,
            images=self.images | other.images,
            bases=self.bases | other.bases,
        )


class Thing(Struct, frozen=True, kw_only=True):
    """Something that can go: an image in the engine, or files; what it is in a word, its name.

    since: seconds since 1970; claim: what it is called by in the claims, if it is in any.
    """

    kind: str
    name: str
    size: int
    since: float
    paths: tuple[Path, ...] = ()
    image: Listed | None = None
    claim: tuple[str, str] | None = None


class Owners(Struct, frozen=True, kw_only=True):
    """Who made what, as this project sees it. `every`: also what nobody who is known, and there,
    has made: it is from before there were claims, or its project's folder is gone.
    """

    mine: Mapping[tuple[str, str], int]
    others: Container[tuple[str, str]]
    names: Container[str]
    every: bool

    def ours(self, kind: str, key: str) -> bool:
        """Whether it is this project's to remove."""
        return (kind, key) in self.mine or (self.every and (kind, key) not in self.others)


def owners(known: Iterable[Claims], project: Path, *, every: bool) -> Owners:
    """Whose things are; of images that were made, all names that they were given."""
    mine: dict[tuple[str, str], int] = {}
    others: set[tuple[str, str]] = set()
    names: set[str] = set()
    for one in known:
        gone = not one.exists
        for claim in one.made:
            at = claim.kind, claim.key
            if one.project == project or (gone and every):
                mine[at] = max(mine.get(at, 0), claim.since)
            elif not gone:
                others.add(at)
            if claim.kind == IMAGE:
                names.add(plain(claim.name))
    return Owners(mine=mine, others=others, names=names, every=every)


# -- what is named --------------------------------------------------------------------------


def named(state: State) -> Named:
    """What a project's declaration and locks name, for all of its platforms.

    Raises `LadingError` where one can't be read: then nobody knows.
    """
    found = Named(sha256=frozenset(_texts(state.project.root)) | _own())
    for one in state.everywhere:
        found |= _named_on(one)
    return found


def _named_on(state: State) -> Named:
    derived: set[str] = set()
    images: set[str] = set()
    references: set[str] = set()
    for base in state.project.bases.values():
        lock = state.base_lock(base)
        if lock is not None and base.debian is not None:
            derived.add(lock.key)
            references.add(bases.reference(base, lock))
    for image in state.project.images.values():
        key = state.key(image)
        if key is None:
            continue
        images.add(key)
        plan = state.plan(image)
        derived.update(_derived(plan.files, plan.parts))
        for layer in state.all_locked(image).layers:
            # conda's packages, unpacked to lock upon them, lie under the key of their lock.
            own = getattr(layer.lock, "key", "")
            derived.update([own] if own else [])
    return Named(derived=frozenset(derived), images=frozenset(images), bases=frozenset(references))


def _derived(files: Mapping[str, Content], parts: Iterable[Part]) -> Iterator[str]:
    yield from (content.key for content in files.values() if isinstance(content, Derived))
    for part in parts:
        yield part.key
        yield from (share.key for share in part.shares)
        yield from _derived(part.plan.files, part.parts)


def _texts(root: Path) -> Iterator[str]:
    """All that looks like a sha256 in the project's locks, those of former images too."""
    for folder, _, names in os.walk(root / "locks"):
        for name in names:
            with suppress(FileNotFoundError):
                yield from _hashes(Path(folder, name).read_bytes())


def _own() -> frozenset[str]:
    """What lading itself pins: a host's MPI, tools that lock."""
    found: set[str] = set()
    for folder in ("checks/mpi", "layers"):
        for file in resources("lading").joinpath(folder).iterdir():
            if file.name.endswith(".txt"):
                found.update(_hashes(file.read_bytes()))
    return frozenset(found)


def _hashes(data: bytes) -> Iterator[str]:
    return (found.decode() for found in _SHA256.findall(data))


# -- what can go ----------------------------------------------------------------------------


def images(listed: Sequence[Listed], named: Named, owned: Owners) -> tuple[list[Thing], list[str]]:
    """The engine's images that can go; and what is left, with the reason."""
    things: list[Thing] = []
    left: list[str] = []
    # Of two with one key, the one that has lost its name is nothing any more.
    tagged = {each.labels.get(KEY_LABEL) for each in listed if each.names}
    for each in listed:
        key, kind = _claimed(each, owned)
        passing = bool(each.names) and all(plain(name).startswith(PASSING) for name in each.names)
        if not key or (IMAGE, key) not in owned.mine:
            continue
        still = key in named.images and (bool(each.names) or key not in tagged)
        if not passing and (still or any(plain(name) in named.bases for name in each.names)):
            continue
        name = ", ".join(each.names) or each.id[7:19]
        foreign = [name for name in each.names if plain(name) not in owned.names]
        if each.used:
            left.append(f"{name}: a container stands on it")
        elif foreign:
            left.append(f"{name}: {', '.join(foreign)} is a name that lading has not given it")
        else:
            since = owned.mine[IMAGE, key]
            claim = None if key in named.images else (IMAGE, key)
            things.append(
                Thing(kind=kind, name=name, size=each.size, since=since, image=each, claim=claim)
            )
    # What stands on a base goes before it.
    return sorted(things, key=lambda thing: thing.kind == "base"), left


def _claimed(image: Listed, owned: Owners) -> tuple[str, str]:
    """The key that an image can be claimed by, and what it is; empty if it is none of lading's."""
    key = image.labels.get(KEY_LABEL, "")
    if key:
        return key, "image"
    # A base has no label; the beginning of its key is its tag.
    tags = {plain(name).rpartition(":")[2] for name in image.names if BASES in plain(name)}
    if len(tags) == 1:
        (tag,) = tags
        return next((key for kind, key in owned.mine if kind == IMAGE and key[:16] == tag), ""), (
            "base"
        )
    return "", ""


def plain(name: str) -> str:
    """An image's name without the host that Podman puts before one that has none."""
    for host in ("localhost/", "docker.io/library/", "docker.io/"):
        if name.startswith(host) and not name.startswith("localhost/lading/"):
            return name.removeprefix(host)
    return name


def stored(store: Path, named: Named, owned: Owners) -> Iterator[Thing]:
    """What is in the store, and can go."""
    names = {key: name for kind, key, name in _called(store) if kind == ARTIFACT}
    for folder in _inside(store / "sha256"):
        for path in _inside(folder):
            if path.name not in named.sha256 and owned.ours(ARTIFACT, path.name):
                called = names.get(path.name, path.name[:12])
                yield _files("artifact", called, [path], (ARTIFACT, path.name))
    for folder in _inside(store / "derived"):
        key = folder.name
        if key in named.sha256 or key in named.derived or not owned.ours(DERIVED, key):
            continue
        inside = ", ".join(path.name for path in _inside(folder))
        yield _files("derived", f"{key[:12]} ({inside})", [folder], (DERIVED, key))


def _called(store: Path) -> Iterator[tuple[str, str, str]]:
    for one in claims.read(store):
        yield from ((claim.kind, claim.key, claim.name) for claim in one.made)


def unclaimed(store: Path, named: Named, owned: Owners) -> int:
    """How many bytes `--all` would remove from the store beside these: nobody's who is there."""
    more = Owners(mine={}, others=_Either(owned), names=(), every=True)
    return sum(thing.size for thing in stored(store, named, more))


class _Either:
    """What this project has claimed, and what others have."""

    def __init__(self, owned: Owners) -> None:
        self._owned = owned

    def __contains__(self, item: object) -> bool:
        return item in self._owned.mine or item in self._owned.others


def halves(paths: Iterable[Path]) -> Iterator[Thing]:
    """Downloads and the like that were begun, and never became whole."""
    for path in paths:
        yield _files("half", path.name[:24], [path])


def built(state: State) -> Iterator[Thing]:
    """What is in build/ of images that are not declared any more, and contexts of other keys."""
    root = state.project.root / "build"
    every = state.everywhere
    keys = {
        f"{name}{one.at}": one.key(image)
        for one in every
        for name, image in one.project.images.items()
    }
    for folder in _inside(root):
        if folder.name == "parts" or folder.name.startswith(".") or not folder.is_dir():
            continue
        if folder.name not in keys:
            if ours := _ours(folder):
                yield _files("build", f"build/{folder.name}", ours)
            continue
        key = keys[folder.name]
        if _key_of_context(folder / "context") not in ("", key):
            yield _files("context", f"build/{folder.name}/context", [folder / "context"])
        if _key_of_record(folder / "candidate.json") not in ("", key):
            ours = [folder / f"candidate.{kind}" for kind in ("tar", "json")]
            paths = [path for path in ours if path.exists()]
            yield _files("archive", f"build/{folder.name}/candidate.tar", paths)
    parts = {part.key[:8] for one in every for part in _parts(one)}
    for folder in _inside(root / "parts"):
        key = _key_of_context(folder / "context")[:8]
        if key and folder.name.endswith(f"-{key}") and key not in parts:
            yield _files("context", f"build/parts/{folder.name}", [folder])


def _ours(folder: Path) -> list[Path]:
    """What lading has written into the folder of an image; nothing where none of it has a key:
    anybody may call a folder of theirs so.
    """
    context = bool(_key_of_context(folder / "context"))
    if not context and not any(_key_of_record(folder / name) for name in _RECORDS):
        return []
    names = (name for name in _OURS if context or name != "context")
    return [folder / name for name in names if (folder / name).exists()]


def _parts(state: State) -> Iterator[Part]:
    def below(parts: Iterable[Part]) -> Iterator[Part]:
        for part in parts:
            yield part
            yield from below(part.parts)

    for image in state.project.images.values():
        if state.key(image) is not None:
            yield from below(state.plan(image).parts)


def _key_of_context(context: Path) -> str:
    """The key that a context was written for; empty where that is not known."""
    try:
        found = _KEY.search((context / "Dockerfile").read_text().replace("\\\n", " "))
    except (OSError, UnicodeDecodeError):
        return ""
    return found[1] if found else ""


def _key_of_record(record: Path) -> str:
    try:
        key = str(json.loads(record.read_text())["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return key if _SHA256.fullmatch(key.encode()) else ""


def former(state: State) -> list[str]:
    """What belongs to no image of project.yaml, and is not prune's: products, and locks."""
    project = state.project
    ends = ("", *(f"@{platform.replace('/', '-')}" for platform in project.others))
    declared = {f"{name}{end}" for name in project.images for end in ends}
    found = [
        f"locks/images/{path.name}"
        for path in _inside(project.root / "locks/images")
        if path.name not in project.images
    ]
    return found + [
        f"dist/{path.name}"
        for path in _inside(project.root / "dist")
        if path.suffix == ".tar" and path.stem not in declared
    ]


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


# -- sizes ----------------------------------------------------------------------------------


def _files(
    kind: str, name: str, paths: Sequence[Path], claim: tuple[str, str] | None = None
) -> Thing:
    """Files and folders as one thing; as old as the oldest of them."""
    size, since = 0, [0.0]
    with suppress(OSError):
        since = [path.lstat().st_mtime for path in paths]
        size = sum(found.st_size for path in paths for found in _stats(path))
    return Thing(kind=kind, name=name, size=size, since=min(since), paths=tuple(paths), claim=claim)


def _stats(path: Path) -> Iterator[os.stat_result]:
    """Of all files at or below a path."""
    if not path.is_dir() or path.is_symlink():
        yield path.lstat()
        return
    for folder, _, names in os.walk(path):
        for name in names:
            yield os.lstat(f"{folder}/{name}")


def freed(things: Iterable[Thing]) -> int:
    """The bytes that are free when these are gone, of images at most so many: a file that also lies
    in a context that stays takes its room there, and images share layers.
    """
    total = 0
    links: dict[tuple[int, int], tuple[int, os.stat_result]] = {}
    for thing in things:
        total += thing.size if thing.image is not None else 0
        for path in thing.paths:
            with suppress(OSError):
                for found in _stats(path):
                    at = found.st_dev, found.st_ino
                    links[at] = links.get(at, (0, found))[0] + 1, found
    return total + sum(found.st_size for count, found in links.values() if count >= found.st_nlink)


def others(known: Iterable[Claims], project: Path) -> list[Path]:
    """The folders of the other projects that are known, and there."""
    return [one.project for one in known if one.project != project and one.exists]
