"""Files hashed by threads, while they are written or read.

Where a processor has no SHA instructions, sha256 takes longer than all else that is done to an
image. Nobody waits for it before the end, and nothing comes from a disk once more: what was
written or read a moment ago is still in memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Thread
from typing import BinaryIO

from lading.archive.tarfiles import PIECE, DamagedError

_STRIDE = 8 << 20
"""The thread is told of so many bytes at once; for less, none is started."""
_COMPARED = 1 << 16
"""Bytes that are copied to be compared: few enough to come out of what is free already."""


def blocks(handle: int, offset: int, size: int) -> Iterator[memoryview]:
    """`size` bytes of an open file in pieces, each good until the next one is asked for.

    All pieces share one buffer: a new one each time costs as much as the copying.
    Raises `DamagedError` when the file is shorter.
    """
    buffer = memoryview(bytearray(min(PIECE, size)))
    end = offset + size
    while offset < end:
        count = os.preadv(handle, [buffer[: min(PIECE, end - offset)]], offset)
        if not count:
            raise DamagedError("it became shorter while it was read")
        offset += count
        yield buffer[:count]


def equal(one: memoryview, other: memoryview) -> bool:
    """Whether two pieces are the same bytes. By memoryview's own comparison it takes twenty times
    as long, byte by byte.
    """
    return len(one) == len(other) and all(
        bytes(one[at : at + _COMPARED]) == bytes(other[at : at + _COMPARED])
        for at in range(0, len(one), _COMPARED)
    )


class Growing:
    """The digest of a file, from `start` to where it was written to, or said to have grown to.

    Leaving the context ends the thread, and leaves the file open.
    """

    def __init__(self, file: BinaryIO, start: int = 0) -> None:
        self.size = 0
        self._file = file
        self._start = start
        self._told = 0
        self._marks: SimpleQueue[int | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._hash = hashlib.sha256()
        self._error: OSError | DamagedError | None = None
        self._unwanted = False

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *_: object) -> None:
        self._unwanted = True
        self._end()

    def write(self, data: bytes | memoryview) -> None:
        """Appends. Raises OSError as a file does."""
        self._file.write(data)
        self.grew(len(data))

    def grew(self, count: int) -> None:
        """`count` more bytes are there."""
        self.size += count
        if self.size - self._told >= _STRIDE:
            self._tell()

    def complete(self) -> None:
        """Nothing more comes. Raises OSError as a file does."""
        if self._thread is not None:
            self._tell()
            self._marks.put(None)
        elif self.size:
            self._file.flush()
            self._hash_until(0, self.size)

    def sha256(self) -> str:
        """The digest in hexadecimal, once the thread has caught up. After `complete`."""
        self._end()
        if self._error is not None:
            raise self._error
        return self._hash.hexdigest()

    def _tell(self) -> None:
        self._file.flush()
        self._told = self.size
        self._marks.put(self.size)
        if self._thread is None:
            self._thread = Thread(target=self._follow, name="sha256", daemon=True)
            self._thread.start()

    def _end(self) -> None:
        if self._thread is not None:
            self._marks.put(None)
            self._thread.join()

    def _follow(self) -> None:
        at = 0
        try:
            while (mark := self._marks.get()) is not None:
                at = self._hash_until(at, mark)
        except (OSError, DamagedError) as error:
            self._error = error

    def _hash_until(self, at: int, mark: int) -> int:
        for block in blocks(self._file.fileno(), self._start + at, mark - at):
            if self._unwanted:
                break
            self._hash.update(block)
        return mark
