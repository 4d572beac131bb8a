"""The reader of ELF files against pyelftools, on made files and on this machine's own."""

from __future__ import annotations

import io
import struct
import sys
import sysconfig
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading.checks.portability.elf import Elf, read
from tests.unit.checks.elves import elf


class Data:
    """A file's content, as the reader asks for it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.most = 0

    def read_at(self, offset: int, size: int) -> bytes:
        self.most = max(self.most, size)
        return self.data[max(offset, 0) : max(offset, 0) + max(size, 0)]


def reference(data: bytes) -> dict[str, Any]:
    """What pyelftools says."""
    elffile: Any = import_module("elftools.elf.elffile")

    found: dict[str, Any] = {"needed": (), "soname": "", "rpath": (), "runpath": ()}
    file = elffile.ELFFile(io.BytesIO(data))
    found["machine"] = file["e_machine"]
    for segment in file.iter_segments("PT_DYNAMIC"):
        for tag in segment.iter_tags():
            match tag.entry.d_tag:
                case "DT_NEEDED":
                    found["needed"] += (tag.needed,)
                case "DT_SONAME":
                    found["soname"] = tag.soname
                case "DT_RPATH":
                    found["rpath"] = tuple(tag.rpath.split(":"))
                case "DT_RUNPATH":
                    found["runpath"] = tuple(tag.runpath.split(":"))
    defined: set[str] = set()
    undefined: set[str] = set()
    for name in (".dynsym", ".symtab", ".symbols"):
        section = file.get_section_by_name(name)
        for symbol in section.iter_symbols() if section is not None else ():
            if symbol.name in ("MPI_Init", "MPI_Send", "PMPI_Init"):
                (undefined if symbol["st_shndx"] == "SHN_UNDEF" else defined).add(symbol.name)
    found["defines"], found["wants"] = frozenset(defined), frozenset(undefined - defined)
    versions = file.get_section_by_name(".gnu.version_r")
    newest = None
    for _, auxiliary in versions.iter_versions() if versions is not None else ():
        for one in auxiliary:
            number = one.name.removeprefix("GLIBC_")
            if number != one.name and number[0].isdigit():
                newest = max(newest or (0, 0), tuple(map(int, number.split(".")[:2])))
    found["glibc"] = newest
    return found


def compared(data: bytes, *, versions: bool = True) -> Elf:
    found = read(Data(data))
    assert found is not None
    wanted = reference(data)
    number = {62: "EM_X86_64", 183: "EM_AARCH64", 3: "EM_386"}[found.machine]
    assert number == wanted.pop("machine")
    if not versions:
        del wanted["glibc"]
    assert {name: getattr(found, name) for name in wanted} == wanted
    return found


MADE: list[dict[str, Any]] = [
    {},
    {"program": True, "machine": 183},
    {"needed": ["libmpi.so.12", "libc.so.6"], "soname": "libx.so.1"},
    {"rpath": "$ORIGIN/../lib:/opt/lib", "runpath": "/x"},
    {"defines": ["MPI_Init", "PMPI_Init"], "wants": ["MPI_Send", "free"]},
    {"static": True, "program": True, "defines": ["MPI_Send"], "wants": ["MPI_Init"]},
]


@pytest.mark.parametrize("made", MADE)
def test_a_made_file_reads_as_pyelftools_reads_it(made: dict[str, Any]) -> None:
    compared(elf(**made))


def test_real_files_read_as_pyelftools_reads_them() -> None:
    folders = [
        Path(sys.executable).resolve().parent,
        Path(sysconfig.get_path("platstdlib")) / "lib-dynload",
        Path("/usr/lib/x86_64-linux-gnu"),
        Path("/usr/bin"),
    ]
    count = 0
    for folder in folders:
        paths = sorted(path for path in folder.glob("*") if path.is_file())[:200]
        files = [path for path in paths if path.open("rb").read(4) == b"\x7fELF"][:15]
        for path in files:
            # Of a library that defines versions of its own, the names stand in one table.
            data = path.read_bytes()
            compared(data, versions=b"GLIBC_PRIVATE" not in data)
            count += 1
    assert count >= 15


def test_a_file_without_section_headers_is_read_by_its_dynamic_section() -> None:
    found = read(
        Data(elf(needed=["a.so"], defines=["MPI_Init"], wants=["PMPI_Init"], sections=False))
    )
    assert found is not None
    assert found.needed == ("a.so",)
    assert found.defines == {"MPI_Init"}
    assert found.wants == {"PMPI_Init"}


def test_the_kernel_and_glibc_that_a_file_asks_for() -> None:
    found = read(Data(elf(kernel=(5, 4, 0), strings=["GLIBC_2.2.5", "GLIBC_2.34", "GLIBC_2.9"])))
    assert found is not None
    assert (found.kernel, found.glibc) == ((5, 4, 0), (2, 34))


def test_names_in_a_file_are_limited() -> None:
    """Real files need some dozens of libraries; made ones, as many as fit into their tables."""
    made = elf(needed=[f"a{i}.so" for i in range(1200)], runpath=":".join(["/x"] * 1200))
    found = read(Data(made))
    assert found is not None
    assert found.needed == tuple(f"a{i}.so" for i in range(1000))
    assert found.runpath == ("/x",) * 1000
    found = read(Data(elf(needed=["a" * 4000] * 20)))
    assert found is not None
    assert len(found.needed) == 16


def test_of_two_search_paths_the_last_counts() -> None:
    # glibc's elf_get_dynamic_info keeps one entry of each tag but DT_NEEDED.
    made = bytearray(elf(rpath="/one", runpath="/two"))
    made[made.index(struct.pack("<qQ", 15, 1))] = 29
    found = read(Data(bytes(made)))
    assert found is not None
    assert (found.rpath, found.runpath) == ((), ("/two",))


def test_so_many_sections_are_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bytearray(elf(static=True, defines=["MPI_Init"]))
    assert read(Data(bytes(made))).defines == {"MPI_Init"}  # type: ignore[union-attr]
    made[60:62] = struct.pack("<H", 20_001)
    body = Data(bytes(made))
    assert read(body).defines == frozenset()  # type: ignore[union-attr]
    assert body.most < 64 * 20_000


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF" + bytes(60), b"#!/bin/sh\n" * 20])
def test_what_is_no_elf_file_is_none(data: bytes) -> None:
    assert read(Data(data)) is None


@settings(max_examples=300)
@given(
    edits=st.lists(st.tuples(st.integers(4, 2000), st.binary(min_size=1, max_size=8)), max_size=8),
    cut=st.integers(0, 4000),
    static=st.booleans(),
)
def test_a_broken_file_is_read_in_bounded_memory(
    edits: list[tuple[int, bytes]], cut: int, static: bool
) -> None:
    data = bytearray(elf(needed=["libmpi.so.12"], defines=["MPI_Init"], rpath="/x", static=static))
    for at, new in edits:
        at = 4 + at % (len(data) - 12)
        data[at : at + len(new)] = new
    body = Data(bytes(data[: cut or None]))
    found = read(body)
    assert found is None or isinstance(found, Elf)
    assert body.most <= 64 << 20
