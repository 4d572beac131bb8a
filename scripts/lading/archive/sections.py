"""The sections of an ELF file by their names: in which of them two builds differ.

System V ABI, chapter 4, 'Sections'.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

MAGIC = b"\x7fELF"
_NOBITS = 8


def sections(data: bytes) -> Mapping[str, bytes]:
    """Each section's content; none where it is no ELF file, or its table leads nowhere.

    Those with one name (a relocatable file may have some) are told apart by a number.
    """
    if len(data) < 64 or not data.startswith(MAGIC) or data[4] not in (1, 2):
        return {}
    order = ">" if data[5] == 2 else "<"
    wide = data[4] == 2
    # e_shoff, and behind it e_shentsize, e_shnum and e_shstrndx.
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), data, 40 if wide else 32)
    width, count, names_at = struct.unpack_from(order + "HHH", data, 58 if wide else 46)
    # Name and type, flags and address, which are of no use here, offset and size.
    row = struct.Struct(order + ("II16xQQ" if wide else "II8xII"))
    if width < row.size or table + width * count > len(data):
        return {}
    rows = [row.unpack_from(data, table + number * width) for number in range(count)]
    if names_at >= count:
        return {}
    _, _, offset, size = rows[names_at]
    names = data[offset : offset + size]
    found: dict[str, bytes] = {}
    for at, kind, offset, size in rows[1:]:  # the first one is none
        name = called = names[at : at + 256].partition(b"\0")[0].decode("utf-8", "replace")
        number = 2
        while called in found:
            called, number = f"{name} ({number})", number + 1
        found[called] = b"" if kind == _NOBITS else data[offset : offset + size]
    return found
