"""Normal archives: whoever built the image, and however it is cut into layers, the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import tarfile
import tempfile
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lading import archive
from lading.archive.arriving import in_common
from lading.archive.entries import Entry, entries, header, room
from lading.archive.saved import Content
from lading.errors import LadingError

NAME = "astropy:2026.11.22"
PLATFORM = "linux/amd64"
EPOCH = 1_700_000_000
PARTS = ("/opt/conda", "/opt/venv")
OPAQUE = ".wh..wh..opq"

Form = Literal[0, 1, 2]
FORMS: tuple[Form, ...] = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
TYPES = {
    "file": tarfile.REGTYPE,
    "symlink": tarfile.SYMTYPE,
    "folder": tarfile.DIRTYPE,
    "fifo": tarfile.FIFOTYPE,
}


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@dataclass(frozen=True, eq=False, kw_only=True)
class Node:
    """An inode, which is itself and no other; without `mtime`, its build's time."""

    kind: str
    mode: int = 0o755
    uid: int = 0
    mtime: int | None = None
    data: bytes = b""
    target: str = ""


Files = dict[str, Node]


# -- the model: what a build does to files, and the layers that an engine makes of it ------------


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def removed(files: Files, path: str) -> None:
    for name in [name for name in files if name == path or name.startswith(path + "/")]:
        del files[name]


def put(files: Files, path: str, node: Node) -> None:
    above = parent(path)
    if above and (above not in files or files[above].kind != "folder"):
        put(files, above, Node(kind="folder"))
    if node.kind != "folder" or (path in files and files[path].kind != "folder"):
        removed(files, path)
    files[path] = node


def layer_entries(before: Files, after: Files, chance: random.Random) -> list[tuple[str, Any]]:
    """Paths and their nodes, whiteouts (None), or what a hard link leads to (text)."""
    inodes = {id(node) for path, node in after.items() if before.get(path) is not node}
    changed = {path: node for path, node in after.items() if id(node) in inodes}
    found: list[tuple[str, Any]] = []
    gone = [
        path
        for path in before
        if path not in after
        and (not parent(path) or (parent(path) in after and after[parent(path)].kind == "folder"))
    ]
    for path in changed:
        below = [p for p in after if p.startswith(path + "/")]
        if (
            path in before
            and {before[path].kind, after[path].kind} == {"folder"}
            and not any(before.get(p) is after[p] for p in below)
            and chance.random() < 0.5
        ):
            found.append((f"{path}/{OPAQUE}", None))
            gone = [p for p in gone if not p.startswith(path + "/")]
    for path in gone:
        found.append((f"{parent(path)}/.wh.{path.rpartition('/')[2]}".lstrip("/"), None))
    touched = [path for path, _ in found] + list(changed)
    for path in touched:  # the folders above have new mtimes
        while path := parent(path):
            if path not in changed and path in after:
                changed[path] = after[path]
                if before.get(path) is after[path]:
                    changed[path] = replace(after[path], mtime=None)
    first: dict[int, str] = {}
    paths = list(changed)
    chance.shuffle(paths)
    for path in paths:
        node = changed[path]
        holder = first.setdefault(id(node), path)
        found.append((path, node if holder == path else holder))
    if chance.random() < 0.5:  # links before their files, whiteouts last
        chance.shuffle(found)
    return found


def rendered(found: Sequence[tuple[str, Any]], form: Form, chance: random.Random) -> bytes:
    out = io.BytesIO()
    for path, node in found:
        info = tarfile.TarInfo(chance.choice(["", "./"]) + path)
        info.uname = info.gname = chance.choice(["", "root", "builder"])
        info.mtime = chance.randrange(2 * EPOCH)
        data = b""
        if isinstance(node, str):
            info.type, info.linkname = tarfile.LNKTYPE, node
        elif node is not None:
            info.type, info.mode, info.uid = TYPES[node.kind], node.mode, node.uid
            info.linkname, data = node.target, node.data
            if node.mtime is not None:
                info.mtime = node.mtime
            elif form == tarfile.PAX_FORMAT:
                info.mtime += chance.random()
            info.size = len(data)
        out.write(info.tobuf(form, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512))
    return out.getvalue() + bytes(1024 + 512 * chance.randrange(19))


def saved(layers: Sequence[bytes], config: dict[str, Any] | None = None, **more: Any) -> bytes:
    """What an engine saves of an image of these layers."""
    settings = {**described(layers, config), **more}
    files = {f"{number}.tar": layer for number, layer in enumerate(layers)}
    manifest = [{"Config": "c.json", "RepoTags": ["x:1"], "Layers": list(files)}]
    files |= {
        "c.json": json.dumps(settings).encode(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def normal(base: Sequence[bytes], **more: Any) -> archive.Normal:
    diff_ids = tuple(f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in base)
    return archive.Normal(**{"base": diff_ids, "epoch": EPOCH, "parts": PARTS, **more})


def exported(data: bytes, how: archive.Normal) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "x.tar")
        made = archive.export([data], out, name=NAME, platform=PLATFORM, normal=how)
        assert archive.read(out) == replace(made, labels=archive.read(out).labels)
        return out.read_bytes()


def upon(
    lowest: Sequence[bytes], files: bytes, how: archive.Normal, said: Sequence[bytes] = ()
) -> bytes:
    """The archive of an image whose files come as one tar; its base's layers are at hand, and the
    engine says that it has those, or what is `said`.
    """
    with tempfile.TemporaryDirectory() as folder:
        layers = []
        for number, layer in enumerate(lowest):
            layers.append(Path(folder, str(number)))
            layers[-1].write_bytes(layer)
        config = {"os": "linux", "architecture": "amd64"}
        archive.write(Path(folder, "base"), config, layers, "b:1")
        out = Path(folder, "x.tar")
        archive.export(
            asked_for_nothing(),
            out,
            name=NAME,
            platform=PLATFORM,
            normal=replace(how, archive=Path(folder, "base")),
            merged=archive.Merged(files=iter([files]), settings=described(said or lowest)),
        )
        assert not list(Path(folder).glob(".*"))
        return out.read_bytes()


def asked_for_nothing() -> Iterator[bytes]:
    raise AssertionError("the layers are asked for, too")
    yield b""


def described(layers: Sequence[bytes], config: dict[str, Any] | None = None) -> dict[str, Any]:
    """What an engine says of an image."""
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }


@dataclass(frozen=True, kw_only=True)
class Read:
    """An archive as Python's tarfile reads it."""

    config: dict[str, Any]
    layers: tuple[tuple[tuple[tarfile.TarInfo, bytes], ...], ...]

    def paths(self, layer: int) -> list[str]:
        return [info.name for info, _ in self.layers[layer]]


def read(data: bytes) -> Read:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {info.name: content(tar, info) for info in tar}
    (manifest,) = json.loads(files["manifest.json"])
    layers = []
    for name in manifest["Layers"]:
        with tarfile.open(fileobj=io.BytesIO(files[name])) as tar:
            layers.append(tuple((info, content(tar, info)) for info in tar))
        for info, _ in layers[-1]:
            info.name = info.name.removeprefix("./")  # the base's may be called so
    return Read(config=json.loads(files[manifest["Config"]]), layers=tuple(layers))


def open_ended(data: bytes) -> bytes:
    """A tar without the zeros at its end."""
    data = data.rstrip(b"\0")
    return data + bytes(-len(data) % 512)


def content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    opened = tar.extractfile(info) if info.isfile() else None
    return opened.read() if opened is not None else b""


def merged(found: Read) -> dict[str, tuple[Any, ...]]:
    """Each path with its kind, mode, owner, mtime, content and link, as an engine unpacks it."""
    tree: dict[str, tuple[Any, ...]] = {}
    for layer in found.layers:
        here: dict[str, tuple[Any, ...]] = {}
        for info, data in sorted(layer, key=lambda each: each[0].islnk()):  # the base has any order
            above, _, name = info.name.rpartition("/")
            path = f"{above}/{name.removeprefix('.wh.')}".lstrip("/")
            if name == OPAQUE:
                path = above + "/"
            if name.startswith(".wh."):
                for gone in [
                    p for p in tree if p == path or f"{p}/".startswith(path.rstrip("/") + "/")
                ]:
                    if not (name == OPAQUE and gone == above):
                        del tree[gone]
                continue
            if info.islnk():
                here[info.name] = here[info.linkname]
            else:
                here[info.name] = (
                    *(info.type, info.mode, info.uid, info.mtime, data, info.linkname),
                )
        for path, entry in here.items():
            if entry[0] != tarfile.DIRTYPE:
                for gone in [p for p in tree if p.startswith(path + "/")]:
                    del tree[gone]
        tree |= here
    return tree


def expected(base: Files, files: Files) -> dict[str, tuple[Any, ...]]:
    found = {}
    for path, node in files.items():
        mtime = EPOCH
        below = base.get(path)
        if below is not None:
            one = (below.kind, below.mode, below.uid, below.data, below.target)
            if one == (node.kind, node.mode, node.uid, node.data, node.target):
                assert below.mtime is not None
                mtime = below.mtime
        kind = TYPES[node.kind]
        found[path] = (kind, node.mode, node.uid, mtime, node.data, node.target)
    return found


# -- properties -----------------------------------------------------------------------------------

names = st.sampled_from(["a", "a-", "b", "é", "opt", "venv", "conda", "n" * 60])
paths = st.one_of(
    st.lists(names, min_size=1, max_size=4).map("/".join),
    st.sampled_from(["opt/venv/a", "opt/venv/b", "opt/conda", "opt/venv", "opt/conda/x"]),
)
nodes = st.one_of(
    st.builds(
        Node,
        kind=st.just("file"),
        mode=st.sampled_from([0o644, 0o4755]),
        uid=st.sampled_from([0, 1000]),
        data=st.sampled_from([b"", b"x", b"y", b"z" * 1000]),
    ),
    st.builds(Node, kind=st.just("folder"), mode=st.sampled_from([0o755, 0o1777])),
    st.builds(
        Node,
        kind=st.just("symlink"),
        mode=st.just(0o777),
        target=st.sampled_from(["a", "é/" * 60]),
    ),
    st.builds(Node, kind=st.just("fifo")),
)
steps = st.one_of(
    st.tuples(st.just("put"), paths, nodes),
    st.tuples(st.just("remove"), paths, st.none()),
    st.tuples(st.just("link"), paths, paths),
)


def done(files: Files, step: tuple[str, str, Any]) -> None:
    what, path, more = step
    if what == "put":
        put(files, path, more)
    elif what == "remove":
        removed(files, path)
    elif (
        more in files
        and files[more].kind == "file"
        and path not in files
        and not path.startswith(f"{more}/")
    ):
        put(files, path, files[more])


def built(
    base: Files, work: Sequence[tuple[str, str, Any]], cuts: set[int], chance: random.Random
) -> tuple[list[bytes], Files]:
    """The layers of a build, which begins a new one at each cut; and the files at its end."""
    files, before, layers = dict(base), dict(base), []
    for number, step in enumerate(work):
        done(files, step)
        if number in cuts or number == len(work) - 1:
            form = chance.choice(FORMS[1:])  # USTAR has no room for some of the names
            layers.append(rendered(layer_entries(before, files, chance), form, chance))
            before = dict(files)
    return layers, files


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    below=st.lists(steps, max_size=8),
    work=st.lists(steps, max_size=12),
    cuts=st.tuples(*[st.sets(st.integers(0, 11))] * 2),
    seed=st.integers(0, 1 << 32),
)
def test_every_build_gives_the_same_file(
    below: list[Any], work: list[Any], cuts: tuple[set[int], set[int]], seed: int
) -> None:
    chance = random.Random(seed)
    base: Files = {}
    for step in below:
        done(base, step)
    dated: dict[int, Node] = {}  # inodes stay shared
    base = {
        path: dated.setdefault(id(node), replace(node, mtime=chance.randrange(2 * EPOCH)))
        for path, node in base.items()
    }
    lowest = [rendered(layer_entries({}, base, chance), tarfile.PAX_FORMAT, chance)]
    how = normal(lowest)
    outs = []
    for cut in cuts:
        layers, files = built(base, work, cut, chance)
        outs.append(exported(saved([*lowest, *layers]), how))
        found = read(outs[-1])
        assert merged(found) == expected(base, files)
    assert outs[0] == outs[1]
    whole = rendered(layer_entries({}, files, chance), tarfile.PAX_FORMAT, chance)
    assert upon(lowest, whole, how) == outs[0]
    assert exported(outs[0], how) == outs[0]  # once more changes nothing

    for number, layer in enumerate(found.layers[1:], 1):
        there = found.paths(number)
        assert there == sorted(there, key=lambda name: name.encode())
        assert all(parent(path) in there for path in there if parent(path))
        assert {(info.uname, info.gname) for info, _ in layer} <= {("", "")}


@settings(max_examples=200, deadline=None)
@given(
    path=st.lists(
        st.text(
            st.characters(blacklist_characters="\0/", blacklist_categories=["Cs"]),
            min_size=1,
            max_size=120,
        ),
        min_size=1,
        max_size=4,
    )
    .map("/".join)
    .filter(lambda path: not {"..", "."} & set(path.split("/"))),
    kind=st.sampled_from(list(TYPES)),
    uid=st.sampled_from([0, 8**7 - 1, 8**7, 1 << 31]),
    mtime=st.sampled_from([-1, 0, EPOCH, 8**11 - 1, 8**11]),
    xattrs=st.dictionaries(
        st.sampled_from(["security.capability", "user.é"]), st.binary(max_size=30)
    ),
    size=st.sampled_from([0, 1, 8**11 - 1, 8**11]),
)
def test_headers_are_read_as_they_were_written(
    path: str, kind: Any, uid: int, mtime: int, xattrs: dict[str, bytes], size: int
) -> None:
    entry = Entry(
        path=path,
        kind=kind,
        mode=0o4711,
        uid=uid,
        gid=uid,
        mtime=mtime,
        size=size if kind == "file" else 0,
        target=f"../{path}" if kind == "symlink" else "",
        xattrs=tuple(sorted(xattrs.items())),
    )
    data = header(entry)
    assert room(entry) == len(data) + (size + -size % 512 if kind == "file" else 0)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.truncate(room(entry) + 1024)
        whole = Content(handle=file.fileno(), offset=0, size=room(entry) + 1024, sha256=str)
        assert [replace(found, offset=0) for found in entries(whole)] == [entry]
    with tarfile.open(fileobj=io.BytesIO(data + bytes(1024)), errorlevel=0) as tar:
        seen = tar.next()
    assert seen is not None
    assert (seen.name, seen.uid, int(seen.mtime), seen.size) == (path, uid, mtime, entry.size)
    assert (seen.linkname, seen.mode) == (entry.target, 0o4711)


# -- what is left out, and what is kept -----------------------------------------------------------


def tar(files: dict[str, Any], mtime: int = EPOCH + 5, **more: Any) -> bytes:
    """A layer: text is a file, None a folder (a whiteout where so named)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.mtime = mtime
            for key, value in more.items():
                setattr(info, key, value)
            if data is None and ".wh." not in path:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            info.size = len(data or "")
            made.addfile(info, io.BytesIO((data or "").encode()))
    return out.getvalue()


BASE = tar(
    {
        **dict.fromkeys(
            ["dev", "etc", "opt", "proc", "root", "run", "sys", "tmp", "var", "var/log"]
        ),
        "etc/machine-id": "",
        "etc/hostname": "base",
        "etc/passwd": "root",
        "var/log/dpkg.log": "as the base has it",
    },
    mtime=5,
)


@pytest.mark.parametrize(
    "layer",
    [
        {},
        {"etc": None, "var": None, "var/log": None},
        {"dev": None, "dev/shm": None, "proc": None, "sys": None, "run": None, "run/lock": None},
        {"dev/console": "", ".dockerenv": "", "run/.containerenv": "", ".wh.proc": None},
        {"dev/.wh.shm": None, ".wh.sys": None, "etc/.wh.hostname": None},
        {"etc/hosts": "", "etc/resolv.conf": "", "etc/hostname": ""},
        {"etc/machine-id": "0123"},
        {"var/log/dpkg.log": "more", "var/log/new.log": "x"},
        {"etc/passwd": "root"},
    ],
)
def test_what_a_build_leaves_behind_is_no_layer(layer: dict[str, Any]) -> None:
    layers = read(exported(saved([BASE, tar(layer)]), normal([BASE]))).layers
    assert len(layers) == 1


@pytest.mark.parametrize(
    "layer, kept",
    [
        ({"etc/.wh.passwd": None}, ["etc", "etc/.wh.passwd"]),
        ({"etc/hosts": "10.0.0.1 x"}, ["etc", "etc/hosts"]),
        ({"etc/hostname": "mine"}, ["etc", "etc/hostname"]),
        ({"etc/passwd": "Root"}, ["etc", "etc/passwd"]),
        ({"var/log/app": None}, ["var", "var/log", "var/log/app"]),
        ({"var/log/.wh.dpkg.log": None}, ["var", "var/log", "var/log/.wh.dpkg.log"]),
        ({"srv/deep/file": "x"}, ["srv", "srv/deep", "srv/deep/file"]),
        (
            {"var/cache/apt/x.bin": "x", "var/cache/apt/archives": None},
            ["var", "var/cache", "var/cache/apt", "var/cache/apt/archives"],
        ),
    ],
)
def test_what_was_asked_for_is_kept(layer: dict[str, Any], kept: list[str]) -> None:
    found = read(exported(saved([BASE, tar(layer)]), normal([BASE])))
    assert found.paths(1) == kept
    folders = {info.name: info.mtime for info, _ in found.layers[1] if info.isdir()}
    assert all(folders[name] == 5 for name in folders if name in found.paths(0))


def test_what_hides_the_bases_files() -> None:
    base = tar({"a": None, "a/b": None, "a/b/c": "x", "a/d": "x", "e": None, "e/f": "x"}, mtime=5)
    opaque = tar({"a": None, f"a/{OPAQUE}": None, "a/new": "y"})
    explicit = tar({"a": None, "a/.wh.b": None, "a/new": "y", "a/.wh.d": None, "a/.wh.none": None})
    found = [exported(saved([base, layer]), normal([base])) for layer in (opaque, explicit)]
    assert found[0] == found[1]
    assert read(found[0]).paths(1) == ["a", "a/.wh.b", "a/.wh.d", "a/new"]
    # A file where a folder was needs no whiteouts of what was in there.
    replaced = read(exported(saved([base, tar({"e": "now a file"})]), normal([base])))
    assert replaced.paths(1) == ["e"]


def test_the_cut() -> None:
    """The rest, then each part in the order given; whiteouts lie with what they hide."""
    base = tar({"opt": None, "opt/venv": None, "opt/venv/old": "x"}, mtime=5)
    files = {"usr": None, "opt/venv/new": "x", "opt/venv/.wh.old": None, "opt/venv-not": "x"}
    above = {"opt/conda/lib": None, "opt/conda/lib/x": "y"}
    found = read(exported(saved([base, tar(files), tar(above)]), normal([base])))
    assert [found.paths(number) for number in (1, 2, 3)] == [
        ["opt", "opt/venv-not", "usr"],
        ["opt", "opt/conda", "opt/conda/lib", "opt/conda/lib/x"],
        ["opt", "opt/venv", "opt/venv/.wh.old", "opt/venv/new"],
    ]
    history = [step["created_by"] for step in found.config["history"]]
    assert history == [f"lading: {name}" for name in ("base", "system", "/opt/conda", "/opt/venv")]


SITE = "opt/conda/lib/python3.12/site-packages"


def prefix(*more: str, history: bool = True) -> dict[str, Any]:
    """A conda prefix in which `more` has been installed by uv."""
    files: dict[str, Any] = {f"{SITE}/six.py": "1", f"{SITE}/shared/six.py": "1"}
    files |= {"opt/conda/conda-meta/history": ""} if history else {}
    for name in ("six", *more):
        info = f"{SITE}/{name}-1.dist-info"
        record = [f"{name}.py", f"shared/{name}.py", f"../../../bin/{name}", f"{name}/data"]
        record += [f"{name}-1.dist-info/{file}" for file in ("INSTALLER", "RECORD")]
        files[f"{info}/INSTALLER"] = "conda\n" if name == "six" else "uv"
        files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in record)
        for path in record[:-2]:
            files[os.path.normpath(f"{SITE}/{path}")] = name
        files[f"{SITE}/__pycache__/{name}.cpython-312.pyc"] = name
    return files


def test_what_pip_put_into_a_conda_prefix_is_cut_off() -> None:
    """It changes, and conda's layer does not."""
    found = [
        read(exported(saved([BASE, tar(prefix(*more))]), normal([BASE])))
        for more in ((), ("a",), ("a", "b"))
    ]
    names = [step["created_by"] for step in found[1].config["history"]][1:]
    assert names == ["lading: /opt/conda", "lading: /opt/conda, pip"]
    assert len(found[0].layers) == 2
    assert len({one.config["rootfs"]["diff_ids"][1] for one in found}) == 1
    files = [info.name for info, _ in found[1].layers[2] if info.isfile()]
    assert files == [
        "opt/conda/bin/a",
        f"{SITE}/__pycache__/a.cpython-312.pyc",
        f"{SITE}/a-1.dist-info/INSTALLER",
        f"{SITE}/a-1.dist-info/RECORD",
        f"{SITE}/a.py",
        f"{SITE}/a/data",
        f"{SITE}/shared/a.py",
    ]
    assert merged(found[2]).keys() >= merged(found[1]).keys()

    # No other folder is cut in two.
    elsewhere = {path.replace("conda", "venv"): text for path, text in prefix("a").items()}
    for whole in (prefix("a", history=False), elsewhere):
        assert len(read(exported(saved([BASE, tar(whole)]), normal([BASE]))).layers) == 2


def test_capabilities_are_kept_and_other_attributes_are_not() -> None:
    """Not every engine shows those: of a file of the base's, either, they make no other one."""
    capability = {"SCHILY.xattr.security.capability": "\x01\x00\x02x"}
    more = {
        "SCHILY.xattr.security.selinux": "here",
        "SCHILY.xattr.user.mime_type": "text/plain",
        "comment": "x",
    }
    layer = tar({"ping": "x"}, pax_headers=capability | more)
    found = read(exported(saved([BASE, layer]), normal([BASE])))
    assert found.layers[1][0][0].pax_headers == capability

    how = normal([layer])
    for shown in (capability | more, capability):
        again = tar({"ping": "x"}, pax_headers=shown)
        for made in (upon([layer], again, how), exported(saved([layer, again]), how)):
            assert len(read(made).layers) == 1


def test_hard_links_stay_links() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        info = tarfile.TarInfo("z")
        info.size = 3
        made.addfile(info, io.BytesIO(b"abc"))
        for name in ("m", "opt/venv/a", "opt/venv/b"):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, "z"
            made.addfile(info)
    found = read(exported(saved([BASE, out.getvalue()]), normal([BASE])))
    links = {
        info.name: info.linkname for layer in found.layers for info, _ in layer if info.islnk()
    }
    assert links == {"z": "m", "opt/venv/b": "opt/venv/a"}
    assert merged(found)["z"] == merged(found)["opt/venv/a"]


# -- the configuration ----------------------------------------------------------------------------


def test_the_configuration_is_what_a_dockerfile_can_ask_for() -> None:
    docker: dict[str, Any] = {
        "Env": ["PATH=/bin", "B=2", "A=1"],
        "Cmd": ["/bin/bash"],
        "Entrypoint": None,
        "WorkingDir": "/",
        "Labels": {"a": "b"},
        "ArgsEscaped": True,
        "Hostname": "d577a34bc618",
        "OnBuild": None,
        "ExposedPorts": {"80/tcp": {}},
    }
    podman: dict[str, Any] = {
        "Env": ["PATH=/usr/bin", "A=1", "PATH=/bin", "B=2"],
        "Cmd": ["/bin/bash"],
        "Labels": {"a": "b", "io.buildah.version": "1.28.2"},
        "ExposedPorts": {"80/tcp": {}},
    }
    data = [
        saved([BASE], docker, created="2026-11-22T10:00:00Z", history=[{}, {"empty_layer": True}]),
        saved([BASE], podman, author="someone", container="x", docker_version="20.10"),
    ]
    found = [exported(each, normal([BASE])) for each in data]
    assert found[0] == found[1]
    config = read(found[0]).config
    assert config == {
        "architecture": "amd64",
        "os": "linux",
        "created": "2023-11-14T22:13:20Z",
        "config": {
            "Cmd": ["/bin/bash"],
            "Env": ["A=1", "B=2", "PATH=/bin"],
            "ExposedPorts": {"80/tcp": {}},
            "Labels": {"a": "b"},
        },
        "history": [{"created": "2023-11-14T22:13:20Z", "created_by": "lading: base"}],
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(BASE).hexdigest()}"],
        },
    }


@pytest.mark.parametrize(
    "workdir, made",
    [
        ("/srv/x", ["srv", "srv/x"]),
        ("//srv/./x/", ["srv", "srv/x"]),
        ("/etc", None),
        ("/etc/passwd/x", None),
        ("/../x", None),
        ("", None),
    ],
)
def test_the_working_folder_is_there(workdir: str, made: list[str] | None) -> None:
    found = read(exported(saved([BASE], {"WorkingDir": workdir}), normal([BASE])))
    assert [found.paths(number) for number in range(1, len(found.layers))] == (
        [made] if made else []
    )
    assert found.config["config"].get("WorkingDir", "") == workdir


# -- the base, and what is not believed -----------------------------------------------------------


def test_the_base_stays_byte_for_byte(tmp_path: Path) -> None:
    more = tar({"etc/passwd": "x"}, uname="someone")
    data = saved([BASE, more, tar({"new": "x"})])
    found = exported(data, normal([BASE, more]))
    with tarfile.open(fileobj=io.BytesIO(found)) as whole:
        members = {info.name: content(whole, info) for info in whole}
    assert (members["layer-1.tar"], members["layer-2.tar"]) == (BASE, more)


@pytest.mark.parametrize("there", ["base", "other", "half", "none", "."])
def test_a_base_at_hand_is_taken_if_it_is_the_one(tmp_path: Path, there: str) -> None:
    more = tar({"etc/passwd": "x"}, uname="someone")
    layers = {"1": BASE, "2": more, "3": tar({"new": "x"})}
    for number, layer in layers.items():
        (tmp_path / number).write_bytes(layer)
    config = {"os": "linux", "architecture": "amd64"}
    archive.write(tmp_path / "base", config, [tmp_path / "1", tmp_path / "2"], "b:1")
    archive.write(tmp_path / "other", config, [tmp_path / "1"], "b:1")
    (tmp_path / "half").write_bytes((tmp_path / "base").read_bytes()[:-700])
    how = normal([BASE, more], archive=tmp_path / there)
    asked = []

    def chunks(what: str, data: bytes) -> Iterator[bytes]:
        asked.append(what)
        yield data

    data = saved(list(layers.values()))
    out = tmp_path / "x.tar"
    archive.export(
        chunks("layers", data),
        out,
        name=NAME,
        platform=PLATFORM,
        normal=how,
        merged=archive.Merged(
            files=chunks("files", open_ended(BASE) + tar({"etc/passwd": "x", "new": "x"})),
            settings=described(list(layers.values())),
        ),
    )
    assert asked == ["files" if there == "base" else "layers"]
    assert out.read_bytes() == exported(data, normal([BASE, more]))


EXTENDED = tar({"usr/" + "d" * 150: None, "usr/" + "n" * 150: "x"}, mtime=5, pax_headers={"a": "b"})


@pytest.mark.parametrize(
    ("base", "at", "why", "gone"),
    [
        (BASE, BASE.index(b"as the base has it"), "has other content", ""),
        (BASE, BASE.index(b"as the base has it"), "has other content", "var/log/dpkg.log"),
        (BASE, BASE.index(b"as the base has it") + 100, "something between two files", ""),
        (BASE, -600, "something behind its end", ""),
        (BASE, 10, "not one of tar's", ""),
        (EXTENDED, EXTENDED.index(b"path=usr/d") + 50, "has other content", ""),
        (EXTENDED, EXTENDED.index(b"path=usr/n") + 50, "has other content", ""),
        (EXTENDED, EXTENDED.index(b" a=b") + 3, "has other content", ""),
        (EXTENDED, EXTENDED.index(b" a=b") + 300, "has other content", ""),
    ],
)
def test_a_base_in_the_store_that_is_damaged_is_named(
    tmp_path: Path, base: bytes, at: int, why: str, gone: str
) -> None:
    """Also in a file that the image has no more, and in what has no checksum of tar's."""
    damaged = bytearray(base)
    damaged[at] ^= 1
    (tmp_path / "1").write_bytes(base)
    archive.write(
        tmp_path / "base", {"os": "linux", "architecture": "amd64"}, [tmp_path / "1"], "b:1"
    )
    stored = (tmp_path / "base").read_bytes().replace(base, bytes(damaged))
    (tmp_path / "base").write_bytes(stored)
    files = without(base, gone) if gone else base
    with pytest.raises(LadingError, match=r"the base in the store is damaged: .*/base") as refused:
        archive.export(
            asked_for_nothing(),
            tmp_path / "x.tar",
            name=NAME,
            platform=PLATFORM,
            normal=normal([base], archive=tmp_path / "base"),
            merged=archive.Merged(files=iter([files]), settings=described([base])),
        )
    assert why in refused.value.why
    assert not (tmp_path / "x.tar").exists()


def without(data: bytes, gone: str) -> bytes:
    """A tar without one of its files."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as old,
        tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for info in old:
            if info.name != gone:
                new.addfile(info, old.extractfile(info) if info.isfile() else None)
    return out.getvalue()


def test_what_an_engine_puts_into_a_container_is_not_the_images() -> None:
    added: dict[str, Any] = {
        ".dockerenv": "",
        "dev": None,
        "dev/console": "",
        "dev/shm": None,
        "etc/hosts": "",
        "etc/hostname": "",
        "etc/resolv.conf": "",
        "proc": None,
        "run": None,
        "run/.containerenv": "",
        "sys": None,
    }
    link = tarfile.TarInfo("etc/mtab")
    link.type, link.linkname = tarfile.SYMTYPE, "/proc/mounts"
    files = tar({**added, "opt/venv/x": "new"})
    files = link.tobuf(tarfile.PAX_FORMAT) + open_ended(files) + BASE
    found = read(upon([BASE], files, normal([BASE])))
    assert [found.paths(number) for number in range(1, len(found.layers))] == [
        ["opt", "opt/venv", "opt/venv/x"]
    ]


def test_files_that_stop_before_their_end(tmp_path: Path) -> None:
    """Wherever it is: an engine that dies leaves half of them, and no error."""
    whole = tar({"etc/passwd": "x", "opt/venv/x": "new" * 300, "z": ""})
    ends = whole.rindex(b"ustar") - 257 + 512  # z's header is the last thing before the zeros
    for size in range(0, ends + 512, 256):
        with pytest.raises(LadingError, match="went away while it saved"):
            upon([BASE], whole[:size], normal([BASE]))
    assert upon([BASE], whole[: ends + 512], normal([BASE]))


def test_files_of_an_image_of_another_base() -> None:
    with pytest.raises(LadingError, match="are not its base's"):
        upon([BASE], BASE, normal([BASE]), [tar({"x": "y"})])


@pytest.mark.parametrize("size", [1, 5, 1000, 3 << 20])
def test_what_two_contents_have_in_common(tmp_path: Path, size: int) -> None:
    """Whatever the pieces are, nothing is lost and nothing doubled."""
    whole = random.Random(size).randbytes(size)
    (tmp_path / "twin").write_bytes(b"before" + whole + b"after")
    with (tmp_path / "twin").open("rb") as file:
        content = Content(handle=file.fileno(), offset=0, size=0, sha256=str)
        twin = Entry(path="x", kind="file", size=size, offset=6, content=content)
        other = bytearray(whole)
        other[size // 2] ^= 1
        for body in (whole, whole + b"more", whole[:-1], bytes(other), b""):
            for step in (1 << 20, 32768, max(1, size // 3)):
                pieces = (memoryview(body)[at : at + step] for at in range(0, len(body), step))
                known, rest = in_common(twin, pieces)
                assert body == whole[:known] + b"".join(rest)
                assert known == size or body != whole


@pytest.mark.parametrize("road", ["layers", "files"])
def test_memory_grows_with_the_number_of_files_a_little_and_not_with_their_size(
    tmp_path: Path, road: str
) -> None:
    """2 kB for each file, as promised, whatever is in it: 100 MB are an image of 50,000 files."""
    (tmp_path / "1").write_bytes(BASE)
    config = {"os": "linux", "architecture": "amd64"}
    archive.write(tmp_path / "base", config, [tmp_path / "1"], "b:1")

    def peak(count: int, size: int) -> int:
        files = {
            f"opt/venv/lib/python3.13/site-packages/p/m{n}.py": "x" * size for n in range(count)
        }
        data = saved([BASE, tar(files)]) if road == "layers" else open_ended(BASE) + tar(files)
        del files
        pieces = [memoryview(data)[at : at + 32768].tobytes() for at in range(0, len(data), 32768)]
        del data
        chunks: Iterable[bytes] = pieces
        how, merged = normal([BASE]), None
        if road == "files":
            how = normal([BASE], archive=tmp_path / "base")
            merged = archive.Merged(files=iter(pieces), settings=described([BASE]))
            chunks = asked_for_nothing()
        out = tmp_path / "x.tar"
        tracemalloc.start()
        try:
            archive.export(chunks, out, name=NAME, platform=PLATFORM, normal=how, merged=merged)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1, 1)
    few, many, large = peak(500, 100), peak(2500, 100), peak(500, 20_000)
    assert many - few < 2000 * 2048
    assert large < few + (4 << 20), "10 MB more of content"


def test_an_image_of_another_base(tmp_path: Path) -> None:
    with pytest.raises(LadingError, match="are not its base's"):
        archive.export(
            [saved([tar({"x": "y"}), BASE])],
            tmp_path / "x.tar",
            name=NAME,
            platform=PLATFORM,
            normal=normal([BASE]),
        )
    assert list(tmp_path.iterdir()) == []


def one(**more: Any) -> bytes:
    info = tarfile.TarInfo("x")
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.PAX_FORMAT)


def negative() -> bytes:
    """A header that would be read for ever: its size leads back to itself."""
    block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = (-512).to_bytes(12, "big", signed=True)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "layer, words",
    [
        (one(name="../x"), "leads out"),
        (one(name="a/../../x"), "leads out"),
        (one(type=tarfile.LNKTYPE, linkname="none"), "hard link to nothing"),
        (one(type=tarfile.LNKTYPE, linkname="etc"), "hard link to a folder"),
        (one(type=tarfile.LNKTYPE, linkname="../etc"), "leads out"),
        (one(type=b"M"), "kind that no layer has"),
        (one(size=5000), "ends within 'x'"),
        (one(type=tarfile.XHDTYPE, size=5000), "extended header"),
        (one(type=tarfile.XHDTYPE, size=5 << 30), "claims"),
        (one(pax_headers={"GNU.sparse.map": "1"}), "sparse"),
        (one(pax_headers={"mtime": "x"}), "for a number"),
        (one(pax_headers={"size": "-1024"}), "is negative"),
        (negative(), "negative size"),
        (b"x" * 512, "for a number"),
        (bytes(range(1, 101)) + one()[100:], "not one of tar's"),
        (b"x" * 100, "within a header"),
    ],
)
def test_a_layer_that_is_not_sound(tmp_path: Path, layer: bytes, words: str) -> None:
    data = saved([BASE, layer])
    with pytest.raises(LadingError) as error:
        archive.export(
            [data], tmp_path / "x.tar", name=NAME, platform=PLATFORM, normal=normal([BASE])
        )
    error.match("can't be archived")
    error.match(words)
    assert list(tmp_path.iterdir()) == []


def test_a_false_digest_above_the_base(tmp_path: Path) -> None:
    layer, other = tar({"a": "x"}), tar({"a": "y"})
    data = saved([BASE, layer]).replace(layer, other)
    with pytest.raises(LadingError, match="has other content"):
        archive.export(
            [data], tmp_path / "x.tar", name=NAME, platform=PLATFORM, normal=normal([BASE])
        )
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_never_is_published(data: st.DataObject) -> None:
    sound = saved([BASE, tar({"a": "x", "opt/venv/b": "y" * 600})])
    whole = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole)))]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "x.tar")
        try:
            archive.export([bytes(whole)], out, name=NAME, platform=PLATFORM, normal=normal([BASE]))
        except LadingError:
            assert list(Path(folder).iterdir()) == []
        else:
            assert out.read_bytes() == exported(sound, normal([BASE]))
