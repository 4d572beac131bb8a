"""The files of an image as they come from an engine, without the contents that its base has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import BinaryIO

from lading.archive.entries import Entry, arriving, without_host
from lading.archive.growing import blocks, equal
from lading.archive.saved import Content
from lading.archive.tarfiles import PIECE, Stream
from lading.archive.trees import Tree, alike, apply


def merged_tree(stream: Stream, base: Tree, file: BinaryIO) -> Tree:
    """The files of a tar that holds an image's, all of them.

    What is a file of the base, but for its mtime, is the base's; other contents go into `file`.
    Raises `DamagedError` for what is not such a tar, `EndedError` when it stops before its end.
    """
    content = Content(handle=file.fileno(), offset=0, size=0, sha256=lambda: "")
    end = 0

    def keep(entry: Entry, body: Iterator[memoryview]) -> Entry:
        nonlocal end
        entry = without_host(entry)
        below = base.get(entry.path)
        pieces = body
        if below is not None and below.content is not None and alike(below, entry):
            known, rest = in_common(below, body)
            if known == entry.size:
                return below
            pieces = chain(blocks(below.content.handle, below.offset, known), rest)
        found = replace(entry, content=content, offset=end)
        # Its place tells a file from others that are not linked with it: an empty one has one, too.
        for piece in pieces if entry.size else [b"\0"]:
            file.write(piece)
        end += entry.size or 1
        return found

    tree: Tree = {}
    apply(tree, arriving(stream, keep))
    file.flush()
    return tree


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
