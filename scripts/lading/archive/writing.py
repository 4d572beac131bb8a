"""An archive while it is written: its members in their order, its digests in their own threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from lading.archive.entries import Entry, room
from lading.archive.entries import header as entry_header
from lading.archive.growing import Growing, blocks
from lading.archive.normal import Part
from lading.archive.saved import MANIFEST, Content, SavedLayer
from lading.archive.tarfiles import END, PIECE, header, padding
from lading.files import canonical_json, written_whole

_SMALL = 1 << 16
"""Bytes that are copied at once, without a buffer of one's own."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer: the sha256 of its tar ("sha256:…") and its size in bytes, both uncompressed."""

    diff_id: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive that was written or read to its end, and verified.

    `sha256` (in hexadecimal) and `size` are the file's; `config` ("sha256:…") is the digest of
    the configuration, which is the image's id in Docker and Podman.
    """

    sha256: str
    size: int
    config: str
    layers: tuple[Layer, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


class Writer:
    """Takes layers from the lowest up, then the configuration."""

    def __init__(self, file: BinaryIO, whole: Growing, digests: ExitStack) -> None:
        self._file = file
        self._whole = whole
        self._digests = digests
        self._disk = digests.enter_context(ThreadPoolExecutor(1))
        self._synced: list[Future[None]] = []
        self._names: list[str] = []
        self._known: dict[str, str] = {}

    def layer(self, layer: SavedLayer) -> None:
        """Copies a layer as it is; one that repeats is in the archive once."""
        name = self._known.get(layer.diff_id)
        if name is None:
            name = self._known[layer.diff_id] = self._next()
            self._entry(name, layer.content.size, layer.content.blocks())
        self._names.append(name)

    def received(self, diff_id: str, size: int, pieces: Iterable[bytes]) -> None:
        """Takes a layer as it comes; one that repeats comes once. Who sends it verifies it."""
        name = self._known.get(diff_id)
        if name is None:
            name = self._known[diff_id] = self._next()
            self._entry(name, size, pieces)
        self._names.append(name)

    def part(self, part: Part) -> Callable[[], SavedLayer]:
        """Writes a layer of these entries; what is returned waits for its digest."""
        name = self._next()
        size = sum(map(room, part.entries)) + len(END)
        self._whole.write(header(name, size))
        start = self._whole.size
        digest = self._digests.enter_context(Growing(self._file, start))
        for pieces in chain(_together(_packed(part.entries)), [END]):
            self._whole.write(pieces)
            digest.grew(len(pieces))
        assert digest.size == size
        digest.complete()
        content = Content(handle=self._file.fileno(), offset=start, size=size, sha256=digest.sha256)
        self._names.append(name)
        return lambda: SavedLayer(diff_id=f"sha256:{digest.sha256()}", content=content)

    def sync(self) -> None:
        """Lets what was written so far go to the disk, while something else is done."""
        self._file.flush()
        self._synced.append(self._disk.submit(os.fsync, self._file.fileno()))

    def close(self, config: bytes, digest: str, tag: str) -> tuple[str, int]:
        """Ends it with the configuration, whose digest is given; the whole's sha256 and size."""
        file = f"{digest.removeprefix('sha256:')}.json"
        manifest = {"Config": file, "RepoTags": [tag], "Layers": self._names}
        listed = canonical_json([manifest])
        self._entry(file, len(config), [config])
        self._entry(MANIFEST, len(listed), [listed])
        self._whole.write(END)
        self._whole.complete()
        self.sync()
        for done in self._synced:
            done.result()
        return self._whole.sha256(), self._whole.size

    def _next(self) -> str:
        return f"layer-{len(set(self._names)) + 1}.tar"

    def _entry(self, name: str, size: int, content: Iterable[bytes | memoryview]) -> None:
        self._whole.write(header(name, size))
        for block in content:
            self._whole.write(block)
        self._whole.write(padding(size))


def _packed(entries: Iterable[Entry]) -> Iterator[bytes | memoryview]:
    """A layer's bytes but for its end, in pieces; each good until the next one is asked for."""
    for entry in entries:
        yield entry_header(entry)
        if entry.content is not None and entry.size:
            if entry.size <= _SMALL and len(data := entry.read()) == entry.size:
                yield data
            else:
                yield from blocks(entry.content.handle, entry.offset, entry.size)
            yield padding(entry.size)


def _together(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The same bytes in fewer pieces: ten thousand small files are not thirty thousand writes."""
    small: list[bytes] = []
    size = 0
    for piece in pieces:
        if isinstance(piece, bytes):
            small.append(piece)
            size += len(piece)
        if size > PIECE or (small and not isinstance(piece, bytes)):
            yield b"".join(small)
            small, size = [], 0
        if not isinstance(piece, bytes):
            yield piece
    yield b"".join(small)


@contextmanager
def writing(out: Path) -> Iterator[Writer]:
    """An archive that gets its name when the block ends well; else nothing stays."""
    with written_whole(out) as file, Growing(file) as whole, ExitStack() as digests:
        yield Writer(file, whole, digests)
