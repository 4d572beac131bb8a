"""The files of an image as they come from an engine, without the contents that its base has."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import BinaryIO

from lading.archive.entries import Entry, entry_of, headers, without_host
from lading.archive.growing import blocks, equal
from lading.archive.saved import Content
from lading.archive.tarfiles import BLOCK, PIECE, Stream
from lading.archive.trees import Tree, alike, apply

_SMALL = 1 << 16
"""Bytes that are taken at once."""


def merged_tree(stream: Stream, base: Tree, file: BinaryIO) -> Tree:
    """The files of a tar that holds an image's, all of them.

    What is a file of the base, but for its mtime, is the base's; other contents go into `file`.
    Raises `DamagedError` for what is not such a tar, `EndedError` when it stops before its end.
    """
    tree: Tree = {}
    apply(tree, _arriving(stream, base, file))
    file.flush()
    return tree


def lacking(tree: Tree, base: Tree) -> Iterator[str]:
    """The base's files whose contents are not in a tree of `merged_tree`. All others were held
    against what the engine sends, and are sound.
    """
    there = {(id(one.content), one.offset) for one in tree.values() if one.kind == "file"}
    for path, one in base.items():
        if one.kind == "file" and (id(one.content), one.offset) not in there:
            yield path


def _arriving(stream: Stream, base: Tree, file: BinaryIO) -> Iterator[Entry]:
    content = Content(handle=file.fileno(), offset=0, size=0, sha256=lambda: "")
    end = 0
    for block, size, extended in headers(stream.read):
        entry = without_host(entry_of(block, size, extended, content, end))
        if entry.kind == "file":
            below = base.get(entry.path)
            if below is not None and not (below.kind == "file" and alike(below, entry)):
                below = None
            pieces = _unless(below, stream, entry.size)
            if pieces is None and below is not None:
                entry = below
            else:
                file.writelines(pieces or ())
                # Its place tells a file from those it is not linked with: an empty one has one.
                file.write(b"" if entry.size else b"\0")
                end += entry.size or 1
            stream.read(-entry.size % BLOCK)
        if entry.path:
            yield entry
    stream.drain()


def _unless(below: Entry | None, stream: Stream, size: int) -> Iterable[bytes | memoryview] | None:
    """A content as it comes; None if it is that of a file of this size."""
    if size <= _SMALL:
        data = stream.read(size)
        return None if below is not None and below.read() == data else [data]
    body = stream.pieces(size)
    if below is None or below.content is None:
        return body
    known, rest = in_common(below, body)
    return None if known == size else chain(blocks(below.content.handle, below.offset, known), rest)


def in_common(below: Entry, body: Iterator[memoryview]) -> tuple[int, Iterator[memoryview]]:
    """How many bytes a body begins with that a file does, too, in whole pieces; and the rest."""
    assert below.content is not None
    buffer = memoryview(bytearray(min(PIECE, below.size)))
    known = 0
    for piece in body:
        there = min(len(piece), PIECE, below.size - known)
        into = [buffer[:there]]
        read = os.preadv(below.content.handle, into, below.offset + known) if there else 0
        if not equal(piece, buffer[:read]):
            return known, chain([piece], body)
        known += len(piece)
    return known, body
