"""In which lines, sections or bytes two contents of a file differ."""

from __future__ import annotations

import difflib
import lzma
import zlib
from collections.abc import Mapping
from io import BytesIO
from zipfile import BadZipFile, ZipFile

from lading.archive.sections import sections

TEXT = 1 << 20
"""Bytes up to which a text's lines are compared."""
LARGEST = 256 << 20
"""Bytes up to which a file is looked into at all."""
# What a damaged zip archive makes its readers raise.
_DAMAGED = (
    *(BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError, EOFError),
    *(zlib.error, lzma.LZMAError),
)
_LINES = 8
_AROUND = 16


def differences(one: bytes, other: bytes) -> list[str]:
    """Where two contents that are not the same differ, in some lines: of texts the lines, of ELF
    files the sections, of zip archives (wheels) the files, of all else the first bytes.
    """
    try:
        with ZipFile(BytesIO(one)) as before, ZipFile(BytesIO(other)) as after:
            return _of_zips(before, after) or _bytes(one, other)
    except _DAMAGED:
        return _plain(one, other)


def _of_zips(before: ZipFile, after: ZipFile) -> list[str]:
    lines: list[str] = []
    for name in dict.fromkeys([*before.namelist(), *after.namelist()]):
        was, now = before.NameToInfo.get(name), after.NameToInfo.get(name)
        if was is None or now is None:
            lines.append(f"{name!r}: only in the {'second' if was is None else 'first'}")
            continue
        traits = [
            f"{what} {one} → {other}"
            for what, one, other in (
                ("mode", oct(was.external_attr >> 16), oct(now.external_attr >> 16)),
                ("time", was.date_time, now.date_time),
            )
            if one != other
        ]
        large = max(was.file_size, now.file_size) > LARGEST
        one, other = (b"", b"") if large else (before.read(was), after.read(now))
        if traits or (was.CRC, was.file_size) != (now.CRC, now.file_size):
            lines.append(f"{name!r}: {', '.join(traits) or 'content'}")
        if one != other:
            lines += [f"  {line}" for line in _plain(one, other)]
    return _cut(lines, 3 * _LINES, "lines")


def _plain(one: bytes, other: bytes) -> list[str]:
    before, after = sections(one), sections(other)
    if before and after:
        return _of_sections(before, after) or _bytes(one, other)
    try:
        if max(len(one), len(other)) > TEXT:
            return _bytes(one, other)
        was, now = (data.decode().splitlines() for data in (one, other))
    except UnicodeDecodeError:
        return _bytes(one, other)
    found = [line[:100] for line in difflib.unified_diff(was, now, lineterm="", n=0)][2:]
    return _cut(found, _LINES, "lines") or _bytes(one, other)  # only in how their lines end


def _cut(lines: list[str], most: int, what: str) -> list[str]:
    more = [f"and {len(lines) - most} {what} more"] if len(lines) > most else []
    return lines[:most] + more


def _of_sections(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[str]:
    found: list[str] = []
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    for name in changed[:_LINES]:
        if name not in before or name not in after:
            found.append(
                f"the section {name}: only in the {'second' if name in after else 'first'}"
            )
            continue
        one, other = before[name], after[name]
        size = f", size {len(one)} → {len(other)}" if len(one) != len(other) else ""
        first, *rest = _bytes(one, other)
        found += [f"the section {name}: {first.removesuffix(':')}{size}:", *rest]
    if len(changed) > _LINES:
        found.append(f"and {len(changed) - _LINES} sections more")
    return found


def _bytes(one: bytes, other: bytes) -> list[str]:
    at = next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
    here = slice(max(at - _AROUND, 0), at + _AROUND)
    return [f"from byte {at} on:", f"- {one[here]!r}", f"+ {other[here]!r}"]
