"""What was installed, as a tar that is the same every time, and the part of it an image gets."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lading import prefix
from lading.errors import EnvironmentProblem, LadingError
from lading.files import disk_errors

EPOCH = 1_700_000_000


@dataclass(frozen=True, kw_only=True)
class Made:
    """One entry of a layer, as an engine may have written it."""

    name: str
    kind: bytes = tarfile.REGTYPE
    data: bytes = b""
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0

    def into(self, archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(self.name)
        info.type, info.linkname, info.mode = self.kind, self.link, self.mode
        info.uid, info.gid, info.mtime, info.size = self.uid, self.gid, self.mtime, len(self.data)
        info.uname = "x" * self.uid
        archive.addfile(info, io.BytesIO(self.data))


def folder(name: str, mode: int = 0o755) -> Made:
    return Made(name=name, kind=tarfile.DIRTYPE, mode=mode)


def file(name: str, data: bytes = b"x", mode: int = 0o644, uid: int = 0, gid: int = 0) -> Made:
    return Made(name=name, data=data, mode=mode, uid=uid, gid=gid)


def symlink(name: str, to: str) -> Made:
    return Made(name=name, kind=tarfile.SYMTYPE, link=to)


def hardlink(name: str, to: str) -> Made:
    return Made(name=name, kind=tarfile.LNKTYPE, link=to)


def archive(entries: Sequence[Made]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for entry in entries:
            entry.into(made)
    return out.getvalue()


def saved(path: Path, *layers: Sequence[Made], manifest: object = None) -> Path:
    """A docker-archive with these layers."""
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    listed = [{"Config": "c.json", "Layers": names}] if manifest is None else manifest
    files = {"manifest.json": json.dumps(listed).encode()}
    files |= {name: archive(layer) for name, layer in zip(names, layers, strict=True)}
    path.write_bytes(archive([file(name, data) for name, data in files.items()]))
    return path


def written(folder: Path, *layers: Sequence[Made]) -> Path:
    """The product of these layers."""
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "product.tar"
    prefix.write(saved(folder / "saved.tar", *layers), out, EPOCH)
    return out


def held(path: Path) -> dict[str, str]:
    """What is in a tar: for each name its mode, and its content or where it leads."""
    found = {}
    with tarfile.open(path) as opened:
        for info in opened:
            assert (info.uid, info.gid, info.uname, info.gname) == (0, 0, "", "")
            assert info.mtime == EPOCH
            assert info.name not in found
            data = opened.extractfile(info) if info.isreg() else None
            what = data.read().decode() if data else info.linkname
            letter = {b"0": "-", b"1": "=", b"2": ">", b"5": "d"}[info.type]
            found[info.name] = f"{letter}{info.mode:o} {what}".rstrip()
        assert list(found) == sorted(found)
    return found


# -- the product ----------------------------------------------------------------------------


def test_a_tree_is_kept_as_it_is(tmp_path: Path) -> None:
    product = written(
        tmp_path,
        [
            folder("usr"),
            folder("usr/bin"),
            file("usr/bin/tool", b"#!/bin/sh", 0o755),
            symlink("usr/bin/alias", "tool"),
            symlink("usr/away", "/etc/elsewhere"),
            hardlink("usr/bin/second", "usr/bin/tool"),
            folder("var/private", 0o700),
            folder("var/shared", 0o1777),
        ],
    )
    assert held(product) == {
        "usr": "d755",
        "usr/away": ">777 /etc/elsewhere",
        "usr/bin": "d755",
        "usr/bin/alias": ">777 tool",
        # Of two names for one file the first in order holds it.
        "usr/bin/second": "-755 #!/bin/sh",
        "usr/bin/tool": "=755 usr/bin/second",
        "var/private": "d700",
        "var/shared": "d1777",
    }


def test_who_could_write_and_whose_rights_it_had_do_not_reach_an_image(tmp_path: Path) -> None:
    product = written(
        tmp_path,
        [
            file("a", b"", 0o666),
            file("b", b"", 0o4755),
            file("c", b"", 0o6755, uid=65534, gid=65534),
            file("d", b"", 0o2755, gid=7),
        ],
    )
    assert held(product) == {"a": "-644", "b": "-4755", "c": "-755", "d": "-755"}


def test_layers_on_top_of_each_other(tmp_path: Path) -> None:
    product = written(
        tmp_path,
        [folder("opt"), file("opt/a", b"old"), file("opt/b", b"kept")],
        [file("opt/a", b"new", 0o755)],
        [],
    )
    assert held(product) == {"opt": "d755", "opt/a": "-755 new", "opt/b": "-644 kept"}


def test_names_are_those_of_a_tree(tmp_path: Path) -> None:
    product = written(
        tmp_path,
        [folder("./"), folder("./opt/"), file("./opt//a", b"1"), hardlink("opt/b", "./opt/a")],
        [file("../../etc/c", b"2"), file("/opt/d", b"3")],
    )
    assert held(product) == {
        "etc/c": "-644 2",
        "opt": "d755",
        "opt/a": "-644 1",
        "opt/b": "=644 opt/a",
        "opt/d": "-644 3",
    }


def test_folders_that_are_links_on_a_system_are_not_named(tmp_path: Path) -> None:
    """As a folder in a tar, /lib would take the place of the link to usr/lib."""
    product = written(
        tmp_path,
        [
            *(folder(name) for name in ("bin", "lib", "lib64", "sbin", "usr", "usr/lib")),
            *(folder(name) for name in ("var", "var/run", "var/run/x", "usr/local/man")),
            file("lib/libx.so", b""),
        ],
    )
    assert list(held(product)) == ["lib/libx.so", "usr", "usr/lib", "var", "var/run/x"]


def test_devices_and_pipes_are_left_out(tmp_path: Path) -> None:
    kinds = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    odd = [Made(name=f"dev/{number}", kind=kind) for number, kind in enumerate(kinds)]
    linked = hardlink("dev/linked", "dev/0")
    assert held(written(tmp_path, [*odd, linked, file("a", b"")])) == {"a": "-644"}


def test_a_hard_link_to_a_symbolic_link_is_one(tmp_path: Path) -> None:
    product = written(tmp_path, [symlink("a", "x"), hardlink("b", "a")])
    assert held(product) == {"a": ">777 x", "b": ">777 x"}


@pytest.mark.parametrize(
    "layers", [[], [[]], [[folder("usr"), folder("usr/lib")]], [[folder("./")]]]
)
def test_nothing_installed_is_an_error(tmp_path: Path, layers: list[list[Made]]) -> None:
    with pytest.raises(LadingError, match="nothing was installed") as caught:
        written(tmp_path, *layers)
    assert "$DESTDIR" in caught.value.do


def test_an_image_without_layers_has_nothing_in_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "s", manifest=[{"Config": "c", "Layers": None}])
    with pytest.raises(LadingError, match="nothing was installed"):
        prefix.write(path, tmp_path / "out", EPOCH)


BAD_LINKS = [
    [hardlink("a", "a")],
    [hardlink("a", "b"), hardlink("b", "a")],
    [hardlink("a", "b"), hardlink("b", "c"), hardlink("c", "b"), file("d")],
    [hardlink("a", "gone"), file("b")],
    [hardlink("a", ""), file("b")],
]


@pytest.mark.parametrize("entries", BAD_LINKS)
def test_hard_links_that_lead_nowhere_are_an_error(tmp_path: Path, entries: list[Made]) -> None:
    with pytest.raises(LadingError, match="what the engine built can't be read"):
        written(tmp_path, entries)


@pytest.mark.parametrize(
    "manifest", [[], {}, [{}], "x", [{"Layers": ["gone"]}], [{"Layers": 3}], [{"Layers": [3]}]]
)
def test_what_is_no_image_is_an_error(tmp_path: Path, manifest: object) -> None:
    path = saved(tmp_path / "s", [file("a")], manifest=manifest)
    with pytest.raises(LadingError, match="can't be read"):
        prefix.write(path, tmp_path / "out", EPOCH)


@pytest.mark.parametrize("length", [0, 10, 700, 1536, 3000])
def test_an_image_that_is_cut_off_is_an_error(tmp_path: Path, length: int) -> None:
    path = saved(tmp_path / "s", [file("a", os.urandom(2000))])
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(LadingError, match="can't be read"):
        prefix.write(path, tmp_path / "out", EPOCH)


def test_a_full_disk_is_not_taken_for_a_damaged_image(tmp_path: Path) -> None:
    path = saved(tmp_path / "s", [file("a", bytes(100_000))])
    with pytest.raises(EnvironmentProblem, match="no room left"), disk_errors(tmp_path):
        prefix.write(path, Path("/dev/full"), EPOCH)


NAMES = st.text(st.sampled_from("abé ./-"), min_size=1, max_size=6).map(
    lambda text: "/".join(part for part in text.split("/") if part.strip(".")) or "x"
)
TREES = st.dictionaries(
    NAMES,
    st.one_of(
        st.binary(max_size=600).map(lambda data: (tarfile.REGTYPE, data)),
        st.text("ab/.", min_size=1, max_size=9).map(lambda to: (tarfile.SYMTYPE, to)),
        st.just((tarfile.DIRTYPE, b"")),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, data=st.data())
def test_the_same_tree_gives_the_same_bytes(
    tmp_path: Path, tree: Mapping[str, tuple[bytes, object]], data: st.DataObject
) -> None:
    """Whatever the order, the owners, the times, and which of two names is the link."""
    modes = {name: data.draw(st.sampled_from([0o644, 0o755, 0o600])) for name in tree}
    plain: list[Made] = []
    groups: dict[str, list[str]] = {}
    for name, (kind, what) in tree.items():
        if kind == tarfile.REGTYPE:
            assert isinstance(what, bytes)
            plain.append(Made(name=name, data=what, mode=modes[name]))
            groups[name] = [name, *(f"{name}~{n}" for n in range(data.draw(st.integers(0, 2))))]
        else:
            plain.append(Made(name=name, kind=kind, link=str(what or ""), mode=modes[name]))
    found = set()
    for _ in range(3):
        entries = []
        for entry in plain:
            names = data.draw(st.permutations(groups.get(entry.name, [entry.name])))
            entries.append(replace(entry, name=names[0]))
            entries += [replace(hardlink(name, names[0]), mode=0) for name in names[1:]]
        # An engine writes a link behind what it leads to; nothing here relies on it.
        shuffled = [
            replace(entry, uid=data.draw(st.integers(0, 9)), mtime=data.draw(st.integers(0, 2**31)))
            for entry in data.draw(st.permutations(entries))
        ]
        cut = data.draw(st.integers(0, len(shuffled)))
        layers = [shuffled] if groups else [shuffled[:cut], shuffled[cut:]]
        try:
            out = written(tmp_path / "x", *layers)
        except LadingError as error:
            assert "nothing was installed" in str(error)
            assert all(kind == tarfile.DIRTYPE for kind, _ in tree.values())
            return
        found.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(found) == 1
    with tarfile.open(out) as opened:
        for entry in plain:
            if entry.kind == tarfile.REGTYPE:
                for name in groups[entry.name]:
                    content = opened.extractfile(name)
                    assert content is not None
                    assert content.read() == entry.data
                    assert opened.getmember(name).mode == entry.mode
            elif entry.kind == tarfile.SYMTYPE:
                assert opened.getmember(entry.name).linkname == entry.link
            else:
                assert opened.getmember(entry.name).mode == entry.mode


# -- what an image gets of it ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("glob", "matching", "other"),
    [
        ("usr/lib/*.so", ["usr/lib/a.so"], ["usr/lib/x/a.so", "usr/lib/a.so.1", "lib/a.so"]),
        ("**/*.so", ["a.so", "usr/a.so", "usr/lib/x/a.so"], ["a.so.1", "aXso"]),
        ("usr/**/a", ["usr/a", "usr/b/c/a", "usr/a/below"], ["usr/ba", "opt/usr/a"]),
        ("usr/share", ["usr/share/a", "usr/share", "usr/share/a/b"], ["usr/shared", "x/usr/share"]),
        ("usr/share/", ["usr/share/a/b"], ["usr/shared"]),
        ("/usr/share", ["usr/share/a"], ["a"]),
        ("usr/share/**", ["usr/share/a", "usr/share/a/b"], ["usr/sharea"]),
        ("usr/*/doc", ["usr/x/doc/a"], ["usr/x/y/doc/a"]),
        ("a?c", ["abc", "a.c"], ["ac", "a/c", "abbc"]),
        ("[ab]c", ["ac", "bc"], ["cc", "[ab]c"]),
        ("a[!b]c", ["axc"], ["abc", "a/c"]),
        ("[z-a]", [], ["z", "a", "-"]),
        ("a[b", ["a[b"], ["ab"]),
        ("a+(b)|c\\d.é", ["a+(b)|c\\d.é"], ["aa(b)", "c"]),
        ("**", ["a", "a/b"], []),
    ],
)
def test_globs(glob: str, matching: list[str], other: list[str]) -> None:
    kept = prefix.chosen([], [glob])
    assert [path for path in [*matching, *other] if not kept(path)] == matching


@settings(max_examples=200)
@given(
    glob=st.text(st.sampled_from("ab*?[]!-^\\/.$(&|~é "), min_size=1, max_size=12),
    path=st.text(st.sampled_from("ab/.-"), max_size=12),
)
def test_any_text_is_a_glob(glob: str, path: str) -> None:
    kept = prefix.chosen([glob], ["**"])
    assert kept(path) in (True, False)


@settings(max_examples=100)
@given(path=st.text(st.sampled_from("ab/. é-+*[]?"), min_size=1, max_size=12))
def test_a_path_without_its_wild_cards_is_itself(path: str) -> None:
    literal = path.strip("/")
    if not literal or set(literal) & set("*[?"):
        return
    assert prefix.chosen([literal], ["**"])(literal)
    assert prefix.chosen([literal], ["**"])(f"{literal}/below")
    assert not prefix.chosen([literal], ["**"])(f"{literal}x")


def test_what_only_builds_stays_behind(tmp_path: Path) -> None:
    stays = (
        "usr/bin/mpiexec",
        "usr/lib/libmpi.so.12",
        "usr/lib/x86_64-linux-gnu/libmpi.so.12.2",
        "usr/lib/openmpi/mca_btl_tcp.so",
        "usr/share/openmpi/help.txt",
        "usr/bin/mpicc.conf",
        "usr/etc/mpiexec.conf",
        "usr/libexec/includes",
    )
    goes = (
        "usr/include/mpi.h",
        "opt/mpich/include/x/y.h",
        "usr/lib/libmpi.a",
        "usr/lib/libmpi.la",
        "usr/lib/mpi.mod",
        "usr/lib/pkgconfig/mpich.pc",
        "usr/lib/cmake/x/X.cmake",
        "usr/share/man/man1/mpiexec.1",
        "usr/local/share/doc/mpich/README",
        "usr/share/info/x.info",
        "usr/share/aclocal/x.m4",
        "usr/bin/mpicc",
        "usr/bin/mpif90",
        "usr/bin/gsl-config",
        "include/a.h",
        "a.a",
    )
    product = written(tmp_path, [file(path) for path in (*stays, *goes)])
    out = tmp_path / "share.tar"
    prefix.choose(product, out, EPOCH, (), ())
    assert sorted(held(out)) == sorted(stays)
    prefix.choose(product, out, EPOCH, ("usr/include", "**/mpicc"), ("usr/bin",))
    assert [path for path in held(out) if "bin" in path or "include" in path] == [
        "usr/bin/mpicc",
        "usr/include/mpi.h",
        "usr/libexec/includes",
    ]


def test_keep_beats_drop_and_what_is_left_behind(tmp_path: Path) -> None:
    product = written(tmp_path, [file("usr/a.a"), file("usr/b.a"), file("usr/c"), file("usr/d")])
    out = tmp_path / "share.tar"
    prefix.choose(product, out, EPOCH, ("usr/a.a", "usr/c"), ("usr/[a-c]*",))
    assert sorted(held(out)) == ["usr/a.a", "usr/c", "usr/d"]


def test_folders_that_nothing_is_left_in_go_and_empty_ones_stay(tmp_path: Path) -> None:
    product = written(
        tmp_path,
        [
            *(folder(name) for name in ("usr", "usr/lib", "usr/include", "usr/share")),
            *(folder(name) for name in ("usr/share/man", "usr/share/man/man1", "usr/share/plug")),
            *(folder(name) for name in ("var", "var/lib", "usr/include/none")),
            folder("var/lib/empty", 0o700),
            file("usr/lib/x.so"),
            file("usr/include/x.h"),
            file("usr/share/man/man1/x.1"),
            file("usr/share/plug/x.la"),
        ],
    )
    out = tmp_path / "share.tar"
    prefix.choose(product, out, EPOCH, (), ())
    assert held(out) == {
        "usr": "d755",
        "usr/lib": "d755",
        "usr/lib/x.so": "-644 x",
        "var": "d755",
        "var/lib": "d755",
        "var/lib/empty": "d700",
    }
    prefix.choose(product, out, EPOCH, (), ("var/lib/empty",))
    assert not [name for name in held(out) if name.startswith("var")]


def test_a_folder_stays_for_an_empty_one_in_it(tmp_path: Path) -> None:
    """Its own files are gone, and its mode is kept all the same."""
    product = written(
        tmp_path,
        [folder("opt"), folder("opt/x", 0o750), folder("opt/x/empty"), file("opt/x/libx.a")],
    )
    out = tmp_path / "share.tar"
    prefix.choose(product, out, EPOCH, (), ())
    assert held(out) == {"opt": "d755", "opt/x": "d750", "opt/x/empty": "d755"}


def test_a_link_is_a_file_where_the_file_itself_stays_behind(tmp_path: Path) -> None:
    product = written(tmp_path, [file("a/x.a", b"data"), hardlink("a/y", "a/x.a")])
    assert held(product)["a/y"] == "=644 a/x.a"
    out = tmp_path / "share.tar"
    prefix.choose(product, out, EPOCH, (), ())
    assert held(out) == {"a/y": "-644 data"}


def test_a_share_of_nothing_is_an_archive_all_the_same(tmp_path: Path) -> None:
    """Engines copy an archive of nothing as a file, into the root of the image."""
    product = written(tmp_path, [folder("usr/include"), file("usr/include/only.h")])
    out = tmp_path / "share.tar"
    prefix.choose(product, out, EPOCH, (), ())
    assert held(out) == {"usr": "d755"}


def test_a_share_does_not_depend_on_the_order_of_globs(tmp_path: Path) -> None:
    product = written(tmp_path, [file("a"), file("b"), file("c.a")])
    one, two = tmp_path / "1", tmp_path / "2"
    prefix.choose(product, one, EPOCH, ("c.a", "x"), ("a", "y"))
    prefix.choose(product, two, EPOCH, ("x", "c.a"), ("y", "a"))
    assert one.read_bytes() == two.read_bytes()
    assert list(held(one)) == ["b", "c.a"]


# -- as files -------------------------------------------------------------------------------


def test_unpacked(tmp_path: Path) -> None:
    product = written(tmp_path, [file("a.whl", b"wheel"), folder("x"), symlink("x/b", "../a.whl")])
    prefix.unpack(product, tmp_path / "out")
    assert (tmp_path / "out/a.whl").read_bytes() == b"wheel"
    assert (tmp_path / "out/a.whl").stat().st_mode & 0o7777 == 0o644
    assert (tmp_path / "out/x/b").read_bytes() == b"wheel"


@pytest.mark.parametrize(
    "entries",
    [
        [file("../escaped", b"")],
        [symlink("a", "/etc"), file("a/escaped", b"")],
        [symlink("a", "../.."), file("a/escaped", b"")],
        [symlink("a", "/etc/passwd")],
        [hardlink("a", "../../etc/passwd")],
        [Made(name="null", kind=tarfile.CHRTYPE)],
    ],
)
def test_unpacking_does_not_leave_its_folder(tmp_path: Path, entries: list[Made]) -> None:
    product = tmp_path / "in/product.tar"
    product.parent.mkdir()
    product.write_bytes(archive(entries))
    with pytest.raises(LadingError, match=r"what was built \(product.tar\) can't be read"):
        prefix.unpack(product, tmp_path / "in/out")
    assert [path.name for path in tmp_path.rglob("escaped")] == []


@pytest.mark.parametrize("take", ["unpack", "choose"])
def test_a_damaged_product_is_an_error(tmp_path: Path, take: str) -> None:
    product = written(tmp_path, [file("a", bytes(5000))])
    product.write_bytes(product.read_bytes()[:3000])
    with pytest.raises(LadingError, match="can't be read"):
        if take == "unpack":
            prefix.unpack(product, tmp_path / "out")
        else:
            prefix.choose(product, tmp_path / "out", EPOCH, (), ())
