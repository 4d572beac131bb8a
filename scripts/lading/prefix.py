"""What was installed, as a tar that is the same every time, and the part of it an image gets.

A product comes out of an engine as an image of one or more layers; it is kept as one tar: sorted,
one time, numeric owners, hard links kept.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import translate
from functools import cache
from pathlib import Path
from posixpath import normpath
from re import Pattern, escape
from re import compile as compiled
from stat import S_ISGID, S_ISUID, S_ISVTX

from msgspec import Struct

from lading.errors import LadingError
from lading.parts import LEFT_BEHIND

_TOP = (
    *("bin", "sbin", "lib", "lib32", "lib64", "libx32"),
    *("var/run", "var/lock", "usr/local/man"),
)
"""Links to folders, on the systems of today: as folders they would take the links' place."""


class Entry(Struct, frozen=True, kw_only=True):
    """One thing in a tree: its header, and the archive that has its content, with all names in
    there.
    """

    info: tarfile.TarInfo
    archive: tarfile.TarFile
    beside: Mapping[str, tarfile.TarInfo]


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Turns an archive that is damaged, or none, into an error; a full disk is none of these."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise LadingError(f"{what} can't be read", why=str(error)) from error
    except (tarfile.TarError, zlib.error, EOFError, LookupError, ValueError, TypeError) as error:
        raise LadingError(f"{what} can't be read", why=str(error)) from error


def write(saved: Path, out: Path, epoch: int) -> None:
    """Writes the files of a saved image (a docker-archive) as one deterministic tar.

    Raises `LadingError` when it is not an image that holds files.
    """
    with ExitStack() as stack:
        stack.enter_context(_readable("what the engine built"))
        entries: dict[str, Entry] = {}
        whole = stack.enter_context(tarfile.open(saved))
        listed = whole.extractfile("manifest.json")
        for layer in (json.load(listed)[0]["Layers"] or ()) if listed is not None else ():
            file = whole.extractfile(str(layer))
            archive = stack.enter_context(tarfile.open(fileobj=file, mode="r:*"))
            entries |= _entries(archive)
        if all(entry.info.isdir() for entry in entries.values()):
            raise LadingError(
                "nothing was installed",
                do="what is installed has to go below $DESTDIR, as `make install` does it",
            )
        _write(entries, out, epoch)


def _entries(archive: tarfile.TarFile) -> dict[str, Entry]:
    """What is in an archive by its path, without './' and the like."""
    beside = {name: info for info in archive if (name := _path(info.name))}
    return {name: Entry(info=i, archive=archive, beside=beside) for name, i in beside.items()}


def _path(name: str) -> str:
    return normpath(f"/{name}").lstrip("/")


def refuse_damaged(product: Path) -> None:
    """Raises `LadingError` for a product that can't be read to its end."""
    with _readable(f"what was built ({product.name})"), tarfile.open(product, "r:") as archive:
        for _ in archive:
            pass


def unpack(product: Path, folder: Path) -> None:
    """Writes the files of a product into a new folder. Raises `LadingError` for a link in it
    that leads out of the folder.
    """
    folder.mkdir(parents=True)
    with _readable(f"what was built ({product.name})"), tarfile.open(product) as archive:
        archive.extractall(folder, filter="data")


def choose(product: Path, out: Path, epoch: int, keep: Sequence[str], drop: Sequence[str]) -> None:
    """Writes what an image gets of a product: all but `LEFT_BEHIND` and `drop`, and all of
    `keep`. Folders that nothing is left in are left out too; those that were empty stay.
    """
    kept = chosen(keep, drop)
    with _readable(f"what was built ({product.name})"), tarfile.open(product) as archive:
        entries = _entries(archive)
        full = {parent for name in entries for parent in _parents(name)}
        # A folder's name is held against the globs as what is in it.
        left = {
            name
            for name, entry in entries.items()
            if name not in full and kept(f"{name}/." if entry.info.isdir() else name)
        }
        left |= {parent for name in left for parent in _parents(name)}
        _write({name: entry for name, entry in entries.items() if name in left}, out, epoch)


def _parents(name: str) -> Iterator[str]:
    """The folders that a path is in."""
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def chosen(keep: Sequence[str], drop: Sequence[str]) -> Callable[[str], bool]:
    """Whether a path goes into an image: `keep` beats `drop`, and both what is left behind."""

    def kept(path: str) -> bool:
        if any(_matcher(glob).match(path) for glob in keep):
            return True
        return not any(_matcher(glob).match(path) for glob in (*drop, *LEFT_BEHIND))

    return kept


@cache
def _matcher(glob: str) -> Pattern[str]:
    """A glob as a pattern: '*' stays in its folder, '**' does not; a folder means all of it."""
    said = ""
    rest = glob.strip("/")
    while rest:
        if rest.startswith("**/"):
            said, rest = said + "(?:.*/)?", rest[3:]
        elif rest.startswith("**"):
            said, rest = said + ".*", rest[2:]
        elif rest[0] == "*":
            said, rest = said + "[^/]*", rest[1:]
        elif rest[0] == "?":
            said, rest = said + "[^/]", rest[1:]
        elif rest[0] == "[" and "]" in rest:
            part, rest = rest[: rest.index("]") + 1], rest[rest.index("]") + 1 :]
            # How it ends depends on Python's version: "(?s:[a-z])\Z", since 3.14 "…)\z".
            said += "(?!/)" + translate(part).removeprefix("(?s:").rpartition(")")[0]
        else:
            said, rest = said + escape(rest[0]), rest[1:]
    return compiled(f"(?s:{said}(?:/.*)?)\\Z")


def _write(entries: Mapping[str, Entry], out: Path, epoch: int) -> None:
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as made:
        first: dict[tuple[int, str], str] = {}
        for name in sorted(entries):
            entry = entries[name]
            if entry.info.isdir() and name in _TOP:
                continue
            for info, content in _normal(name, entry, first, epoch):
                made.addfile(info, content)  # type: ignore[arg-type]
        if made.offset == 0:
            # An archive of nothing is none to engines: they would copy it as a file.
            made.addfile(_header("usr", tarfile.DIRTYPE, 0o755, epoch))


def _header(name: str, kind: bytes, mode: int, epoch: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, epoch
    return info


def _normal(
    name: str, entry: Entry, first: dict[tuple[int, str], str], epoch: int
) -> Iterable[tuple[tarfile.TarInfo, object]]:
    """The entry as it is kept. Of names for one file, the first one holds its content."""
    at = _origin(name, entry)
    origin = entry.beside[at]
    if origin.issym():
        info = _header(name, tarfile.SYMTYPE, 0o777, epoch)
        info.linkname = origin.linkname
        return [(info, None)]
    if origin.isdir():
        return [(_header(name, tarfile.DIRTYPE, _mode(origin), epoch), None)]
    if not origin.isreg():
        return []  # a device or a pipe is nothing that was compiled
    place = (id(entry.archive), at)
    if place in first:
        info = _header(name, tarfile.LNKTYPE, _mode(origin), epoch)
        info.linkname = first[place]
        return [(info, None)]
    first[place] = name
    info = _header(name, tarfile.REGTYPE, _mode(origin), epoch)
    info.size = origin.size
    return [(info, entry.archive.extractfile(origin))]


def _origin(name: str, entry: Entry) -> str:
    """The path of the file that a name is, or is a hard link to."""
    passed = {name}
    while entry.beside[name].islnk():
        name = _path(entry.beside[name].linkname)
        if name in passed:
            raise ValueError(f"the hard link {name} leads to itself")
        passed.add(name)
    return name


def _mode(info: tarfile.TarInfo) -> int:
    """Who else may write is left out, but for a folder like /tmp. Root owns what is kept: a file
    that ran as another user must not run as root now.
    """
    mode = info.mode & (0o7777 if info.isdir() and info.mode & S_ISVTX else 0o7755)
    return mode & ~(S_ISUID if info.uid else 0) & ~(S_ISGID if info.gid else 0)
