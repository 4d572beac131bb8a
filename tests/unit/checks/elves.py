"""Tiny ELF files with what a test wants in them, put together without a compiler."""

from __future__ import annotations

import struct
from collections.abc import Sequence


def elf(
    *,
    machine: int = 62,
    program: bool = False,
    needed: Sequence[str] = (),
    soname: str = "",
    rpath: str = "",
    runpath: str = "",
    defines: Sequence[str] = (),
    wants: Sequence[str] = (),
    strings: Sequence[str] = (),
    kernel: tuple[int, int, int] | None = None,
    static: bool = False,
    sections: bool = True,
) -> bytes:
    """A 64-bit little-endian ELF file; where it is loaded, addresses are offsets.

    `static` has no dynamic section and its symbols in .symtab; without `sections` there are no
    section headers, as in a file that sstrip cut.
    """
    table = bytearray(b"\0")

    def add(text: str) -> int:
        at = len(table)
        table.extend(text.encode() + b"\0")
        return at

    tags = [(1, add(name)) for name in needed]
    tags += [(tag, add(text)) for tag, text in ((14, soname), (15, rpath), (29, runpath)) if text]
    symbols = bytes(24)
    for name in wants:
        symbols += struct.pack("<IBBHQQ", add(name), 0x12, 0, 0, 0, 0)
    for name in defines:
        symbols += struct.pack("<IBBHQQ", add(name), 0x12, 0, 1, 0, 0)
    for text in strings:
        add(text)
    note = b""
    if kernel is not None:
        note = struct.pack("<III4sIIII", 4, 16, 1, b"GNU\0", 0, *kernel)

    kinds = [1] + ([] if static else [2]) + ([4] if note else [])
    at = 64 + 56 * len(kinds)
    note_at = at
    symbols_at = note_at + len(note)
    strings_at = symbols_at + len(symbols)
    dynamic_at = (strings_at + len(table) + 7) // 8 * 8
    tags += [(5, strings_at), (6, symbols_at), (10, len(table)), (11, 24), (0, 0)]
    dynamic = b"" if static else b"".join(struct.pack("<qQ", *tag) for tag in tags)
    names = b"\0.symbols\0.strings\0.dynamic\0.names\0"
    names_at = dynamic_at + len(dynamic)
    headers_at = (names_at + len(names) + 7) // 8 * 8

    places = {1: (0, headers_at), 2: (dynamic_at, len(dynamic)), 4: (note_at, len(note))}
    segments = b"".join(
        struct.pack("<IIQQQQQQ", kind, 5, start, start, start, size, size, 8)
        for kind, (start, size) in ((kind, places[kind]) for kind in kinds)
    )

    def section(name: int, kind: int, start: int, size: int, link: int, entry: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, kind, 0, start, start, size, link, 1, 8, entry)

    headers = [
        bytes(64),
        section(1, 2 if static else 11, symbols_at, len(symbols), 2, 24),
        section(10, 3, strings_at, len(table), 0, 0),
        section(19, 6, dynamic_at, len(dynamic), 2, 16) if dynamic else bytes(64),
        section(28, 3, names_at, len(names), 0, 0),
    ]
    count = len(headers) if sections else 0
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack(
        "<HHIQQQIHHHHHH",
        2 if program else 3,
        machine,
        1,
        0,
        64,
        headers_at if sections else 0,
        0,
        64,
        56,
        len(kinds),
        64,
        count,
        4 if sections else 0,
    )
    data = head + segments + note + symbols + bytes(table)
    data = data.ljust(dynamic_at, b"\0") + dynamic + names
    data = data.ljust(headers_at, b"\0")
    return data + b"".join(headers) if sections else data
