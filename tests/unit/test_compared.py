"""What differs between two archives, said so that one sees where to look for the reason."""

from __future__ import annotations

import io
import os
import struct
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading import archive
from lading.archive import compared, contents
from lading.archive.sections import sections


@dataclass(frozen=True, kw_only=True)
class Item:
    """One entry of a layer."""

    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    mtime: int = 7
    target: str = ""
    pax: tuple[tuple[str, str], ...] = ()


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


Layer = Mapping[str, Item]

FILE = Item(data=b"one\ntwo\n")
FOLDER = Item(kind=tarfile.DIRTYPE, mode=0o755)


def link(target: str) -> Item:
    return Item(kind=tarfile.SYMTYPE, target=target, mode=0o777)


def tar_of(layer: Layer | Sequence[tuple[str, Item]]) -> bytes:
    out = io.BytesIO()
    pairs = layer.items() if isinstance(layer, Mapping) else layer
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, item in pairs:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.mtime = item.kind, item.mode, item.uid, item.mtime
            info.linkname, info.size = item.target, len(item.data)
            info.pax_headers = dict(item.pax)
            tar.addfile(info, io.BytesIO(item.data))
    return out.getvalue()


def image(path: Path, *layers: Layer | bytes, **settings: Any) -> Path:
    """An archive of these layers."""
    files = []
    for number, layer in enumerate(layers):
        file = path.with_name(f"{path.name}.{number}")
        file.write_bytes(layer if isinstance(layer, bytes) else tar_of(layer))
        files.append(file)
    config = {"architecture": "amd64", "os": "linux", "config": {}, **settings}
    archive.write(path, config, files, "x:1")
    return path


def said(folder: Path, one: Layer | bytes, other: Layer | bytes) -> list[str]:
    """What is said of two images that differ in their upper layer."""
    below = {"etc": FOLDER}
    return compared.differences(
        image(folder / "one.tar", below, one), image(folder / "two.tar", below, other)
    )


def elf(**named: bytes) -> bytes:
    """An ELF file with sections of these names (`_` for the dot) and contents."""
    contents = {"": b"", **{name.replace("_", "."): data for name, data in named.items()}}
    names = b"".join(name.encode() + b"\0" for name in [*contents, ".shstrtab"])
    contents[".shstrtab"] = names
    body, rows, at = b"", b"", 64
    for name, data in contents.items():
        place = names.index(name.encode() + b"\0") if name else 0
        rows += struct.pack("<IIQQQQIIQQ", place, 1, 0, 0, at, len(data), 0, 0, 0, 0)
        body, at = body + data, at + len(data)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, at, 0, 64, 0, 0, 64, len(contents), len(contents) - 1
    )
    return head + body + rows


def wheel(**named: bytes) -> Item:
    """A wheel with these files (`_` for the dot), at noon of a day."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, data in named.items():
            info = zipfile.ZipInfo(name.replace("_", "."), (2026, 11, 1, 12, 0, 0))
            info.external_attr = (0o755 if data.startswith(b"#!") else 0o644) << 16
            made.writestr(info, data)
    return Item(data=out.getvalue())


LIBRARY = elf(_text=b"code", _rodata=b"built on 1 November", _comment=b"GCC")
OTHER = LIBRARY[:48] + b"\x01" + LIBRARY[49:]
"""With another flag in its header, and all sections the same."""

# What was, what is now, and all that is said of it.
TABLE: list[tuple[str, Layer, Layer, list[str]]] = [
    ("nothing", {"a": FILE}, {"a": FILE}, []),
    (
        "a text",
        {"opt": FOLDER, "opt/a": FILE},
        {"opt": FOLDER, "opt/a": Item(data=b"one\ntwo!\n")},
        [
            "layer 2:/opt/a: size 8 → 9",
            "    @@ -2 +2 @@",
            "    -two",
            "    +two!",
        ],
    ),
    (
        "a text of one size",
        {"a": FILE},
        {"a": Item(data=b"one\nto2\n")},
        ["layer 2:/a: content", "    @@ -2 +2 @@", "    -two", "    +to2"],
    ),
    (
        "only how the lines end",
        {"a": Item(data=b"a\rb")},
        {"a": Item(data=b"a\nb")},
        ["layer 2:/a: content", "    from byte 1 on:", "    - b'a\\rb'", "    + b'a\\nb'"],
    ),
    (
        "bytes",
        {"a": Item(data=b"\xff" + b"." * 39 + b"1")},
        {"a": Item(data=b"\xff" + b"." * 39 + b"2")},
        [
            "layer 2:/a: content",
            "    from byte 40 on:",
            "    - b'................1'",
            "    + b'................2'",
        ],
    ),
    (
        "bytes that go on",
        {"a": Item(data=b"\xff")},
        {"a": Item(data=b"\xff\xfe")},
        [
            "layer 2:/a: size 1 → 2",
            "    from byte 1 on:",
            "    - b'\\xff'",
            "    + b'\\xff\\xfe'",
        ],
    ),
    (
        "a section",
        {"x.so": Item(data=LIBRARY)},
        {"x.so": Item(data=LIBRARY.replace(b"1 Nov", b"2 Nov"))},
        [
            "layer 2:/x.so: content",
            "    the section .rodata: from byte 9 on:",
            "    - b'built on 1 November'",
            "    + b'built on 2 November'",
        ],
    ),
    (
        "sections that come and go",
        {"x.so": Item(data=LIBRARY)},
        {"x.so": Item(data=elf(_text=b"code", _rodata=b"built", _dbginfo=b"abc"))},
        [
            f"layer 2:/x.so: size {len(LIBRARY)} → {len(LIBRARY) - 14}",
            "    the section .rodata: from byte 5 on, size 19 → 5:",
            "    - b'built on 1 November'",
            "    + b'built'",
            "    the section .comment: only in the first",
            "    the section .shstrtab: from byte 16 on:",
            "    - b'\\x00.text\\x00.rodata\\x00.comment\\x00.shstrta'",
            "    + b'\\x00.text\\x00.rodata\\x00.dbginfo\\x00.shstrta'",
            "    the section .dbginfo: only in the second",
        ],
    ),
    (
        "an ELF file of which only the header differs",
        {"x.so": Item(data=LIBRARY)},
        {"x.so": Item(data=OTHER)},
        [
            "layer 2:/x.so: content",
            "    from byte 48 on:",
            f"    - {LIBRARY[32:64]!r}",
            f"    + {OTHER[32:64]!r}",
        ],
    ),
    (
        "a wheel",
        {"a.whl": wheel(a_py=b"one", b_py=b"two", x_so=LIBRARY)},
        {"a.whl": wheel(a_py=b"one", b_py=b"new", x_so=LIBRARY.replace(b"GCC", b"gcc"))},
        [
            "layer 2:/a.whl: content",
            "    'b.py': content",
            "      @@ -1 +1 @@",
            "      -two",
            "      +new",
            "    'x.so': content",
            "      the section .comment: from byte 0 on:",
            "      - b'GCC'",
            "      + b'gcc'",
        ],
    ),
    (
        "what a wheel has",
        {"a.whl": wheel(a=b"  ", b=b"two")},
        {"a.whl": wheel(a=b"#!", c=b"two")},
        [
            "layer 2:/a.whl: content",
            "    'a': mode 0o644 → 0o755",
            "      @@ -1 +1 @@",
            "      -  ",
            "      +#!",
            "    'b': only in the first",
            "    'c': only in the second",
        ],
    ),
    ("a mode", {"a": FILE}, {"a": replace(FILE, mode=0o4755)}, ["layer 2:/a: mode 0644 → 4755"]),
    ("an owner", {"a": FILE}, {"a": replace(FILE, uid=1000)}, ["layer 2:/a: owner 0:0 → 1000:0"]),
    ("a time", {"a": FOLDER}, {"a": replace(FOLDER, mtime=8)}, ["layer 2:/a: mtime 7 → 8"]),
    (
        "several",
        {"a": FILE},
        {"a": replace(FILE, mode=0o600, mtime=1)},
        ["layer 2:/a: mode 0644 → 0600, mtime 7 → 1"],
    ),
    (
        "attributes",
        {"a": FILE},
        {"a": replace(FILE, pax=(("SCHILY.xattr.user.x", "1"),))},
        ["layer 2:/a: attributes {} → {'user.x': b'1'}"],
    ),
    ("a link", {"a": link("b")}, {"a": link("c")}, ["layer 2:/a: leads to b → c"]),
    (
        "a hard link",
        {"a": FILE, "b": FILE, "c": Item(kind=tarfile.LNKTYPE, target="a")},
        {"a": FILE, "b": FILE, "c": Item(kind=tarfile.LNKTYPE, target="b")},
        ["layer 2:/c: leads to a → b"],
    ),
    (
        "another kind",
        {"a": replace(FILE, mode=0o777)},
        {"a": link("b")},
        ["layer 2:/a: kind file → symlink, leads to  → b, size 8 → 0"],
    ),
    ("missing", {"a": FILE, "b": FILE}, {"a": FILE}, ["layer 2:/b: only in the first"]),
    ("added", {"a": FILE}, {"a": FILE, "b": FILE}, ["layer 2:/b: only in the second"]),
    (
        "a whiteout",
        {"a": FILE},
        {"a": FILE, "etc": FOLDER, "etc/.wh.passwd": Item()},
        ["layer 2:/etc: only in the second", "layer 2:/etc/passwd: deleted, only in the second"],
    ),
    (
        "a folder that is emptied",
        {"etc": FOLDER, "etc/.wh..wh..opq": Item()},
        {"etc": FOLDER},
        ["layer 2:/etc: emptied, only in the first"],
    ),
    (
        "a name that is not UTF-8",
        {"a": FILE},
        {"a": FILE, "\udcff": FILE},
        ["layer 2:/\\xff: only in the second"],
    ),
]


@pytest.mark.parametrize(
    ("one", "other", "lines"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_what_is_said(tmp_path: Path, one: Layer, other: Layer, lines: list[str]) -> None:
    assert said(tmp_path, one, other) == lines
    assert said(tmp_path, one, one) == []


def test_the_same_files_in_another_order(tmp_path: Path) -> None:
    one, other = tar_of([("a", FILE), ("b", FILE)]), tar_of([("b", FILE), ("a", FILE)])
    assert said(tmp_path, one, other) == ["layer 2: the same files, in another order or form"]
    (tmp_path / "one").write_bytes(one)
    (tmp_path / "two").write_bytes(other)
    lines = compared.differences(tmp_path / "one", tmp_path / "two")
    assert lines == ["it: the same files, in another order or form"]


def test_another_number_of_layers(tmp_path: Path) -> None:
    one = image(tmp_path / "one.tar", {"a": FILE}, {"b": FILE})
    other = image(tmp_path / "two.tar", {"a": FILE})
    lines = compared.differences(one, other)
    assert lines[-1] == "layer 2: only in the first"
    assert compared.differences(other, one)[-1] == "layer 2: only in the second"


def test_the_configuration(tmp_path: Path) -> None:
    def made(name: str, day: int, **config: Any) -> Path:
        created = f"2026-11-0{day}T00:00:00Z"
        return image(tmp_path / name, {"a": FILE}, created=created, config=config)

    one = made("one.tar", 1, Env=["A=1", "B=2"], Labels={"x": "y", "z": ""}, Cmd=["a"])
    other = made("two.tar", 2, Env=["B=2", "A=3" * 40], Labels={"x": "y"}, Cmd=["b"])
    assert compared.differences(one, other) == [
        """the configuration: config.Cmd: '["a"]' → '["b"]'""",
        f"the configuration: config.Env.A: '1' → '{('3' + 'A=3' * 40)[:60]}…'",
        "the configuration: config.Labels.z: only in the first",
        "the configuration: created: '2026-11-01T00:00:00Z' → '2026-11-02T00:00:00Z'",
        "the configuration: history 1.created: '2026-11-01T00:00:00Z' → '2026-11-02T00:00:00Z'",
    ]


def test_only_some_are_named(tmp_path: Path) -> None:
    many = {f"{number:03}": FILE for number in range(compared.SHOWN + 5)}
    lines = said(tmp_path, {}, many)
    assert len(lines) == compared.SHOWN + 1
    assert lines[-1] == "and 5 more"
    lines = said(tmp_path, {"a": Item(data=b"1\n" * 99)}, {"a": Item(data=b"2\n" * 99)})
    assert lines[-1] == "    and 191 lines more"
    one, other = (elf(**{f"_s{n}": bytes([n, k]) for n in range(12)}) for k in (0, 1))
    lines = said(tmp_path, {"a": Item(data=one)}, {"a": Item(data=other)})
    assert lines[-1] == "    and 4 sections more"


def test_what_is_large_is_not_held_against_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "TEXT", 4)
    other = Item(data=b"one\nto2\n")
    assert said(tmp_path, {"a": FILE}, {"a": other})[1] == "    from byte 5 on:"
    monkeypatch.setattr(contents, "LARGEST", 4)
    assert said(tmp_path, {"a": FILE}, {"a": other}) == ["layer 2:/a: content"]


def test_zip_archives_that_are_damaged() -> None:
    """Whatever their readers raise, they are compared as they stand."""

    def packed(data: bytes, how: int) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", how) as file:
            file.writestr("a", data)
        return out.getvalue()

    for how in (zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_STORED):
        good = packed(b"hello" * 100, how)
        for at in range(30, len(good) - 60):
            bad = bytearray(good)
            bad[at] ^= 0xFF
            assert contents.differences(packed(b"hellp" * 100, how), bytes(bad))
    # The folder claims more bytes than the file has.
    short = bytearray(packed(b"x" * 100, zipfile.ZIP_STORED))
    at = short.index(b"PK\1\2")
    short[at + 20 : at + 28] = struct.pack("<II", 9999, 9999)
    assert contents.differences(packed(b"y" * 100, zipfile.ZIP_STORED), bytes(short))


def test_plain_tars(tmp_path: Path) -> None:
    """What is compiled is kept as such."""
    for name, item in (("one", FILE), ("two", replace(FILE, mode=0o755))):
        (tmp_path / name).write_bytes(tar_of({"usr": FOLDER, "usr/x": item}))
    lines = compared.differences(tmp_path / "one", tmp_path / "two")
    assert lines == ["/usr/x: mode 0644 → 0755"]


@pytest.mark.parametrize("damage", ["cut", "manifest", "gone", "layer"])
def test_an_archive_that_is_damaged(tmp_path: Path, damage: str) -> None:
    """As it may be on a disk: that is what is said, and where."""
    good = image(tmp_path / "one.tar", {"a": FILE})
    bad = image(tmp_path / "two.tar", {"a": Item(data=b"x" * 600)})
    data = bad.read_bytes()
    match damage:
        case "cut":
            bad.write_bytes(data[:700])
        case "manifest":
            bad.write_bytes(data.replace(b'[{"Config"', b'[["Config"'))
        case "gone":
            bad.unlink()
        case "layer":
            bad.write_bytes(data.replace(b"ustar", b"vstar", 2).replace(b"vstar", b"ustar", 1))
    (line,) = compared.differences(good, bad)[-1:]
    assert "can't be read: " in line
    if damage != "layer":
        assert line.startswith(str(bad))


def test_sections() -> None:
    assert dict(sections(LIBRARY))[".rodata"] == b"built on 1 November"
    assert list(sections(elf(_a=b"1"))) == [".a", ".shstrtab"]
    assert sections(b"") == sections(b"\x7fELF") == sections(b"#!" * 99) == {}
    assert sections(LIBRARY[:-1]) == {}, "its table is cut off"


def test_a_wheel_that_is_damaged(tmp_path: Path) -> None:
    """It is held against the other byte by byte."""
    good = wheel(a=b"1" * 99)
    bad = Item(data=good.data.replace(b"1" * 99, b"2" * 99))
    assert said(tmp_path, {"a.whl": good}, {"a.whl": bad})[1].startswith("    from byte ")


@given(at=st.integers(0, len(LIBRARY) - 1), value=st.binary(max_size=9), cut=st.integers(0, 600))
def test_sections_of_what_is_none(at: int, value: bytes, cut: int) -> None:
    """Whatever a header claims: nothing, or some bytes of the file."""
    data = (LIBRARY[:at] + value + LIBRARY[at + len(value) :])[: cut or None]
    assert sum(map(len, sections(data).values())) <= len(data) * 8


def test_sections_as_others_read_them() -> None:
    """Of Python itself, or a library of it."""
    from elftools.elf.elffile import ELFFile

    data = Path(sys.executable).resolve().read_bytes()
    theirs = [s for s in ELFFile(io.BytesIO(data)).iter_sections() if s.name]
    found = sections(data)
    assert list(found) == [section.name for section in theirs]
    for section in theirs:
        nothing = section["sh_type"] == "SHT_NOBITS"
        assert found[section.name] == (b"" if nothing else section.data()), section.name
