"""What the dynamic loader reads of an ELF file, and what of MPI is in it.

A reader of its own because it has to look into every program and library of an image: pyelftools
takes 4 ms for each, this one some 40 µs, and memory and time are bounded whatever a header claims.
The tests compare the two. System V ABI, chapters 4 and 5; ld.so(8).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

MAGIC = b"\x7fELF"
TABLE_LIMIT = 64 << 20
"""Bytes that a table of strings or symbols may have; real ones have a few MB."""

_ENTRY_LIMIT = 256
_STRING_LIMIT = 4096
_PLACES_LIMIT = 1000
_NAMES_LIMIT = 1000
"""Libraries that a file may need, and folders of a path; real ones have some dozens."""
_NAMES_SIZE = 1 << 16
"""Characters of all of these libraries' names."""

_PT_LOAD, _PT_DYNAMIC, _PT_NOTE = 1, 2, 4
_DT_NEEDED, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ = 1, 5, 6, 10
_DT_SONAME, _DT_RPATH, _DT_RUNPATH = 14, 15, 29
_SHT_SYMTAB, _SHT_DYNSYM = 2, 11
_GLIBC = re.compile(rb"\0GLIBC_(\d{1,3})\.(\d{1,3})(?:\.\d{1,3})?(?=\0)")
_WATCHED = (b"MPI_Init", b"MPI_Send", b"PMPI_Init")


class Body(Protocol):
    """A file's content, read anywhere."""

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, size: int) -> bytes: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Elf:
    """An ELF file.

    `machine` is e_machine; `rpath` and `runpath` are as they stand, in their order; `glibc` is the
    newest version of glibc's symbols that it needs (or, of glibc, that it has); `kernel` the
    oldest Linux its ABI tag admits. `defines` and `wants` say which of MPI_Init, MPI_Send and
    PMPI_Init it has and which it takes from elsewhere; `openmpi` that it knows Open MPI's objects.
    """

    machine: int
    program: bool = False
    needed: tuple[str, ...] = ()
    soname: str = ""
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    glibc: tuple[int, int] | None = None
    kernel: tuple[int, int, int] | None = None
    defines: frozenset[str] = frozenset()
    wants: frozenset[str] = frozenset()
    openmpi: bool = False

    @property
    def kept(self) -> int:
        """About how many bytes its names take."""
        return sum(
            len(text) + 64 for text in (*self.needed, self.soname, *self.rpath, *self.runpath)
        )


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """The two classes and byte orders of ELF."""

    order: str
    wide: bool

    def unpack(self, narrow: str, wide: str, data: bytes) -> tuple[int, ...] | None:
        form = self.order + (wide if self.wide else narrow)
        if len(data) < struct.calcsize(form):
            return None
        return struct.unpack_from(form, data)


def read(body: Body) -> Elf | None:
    """The ELF file; None if it is none, or broken. What a broken table would say is left out."""
    ident = body.read_at(0, 64)
    if len(ident) < 52 or not ident.startswith(MAGIC) or ident[4] not in (1, 2):
        return None
    layout = _Layout(order=">" if ident[5] == 2 else "<", wide=ident[4] == 2)
    header = layout.unpack("HHIIIIIHHHHHH", "HHIQQQIHHHHHH", ident[16:])
    if header is None:
        return None
    kind, machine, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, _ = header
    segments = _segments(body, layout, phoff, phentsize, phnum)
    dynamic = _dynamic(body, layout, segments)
    strings = _strings(body, segments, dynamic)
    symbols = _symbols(body, layout, _sections(body, layout, shoff, shentsize, shnum))
    if not symbols and strings:
        symbols = _symbols(body, layout, _by_dynamic(segments, dynamic))
    defines = {name for name, defined in symbols if defined}

    # Of all but DT_NEEDED, the loader takes the last.
    values = dict(dynamic)

    def named(tag: int) -> str:
        return _string(strings, values[tag]) if tag in values else ""

    def paths(tag: int) -> tuple[str, ...]:
        return tuple(named(tag).split(":", _NAMES_LIMIT)[:_NAMES_LIMIT]) if tag in values else ()

    versions = ((int(match[1]), int(match[2])) for match in _GLIBC.finditer(strings))
    return Elf(
        machine=machine,
        program=kind == 2 or any(segment[0] == 3 for segment in segments),
        needed=_needed(strings, dynamic),
        soname=named(_DT_SONAME),
        rpath=paths(_DT_RPATH),
        runpath=paths(_DT_RUNPATH),
        glibc=max(versions, default=None),
        kernel=_kernel(body, layout, segments),
        defines=frozenset(defines),
        wants=frozenset(name for name, _ in symbols) - defines,
        openmpi=b"\0ompi_mpi_" in strings,
    )


# A segment or a table: its type, offset in the file, address, size in the file.
_Segment = tuple[int, int, int, int]
# A table of symbols: offset and size, and offset and size of its strings.
_Table = tuple[int, int, int, int]


def _segments(body: Body, layout: _Layout, offset: int, entry: int, count: int) -> list[_Segment]:
    if not (56 if layout.wide else 32) <= entry <= _ENTRY_LIMIT or count > 1000:
        return []
    data = body.read_at(offset, entry * count)
    found = []
    for at in range(0, len(data), entry):
        fields = layout.unpack("IIIIIIII", "IIQQQQQQ", data[at : at + entry])
        if fields is None:
            break
        if layout.wide:
            found.append((fields[0], fields[2], fields[3], fields[5]))
        else:
            found.append((fields[0], fields[1], fields[2], fields[4]))
    return found


def _dynamic(body: Body, layout: _Layout, segments: list[_Segment]) -> list[tuple[int, int]]:
    for kind, offset, _, size in segments:
        if kind == _PT_DYNAMIC:
            data = body.read_at(offset, min(size, 1 << 16))
            form = layout.order + ("qQ" if layout.wide else "iI")
            width = struct.calcsize(form)
            pairs = []
            for tag, value in struct.iter_unpack(form, data[: len(data) // width * width]):
                if tag == 0:
                    break
                pairs.append((tag, value))
            return pairs
    return []


def _strings(body: Body, segments: list[_Segment], dynamic: list[tuple[int, int]]) -> bytes:
    values = dict(dynamic)
    offset = _offset(segments, values.get(_DT_STRTAB))
    size = values.get(_DT_STRSZ, 0)
    return body.read_at(offset, size) if offset is not None and size <= TABLE_LIMIT else b""


def _offset(segments: list[_Segment], address: int | None) -> int | None:
    if address is None:
        return None
    for kind, offset, start, size in segments:
        if kind == _PT_LOAD and start <= address < start + size:
            return offset + address - start
    return None


def _needed(strings: bytes, dynamic: list[tuple[int, int]]) -> tuple[str, ...]:
    found = []
    size = 0
    for value in islice((value for tag, value in dynamic if tag == _DT_NEEDED), _NAMES_LIMIT):
        text = _string(strings, value)
        size += len(text)
        if size > _NAMES_SIZE:
            break
        found.append(text)
    return tuple(found)


def _string(strings: bytes, at: int) -> str:
    text = strings[at : at + _STRING_LIMIT].partition(b"\0")[0]
    return text.decode("utf-8", "surrogateescape")


def _sections(body: Body, layout: _Layout, offset: int, entry: int, count: int) -> list[_Table]:
    """The tables of symbols by the section headers, which a stripped file may not have."""
    fits = (64 if layout.wide else 40) <= entry <= _ENTRY_LIMIT
    if not offset or not fits or count > 20_000:
        return []
    data = body.read_at(offset, entry * count)
    headers = []
    for at in range(0, len(data), entry):
        fields = layout.unpack("IIIIIIIIII", "IIQQQQIIQQ", data[at : at + entry])
        if fields is None:
            break
        headers.append(fields)
    found = []
    for fields in headers:
        if fields[1] in (_SHT_SYMTAB, _SHT_DYNSYM) and fields[6] < len(headers):
            strings = headers[fields[6]]
            found.append((fields[4], fields[5], strings[4], strings[5]))
    return found[:4]


def _by_dynamic(segments: list[_Segment], dynamic: list[tuple[int, int]]) -> list[_Table]:
    """The table of dynamic symbols without section headers: linkers put its strings behind it."""
    values = dict(dynamic)
    symbols = _offset(segments, values.get(_DT_SYMTAB))
    strings = _offset(segments, values.get(_DT_STRTAB))
    if symbols is None or strings is None or strings <= symbols:
        return []
    return [(symbols, strings - symbols, strings, values.get(_DT_STRSZ, 0))]


def _symbols(body: Body, layout: _Layout, tables: list[_Table]) -> list[tuple[str, bool]]:
    """Which of the watched names there are, and whether each is defined here."""
    found = []
    form = layout.order + ("IBBHQQ" if layout.wide else "IIIBBH")
    width, section = struct.calcsize(form), 3 if layout.wide else 5
    for offset, size, strings_at, strings_size in tables:
        if max(size, strings_size) > TABLE_LIMIT:
            continue
        strings = body.read_at(strings_at, strings_size)
        names = dict(islice(_places(strings), _PLACES_LIMIT))
        if not names:
            continue
        data = body.read_at(offset, size)
        for fields in struct.iter_unpack(form, data[: len(data) // width * width]):
            if fields[0] in names:
                found.append((names[fields[0]], fields[section] != 0))
    return found


def _places(strings: bytes) -> Iterator[tuple[int, str]]:
    # Linkers share the tails of strings: MPI_Init may be the end of PMPI_Init.
    for name in _WATCHED:
        at = strings.find(name + b"\0")
        while at >= 0:
            yield at, name.decode()
            at = strings.find(name + b"\0", at + 1)


def _kernel(body: Body, layout: _Layout, segments: list[_Segment]) -> tuple[int, int, int] | None:
    """The oldest kernel by the note NT_GNU_ABI_TAG, which ld.so compares with the running one."""
    for kind, offset, _, size in segments:
        if kind != _PT_NOTE:
            continue
        data = body.read_at(offset, min(size, 4096))
        at = 0
        while at + 12 <= len(data):
            name, length, note = struct.unpack_from(layout.order + "III", data, at)
            start = at + 12 + (name + 3) // 4 * 4
            is_tag = note == 1 and length >= 16 and data[at + 12 : at + 16] == b"GNU\0"
            if is_tag and start + 16 <= len(data):
                system, major, minor, patch = struct.unpack_from(layout.order + "IIII", data, start)
                return (major, minor, patch) if system == 0 else None
            at = start + (length + 3) // 4 * 4
    return None
