"""The entries of a layer: read from where they lie, and written in one canonical form.

OCI image specification v1.1, 'Image Layer Filesystem Changeset'; POSIX.1-2001, 'ustar' and 'pax'.
Names are text with surrogate escapes, relative and with no slash at the end: any bytes survive.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from lading.archive.saved import Content
from lading.archive.tarfiles import (
    BLOCK,
    PIECE,
    DamagedError,
    padding,
    pax_record,
    pax_records,
)

Kind = Literal["file", "hardlink", "symlink", "char", "block", "folder", "fifo"]

_KINDS: Mapping[bytes, Kind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "char",
    b"4": "block",
    b"5": "folder",
    b"6": "fifo",
}
_TYPES: Mapping[Kind, bytes] = {kind: flag for flag, kind in reversed(list(_KINDS.items()))}
_XATTR = "SCHILY.xattr."
_EXTENDED_LIMIT = 1 << 20
_KEPT = "security.capability"
"""The one extended attribute that every engine takes out of a container, and puts into one; all
others are shown by some, or say where a layer was made.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What a layer says of a path. `mtime` in seconds; `size` and `offset` in bytes.

    `target` is where a link leads; `content` holds a file's bytes, from `offset` on.
    """

    path: str
    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()
    offset: int = 0
    content: Content | None = field(default=None, compare=False, repr=False)

    def read(self) -> bytes:
        """A file's content, which has to be small."""
        return os.pread(self.content.handle, self.size, self.offset) if self.content else b""


def entries(
    content: Content, *, strict: bool = False, extends: Callable[[], None] = lambda: None
) -> Iterator[Entry]:
    """The entries of an uncompressed layer, in its order; only headers are read.

    The root folder is none. Raises `DamagedError` for what is not a layer's tar; with `strict`,
    also where what fills up files' blocks, or the end, is not zeros: headers have checksums, so
    that then only the contents are left to be looked at, and what extends a header. Of each of
    those `extends` is told.
    """
    at, end, filled = content.offset, content.offset + content.size, 0

    def read(size: int) -> bytes:
        nonlocal at, filled
        data = os.pread(content.handle, filled + size, at) if at < end else b""
        if strict and data[:filled].strip(b"\0"):
            raise DamagedError("a layer has something between two files")
        data, at, filled = data[filled:], at + filled + size, 0
        return data

    for block, size, extended in headers(read, extends):
        entry = entry_of(block, size, extended, content, at)
        if entry.path:
            yield entry
        if entry.kind == "file":
            at, filled = at + entry.size, -entry.size % BLOCK
        if at + filled > end:
            raise DamagedError(f"a layer ends within {entry.path!r}")
    while strict and at < end:
        if read(min(PIECE, end - at)).strip(b"\0"):
            raise DamagedError("a layer has something behind its end")


def headers(
    read: Callable[[int], bytes], extends: Callable[[], None] = lambda: None
) -> Iterator[tuple[bytes, int, dict[str, bytes]]]:
    """Each entry's header, the size that it claims, and what extends it.

    `read` gives as many bytes as are asked for, or fewer, where there are no more. `extends` is
    told of each header that extends others: its data has no checksum.
    """
    extended: dict[str, bytes] = {}
    while block := read(BLOCK):
        if len(block) < BLOCK:
            raise DamagedError("a layer ends within a header")
        if not block[0] and block == bytes(BLOCK):
            return
        size = _checked(block)
        if size < 0:
            raise DamagedError("a layer has a header with a negative size")
        flag = block[156:157]
        if flag not in b"xXgLK":
            yield block, size, extended
            extended = {}
            continue
        if size > _EXTENDED_LIMIT:
            raise DamagedError(f"an extended header claims {size} bytes")
        extends()
        data = read(size)
        if len(data) < size:
            raise DamagedError("a layer ends within an extended header")
        if flag in b"xX":
            extended |= pax_records(data)
        elif flag in b"LK":
            extended["path" if flag == b"L" else "linkpath"] = data.rstrip(b"\0")
        read(-size % BLOCK)


def header(entry: Entry) -> bytes:
    """An entry's header: USTAR, after a pax header for what does not fit; owners by number only."""
    name = _raw(entry.path) + (b"/" if entry.kind == "folder" else b"")
    target = _raw(entry.target)
    size = entry.size if entry.kind == "file" else 0
    records = {_XATTR + key: value for key, value in entry.xattrs}
    split = _split(name)
    if split is None or not name.isascii():
        records["path"] = name
        split = split or (b"", name[:100])
    if len(target) > 100 or not target.isascii():
        records["linkpath"] = target
    numbers = {"uid": (entry.uid, 8), "gid": (entry.gid, 8), "size": (size, 12)}
    numbers["mtime"] = (entry.mtime, 12)
    fields = {}
    for key, (value, width) in numbers.items():
        fits = 0 <= value < 8 ** (width - 1)
        if not fits:
            records[key] = str(value).encode()
        fields[key] = b"%0*o\0" % (width - 1, value if fits else 0)
    block = _block(split, entry, target, fields)
    if not records:
        return block
    data = b"".join(pax_record(key, records[key]) for key in sorted(records))
    lead = Entry(path="PaxHeader", kind="file", mode=0o644, size=len(data))
    zero = {key: b"%0*o\0" % (width - 1, 0) for key, (_, width) in numbers.items()}
    zero["size"] = b"%011o\0" % len(data)
    return _block((b"", b"PaxHeader"), lead, b"", zero, b"x") + data + padding(len(data)) + block


def room(entry: Entry) -> int:
    """How many bytes an entry takes in a layer, with its content."""
    plain = (
        not entry.xattrs
        and len(entry.path) < 100
        and entry.path.isascii()
        and len(entry.target) <= 100
        and entry.target.isascii()
        and entry.uid < 8**7 > entry.gid
        and 0 <= entry.mtime < 8**11 > entry.size
    )
    lead = BLOCK if plain else len(header(entry))
    return lead + (entry.size + -entry.size % BLOCK if entry.kind == "file" else 0)


def without_host(entry: Entry) -> Entry:
    """The entry without the extended attributes that not every engine shows."""
    kept = tuple(x for x in entry.xattrs if x[0] == _KEPT)
    return entry if kept == entry.xattrs else replace(entry, xattrs=kept)


def _block(
    split: tuple[bytes, bytes],
    entry: Entry,
    target: bytes,
    fields: Mapping[str, bytes],
    flag: bytes = b"",
) -> bytes:
    major, minor = entry.device
    if not (0 <= major < 8**7 and 0 <= minor < 8**7):
        raise DamagedError(f"{entry.path!r} is device {major}:{minor}")
    prefix, name = split
    block = b"".join(
        (
            name.ljust(100, b"\0"),
            b"%07o\0" % entry.mode,
            fields["uid"],
            fields["gid"],
            fields["size"],
            fields["mtime"],
            b" " * 8,
            flag or _TYPES[entry.kind],
            target[:100].ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            b"%07o\0%07o\0" % (major, minor),
            prefix.ljust(167, b"\0"),
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Prefix and name as USTAR has them: the shortest prefix; None if there is none."""
    if len(name) <= 100:
        return b"", name
    at = name.find(b"/", len(name) - 101, len(name) - 1)
    return (name[:at], name[at + 1 :]) if 0 < at <= 155 else None


def _checked(block: bytes) -> int:
    """The size field of a header whose checksum is right."""
    if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 256:
        raise DamagedError("a layer has a header that is not one of tar's")
    return _number(block[124:136])


def entry_of(
    block: bytes, size: int, extended: Mapping[str, bytes], content: Content, at: int
) -> Entry:
    """What a header says, of which `headers` tells; a file's content is there from `at` on."""
    kind = _KINDS.get(block[156:157])
    name = block[:100].split(b"\0", 1)[0]
    if kind == "file" and name.endswith(b"/"):
        kind = "folder"  # as tar wrote folders before POSIX
    if kind is None:
        raise DamagedError(f"{name!r} is of a kind that no layer has ({block[156:157]!r})")
    if block[257:263] == b"ustar\0" and block[345]:
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    path = _relative(extended.get("path", name))
    target = extended.get("linkpath", block[157:257].split(b"\0", 1)[0])
    size = _decimal(extended["size"]) if "size" in extended else size
    if size < 0:
        raise DamagedError(f"the size of {path!r} is negative")
    xattrs: tuple[tuple[str, bytes], ...] = ()
    if extended:
        xattrs = tuple(
            sorted((k[len(_XATTR) :], v) for k, v in extended.items() if k.startswith(_XATTR))
        )
    device = (
        (_number(block[329:337]), _number(block[337:345])) if kind in ("char", "block") else (0, 0)
    )
    return Entry(
        path=path,
        kind=kind,
        mode=_number(block[100:108]) & 0o7777,
        uid=_decimal(extended["uid"]) if "uid" in extended else _number(block[108:116]),
        gid=_decimal(extended["gid"]) if "gid" in extended else _number(block[116:124]),
        mtime=_decimal(extended["mtime"]) if "mtime" in extended else _number(block[136:148]),
        size=size if kind == "file" else 0,
        target=_relative(target)
        if kind == "hardlink"
        else _text(target)
        if kind == "symlink"
        else "",
        device=device,
        xattrs=xattrs,
        offset=at,
        content=content,
    )


def _number(field: bytes) -> int:
    """Octal, or GNU's binary for what octal can't hold."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big", signed=True) + (
            0 if field[0] == 0xFF else 1 << (8 * len(field) - 1)
        )
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise DamagedError(f"a layer has a header with {field!r} for a number") from None


def _decimal(value: bytes) -> int:
    """The whole part, downwards; pax has fractions of seconds."""
    whole, _, fraction = value.partition(b".")
    try:
        if len(value) > 40 or (fraction and not fraction.isdigit()):
            raise ValueError
        number = int(whole)
    except ValueError:
        raise DamagedError(f"a pax header has {value[:40]!r} for a number") from None
    return number - 1 if whole.startswith(b"-") and fraction.strip(b"0") else number


def _relative(name: bytes) -> str:
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise DamagedError(f"{name!r} leads out of a layer")
    return _text(b"/".join(parts))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
