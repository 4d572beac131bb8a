"""Tar archives as streams: read from chunks of any size, written in one canonical form.

Reads what POSIX.1-2001 (pax), GNU and Go's tar write; memory stays flat whatever the archive
claims. Python's own `tarfile` keeps every member, believes a header's claim of how long an
extended header is, and writes slightly different headers from version to version: an archive
that has to be the same bytes everywhere writes its own.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

BLOCK = 512
END = bytes(2 * BLOCK)
PIECE = 1 << 20
"""The most bytes that are handed on at once."""

_EXTENDED_LIMIT = 1 << 20
_USTAR_LIMIT = 8 << 30
_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.DIRTYPE: "folder",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
}


class DamagedError(Exception):
    """The archive is not what tar is; the text says how."""


class EndedError(DamagedError):
    """The archive stops before its end."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One entry: `kind` is file, folder, symlink, hardlink or other; `size` in bytes.

    `offset` is where its content begins in the archive; `target` is where a link leads.
    """

    name: str
    kind: str
    size: int
    offset: int
    target: str = ""


class Stream:
    """Chunks of bytes, read in pieces that one asks for. `at` is how many bytes were taken.

    `advance` is told of every chunk that comes in, by its number of bytes.
    """

    def __init__(self, chunks: Iterable[bytes], advance: Callable[[int], None]) -> None:
        self._chunks = iter(chunks)
        self._advance = advance
        self._rest = memoryview(b"")
        self.at = 0

    def begin(self) -> None:
        """Waits for the first chunk. Raises `EndedError`."""
        if not self._rest:
            self._rest = self._next()

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Exactly `size` bytes, in pieces of at most `PIECE`. Raises `EndedError`."""
        while size:
            if not self._rest:
                self._rest = self._next()
            piece = self._rest[: min(size, PIECE)]
            self._rest = self._rest[len(piece) :]
            self.at += len(piece)
            size -= len(piece)
            yield piece

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes at once. Raises `EndedError`."""
        if len(self._rest) >= size:
            found, self._rest = self._rest[:size], self._rest[size:]
            self.at += size
            return bytes(found)
        return b"".join(self.pieces(size))

    def drain(self) -> None:
        """Takes what is left, whatever it is."""
        self._rest = memoryview(b"")
        for chunk in self._chunks:
            self._advance(len(chunk))

    def _next(self) -> memoryview:
        for chunk in self._chunks:
            if chunk:
                self._advance(len(chunk))
                return memoryview(chunk)
        raise EndedError(f"it ends after {self.at} bytes")


def members(stream: Stream) -> Iterator[tuple[Member, Iterator[memoryview]]]:
    """Each member with its content, which can be read until the next one is asked for.

    Raises `EndedError` where the two blocks of zeros that end an archive don't come,
    `DamagedError` for a header that can't be.
    """
    extended: dict[str, str] = {}
    while (block := stream.read(BLOCK)) != END[:BLOCK]:
        header = _header(block)
        if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            found = pax_records(_extended(stream, header))
            extended |= {key: _text(value) for key, value in found.items()}
        elif header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            key = "path" if header.type == tarfile.GNUTYPE_LONGNAME else "linkpath"
            extended[key] = _text(_extended(stream, header).rstrip(b"\0"))
        elif header.type == tarfile.XGLTYPE:
            _extended(stream, header)  # a comment, as git writes it: nothing in it names a member
        else:
            member = _member(header, extended, stream.at)
            extended = {}
            body = stream.pieces(member.size)
            yield member, body
            for _ in body:
                pass
            stream.read(-member.size % BLOCK)
    if stream.read(BLOCK) != END[:BLOCK]:
        raise DamagedError("a lone block of zeros stands in it")
    stream.drain()


def header(name: str, size: int) -> bytes:
    """The header of a regular file, the same on every machine: mode 0644, owner 0, time 0.

    USTAR; where the size does not fit (8 GiB and more), after a pax header that holds it.
    """
    if size < _USTAR_LIMIT:
        return _block(name, size, tarfile.REGTYPE)
    record = pax_record("size", str(size).encode())
    return (
        _block("PaxHeaders/" + name[:80], len(record), tarfile.XHDTYPE)
        + record
        + padding(len(record))
        + _block(name, 0, tarfile.REGTYPE)
    )


def is_header(block: bytes) -> bool:
    """Whether a block can be the header of a member: its checksum is right."""
    try:
        _header(block)
    except DamagedError:
        return False
    return True


def padding(size: int) -> bytes:
    """What has to follow a content of `size` bytes to fill its last block."""
    return bytes(-size % BLOCK)


def pax_record(key: str, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where LENGTH counts its own digits."""
    rest = b" " + key.encode("utf-8", "surrogateescape") + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return b"%d" % length + rest


def pax_records(data: bytes) -> dict[str, bytes]:
    """What a pax header says. Raises `DamagedError`, also for a sparse file."""
    found = {}
    while data:
        digits, space, _ = data.partition(b" ")
        if not space or not digits.isdigit() or len(digits) > 7:
            raise DamagedError("a pax header is malformed")
        length = int(digits)
        key, equals, value = data[len(digits) + 1 : length].partition(b"=")
        if not equals or not value.endswith(b"\n") or length > len(data):
            raise DamagedError("a pax header is malformed")
        found[key.decode("utf-8", "surrogateescape")] = value[:-1]
        data = data[length:]
    if any(key.startswith("GNU.sparse.") for key in found):
        raise DamagedError("it holds a sparse file")
    return found


def _block(name: str, size: int, kind: bytes) -> bytes:
    encoded = name.encode("ascii")
    if len(encoded) > 100:
        raise ValueError(f"{name} is too long for a USTAR header without a prefix")
    fields = [
        encoded.ljust(100, b"\0"),
        b"%07o\0" % 0o644,
        b"%07o\0" % 0,  # uid
        b"%07o\0" % 0,  # gid
        b"%011o\0" % size,
        b"%011o\0" % 0,  # mtime
        b" " * 8,  # the checksum counts itself as spaces
        kind,
        bytes(100),  # linkname
        b"ustar\x0000",
        bytes(32 + 32),  # owner's and group's names
        b"%07o\0" % 0,  # device
        b"%07o\0" % 0,
        bytes(155 + 12),  # prefix, and what fills the block
    ]
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        found = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except tarfile.HeaderError as error:
        raise DamagedError(f"a header is not one of tar's ({error})") from None
    if found.size < 0:
        raise DamagedError(f"the size of {found.name!r} is negative")
    return found


def _extended(stream: Stream, header: tarfile.TarInfo) -> bytes:
    if header.size > _EXTENDED_LIMIT:
        raise DamagedError(f"an extended header claims {header.size} bytes")
    data = stream.read(header.size)
    stream.read(-header.size % BLOCK)
    return data


def _member(header: tarfile.TarInfo, extended: dict[str, str], offset: int) -> Member:
    if header.type == tarfile.GNUTYPE_SPARSE:
        raise DamagedError("it holds a sparse file")
    kind = _KINDS.get(header.type, "other")
    member = Member(
        name=extended.get("path", header.name),
        kind=kind,
        size=header.size,
        offset=offset,
        target=extended.get("linkpath", header.linkname),
    )
    if "size" in extended:
        size = extended["size"]
        if not (size.isascii() and size.isdigit() and len(size) < 20):
            raise DamagedError(f"the size of {member.name!r} is not a number")
        member = replace(member, size=int(size))
    # Only files have content; GNU tar gives a hard link its file's size, and no content.
    return member if kind in ("file", "other") else replace(member, size=0)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
