"""What package managers have written into an image of what they installed, out of its archive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from lading.archive.tarfiles import DamagedError
from lading.checks.portability.archives import Layer, RefusedError, opened
from lading.checks.portability.tape import Entry, entries
from lading.errors import LadingError

LARGEST = 32 << 20
"""Bytes that such a file may have; a full dpkg status has two million."""
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_WANTED = re.compile(
    r"(?:etc|usr/lib)/os-release"
    r"|var/lib/dpkg/status(?:\.d/[^/]+)?"
    r"|(?:.*/)?conda-meta/[^/]+\.json"
    r"|.*/(?:site|dist)-packages/[^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO|egg-info)"
    # Not read; but that they are there is said.
    r"|lib/apk/db/installed|(?:var/lib|usr/lib/sysimage)/rpm/(?:Packages(?:\.db)?|rpmdb\.sqlite)"
)
_NOT_READ = re.compile(r"lib/apk/|.*/rpm/")


def read(archive: Path, platform: str) -> dict[str, bytes]:
    """The content of these files by their paths, with no slash in front, as the merged layers have
    them; nothing for those that are not read. Raises `LadingError` for what is no archive.
    """
    found: dict[str, bytes] = {}
    try:
        with ExitStack() as stack:
            for layer in opened(archive, platform, stack, digests=False).layers:
                _merge(found, layer)
    except (DamagedError, RefusedError) as error:
        raise LadingError(
            f"{archive.name} is damaged", why=str(error), do="delete it, and make it again"
        ) from error
    return found


def _merge(found: dict[str, bytes], layer: Layer) -> None:
    """Lays a layer over those before it (OCI image specification, 'Layer')."""
    # Whiteouts speak of lower layers only, wherever in the layer they stand.
    added: dict[str, bytes] = {}
    above = {folder for path in found for folder in _folders(path)}
    for path, entry, content in _entries(layer):
        folder, _, name = path.rpartition("/")
        if name == _OPAQUE:
            _remove(found, folder)
        elif name.startswith(_WHITEOUT):
            name = name.removeprefix(_WHITEOUT)
            _remove(found, f"{folder}/{name}" if folder else name)
        elif entry.kind != "folder" and path in above:
            _remove(found, path)
        if content is not None:
            added[path] = content
        elif entry.kind == "hardlink" and _WANTED.fullmatch(path):
            target = _path(entry.target)
            if (linked := added.get(target, found.get(target))) is not None:
                added[path] = linked
        elif path in found and entry.kind != "folder":
            del found[path]
    found.update(added)


def _entries(layer: Layer) -> Iterator[tuple[str, Entry, bytes | None]]:
    tape = layer.tape()
    for entry in entries(tape):
        path = _path(entry.name)
        content = None
        if entry.kind == "file" and not entry.sparse and _WANTED.fullmatch(path):
            content = b"" if _NOT_READ.match(path) else tape.first(min(entry.size, LARGEST))
        yield path, entry, content


def _path(name: bytes) -> str:
    text = name.decode("utf-8", "surrogateescape")
    return "/".join(part for part in text.split("/") if part not in ("", "."))


def _folders(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _remove(found: dict[str, bytes], path: str) -> None:
    """Removes what is at a path, and below it; at "" is all."""
    for other in [one for one in found if not path or f"{one}/".startswith(f"{path}/")]:
        del found[other]
