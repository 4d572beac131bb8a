"""Tar archives read member by member, with each member's mode, owner, time and attributes.

From a file, contents are skipped and read only where they are asked for; from a compressed one,
they pass by once. Memory stays flat whatever a header claims.
POSIX.1-2001 (pax), GNU tar's long names and sparse files, Go's archive/tar.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import IO, NamedTuple, Protocol

from lading.archive.tarfiles import BLOCK, END, DamagedError
from lading.errors import EnvironmentProblem

PIECE = 1 << 20
PATH_MAX = 4096
"""Bytes that a path or a link's target may have on Linux."""
EXTENDED_LIMIT = 1 << 20
"""Bytes that the extended headers of one member may have."""
SPOOL_LIMIT = 1 << 30
"""The most bytes of one file in a compressed layer that are kept, on disk, to be looked into."""

_KINDS = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"S": "file",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "char",
    b"4": "block",
    b"5": "folder",
    b"6": "fifo",
}
_CAPABILITIES = (b"SCHILY.xattr.security.capability", b"LIBARCHIVE.xattr.security.capability")


class Slice(NamedTuple):
    """`size` bytes of an open file, from `base` on."""

    handle: int
    base: int
    size: int

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes; fewer at the end, none behind it."""
        size = min(size, self.size - offset)
        return os.pread(self.handle, size, self.base + offset) if size > 0 and offset >= 0 else b""

    def pieces(self) -> Iterator[bytes]:
        """All of it. Raises `DamagedError` if the file is shorter."""
        at = 0
        while at < self.size:
            piece = self.read_at(at, PIECE)
            if not piece:
                raise DamagedError("it became shorter while it was read")
            at += len(piece)
            yield piece


class Tape(Protocol):
    """Where a tar is read from; `at` is how many bytes were taken."""

    at: int

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes; at the very end, none. Raises `DamagedError`."""

    def first(self, size: int) -> bytes:
        """The next bytes, `size` if there are so many, which are not taken."""

    def skip(self, size: int) -> None:
        """Takes `size` bytes and forgets them. Raises `DamagedError`."""

    def body(self, size: int) -> Slice | None:
        """Takes `size` bytes, to be read until the next call; None where they are too many."""

    def drain(self) -> None:
        """Takes what stands behind the tar's end, for the sake of the digest."""


class FileTape:
    """A tar in an open file that can be read anywhere."""

    def __init__(self, whole: Slice) -> None:
        self.at = 0
        self._whole = whole

    def take(self, size: int) -> bytes:
        data = self._whole.read_at(self.at, size)
        if data and len(data) < size:
            raise DamagedError(f"it ends after {self.at + len(data)} bytes")
        self.at += len(data)
        return data

    def first(self, size: int) -> bytes:
        return self._whole.read_at(self.at, size)

    def skip(self, size: int) -> None:
        if self.at + size > self._whole.size:
            raise DamagedError(f"it ends after {self._whole.size} bytes")
        self.at += size

    def body(self, size: int) -> Slice | None:
        start = self.at
        self.skip(size)
        return Slice(self._whole.handle, self._whole.base + start, size)

    def drain(self) -> None:
        pass


class Spool:
    """A temporary file with no name, for one content at a time; there when it is first needed.

    Its methods raise `EnvironmentProblem` where there is no room, or no folder, for it.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    @cached_property
    def _file(self) -> IO[bytes]:
        return self._stack.enter_context(tempfile.TemporaryFile())

    def empty(self) -> None:
        with _temporary():
            self._file.seek(0)
            self._file.truncate()

    def write(self, piece: bytes) -> None:
        with _temporary():
            self._file.write(piece)

    def held(self, size: int) -> Slice:
        """What was written, `size` bytes, until it is emptied."""
        with _temporary():
            self._file.flush()
        return Slice(self._file.fileno(), 0, size)


@contextmanager
def _temporary() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(
            "a temporary file can't be written, into which a file of the image is unpacked",
            why=str(error),
            do="free some room, or name a folder that has more: TMPDIR=/path",
        ) from error


class PipeTape:
    """A tar that passes by. What is looked into lies in the spool, which is this tape's alone
    while it is read.
    """

    def __init__(self, pieces: Iterator[bytes], spool: Spool) -> None:
        self.at = 0
        self._pieces = pieces
        self._rest = bytearray()
        self._spool = spool

    def take(self, size: int) -> bytes:
        data = self.first(size)
        if data and len(data) < size:
            raise DamagedError(f"it ends after {self.at + len(data)} bytes")
        del self._rest[: len(data)]
        self.at += len(data)
        return data

    def first(self, size: int) -> bytes:
        while len(self._rest) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._rest += piece
        return bytes(self._rest[:size])

    def skip(self, size: int) -> None:
        while size:
            size -= len(self._some(size))

    def body(self, size: int) -> Slice | None:
        if size > SPOOL_LIMIT:
            return None
        self._spool.empty()
        left = size
        while left:
            piece = self._some(left)
            self._spool.write(piece)
            left -= len(piece)
        return self._spool.held(size)

    def drain(self) -> None:
        self._rest.clear()
        for _ in self._pieces:
            pass

    def _some(self, size: int) -> bytes:
        data = self.take(min(size, max(len(self._rest), BLOCK)))
        if not data:
            raise DamagedError(f"it ends after {self.at} bytes")
        return data


class Entry(NamedTuple):
    """A member of a tar. `name` and `target` are bytes, as they stand there.

    `mtime` in seconds; `capable` says that it has file capabilities; of a sparse file the content
    is not in one piece.
    """

    name: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    target: bytes
    capable: bool
    sparse: bool


def entries(tape: Tape) -> Iterator[Entry]:
    """Each member; until the next one is asked for, its content is what `tape` gives next.

    An end without the two blocks of zeros is taken as one, as Go's reader does. Raises
    `DamagedError` for a header that can't be.
    """
    pax: dict[bytes, bytes] = {}
    held = 0
    while (block := tape.take(BLOCK)) and block != END[:BLOCK]:
        entry = _entry(block)
        kind = block[156:157]
        if kind in b"xXgLK":
            held += entry.size
            if held > EXTENDED_LIMIT:
                raise DamagedError(f"an extended header claims {held} bytes")
        if kind in b"xXg":
            records = _records(_extended(tape, entry))
            if kind != b"g":  # a comment, as git writes it: nothing in it names a member
                pax.update(records)
            continue
        if kind in b"LK":
            key = b"path" if kind == b"L" else b"linkpath"
            pax[key] = _extended(tape, entry).split(b"\0", 1)[0]
            continue
        if kind == b"S":
            _skip_sparse_map(tape, block)
        if pax:
            entry = _extended_entry(entry, pax)
        pax, held = {}, 0
        end = tape.at + entry.size
        yield entry
        tape.skip(end + -entry.size % BLOCK - tape.at)


def _entry(block: bytes) -> Entry:
    stored = _number(block[148:156], "checksum")
    # Each byte but the checksum's own eight, which count as spaces.
    if sum(block) - sum(block[148:156]) + 256 != stored:
        raise DamagedError("a header's checksum is wrong")
    name = block[:100].split(b"\0", 1)[0]
    kind = _KINDS.get(block[156:157], "other")
    if block[257:263] == b"ustar\0":
        prefix = block[345:500].split(b"\0", 1)[0]
        if prefix:
            name = prefix + b"/" + name
    if kind == "file" and block[156:157] == b"\0" and name.endswith(b"/"):
        kind = "folder"  # as archives from before POSIX have it
    size = _number(block[124:136], "size")
    if size < 0:
        raise DamagedError("the size of a member is negative")
    return Entry(
        name=name,
        kind=kind,
        mode=_number(block[100:108], "mode") & 0o7777,
        uid=_number(block[108:116], "owner"),
        gid=_number(block[116:124], "group"),
        # Only files have content; GNU tar gives a hard link its file's size, and no content.
        size=size if kind in ("file", "other") else 0,
        mtime=_number(block[136:148], "time"),
        target=block[157:257].split(b"\0", 1)[0],
        capable=False,
        sparse=block[156:157] == b"S",
    )


def _number(field: bytes, what: str) -> int:
    if field[0] & 0x80:  # GNU's base 256, for what octal digits can't hold
        number = int.from_bytes(field, "big", signed=True)
        return number if field[0] == 0xFF else number & ((1 << (8 * len(field) - 1)) - 1)
    digits = field.split(b"\0", 1)[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise DamagedError(f"the {what} in a header is not a number") from None


def _extended(tape: Tape, entry: Entry) -> bytes:
    data = tape.take(entry.size) if entry.size else b""
    if len(data) < entry.size:
        raise DamagedError("it ends in an extended header")
    tape.skip(-entry.size % BLOCK)
    return data


def _records(data: bytes) -> dict[bytes, bytes]:
    found = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 9)
        digits = data[at:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        record = data[at : at + length]
        key, equals, value = record[len(digits) + 1 :].partition(b"=")
        if not equals or not value.endswith(b"\n") or at + length > len(data):
            raise DamagedError("a pax header is malformed")
        found[key] = value[:-1]
        at += length
    return found


def _extended_entry(entry: Entry, pax: dict[bytes, bytes]) -> Entry:
    size = pax.get(b"size")
    if size is not None and not (size.isdigit() and len(size) < 20):
        raise DamagedError("the size in a pax header is not a number")
    seconds = pax.get(b"mtime", b"").partition(b".")[0]
    return entry._replace(
        name=pax.get(b"GNU.sparse.name", pax.get(b"path", entry.name)),
        target=pax.get(b"linkpath", entry.target),
        size=int(size) if size is not None and entry.kind in ("file", "other") else entry.size,
        mtime=int(seconds) if seconds.isdigit() and len(seconds) < 20 else entry.mtime,
        capable=any(key in pax for key in _CAPABILITIES),
        sparse=entry.sparse or any(key.startswith(b"GNU.sparse.") for key in pax),
    )


def _skip_sparse_map(tape: Tape, block: bytes) -> None:
    more = block[482]
    while more:
        block = tape.take(BLOCK)
        if not block:
            raise DamagedError("it ends in the map of a sparse file")
        more = block[504]
