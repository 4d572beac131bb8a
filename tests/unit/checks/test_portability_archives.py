"""Archives of every kind, and hostile ones: a finding or a clear error, never more."""

from __future__ import annotations

import bz2
import errno
import gzip
import json
import lzma
import os
import struct
import sys
import tarfile
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from shutil import which
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading.archive.tarfiles import DamagedError
from lading.checks.__main__ import main
from lading.checks.portability import (
    Report,
    archives,
    examine,
    loader,
    subject,
    tape,
    view,
)
from lading.checks.portability.subject import Subject
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from tests.support import channels
from tests.unit.checks import archive_table, made
from tests.unit.checks import test_portability_table as table
from tests.unit.checks.elves import elf
from tests.unit.checks.made import (
    PLATFORM,
    SOUND,
    Item,
    Layer,
    digest,
    docker_archive,
    folder,
    hard,
    layer_of,
    link,
    named,
    oci_archive,
    tar_of,
    where,
)

INNER: dict[str, Any] = {}


def config_of(*layers: bytes) -> bytes:
    return made.settings(layers, INNER)


def checked(path: Path, data: bytes) -> Report:
    file = path / "image.tar"
    file.write_bytes(data)
    return examine(file, platform=PLATFORM)


def of_layers(path: Path, *layers: bytes, packed: bool = False) -> Report:
    tars = [layer_of(SOUND), *layers]
    return checked(path, docker_archive(tars, config_of(*tars), packed))


BASE = layer_of(SOUND)
EXTRA = layer_of({"opt/x": Item(mode=0o600), "opt/y": Item()})


@pytest.mark.parametrize(
    "archive",
    [
        docker_archive([BASE, EXTRA], config_of(BASE, EXTRA)),
        docker_archive([BASE, EXTRA], config_of(BASE, EXTRA), packed=True),
        oci_archive([BASE, EXTRA], config_of(BASE, EXTRA)),
        oci_archive([BASE, EXTRA], config_of(BASE, EXTRA), nested=True),
    ],
    ids=["docker", "docker-gzip", "oci", "oci-nested"],
)
def test_every_kind_of_archive_is_read(tmp_path: Path, archive: bytes) -> None:
    report = checked(tmp_path, archive)
    assert [(f.id, f.paths) for f in report.findings] == [("F1", ("/opt/x",))]
    assert report.facts["paths"] == 11


@pytest.mark.parametrize(
    ("name", "level", "place", "faulty", "sound"),
    archive_table.TABLE,
    ids=[f"{row[0]}-{number}" for number, row in enumerate(archive_table.TABLE)],
)
def test_a_fault_of_an_archive_is_found_and_what_nearly_is_one_is_not(
    tmp_path: Path, name: str, level: str, place: str, faulty: bytes, sound: bytes
) -> None:
    assert place in where(checked(tmp_path, faulty), name, level)
    assert where(checked(tmp_path, sound), name) == []


def test_old_docker_archives_repeat_a_layer_by_a_link(tmp_path: Path) -> None:
    config = config_of(BASE, BASE)
    manifest = json.dumps([{"Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar"]}]).encode()
    archive = layer_of(
        {
            "c.json": Item(data=config),
            "a/layer.tar": Item(data=BASE),
            "b/layer.tar": link("../a/layer.tar"),
            "manifest.json": Item(data=manifest),
        }
    )
    assert checked(tmp_path, archive).findings == ()


@pytest.mark.parametrize(
    ("compress", "mend"),
    [
        (gzip.compress, "gunzip"),
        (bz2.compress, "bunzip2"),
        (lzma.compress, "unxz"),
        (lambda data: b"\x28\xb5\x2f\xfd" + data, "zstd -d"),
    ],
)
def test_a1_a_compressed_archive(
    tmp_path: Path, compress: Callable[[bytes], bytes], mend: str
) -> None:
    report = checked(tmp_path, compress(docker_archive([BASE], config_of(BASE))))
    assert where(report, "A1", "error") == ["image.tar"]
    assert report.findings[0].mend == f"{mend} image.tar"


def manifest_of(*entries: dict[str, Any]) -> bytes:
    return json.dumps(entries).encode()


ENTRY = {"Config": "c.json", "Layers": ["l.tar"]}


@pytest.mark.parametrize(
    "archive",
    [
        layer_of(SOUND),
        tar_of([("manifest.json", manifest_of())]),
        tar_of([("manifest.json", manifest_of(ENTRY, ENTRY))]),
        tar_of([("manifest.json", manifest_of(ENTRY))]),
        tar_of([("manifest.json", manifest_of({"Config": 1, "Layers": []}))]),
        tar_of([("manifest.json", b"{}")]),
        tar_of([("manifest.json", manifest_of(ENTRY)), ("c.json", b"[]"), ("l.tar", BASE)]),
        tar_of([("manifest.json", manifest_of(ENTRY)), ("manifest.json", manifest_of())]),
        tar_of([("index.json", b'{"manifests": [{}, {}]}')]),
        tar_of([("index.json", b'{"manifests": [{"digest": "sha256:../../etc/passwd"}]}')]),
    ],
)
def test_a2_not_one_image(tmp_path: Path, archive: bytes) -> None:
    report = checked(tmp_path, archive)
    assert [finding.id for finding in report.errors] == ["A2"]


def test_a2_an_index_that_lists_itself(tmp_path: Path) -> None:
    # No digest can be its own content's; followed by name, it would never end.
    name = "0" * 64
    index = json.dumps({"manifests": [{"digest": f"sha256:{name}"}]}).encode()
    archive = tar_of([("index.json", index), (f"blobs/sha256/{name}", index)])
    assert where(checked(tmp_path, archive), "A2", "error")


@pytest.mark.parametrize("packed", [False, True])
def test_a3_a_false_diff_id(tmp_path: Path, packed: bool) -> None:
    archive = docker_archive([BASE, EXTRA], config_of(BASE, BASE), packed)
    assert where(checked(tmp_path, archive), "A3", "error") == [f"{digest(EXTRA)}.tar"]
    archive = docker_archive([BASE, EXTRA], config_of(BASE, EXTRA), packed)
    assert where(checked(tmp_path, archive), "A3") == []


def test_a3_what_follows_a_layers_end_counts_in_its_digest(tmp_path: Path) -> None:
    longer = BASE + bytes(70_000)
    for packed in (False, True):
        archive = docker_archive([longer], config_of(longer), packed)
        assert checked(tmp_path, archive).findings == ()


def test_a3_a_false_name_of_the_configuration(tmp_path: Path) -> None:
    config = config_of(BASE)
    entry = {"Config": f"{'0' * 64}.json", "Layers": ["l.tar"]}
    files = [(entry["Config"], config), ("l.tar", BASE), ("manifest.json", manifest_of(entry))]
    report = checked(tmp_path, tar_of([(str(name), data) for name, data in files]))
    assert where(report, "A3", "error") == [entry["Config"]]


def test_a3_more_layers_than_the_configuration_knows(tmp_path: Path) -> None:
    archive = docker_archive([BASE, EXTRA], config_of(BASE))
    assert [finding.id for finding in checked(tmp_path, archive).errors] == ["A3", "F1"]


def test_a3_is_left_to_whoever_has_verified(tmp_path: Path) -> None:
    file = tmp_path / "image.tar"
    file.write_bytes(docker_archive([BASE], config_of(EXTRA)))
    assert where(examine(file, platform=PLATFORM, digests=False), "A3") == []


# -- the merged view ------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_whiteouts_hide_lower_layers_only(tmp_path: Path, packed: bool) -> None:
    lower = layer_of({"opt/a/x": Item(mode=0), "opt/b/x": Item(mode=0), "opt/c": Item(mode=0)})
    upper = layer_of(
        {
            "opt/a/new": Item(mode=0),
            "opt/a/.wh..wh..opq": Item(),
            "opt/.wh.b": Item(),
            "opt/b/new": Item(mode=0),
            "opt/.wh.nothing": Item(),
        }
    )
    report = of_layers(tmp_path, lower, upper, packed=packed)
    assert where(report, "F1") == ["/opt/a/new", "/opt/b/new", "/opt/c"]


def test_a_folder_that_becomes_a_file_takes_its_content_along(tmp_path: Path) -> None:
    lower = layer_of({"opt/a/x": Item(mode=0)})
    assert where(of_layers(tmp_path, lower, layer_of({"opt/a": Item()})), "F1") == []
    assert where(of_layers(tmp_path, lower, layer_of({"opt/a": folder()})), "F1") == ["/opt/a/x"]


def test_entries_below_a_link_go_where_it_leads(tmp_path: Path) -> None:
    # As a layer that was made on another base has it: lib is usr/lib here.
    layer = layer_of({"usr/lib": folder(), "lib": link("usr/lib"), "lib/x": Item(mode=0)})
    assert where(of_layers(tmp_path, layer), "F1") == ["/usr/lib/x"]


def test_links_are_followed_inside_the_image_only(tmp_path: Path) -> None:
    layer = layer_of(
        {
            "opt/up": link("../../../../.."),
            "opt/round": link("round"),
            "opt/up/y": Item(mode=0),
            "opt/round/z": Item(mode=0),
            "etc/hosts": link("/etc/hosts"),
        }
    )
    report = of_layers(tmp_path, layer)
    assert where(report, "F1") == ["/opt/round/z", "/y"] or where(report, "F1", "warn") == ["/y"]
    assert where(report, "F4") == ["/etc/hosts"]


def test_a_hard_link_has_the_mode_of_its_file(tmp_path: Path) -> None:
    layer = layer_of({"opt/x": Item(mode=0o600), "opt/y": hard("opt/x"), "opt/z": hard("nothing")})
    report = of_layers(tmp_path, layer)
    assert where(report, "F1") == ["/opt/x", "/opt/y"]
    assert where(report, "F14", "error") == ["/opt/z"]


# -- hostile archives -----------------------------------------------------------------------------


def test_f13_names_that_lead_out_are_errors_and_nothing_is_written(tmp_path: Path) -> None:
    layer = layer_of({"../../evil": Item(), "/opt/absolute": Item(mode=0), "a/../../b": Item()})
    report = of_layers(tmp_path, layer)
    assert len(where(report, "F13", "error")) == 2
    assert where(report, "F1") == ["/opt/absolute"]
    assert [p.name for p in tmp_path.iterdir()] == ["image.tar"]


def test_f13_names_that_are_not_utf_8_or_twice(tmp_path: Path) -> None:
    layer = layer_of([("opt/\udcff\x1b[31m", Item(mode=0)), ("opt/a", Item()), ("opt/a", Item())])
    report = of_layers(tmp_path, layer)
    assert where(report, "F13", "info") == ["/opt/a", "/opt/\\xff\\x1b[31m"]
    assert where(report, "F1") == ["/opt/\\xff\\x1b[31m"]


def test_f13_a_path_that_is_too_long(tmp_path: Path) -> None:
    report = of_layers(
        tmp_path, layer_of({"a/" * 3000 + "x": Item(), "b" * 255: Item(), "c" * 256: Item()})
    )
    assert len(where(report, "F13", "error")) == 2


def header(name: bytes = b"opt/x", size: bytes = b"%011o\0" % 0, kind: bytes = b"0") -> bytes:
    block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    block[:100] = name.ljust(100, b"\0")
    block[124:136] = size
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


HUGE = b"\x80" + (1 << 70).to_bytes(11, "big")


@pytest.mark.parametrize(
    "layer",
    [
        b"no tar" * 200,
        BASE[:1000],
        header(size=HUGE),
        header(size=b"\xff" * 12),
        header(size=b"99999999999\0"),
        header(kind=b"x", size=HUGE),
        header(kind=b"L", size=b"%011o\0" % (100 << 20)),
        header(kind=b"x", size=b"%011o\0" % 6) + b"9 a=b\n".ljust(512, b"\0"),
        header(size=b"%011o\0" % (9 << 30)),
        gzip.compress(BASE)[:-20],
        b"\x1f\x8b\x08garbage" * 10,
        b"\xfd7zXZ\0" + bytes(100),
        b"BZh9" + bytes(100),
        b"\x28\xb5\x2f\xfd" + bytes(100),
    ],
)
def test_a_layer_that_is_no_tar_is_an_error_that_names_it(tmp_path: Path, layer: bytes) -> None:
    with pytest.raises(LadingError) as raised:
        checked(tmp_path, docker_archive([layer], config_of(layer)))
    assert str(raised.value)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_file_of_more_than_8_gib_is_as_good_as_any(tmp_path: Path, form: Literal[1, 2]) -> None:
    """USTAR's eleven octal digits don't hold its size; nothing of it is read."""
    large, inner, outer = 9 << 30, tarfile.TarInfo("opt/large"), tarfile.TarInfo("l.tar")
    inner.size, inner.mode = large, 0o600
    head, rest = inner.tobuf(form), layer_of({"opt/z": Item(mode=0)})
    outer.size = len(head) + large + len(rest)
    config = config_of(b"")
    manifest = manifest_of({"Config": "c.json", "Layers": ["l.tar"]})
    image = tmp_path / "image.tar"
    with image.open("wb") as file:
        file.write(outer.tobuf(form) + head)
        file.seek(large, os.SEEK_CUR)
        file.write(rest + tar_of([("c.json", config), ("manifest.json", manifest)]))
    report = examine(image, platform=PLATFORM, digests=False)
    assert where(report, "F1", "error") == ["/opt/large", "/opt/z"]


def test_a_large_layer_is_not_hashed_for_nobody(tmp_path: Path) -> None:
    """After Ctrl-C, for one: the disk would be read for minutes."""
    outer, image = tarfile.TarInfo("l.tar"), tmp_path / "image.tar"
    outer.size = 12 << 30
    config = config_of(b"")
    manifest = manifest_of({"Config": "c.json", "Layers": ["l.tar"]})
    with image.open("wb") as file:
        file.write(outer.tobuf(tarfile.GNU_FORMAT))
        file.seek(outer.size, os.SEEK_CUR)
        file.write(tar_of([("c.json", config), ("manifest.json", manifest)]))
    start = time.process_time()
    with ExitStack() as stack:
        assert archives.opened(image, PLATFORM, stack).layers
    assert time.process_time() - start < 2


def test_a_sparse_file_is_stepped_over(tmp_path: Path) -> None:
    block = bytearray(header(kind=b"S", size=b"%011o\0" % 512))
    block[482] = 1
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    layer = bytes(block) + bytes(512) + b"#" * 512 + layer_of({"opt/z": Item(mode=0)})
    assert where(of_layers(tmp_path, layer), "F1") == ["/opt/z"]


def test_a_bomb_of_gzip_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_EXPANDS", 1 << 20)
    layer = header(size=b"%011o\0" % (32 << 20)) + bytes(32 << 20)
    archive = docker_archive([layer], config_of(layer), packed=True)
    tracemalloc.start()
    with pytest.raises(LadingError, match="can't be checked") as raised:
        checked(tmp_path, archive)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "unpacks to" in raised.value.why
    assert peak < 15 << 20


@pytest.mark.parametrize(
    "config",
    [b"[" * 100_000, b"{" * 10, b'{"rootfs": ' + b"[" * 50_000, b"\xff\xfe", b" " * (5 << 20)],
)
def test_json_that_is_deep_or_large_or_none(tmp_path: Path, config: bytes) -> None:
    with pytest.raises(LadingError):
        checked(tmp_path, docker_archive([BASE], config))


@pytest.mark.parametrize(
    "inner",
    [
        {"Env": 7, "Entrypoint": {"a": 1}, "Cmd": [1, None], "User": 5, "WorkingDir": []},
        {"Env": [None, "=x", "A", "=", "A=1=2"], "Volumes": 3, "Healthcheck": "x"},
        {"Env": ["PATH="], "Entrypoint": "a\0b", "Cmd": ["\0", ""]},
        {"Env": ["LD_LIBRARY_PATH=:;:", "TZ=../../x", "LANG=../../../etc"]},
    ],
)
def test_a_configuration_of_other_types_than_it_should_have(
    tmp_path: Path, inner: dict[str, Any]
) -> None:
    config = made.settings([BASE], inner)
    whole = json.loads(config)
    whole["config"]["Env"] = inner["Env"]
    assert checked(tmp_path, docker_archive([BASE], json.dumps(whole).encode())).platform


@pytest.mark.parametrize("whole", [{"config": 3}, {"rootfs": []}, {}, {"rootfs": {"diff_ids": 1}}])
def test_a_configuration_of_other_shapes(tmp_path: Path, whole: dict[str, Any]) -> None:
    assert checked(tmp_path, docker_archive([BASE], json.dumps(whole).encode())).errors


def test_an_archive_that_leads_out_of_itself(tmp_path: Path) -> None:
    for items in (
        {"../x": Item()},
        {"/etc/passwd": Item()},
        {"manifest.json": link("/etc/passwd")},
        {"manifest.json": link("../../etc/passwd")},
    ):
        with pytest.raises(LadingError):
            checked(tmp_path, layer_of(items))


def test_links_in_an_archive_that_go_round(tmp_path: Path) -> None:
    archive = layer_of({"manifest.json": link("b"), "b": link("manifest.json")})
    assert where(checked(tmp_path, archive), "A2", "error")


def test_a_file_that_is_not_there_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    for path in (tmp_path / "none.tar", tmp_path):
        with pytest.raises(DeclarationError):
            examine(path, platform=PLATFORM)
    (tmp_path / "empty.tar").touch()
    with pytest.raises(LadingError, match="can't be checked"):
        examine(tmp_path / "empty.tar", platform=PLATFORM)


def test_contents_are_not_held(tmp_path: Path) -> None:
    many = {f"opt/{i // 100}/{i}.py": Item(data=b"x" * 20_000) for i in range(1000)}
    layer = layer_of(many)
    for packed in (False, True):
        file = tmp_path / "image.tar"
        file.write_bytes(docker_archive([BASE, layer], config_of(BASE, layer), packed))
        tracemalloc.start()
        report = examine(file, platform=PLATFORM)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert report.facts["paths"] > 1000
        assert peak < 10 << 20  # of 20 MB of content


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    for path in (tmp_path / "pipe.tar", Path("/dev/zero")):
        with pytest.raises(DeclarationError):
            examine(path, platform=PLATFORM)


def test_links_that_make_an_image_ever_deeper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each entry goes through a link to the deepest folder so far.
    deep = "/".join(["d"] * 1000)
    items: list[tuple[str, Item]] = [("l0", link("."))]
    for i in range(40):
        items += [(f"l{i}/{deep}/x", Item()), (f"l{i + 1}", link(f"l{i}/{deep}"))]
    report = of_layers(tmp_path, layer_of(items))
    assert report.facts["paths"] < 41_000
    monkeypatch.setattr(view, "STEPS", 10_000)
    with pytest.raises(LadingError, match="can't be checked"):
        of_layers(tmp_path, layer_of(items))


def test_a_link_of_a_megabyte(tmp_path: Path) -> None:
    layer = layer_of({"opt/l": link("a/" * 500_000), "opt/l/x": Item(mode=0)})
    assert of_layers(tmp_path, layer).facts["paths"] == 11


def test_an_image_has_only_so_many_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "PATHS", 50)
    assert of_layers(tmp_path, layer_of({f"opt/{i}": Item() for i in range(30)})).findings == ()
    for names in ([f"opt/{i}" for i in range(60)], ["/".join(str(i) for i in range(300))]):
        with pytest.raises(LadingError):
            of_layers(tmp_path, layer_of({name: Item() for name in names}))


def measured(path: Path, data: bytes) -> int:
    """The most bytes of memory that it takes to check an archive."""
    tracemalloc.start()
    try:
        checked(path, data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def packed(*layers: bytes) -> bytes:
    tars = [BASE, *layers]
    return docker_archive(tars, config_of(*tars), packed=True)


def test_the_targets_of_links_are_not_kept(tmp_path: Path) -> None:
    for made_as in (link, hard):
        layer = layer_of({f"opt/l{i}": made_as("a" * 1_000_000) for i in range(15)})
        assert measured(tmp_path, packed(layer)) < 12 << 20


def test_what_is_kept_of_files_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "TEXT", 10_000)
    small = {f"opt/l{i}": link("a" * 100) for i in range(50)}
    assert of_layers(tmp_path, layer_of(small)).findings == ()
    for many in (
        {f"opt/l{i}": link("a" * 300) for i in range(50)},
        {f"opt/{i}/.bashrc": Item(data=b"a" * 300) for i in range(50)},
        {f"opt/{i}.so": Item(data=elf(needed=["a" * 200])) for i in range(50)},
        {f"opt/{'a' * 200}{i}": hard("b" * 100) for i in range(50)},
    ):
        with pytest.raises(LadingError) as raised:
            of_layers(tmp_path, layer_of(many))
        assert "say more than" in raised.value.why


def test_paths_are_not_written_out_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Many files, each with a short name through links, in folders below folders.
    part = "/".join(["d" * 250] * 7)
    items = [("l0", link("."))]
    for i in range(9):
        items += [(f"l{i}/{part}/x", Item()), (f"l{i + 1}", link(f"l{i}/{part}"))]
    items += [(f"l9/{n}.py", Item()) for n in range(300)]
    items += [("usr/lib/python3.1/site-packages/p", link("/l9"))]
    config = config_of(BASE, layer_of(items))
    assert measured(tmp_path, docker_archive([BASE, layer_of(items)], config)) < 4 << 20
    monkeypatch.setattr(view, "TEXT", 100_000)
    deep = layer_of({f"{part}/{n}": Item() for n in range(100)})
    with pytest.raises(LadingError) as raised:
        of_layers(tmp_path, deep)
    assert "its paths are longer" in raised.value.why


def test_headers_before_a_member_are_limited_together(tmp_path: Path) -> None:
    record = b"1000 a=" + b"b" * 992 + b"\n"
    data = record * 600
    more = header(kind=b"x", size=b"%011o\0" % len(data)) + data.ljust(-(-len(data) // 512) * 512)
    assert of_layers(tmp_path, more + header() + BASE).findings == ()
    with pytest.raises(LadingError) as raised:
        of_layers(tmp_path, more + more + header() + BASE)
    assert "an extended header claims 1200000 bytes" in raised.value.why


def test_a_name_in_the_archive_is_no_longer_than_a_path(tmp_path: Path) -> None:
    files = [("c.json", config_of(BASE)), ("l.tar", BASE), ("manifest.json", manifest_of(ENTRY))]
    assert checked(tmp_path, tar_of([*files, ("a" * 4000, b"")])).findings == ()
    with pytest.raises(LadingError, match="can't be checked"):
        checked(tmp_path, tar_of([*files, ("a" * 5000, b"")]))


def test_a_layer_that_is_listed_again_is_unpacked_out_of_one_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_EXPANDS", 10 << 20)
    layer = layer_of({"opt/z": Item(data=bytes(4 << 20))})
    config = config_of(layer, layer)
    assert checked(tmp_path, docker_archive([layer] * 2, config, True)).platform
    with pytest.raises(LadingError) as raised:
        checked(tmp_path, docker_archive([layer] * 3, config_of(*[layer] * 3), True))
    assert "unpacks to too much" in raised.value.why


def test_layers_share_one_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = tempfile.TemporaryFile

    def temporary() -> Any:
        opened.append(real())
        return opened[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary)
    layers = [layer_of({f"opt/{i}.so": Item(data=elf())}) for i in range(3)]
    checked(tmp_path, packed(*layers))
    assert [file.closed for file in opened] == [True]
    checked(tmp_path, packed())
    assert len(opened) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ENOENT])
def test_no_room_for_a_temporary_file_is_not_the_archives_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def temporary() -> Any:
        raise OSError(code, os.strerror(code), "/tmp")

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary)
    with pytest.raises(EnvironmentProblem) as raised:
        checked(tmp_path, packed(layer_of({"opt/x.so": Item(data=elf())})))
    assert "a temporary file can't be written" in raised.value.what
    assert os.strerror(code) in raised.value.why and "TMPDIR" in raised.value.do


def test_a_full_disk_below_the_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: Path("/dev/full").open("wb"))  # noqa: SIM115
    with pytest.raises(EnvironmentProblem, match="temporary file"):
        checked(tmp_path, packed(layer_of({"opt/x.so": Item(data=elf())})))


# -- limits ---------------------------------------------------------------------------------------


def test_an_archive_has_only_so_many_members_and_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = docker_archive([BASE, EXTRA], config_of(BASE, EXTRA))  # four members, two layers
    for limit, enough in (("_MEMBERS", 4), ("_LAYERS", 2)):
        monkeypatch.setattr(archives, limit, enough)
        assert checked(tmp_path, archive).platform
        monkeypatch.setattr(archives, limit, enough - 1)
        with pytest.raises(LadingError, match="can't be checked"):
            checked(tmp_path, archive)
        monkeypatch.undo()


def test_a_large_file_in_a_compressed_layer_is_not_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = elf(machine=183)
    archive = packed(layer_of({"usr/bin/x": Item(data=foreign, mode=0o755)}))
    for limit, found in ((len(foreign), ["/usr/bin/x"]), (len(foreign) - 1, [])):
        monkeypatch.setattr(tape, "SPOOL_LIMIT", limit)
        assert where(checked(tmp_path, archive), "A4") == found


def test_an_extended_header_is_read_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = layer_of({"opt/l": link("a" * 1000)})
    assert of_layers(tmp_path, layer).findings == ()
    monkeypatch.setattr(tape, "EXTENDED_LIMIT", 999)
    with pytest.raises(LadingError, match="can't be checked"):
        of_layers(tmp_path, layer)


def test_a_path_is_searched_in_so_many_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"PATH": "/usr/bin:/opt/bin"}
    program: Layer = {"opt/bin/x": Item(mode=0o744)}
    for most, found in ((2, ["/opt/bin/x"]), (1, [])):
        monkeypatch.setattr(subject, "MOST", most)
        assert where(made.examined(tmp_path, program, env=env), "F1") == found


def test_what_is_too_long_for_linux_is_not_followed(tmp_path: Path) -> None:
    deep = "/".join(["d" * 250] * 10)
    layer: Layer = {
        f"{deep}/x": Item(),
        "l": link(deep),
        f"l/{deep}/hosts": Item(mode=0),  # a path of 5,000 bytes, by way of a link
        "m": link(f"l/{deep}"),
        "etc/hosts": link("../m/hosts"),
    }
    report = made.examined(tmp_path, layer)
    assert (where(report, "F4"), where(report, "F1")) == (["/etc/hosts"], [])
    whole = view.View([])
    assert whole.find("/." * 2048) is not None
    assert whole.find("/." * 2048 + "/") is None
    layer = {**layer, "m": link(deep), f"{deep}/hosts": Item()}
    assert where(made.examined(tmp_path, layer), "F4") == []


# -- indexes --------------------------------------------------------------------------------------


def index_of(*platforms: str, depth: int = 1, kind: str = "") -> bytes:
    """A tar of an OCI layout: in an index in an index, an image for each architecture."""
    blobs: dict[str, bytes] = {}

    def described(data: bytes, **more: Any) -> dict[str, Any]:
        blobs[digest(data)] = data
        return {"digest": f"sha256:{digest(data)}", "size": len(data), **more}

    listed = []
    for architecture in platforms:
        config = made.settings([BASE], INNER, architecture=architecture)
        layer = described(BASE, mediaType=f"application/vnd.oci.image.layer.v1.tar{kind}")
        manifest = json.dumps({"config": described(config), "layers": [layer]}).encode()
        listed.append(described(manifest, platform={"os": "linux", "architecture": architecture}))
    for _ in range(depth):
        listed = [described(json.dumps({"manifests": listed}).encode())]
    index = json.dumps({"manifests": listed}).encode()
    files = {f"blobs/sha256/{name}": data for name, data in blobs.items()}
    return tar_of([("index.json", index), *files.items()])


def test_of_an_index_for_several_platforms_the_targets_is_checked(tmp_path: Path) -> None:
    assert checked(tmp_path, index_of("arm64", "amd64", "s390x")).findings == ()
    assert where(checked(tmp_path, index_of("arm64", "s390x")), "A2") != []
    assert where(checked(tmp_path, index_of("arm64")), "A4") == ["architecture"]


def test_an_index_in_an_index_in_an_index(tmp_path: Path) -> None:
    assert checked(tmp_path, index_of("amd64", depth=3)).findings == ()
    (found,) = checked(tmp_path, index_of("amd64", depth=4)).findings
    assert (found.id, "one index lists the next" in found.effect) == ("A2", True)


def test_layers_that_are_encrypted(tmp_path: Path) -> None:
    assert checked(tmp_path, index_of("amd64", kind="+gzip")).findings == ()
    (found,) = checked(tmp_path, index_of("amd64", kind="+gzip+encrypted")).findings
    assert (found.id, "encrypted" in found.effect) == ("A2", True)


# -- what takes time ------------------------------------------------------------------------------


def steps(path: Path, *layers: Layer, env: Mapping[str, str] | None = None) -> int:
    """How many steps it takes to check an image, in which time is counted."""
    taken = []
    with pytest.MonkeyPatch.context() as patched:
        real = view.View.step

        def step(self: view.View, count: int) -> None:
            taken.append(count)
            real(self, count)

        patched.setattr(view.View, "step", step)
        assert made.examined(path, *layers, env=env).platform
    return sum(taken)


def test_the_steps_of_the_view_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "STEPS", 50)
    around = view.Node("symlink")
    around.target = "../0/" * 30
    asked: list[tuple[str, Callable[[view.View], object]]] = [
        ("link", lambda whole: whole.find("/link")),
        ("names", lambda whole: whole.names("/")),
        ("path", lambda whole: whole.find("/0/.." * 25)),
    ]
    for name, ask in asked:
        whole = view.View([])
        whole.put(whole.root, "link", around)
        for number in range(10 if name != "names" else 60):
            whole.put(whole.root, str(number), view.Node("folder"))
        assert whole.find("/0") is not None
        with pytest.raises(DamagedError, match="lead on and on"):
            ask(whole)


def test_what_is_included_again_is_not_read_again(tmp_path: Path) -> None:
    line = Item(data=b"include ld.so.conf.d/*\n")
    files = {f"etc/ld.so.conf.d/{i}": line for i in range(20)}
    first = steps(tmp_path, {**table.LOCAL, "etc/ld.so.conf": line, **files})
    assert first < 100_000
    # The last of a chain counts.
    more = "ld.so.conf.d/"
    chain = {f"etc/{more}{i}": Item(data=f"include {more}{i + 1}\n".encode()) for i in range(20)}
    chain["etc/ld.so.conf"] = chain[f"etc/{more}0"]
    chain[f"etc/{more}20"] = Item(data=b"/usr/local/lib\n")
    library = {"usr/local/lib/libx.so": Item(data=elf())}
    report = made.examined(tmp_path, {**chain, **library})
    assert where(report, "F8") == ["/usr/local/lib/libx.so"]


def test_patterns_are_compared_with_so_many_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = b"include " + b" ".join([b"q/*a*b"] * 100)
    files = {f"etc/q/{i}": Item(data=b"") for i in range(100)}
    monkeypatch.setattr(view, "STEPS", 100_000)
    with pytest.raises(LadingError) as raised:
        made.examined(tmp_path, files, {"etc/ld.so.conf": Item(data=line)})
    assert "lead on and on" in raised.value.why


def test_a_search_path_with_origins_is_not_written_out_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = elf(needed=["libmpi.so.12"], rpath=":".join(["$ORIGIN"] * 500))
    monkeypatch.setattr(view, "STEPS", 20_000)
    with pytest.raises(LadingError) as raised:
        made.examined(tmp_path, {f"opt/{'a' * 200}/{'b' * 200}/x.so": Item(data=user)})
    assert "lead on and on" in raised.value.why


def test_libraries_that_load_each_other_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"lib{i}.so" for i in range(30)]
    user = Item(data=elf(needed=[*names, "libmpi.so.12"]))
    files = {f"opt/{name}": user for name in names}
    taken = steps(tmp_path, files)
    monkeypatch.setattr(view, "STEPS", taken - 1)
    with pytest.raises(LadingError):
        made.examined(tmp_path, files)
    assert taken > 10 * 30 * 30 * 30


def test_a_folder_that_is_on_path_again_and_again_is_one(tmp_path: Path) -> None:
    whole = view.View([])
    whole.put(whole.root, "bin", view.Node("folder"))
    path = ":".join(["/bin", "//bin/", "/bin/../bin", "/sbin", ""] * 100)
    config = {"config": {"Env": [f"PATH={path}"]}}
    found = Subject(view=whole, settings=config, platform=PLATFORM)
    assert found.searched == {"/bin", "/"}


def test_scripts_that_activate_are_read_once_and_in_a_line(tmp_path: Path) -> None:
    # Each line that is empty began the search anew: five seconds for these.
    folder, env = "opt/conda/etc/conda/activate.d", {"PATH": "/opt/conda/bin:/opt/b/bin"}
    items = {**table.CONDA, "opt/b/conda-meta/history": Item(), "opt/b/etc": link("/opt/conda/etc")}
    items[f"{folder}/a.sh"] = Item(data=b"\n" * (1 << 16))
    items |= {f"{folder}/{i}.sh": link("a.sh") for i in range(3000)}
    items[f"{folder}/b.sh"] = Item(data=b"if x; then\n\t export A=b\nfi\n\nexport\nB=c\n")
    start = time.process_time()
    report = made.examined(tmp_path, items, env=env)
    assert time.process_time() - start < 1
    (found,) = named(report, "E10")
    assert (found.paths, found.effect) == (
        (f"/{folder}/b.sh",),
        "nothing runs this script, so A is not set",
    )


def test_names_that_make_a_pattern_try_again_and_again(tmp_path: Path) -> None:
    # Allowed are all of these; a newline at the end had each of the many `private` tried.
    name = "private/" * 450
    items = {f"etc/pki/{name}{i}\n": Item(mode=0) for i in range(60)}
    start = time.process_time()
    assert where(made.examined(tmp_path, items), "F1") == []
    assert time.process_time() - start < 1


def test_a_library_that_names_share_letters_in_the_cache(tmp_path: Path) -> None:
    # Each entry one letter further in one long text: 4 kB each that are not in the file.
    rows, text = 2000, b"a" * 6000 + b"\0"
    head = b"glibc-ld.so.cache1.1" + struct.pack("<II", rows, len(text)) + b"\x02" + bytes(19)
    at = len(head) + 24 * rows
    data = head + b"".join(struct.pack("<iIIIQ", 3, at + i, at + i, 0, 0) for i in range(rows))
    assert loader.parsed(data + text) is None
    sound = made.cache_of({f"lib{i}.so": f"/usr/local/lib/lib{i}.so" for i in range(100)})
    assert len(loader.parsed(sound) or ()) == 100


# -- zstd -----------------------------------------------------------------------------------------

STAND_IN = '#!/bin/sh\n[ "$*" = -dcq ] && exec tail -c +5\n'
"""A program that takes for a frame of zstd what stands behind its magic number."""


def by_program(path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A Python that has no zstd, and this program called so; none for an empty text."""
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    program = path / "bin" / "zstd"
    program.parent.mkdir()
    program.write_text(text)
    program.chmod(0o755 if text else 0o644)
    tools = {Path(found).parent for tool in ("sh", "tail", "sleep") if (found := which(tool))}
    if not text:
        tools = set()
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, [program.parent, *sorted(tools)])))


def of_zstd(layer: bytes, stored: bytes) -> bytes:
    manifest = manifest_of(ENTRY)
    return tar_of([("c.json", config_of(layer)), ("l.tar", stored), ("manifest.json", manifest)])


def framed(data: bytes) -> bytes:
    return b"\x28\xb5\x2f\xfd" + data


def test_a_layer_of_zstd_is_read_by_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = layer_of({**SOUND, "opt/x": Item(mode=0o600), "opt/y": Item(data=bytes(1 << 20))})
    by_program(tmp_path, monkeypatch, STAND_IN)
    report = checked(tmp_path, of_zstd(large, framed(large)))
    assert [(one.id, one.paths) for one in report.findings] == [("F1", ("/opt/x",))]
    assert where(checked(tmp_path, of_zstd(BASE, framed(large))), "A3") == ["l.tar"]


@pytest.mark.skipif(not which("zstd"), reason="there is no program zstd")
def test_a_layer_of_zstd_is_read_by_zstd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    stored = channels.zstd(BASE)
    assert checked(tmp_path, of_zstd(BASE, stored + channels.zstd(b""))).findings == ()
    with pytest.raises(LadingError) as raised:
        checked(tmp_path, of_zstd(BASE, stored[:-100]))
    assert "is zstd that can't be read (" in raised.value.why


def test_a_program_that_is_not_needed_any_more_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_program(tmp_path, monkeypatch, "#!/bin/sh\nprintf %2000s no; exec sleep 9\n")
    start = time.monotonic()
    with pytest.raises(LadingError, match="can't be checked"):
        checked(tmp_path, of_zstd(BASE, framed(BASE)))
    assert time.monotonic() - start < 5


def test_without_anything_that_reads_zstd_the_machine_can_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by_program(tmp_path, monkeypatch, "")
    (tmp_path / "image.tar").write_bytes(of_zstd(BASE, framed(BASE)))
    assert main([str(tmp_path / "image.tar")]) == 2
    assert "install the program zstd" in capsys.readouterr().err


def test_names_that_only_look_bad(tmp_path: Path) -> None:
    layer = layer_of({"opt/..x": Item(), "opt/é": Item(), "./opt//b": Item(), "opt/...": Item()})
    assert of_layers(tmp_path, layer).findings == ()


def test_what_is_compressed_is_looked_into_as_what_is_not(tmp_path: Path) -> None:
    files: dict[str, Item] = {**table.VENV, **table.WHEEL, **table.modules(12, 5)}
    files["opt/venv/lib/libmpi.so.12"] = Item(data=table.MPICH)
    layer = layer_of({**files, **table.LOCAL})
    raw, packed = (of_layers(tmp_path, layer, packed=one) for one in (False, True))
    assert {finding.id for finding in raw.findings} >= {"M4", "F10"}
    assert raw == packed


@settings(max_examples=150)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=8)), max_size=6
    ),
    cut=st.integers(0, 1 << 20),
    packed=st.booleans(),
)
def test_whatever_is_changed_in_an_archive_is_a_report_or_an_error(
    edits: Sequence[tuple[int, bytes]], cut: int, packed: bool
) -> None:
    data = bytearray(docker_archive([BASE, EXTRA], config_of(BASE, EXTRA), packed))
    for at, new in edits:
        at %= len(data)
        data[at : at + len(new)] = new
    if cut % 3 == 0:
        del data[cut % len(data) :]
    made.assert_read(bytes(data))
