"""Archives: the same bytes whatever the engine, nothing left behind, nothing believed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lading import archive
from lading.archive import growing
from lading.archive.tarfiles import DamagedError, Stream, header, members
from lading.errors import EnvironmentProblem, LadingError

NAME = "astropy:2026.11.22"
PLATFORM = "linux/amd64"

Entry = tuple[tarfile.TarInfo, bytes]
Form = Literal[0, 1, 2]


@dataclass(frozen=True)
class Made:
    """An image as a test wants it: its configuration's bytes and its layers, some repeated."""

    config: bytes
    layers: tuple[bytes, ...]


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def left(folder: str | Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in Path(folder).iterdir())


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def image(*layers: bytes, **more: Any) -> Made:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"key": "k"}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(x)}" for x in layers]},
        **more,
    }
    return Made(json.dumps(config).encode(), layers)


def a_file(name: str, data: bytes) -> Entry:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mtime = 1_700_000_000
    info.uid = 1000
    return info, data


def a_link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def a_folder(name: str) -> Entry:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info, b""


def manifest(config: str, layers: Sequence[str], **more: Any) -> Entry:
    entry = {"Config": config, "RepoTags": ["other:1", "and:2"], "Layers": list(layers), **more}
    return a_file("manifest.json", json.dumps([entry]).encode())


def docker_20(made: Made, pack: Callable[[bytes], bytes] = bytes) -> list[Entry]:
    """Docker until 24: a folder for each layer, a link where one repeats."""
    entries, seen, paths = [], dict[str, str](), []
    for number, layer in enumerate(made.layers):
        folder = digest(b"v1" + bytes([number]) + layer)
        path = f"{folder}/layer.tar"
        paths.append(path)
        entries += [a_folder(folder + "/"), a_file(f"{folder}/VERSION", b"1.0")]
        entries.append(a_file(f"{folder}/json", b'{"id":"x"}'))
        if digest(layer) in seen:
            entries.append(a_link(path, "../" + seen[digest(layer)]))
        else:
            entries.append(a_file(path, pack(layer)))
            seen[digest(layer)] = path
    config = f"{digest(made.config)}.json"
    return [
        *entries,
        a_file(config, made.config),
        manifest(config, paths),
        a_file("repositories", b"{}"),
    ]


def docker_25(made: Made, pack: Callable[[bytes], bytes] = bytes) -> list[Entry]:
    """Docker from 25 on: OCI's blobs, sorted by digest."""
    blobs = {digest(pack(layer)): pack(layer) for layer in made.layers}
    paths = [f"blobs/sha256/{digest(pack(layer))}" for layer in made.layers]
    blobs[digest(made.config)] = made.config
    blobs[digest(b"{}")] = b"{}"
    return [
        a_folder("blobs/"),
        a_folder("blobs/sha256/"),
        *(a_file(f"blobs/sha256/{name}", blobs[name]) for name in sorted(blobs)),
        a_file("index.json", b'{"schemaVersion":2,"manifests":[]}'),
        manifest(f"blobs/sha256/{digest(made.config)}", paths, LayerSources={}),
        a_file("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
    ]


def podman(made: Made, pack: Callable[[bytes], bytes] = bytes) -> list[Entry]:
    """Podman: a file for each digest, and links for readers of old."""
    entries, seen = [], set[str]()
    names = [f"{digest(layer)}.tar" for layer in made.layers]
    for name, layer in zip(names, made.layers, strict=True):
        if name not in seen:
            entries.append(a_file(name, pack(layer)))
        seen.add(name)
    config = f"{digest(made.config)}.json"
    entries.append(a_file(config, made.config))
    for number, name in enumerate(names):
        entries.append(a_link(f"legacy{number}/layer.tar", f"../{name}"))
        entries.append(a_file(f"legacy{number}/VERSION", b"1.0"))
    return [*entries, manifest(config, names), a_file("repositories", b"{}")]


def first(entries: list[Entry]) -> list[Entry]:
    """The same with manifest.json at the start, and the rest the other way round."""
    last = [e for e in entries if e[0].name == "manifest.json"]
    return last + [e for e in reversed(entries) if e[0].name != "manifest.json"]


def tarred(entries: Sequence[Entry], form: Form = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    for info, data in entries:
        out.write(info.tobuf(form) + data + bytes(-len(data) % 512))
    return out.getvalue() + bytes(1024)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def packed(data: bytes) -> bytes:
    """As gzip does, but with no time in it: a second later it would have another digest."""
    return gzip.compress(data, mtime=0)


def exported(data: bytes, out: Path, size: int = 1 << 15, platform: str = PLATFORM) -> bytes:
    archive.export(pieces(data, size), out, name=NAME, platform=platform)
    return out.read_bytes()


LAYERS = (tar_of({"etc/os": b"debian"}), tar_of({"opt/a": b"x" * 5000}))
LAYOUTS = [docker_20, docker_25, podman]

images = st.builds(
    lambda layers, order, label: image(
        *(layers[i % len(layers)] for i in order), config={"Labels": {"l": label}}
    ),
    st.lists(
        st.dictionaries(st.sampled_from(["a", "b/c", ".wh.d"]), st.binary(max_size=2000)).map(
            tar_of
        ),
        min_size=1,
        max_size=3,
        unique=True,
    ),
    st.lists(st.integers(0, 5), min_size=1, max_size=5),
    st.text(max_size=20),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    made=images,
    size=st.integers(1, 40_000),
    turned=st.booleans(),
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    pack=st.sampled_from([bytes, packed, lambda x: packed(x[:99]) + packed(x[99:])]),
)
def test_one_image_gives_the_same_bytes_from_every_layout(
    made: Made, size: int, turned: bool, form: Form, pack: Callable[[bytes], bytes]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "x.tar")
        found = set()
        for layout in LAYOUTS:
            entries = layout(made, pack)
            found.add(exported(tarred(first(entries) if turned else entries, form), out, size))
        assert len(found) == 1
        assert exported(found.pop(), out, size) == out.read_bytes()  # and once more: no change
        assert left(folder) == ["x.tar"]


def test_the_canonical_form(tmp_path: Path) -> None:
    made = image(LAYERS[0], LAYERS[1], LAYERS[0])
    out = tmp_path / "dist" / "x.tar"
    counted: list[int] = []
    data = tarred(docker_20(made))
    found = archive.export([data], out, name=NAME, platform=PLATFORM, advance=counted.append)

    assert sum(counted) == len(data)
    names = ["layer-1.tar", "layer-2.tar", "layer-1.tar"]
    with tarfile.open(out) as tar:
        infos = tar.getmembers()
        listed = json.load(tar.extractfile("manifest.json") or io.BytesIO())
    assert [i.name for i in infos] == [*names[:2], f"{digest(made.config)}.json", "manifest.json"]
    assert {(i.mtime, i.uid, i.gid, i.uname, i.gname, i.mode) for i in infos} == {
        (0, 0, 0, "", "", 0o644)
    }
    assert listed == [
        {"Config": f"{digest(made.config)}.json", "RepoTags": [NAME], "Layers": names}
    ]
    assert found == archive.Archive(
        sha256=digest(out.read_bytes()),
        size=out.stat().st_size,
        config=f"sha256:{digest(made.config)}",
        layers=tuple(
            archive.Layer(diff_id=f"sha256:{digest(x)}", size=len(x)) for x in made.layers
        ),
        labels={"key": "k"},
    )
    assert archive.read(out) == found
    assert stat.S_IMODE(out.stat().st_mode) == 0o644


def test_these_bytes_never_change(tmp_path: Path) -> None:
    """What was published must come out again: a change here changes every user's archive."""
    layer = header("a", 1) + b"b" + bytes(511 + 1024)
    config = {"architecture": "amd64", "os": "linux", "created": "2026-11-22T00:00:00Z"}
    (tmp_path / "layer.tar").write_bytes(layer)
    found = archive.write(tmp_path / "x.tar", config, [tmp_path / "layer.tar"], NAME)
    assert digest(layer) == "79c5ee601b352d634b21525bdb3c6dba2f9d8382c9548124d2dbd2ba47f8c25b"
    assert found.sha256 == "db8755f102986cdeca870a47aca892eb3b4ade47448b91c97edd2ef933da736a"


def test_large_layers_are_hashed_while_they_come(tmp_path: Path) -> None:
    layer = tar_of({"big": os.urandom(1 << 20) * 20})
    made = image(layer, LAYERS[0], layer)
    found = exported(tarred(docker_20(made)), tmp_path / "x.tar")
    assert archive.read(tmp_path / "x.tar").sha256 == digest(found)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), layout=st.sampled_from(LAYOUTS))
def test_an_engine_that_goes_away_leaves_nothing(data: st.DataObject, layout: Any) -> None:
    whole = tarred(layout(image(*LAYERS, LAYERS[0]), packed))
    length = data.draw(st.integers(0, len(whole) - 1))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "x.tar")
        with pytest.raises(LadingError, match="the engine went away while it saved astropy") as e:
            exported(whole[:length], out, 700)
        assert e.value.exit_code == 1
        assert left(folder) == []
        out.write_bytes(whole[:length])
        with pytest.raises(LadingError, match="not a sound archive"):
            archive.read(out)


def test_the_old_archive_stays_when_the_new_one_fails(tmp_path: Path) -> None:
    out = tmp_path / "x.tar"
    before = exported(tarred(podman(image(*LAYERS))), out)
    with pytest.raises(LadingError):
        exported(tarred(podman(image(*LAYERS)))[:-1], out)
    assert out.read_bytes() == before
    assert left(tmp_path) == ["x.tar"]


def test_an_engine_that_breaks_off_with_an_error(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield tarred(podman(image(*LAYERS)))[:3000]
        raise ConnectionResetError("reset by peer")

    with pytest.raises(LadingError, match="engine went away") as error:
        archive.export(broken(), tmp_path / "x.tar", name=NAME, platform=PLATFORM)
    assert "reset by peer" in error.value.why
    assert left(tmp_path) == []


def test_an_engines_own_words_are_kept(tmp_path: Path) -> None:
    def refused() -> Iterator[bytes]:
        raise EnvironmentProblem("no such image")
        yield b""

    with pytest.raises(EnvironmentProblem, match="no such image"):
        archive.export(refused(), tmp_path / "x.tar", name=NAME, platform=PLATFORM)


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".x.tar.abc123.part").write_bytes(b"half")
    (tmp_path / ".y.tar.abc123.part").write_bytes(b"another's")
    exported(tarred(podman(image(*LAYERS))), tmp_path / "x.tar")
    assert left(tmp_path) == [".y.tar.abc123.part", "x.tar"]


@pytest.mark.parametrize("where", ["spool", "out"])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def full(*_: object, **__: object) -> BinaryIO:
        return open("/dev/full", "w+b")  # noqa: PTH123

    out = tmp_path / "x.tar"
    if where == "spool":
        monkeypatch.setattr("lading.archive.canonical.TemporaryFile", full)
    else:
        monkeypatch.setattr("lading.files.os.fdopen", full)
    with pytest.raises(EnvironmentProblem, match="no room left on the disk"):
        exported(tarred(podman(image(*LAYERS))), out)
    assert left(tmp_path) == []


# -- what is not believed ---------------------------------------------------------------------


def renamed(entries: list[Entry], old: str, new: str) -> list[Entry]:
    return [(a_file(new, data)[0] if info.name == old else info, data) for info, data in entries]


def replaced(entries: list[Entry], name: str, data: bytes) -> list[Entry]:
    return [a_file(name, data) if info.name == name else (info, old) for info, old in entries]


SOUND = image(*LAYERS)
CONFIG = f"{digest(SOUND.config)}.json"
BAD: dict[str, tuple[list[Entry], str]] = {
    "false diff_id": (
        replaced(podman(SOUND), f"{digest(LAYERS[1])}.tar", LAYERS[1] + bytes(512)),
        "has other content",
    ),
    "one layer for two": (
        [
            a_file("a.tar", LAYERS[0]),
            a_file("c.json", SOUND.config),
            manifest("c.json", ["a.tar", "a.tar"]),
        ],
        "stands for two layers",
    ),
    "two files, one digest, one false": (
        [
            a_file("a.tar", LAYERS[1]),
            a_file("b.tar", LAYERS[0]),
            a_file("c.json", image(LAYERS[0], LAYERS[0]).config),
            manifest("c.json", ["a.tar", "b.tar"]),
        ],
        "has other content",
    ),
    "false config": (
        replaced(podman(SOUND), CONFIG, SOUND.config + b" "),
        "configuration .* has other content",
    ),
    "diff_ids of other form": (
        docker_20(image(*LAYERS, rootfs={"diff_ids": ["sha256:../../x", "y"]})),
        "does not list",
    ),
    "no rootfs": (docker_20(image(*LAYERS, rootfs=[])), "does not list"),
    "more layers than files": (
        docker_20(image(*LAYERS, rootfs={"diff_ids": []})),
        "2 layers, of 0",
    ),
    "missing layer": (
        [e for e in podman(SOUND) if e[0].name != f"{digest(LAYERS[1])}.tar"],
        "is not in it",
    ),
    "missing config": ([e for e in podman(SOUND) if e[0].name != CONFIG], "is not in it"),
    "no manifest": ([a_file("x", b"y")], "'manifest.json' is not in it"),
    "nothing": ([], "'manifest.json' is not in it"),
    "not JSON": (replaced(podman(SOUND), "manifest.json", b"[{]"), "is not JSON"),
    "not UTF-8": (replaced(podman(SOUND), "manifest.json", b'["\xff"]'), "is not JSON"),
    "UTF-16": (replaced(podman(SOUND), "manifest.json", "[]".encode("utf-16")), "is not JSON"),
    "too deep": (replaced(podman(SOUND), "manifest.json", b"[" * 100_000), "is not JSON"),
    "a long number": (replaced(podman(SOUND), "manifest.json", b"9" * 10_000), "is not"),
    "an object": (replaced(podman(SOUND), "manifest.json", b"{}"), "not a JSON array"),
    "no image": (replaced(podman(SOUND), "manifest.json", b"[]"), "holds 0 images"),
    "two images": (replaced(podman(SOUND), "manifest.json", b"[{},{}]"), "holds 2 images"),
    "nulls": (
        replaced(podman(SOUND), "manifest.json", b'[{"Config":null,"Layers":null}]'),
        "does not name",
    ),
    "numbers": (
        replaced(podman(SOUND), "manifest.json", b'[{"Config":"c","Layers":[1]}]'),
        "does not name",
    ),
    "huge manifest": (
        replaced(podman(SOUND), "manifest.json", b"[" + b" " * (4 << 20) + b"]"),
        "4194306 bytes",
    ),
    "huge config": (
        [a_file("c", b"{" + b" " * (4 << 20) + b"}"), manifest("c", [])],
        "its configuration has",
    ),
    "config is a list": ([a_file("c", b"[]"), manifest("c", [])], "not a JSON object"),
    "name goes up": (renamed(podman(SOUND), CONFIG, "../" + CONFIG), "leads out of the archive"),
    "name is absolute": (renamed(podman(SOUND), CONFIG, "/etc/" + CONFIG), "leads out"),
    "name goes up in the midst": (renamed(podman(SOUND), CONFIG, "a/../../b"), "leads out"),
    "link goes up": ([*podman(SOUND), a_link("x", "../../etc/passwd")], "leads out"),
    "link is absolute": ([*podman(SOUND), a_link("x", "/etc/passwd")], "leads out"),
    "manifest goes up": ([manifest("../../etc/passwd", [])], "leads out"),
    "hard link goes up": (
        [*podman(SOUND), a_link("x", "../../etc/passwd", tarfile.LNKTYPE)],
        "leads out",
    ),
    "links in a circle": (
        [a_link("a", "b"), a_link("b", "a"), manifest("a", [])],
        "'a' is not in it",
    ),
    "a name twice": ([*podman(SOUND), *podman(SOUND)], "is in it twice"),
    "a device for a layer": (
        [
            a_link("d", "", tarfile.CHRTYPE),
            a_file("c", image(LAYERS[0]).config),
            manifest("c", ["d"]),
        ],
        "'d' is not in it",
    ),
    "too many": ([a_file(f"{n}", b"") for n in range(600)], "more members"),
    "broken gzip": (
        replaced(
            podman(SOUND), f"{digest(LAYERS[1])}.tar", gzip.compress(LAYERS[1])[:-8] + b"x" * 8
        ),
        "gzip layer can't be read",
    ),
    "short gzip": (
        replaced(podman(SOUND), f"{digest(LAYERS[1])}.tar", gzip.compress(LAYERS[1])[:-9]),
        "stops before its end",
    ),
    "zstd": (
        replaced(podman(SOUND), f"{digest(LAYERS[1])}.tar", b"\x28\xb5\x2f\xfd" + bytes(100)),
        "zstd",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_an_unsound_image_is_refused(tmp_path: Path, what: str) -> None:
    entries, words = BAD[what]
    data = tarred(entries, tarfile.GNU_FORMAT)
    with pytest.raises(LadingError, match="what the engine saved as astropy") as error:
        exported(data, tmp_path / "dist" / "x.tar")
    assert error.value.exit_code == 1
    error.match(words)
    assert list((tmp_path / "dist").iterdir()) == []
    (tmp_path / "y.tar").write_bytes(data)
    with pytest.raises(LadingError, match="not a sound archive") as error:
        archive.read(tmp_path / "y.tar")
    error.match(words)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_an_error_or_harmless(data: st.DataObject) -> None:
    whole = bytearray(tarred(podman(SOUND), tarfile.PAX_FORMAT))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "x.tar")
        try:
            found = exported(bytes(whole), out)
        except LadingError:
            assert left(folder) == []
        else:
            assert found == exported(tarred(podman(SOUND)), out)


@pytest.mark.parametrize(
    "platform, config, fits",
    [
        ("linux/amd64", {"architecture": "amd64", "os": "linux"}, True),
        ("linux/arm64", {"architecture": "amd64", "os": "linux"}, False),
        ("linux/amd64", {"architecture": "amd64", "os": "windows"}, False),
        ("linux/amd64", {"architecture": None, "os": None}, False),
        ("linux/arm/v7", {"architecture": "arm", "os": "linux", "variant": "v7"}, True),
        ("linux/arm/v7", {"architecture": "arm", "os": "linux", "variant": "v6"}, False),
        ("linux/arm64/v8", {"architecture": "arm64", "os": "linux"}, True),
    ],
)
def test_the_platform(tmp_path: Path, platform: str, config: dict[str, Any], fits: bool) -> None:
    data = tarred(podman(image(*LAYERS, **config)))
    if fits:
        exported(data, tmp_path / "x.tar", platform=platform)
    else:
        with pytest.raises(LadingError) as error:
            exported(data, tmp_path / "x.tar", platform=platform)
        error.match(f"not for {platform}")
        assert left(tmp_path) == []


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, lambda _: b"short", lambda _: b""])
def test_what_is_no_archive(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(pack(tarred(podman(SOUND))))
    with pytest.raises(LadingError, match="not a sound archive"):
        archive.read(path)


def test_what_can_not_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(LadingError, match="can't be read"):
            archive.read(path)


# -- making one -------------------------------------------------------------------------------


def test_an_archive_of_layers(tmp_path: Path) -> None:
    paths = []
    for number, data in enumerate(LAYERS):
        paths.append(tmp_path / f"{number}.tar")
        paths[-1].write_bytes(data)
    config = {"os": "linux", "architecture": "amd64", "config": {"Cmd": ["/bin/bash"]}}
    made = archive.write(tmp_path / "x.tar", config, paths, "localhost/lading/base/x:1")
    turned = dict(reversed(config.items()))
    assert archive.write(tmp_path / "y.tar", turned, paths, "localhost/lading/base/x:1") == made
    assert archive.read(tmp_path / "x.tar") == made
    assert [layer.diff_id for layer in made.layers] == [f"sha256:{digest(x)}" for x in LAYERS]
    with tarfile.open(tmp_path / "x.tar") as tar:
        stored = json.load(tar.extractfile(tar.getmembers()[-2]) or io.BytesIO())
    assert stored["rootfs"]["diff_ids"] == [layer.diff_id for layer in made.layers]
    assert len(stored["history"]) == 2
    # What an engine saves of it is this archive again.
    again = archive.export(
        pieces((tmp_path / "x.tar").read_bytes(), 999),
        tmp_path / "z.tar",
        name="localhost/lading/base/x:1",
        platform=PLATFORM,
    )
    assert again == made


@pytest.mark.parametrize("data", [b"", b"x" * 512, gzip.compress(LAYERS[0])])
def test_a_layer_that_is_no_tar(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "layer").write_bytes(data)
    with pytest.raises(LadingError, match="not an uncompressed tar"):
        archive.write(tmp_path / "x.tar", {}, [tmp_path / "layer"], NAME)
    with pytest.raises(LadingError, match="can't be read"):
        archive.write(tmp_path / "x.tar", {}, [tmp_path / "none"], NAME)
    assert not (tmp_path / "x.tar").exists()


# -- the record -------------------------------------------------------------------------------


def test_the_record(tmp_path: Path) -> None:
    tar, record = tmp_path / "x.tar", tmp_path / "x.json"
    tar.write_bytes(b"12345")
    made = archive.Archive(
        sha256="ab",
        size=5,
        config="sha256:cd",
        layers=(archive.Layer(diff_id="sha256:ef", size=3),),
        labels={"a": "b"},
    )
    assert not archive.current(tar, record, "k")
    archive.record(record, made, key="k", name=NAME)
    assert json.loads(record.read_text()) == {
        "key": "k",
        "name": NAME,
        "sha256": "ab",
        "size": 5,
        "config": "sha256:cd",
        "layers": [{"diff_id": "sha256:ef", "size": 3}],
    }
    assert record.read_text().startswith('{\n  "key": "k",\n')
    assert archive.current(tar, record, "k")
    assert not archive.current(tar, record, "other")
    tar.write_bytes(b"1234")
    assert not archive.current(tar, record, "k")
    tar.unlink()
    assert not archive.current(tar, record, "k")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"key": "k"}', "[" * 100_000, "\ud800"])
def test_a_broken_record_is_not_current(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.tar").write_bytes(b"")
    (tmp_path / "x.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert not archive.current(tmp_path / "x.tar", tmp_path / "x.json", "k")


# -- tar itself -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 511, (8 << 30) - 1, 8 << 30, 1 << 40])
def test_headers_are_read_by_others(size: int) -> None:
    block = header("a" * 64 + ".tar", size)
    assert len(block) == (512 if size < 8 << 30 else 3 * 512)
    with tarfile.open(fileobj=io.BytesIO(block), errorlevel=0) as tar:
        info = tar.next()
    assert info is not None
    assert (info.name, info.size, info.mode, info.type) == ("a" * 64 + ".tar", size, 0o644, b"0")


def test_a_large_member_is_streamed() -> None:
    """A member of 8 GiB and more is read by its pax header, and its end is noticed."""
    found = members(Stream([header("x", 9 << 30), b"1234"], lambda _: None))
    member, body = next(found)
    assert (member.size, member.offset) == (9 << 30, 1536)
    assert bytes(next(body)) == b"1234"
    with pytest.raises(DamagedError, match="ends after"):
        next(body)


@settings(max_examples=100, deadline=None)
@given(
    names=st.lists(
        st.text(
            st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]),
            min_size=1,
            max_size=300,
        ).map(lambda name: "x" + name.strip("/") + "y"),
        max_size=5,
    ),
    size=st.integers(1, 3000),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_members_are_read_as_tarfile_writes_them(names: list[str], size: int, form: Form) -> None:
    entries = [a_file(name, os.urandom(n * 700)) for n, name in enumerate(names)]
    data = b"".join(
        info.tobuf(form, "utf-8", "surrogateescape") + body + bytes(-len(body) % 512)
        for info, body in entries
    )
    stream = Stream(pieces(data + bytes(10_240), size), lambda _: None)
    found = [(member, b"".join(body)) for member, body in members(stream)]
    assert [(member.name, body) for member, body in found] == [(i.name, b) for i, b in entries]
    for member, body in found:
        assert data[member.offset : member.offset + member.size] == body
    assert all(a.offset < b.offset for (a, _), (b, _) in pairwise(found))


@pytest.mark.parametrize(
    "block, words",
    [
        (b"x" * 512, "not one of tar's"),
        (bytes(512) + b"x" * 512, "lone block"),
        (tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT), "ends after 512 bytes"),
    ],
)
def test_headers_that_can_not_be(block: bytes, words: str) -> None:
    with pytest.raises(DamagedError, match=words):
        list(members(Stream([block], lambda _: None)))


def test_an_extended_header_does_not_fill_the_memory() -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 5 << 30
    with pytest.raises(DamagedError, match="claims"):
        list(members(Stream([info.tobuf(tarfile.USTAR_FORMAT)], lambda _: None)))


@pytest.mark.parametrize("record", [b"", b"x", b"5 a=b\n", b"99 a=b\n", b"-3 a=b\n", b"9 abcdef\n"])
def test_broken_pax_headers(record: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    block = info.tobuf(tarfile.USTAR_FORMAT) + record + bytes(-len(record) % 512) + bytes(1024)
    if record:
        with pytest.raises(DamagedError, match="malformed"):
            list(members(Stream([block], lambda _: None)))
    else:
        assert list(members(Stream([block], lambda _: None))) == []


def test_a_file_that_becomes_shorter_is_noticed(tmp_path: Path) -> None:
    with (tmp_path / "x").open("w+b") as file, growing.Growing(file) as whole:
        file.write(b"123")
        whole.grew(3)
        whole.grew(20 << 20)
        whole.complete()
        with pytest.raises(DamagedError, match="shorter"):
            whole.sha256()
