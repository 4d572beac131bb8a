"""SIFs: what is asked of Apptainer, what is mended, and what happens when it goes wrong."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lading import archive, files
from lading.checks.declared import Result
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from lading.project import load
from lading.sif import header, inside, layout, making, programs, sandbox, squashfs, workplace
from lading.sif.making import Made, Order, Ran
from lading.sif.section import SifSection
from lading.verbs import sif as sif_verb
from tests.support import fake_apptainer
from tests.support.fake_apptainer import DESCRIPTOR, HEADER
from tests.support.projects import Trial, tiny_archive

EPOCH = 1_793_491_200  # 2026-11-01
INSTEAD = "copy it"


@dataclass
class Fake:
    """The fake Apptainer and a fake mksquashfs in a folder, and a folder for temporary files."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Fake:
        bin_ = folder / "bin"
        bin_.mkdir(parents=True)
        (folder / "tmp").mkdir()
        shutil.copy(fake_apptainer.__file__, bin_ / "fake.py")
        made = cls(folder)
        made.script("apptainer", f'exec {sys.executable} -S -E {bin_}/fake.py "$@"')
        # All that a file system keeps of a folder; at 8, the clock, as the real one has it.
        made.script(
            "mksquashfs",
            """printf 'hsqs    %.4s' "$(date +%N | cut -c 6-)" > "$2"; exec >> "$2"; cd "$1"
            find . -printf '%p %m %Ts %l\\n' | sort; find . -type f | sort | xargs cat""",
        )
        return made

    def script(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def orders(self, *lines: str) -> None:
        (self.folder / "bin/orders").write_text("\n".join(lines))

    @property
    def environ(self) -> dict[str, str]:
        return {"PATH": f"{self.folder}/bin:{os.environ['PATH']}", "TMPDIR": str(self.tmp)}

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"

    @property
    def calls(self) -> list[tuple[list[str], dict[str, str], str]]:
        path = self.folder / "bin/calls"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def find(self, command: str = "") -> programs.Program:
        return programs.find(command, self.environ, INSTEAD)

    def sif(self, order: Order, out: Path, **more: Any) -> Made:
        squash = str(self.folder / "bin/mksquashfs")
        return making.make(self.find(), squash, order, out, self.environ, **more)


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake.make(tmp_path / "fake")


@pytest.fixture
def order(tmp_path: Path) -> Order:
    archive = tmp_path / "project/dist/one.tar"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(tiny_archive({"python.packages": "a==1"}))
    return Order(
        name="one",
        archive=archive,
        sha256=files.sha256_of(archive),
        size=archive.stat().st_size,
        epoch=EPOCH,
        platform="linux/amd64",
        labels={"lading.key": "k"},
        tests=("good", "it's 'quoted'"),
        mpi="",
        compression="zstd:3",
        sbom=b'{"bomFormat":"CycloneDX"}\n',
    )


# -- the programs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("apptainer version 1.4.5-2", "apptainer 1.4.5-2"),
        ("apptainer version 1.1.0", "apptainer 1.1.0"),
        ("apptainer version 2.0.0-rc.1", "apptainer 2.0.0-rc.1"),
        ("singularity-ce version 4.1.0-jammy", "singularity-ce 4.1.0-jammy"),
        ("singularity-ce version 3.10.0", "singularity-ce 3.10.0"),
    ],
)
def test_an_apptainer_that_will_do(fake: Fake, said: str, version: str) -> None:
    fake.orders(f"version {said}")
    assert fake.find().version == version


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("apptainer version 1.0.3", "apptainer 1.0.3 is too old"),
        ("singularity-ce version 3.9.9", "singularity-ce 3.9.9 is too old"),
        ("singularity version 3.8.7", "singularity 3.8.7 is too old"),
        ("Singularity, the game, version 1", "is no Apptainer that works"),
    ],
)
def test_one_that_will_not(fake: Fake, said: str, why: str) -> None:
    fake.orders(f"version {said}")
    with pytest.raises(EnvironmentProblem, match=why) as caught:
        fake.find()
    assert INSTEAD in caught.value.do


def test_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="no Apptainer on this machine") as caught:
        programs.find("", {"PATH": str(tmp_path)}, INSTEAD)
    assert "sif: {command: …}" in caught.value.do
    assert INSTEAD in caught.value.do
    with pytest.raises(EnvironmentProblem, match="/nowhere/apptainer can't be run"):
        programs.find("/nowhere/apptainer", {}, INSTEAD)


def test_a_command_of_the_project(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a path from the project, and have words behind it; it is run elsewhere."""
    fake.script(
        "other", f'test "$1" = --quiet || exit 9; shift; exec {fake.folder}/bin/apptainer "$@"'
    )
    monkeypatch.chdir(fake.folder)
    assert fake.find("bin/other --quiet").command == (f"{fake.folder}/bin/other", "--quiet")


def test_what_apptainer_is_not_told(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APPTAINERENV_A", "SINGULARITY_BIND", "APPTAINER_HOME", "APPTAINER_CONFIGDIR"):
        monkeypatch.setenv(name, "/x")
    fake.find().run("exec", "x", env={"APPTAINER_TMPDIR": "/t"})
    assert fake.calls[-1][1] == {"APPTAINER_CONFIGDIR": "/x", "APPTAINER_TMPDIR": "/t"}


@pytest.mark.parametrize(
    ("compression", "options"),
    [
        ("zstd:3", ["-comp", "zstd", "-Xcompression-level", "3"]),
        ("gzip:9", ["-comp", "gzip", "-Xcompression-level", "9"]),
        ("zstd", ["-comp", "zstd"]),
        ("xz", ["-comp", "xz"]),
    ],
)
def test_the_compression(compression: str, options: list[str]) -> None:
    assert squashfs.options(compression) == options


@pytest.mark.parametrize(
    ("said", "section"),
    [
        ("{}", SifSection()),
        ("{compression: zstd:22}", SifSection(compression="zstd:22")),
        ("{compression: lz4}", SifSection(compression="lz4")),
        ("{command: /opt/a/bin/apptainer}", SifSection(command="/opt/a/bin/apptainer")),
        ("{command: /opt/it's/apptainer}", "/opt/it's/apptainer': a quote does not close"),
        (r"{command: /opt/it\'s/apptainer}", SifSection(command=r"/opt/it\'s/apptainer")),
        (r"{command: apptainer\}", r"apptainer\': it ends in a backslash"),
        ("{compression: zstd:23}", "expected gzip, zstd, lz4 or xz"),
        ("{compression: zstd:0}", "expected gzip, zstd, lz4 or xz"),
        ("{compression: xz:3}", "expected gzip, zstd, lz4 or xz"),
        ("{compression: gzip:10}", "expected gzip, zstd, lz4 or xz"),
        ("{compression: bzip2}", "expected gzip, zstd, lz4 or xz"),
        ("{comand: x}", "did you mean 'command'"),
        ("apptainer", "expected a mapping"),
    ],
)
def test_the_section(tmp_path: Path, said: str, section: SifSection | str) -> None:
    path = tmp_path / "project.yaml"
    path.write_text(
        "lading: 1\nname: x\nbases: {b: {image: python}}\nimages: {i: {base: b}}\n"
        f"sif: {said}\n"
    )
    if isinstance(section, str):
        with pytest.raises(DeclarationError, match=r"project.yaml:5: sif") as caught:
            load(path)
        assert section in str(caught.value)
    else:
        assert load(path).sif == section


# -- the archive, laid out ------------------------------------------------------------------


def test_the_layout(order: Order, tmp_path: Path) -> None:
    out = tmp_path / "layout"
    settings = layout.write(order.archive, out, lambda _: None)
    assert settings["config"]["Labels"] == {"python.packages": "a==1"}
    blobs = list((out / "blobs/sha256").iterdir())
    assert len(blobs) == 4
    for blob in blobs:
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    (entry,) = json.loads((out / "index.json").read_text())["manifests"]
    manifest = json.loads((out / "blobs/sha256" / entry["digest"][7:]).read_text())
    assert [layer["digest"] for layer in manifest["layers"]] == settings["rootfs"]["diff_ids"]
    for layer in manifest["layers"]:
        assert (out / "blobs/sha256" / layer["digest"][7:]).stat().st_size == layer["size"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (".singularity.d", tarfile.SYMTYPE),
        ("./.singularity.d/test", tarfile.SYMTYPE),
        (".singularity.d/env/10-docker.sh", tarfile.LNKTYPE),
        (".singularity.d/runscript", tarfile.FIFOTYPE),
    ],
)
def test_what_leads_apptainer_out_of_its_folder(tmp_path: Path, name: str, kind: bytes) -> None:
    """It opens what it writes by name, before anything can be mended."""
    path, layer = tmp_path / "x.tar", tmp_path / "layer"
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "etc/passwd"
    layer.write_bytes(info.tobuf() + bytes(1024))
    archive.write(path, {"os": "linux", "architecture": "amd64"}, [layer], "x:1")
    with pytest.raises(LadingError, match=r"where Apptainer's files are: /\.singularity\.d"):
        layout.write(path, tmp_path / "out", lambda _: None)


GOOD = tiny_archive({})


@given(
    cut=st.integers(0, len(GOOD) - 1), at=st.integers(0, len(GOOD) - 1), value=st.binary(max_size=9)
)
def test_an_archive_that_is_none(
    tmp_path_factory: pytest.TempPathFactory, cut: int, at: int, value: bytes
) -> None:
    """Cut off or written over, it is laid out or refused; nothing is written outside."""
    folder = tmp_path_factory.mktemp("broken")
    path = folder / "x.tar"
    data = (GOOD[:at] + value + GOOD[at + len(value) :])[: cut or None]
    path.write_bytes(data)
    try:
        layout.write(path, folder / "out", lambda _: None)
    except LadingError as error:
        assert error.do
    assert {entry.name for entry in folder.iterdir()} <= {"x.tar", "out"}


@pytest.mark.parametrize("digest", ["sha256:../../../escaped", "sha512:00", "sha256:" + "g" * 64])
def test_a_layer_that_would_go_elsewhere(tmp_path: Path, digest: str) -> None:
    path = tmp_path / "x.tar"
    config = json.dumps({"rootfs": {"diff_ids": [digest]}}).encode()
    manifest = json.dumps([{"Config": "c", "Layers": ["l"]}]).encode()
    with tarfile.open(path, "w") as tar:
        for name, data in (("c", config), ("l", b"x"), ("manifest.json", manifest)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(LadingError, match="not an archive of lading's"):
        layout.write(path, tmp_path / "a/b/out", lambda _: None)
    assert not list(tmp_path.rglob("escaped"))


# -- what Apptainer wrote, mended -----------------------------------------------------------


def test_labels() -> None:
    found = {
        "mine": "kept",
        "lading.key": "old",
        "org.label-schema.build-date": "Sunday_22_November_2026_18:2:5_UTC",
        "org.label-schema.usage.singularity.deffile.from": "/home/me/x.tar",
        "org.label-schema.usage.apptainer.version": "1.4.5",
    }
    assert sandbox.labels(found, {"lading.key": "new"}, "one", EPOCH) == {
        "mine": "kept",
        "lading.key": "new",
        "org.label-schema.build-date": "Sunday_1_November_2026_0:0:0_UTC",
        "org.label-schema.usage.singularity.deffile.from": "one.tar",
        "org.label-schema.usage.apptainer.version": "1.4.5",
    }


@pytest.mark.parametrize(
    ("commands", "code", "printed"),
    [
        (["echo 'a  b'; echo $((1+1))", 'echo "it\'s"'], 0, "a  b\n2\nit's\n"),
        (["echo one", "exit 3", "echo two"], 3, "one\n"),
        (["false || echo fine", "cd /; false", "echo two"], 1, "fine\n"),
    ],
)
def test_the_test_script(commands: list[str], code: int, printed: str) -> None:
    script = sandbox.test_script(commands)
    ran = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (code, printed)


def test_two_ranks_say_hello() -> None:
    hello = "mpiexec -n 2 python3 -m mpi4py.bench helloworld"
    assert sandbox.tests(["a"], "python3") == ("a", hello)
    assert sandbox.tests(["a"], "") == ("a",)
    assert sandbox.tests([hello], "python3") == (hello,)


@pytest.mark.parametrize(
    ("folder", "python"),
    [
        ("opt/venv/lib/python3.9/site-packages", "python"),
        ("opt/conda/lib/python3.12/site-packages", "python"),
        ("usr/local/lib/python3.13/dist-packages", "python"),
        ("usr/lib/python3/dist-packages", "python3"),
        ("srv", ""),
    ],
)
def test_where_mpi4py_is_looked_for(tmp_path: Path, folder: str, python: str) -> None:
    """Whoever brought it: pip, conda, a base or apt."""
    (tmp_path / folder / "mpi4py").mkdir(parents=True)
    assert sandbox.with_mpi4py(tmp_path) == python


def test_only_what_apptainer_wrote_gets_a_new_time(tmp_path: Path) -> None:
    """What came with the archive keeps its own: by it Python knows its bytecode."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old/module.py").write_text("")
    (tmp_path / "old/link").symlink_to("/etc/passwd")
    (tmp_path / "old/new").write_text("")
    for name in ("old/module.py", "old/link"):
        os.utime(tmp_path / name, (1000, 1000), follow_symlinks=False)
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "later").write_text("")  # than now, by a clock that is behind
    os.utime(tmp_path / "later", (1 << 33, 1 << 33))
    os.utime(tmp_path / "old", (1000, 1000))
    sandbox.set_times(str(tmp_path), 2000 * 10**9, sandbox.clock(tmp_path), 777)

    def time_of(name: str) -> int:
        return int((tmp_path / name).lstat().st_mtime)

    assert [time_of(name) for name in (".", "old/new", "link")] == [777] * 3
    assert [time_of(name) for name in ("old", "old/module.py", "old/link")] == [1000] * 3
    assert time_of("later") == 1 << 33


def test_the_clock_of_files(tmp_path: Path) -> None:
    """Whatever is written later has this time or a later one."""
    before = sandbox.clock(tmp_path)
    (tmp_path / "file").write_text("")
    assert before <= (tmp_path / "file").stat().st_mtime_ns <= sandbox.clock(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """A folder as Apptainer leaves it."""
    root = tmp_path / "root"
    fake_apptainer.unpack(root)
    return root


def mended(root: Path) -> None:
    sandbox.mend(root, name="x", epoch=1, added={}, commands=["echo é"], since=0)


def test_what_is_a_link_is_not_written_through(unpacked: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    for name in ("test", "Singularity"):
        mine.write_text("as it was")
        mine.chmod(0o600)
        (unpacked / sandbox.OWN / name).unlink(missing_ok=True)
        (unpacked / sandbox.OWN / name).symlink_to(mine)
        mended(unpacked)
        assert (mine.read_text(), mine.stat().st_mode & 0o777) == ("as it was", 0o600)
        assert (unpacked / sandbox.OWN / name).is_file()


def test_it_is_mended_in_utf_8(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the locale is of who makes it; what is not even that is shown as far as it is."""
    monkeypatch.setattr(io, "text_encoding", lambda encoding, level=2: encoding or "latin-1")
    own = unpacked / sandbox.OWN
    (own / "labels.json").write_bytes('{"a":"é"}'.encode() + b"\n")
    (own / "env" / os.fsdecode(b"10-docker-\xff.sh")).write_bytes(b"A=\xff")
    mended(unpacked)
    assert '"a": "é"'.encode() in (own / "labels.json").read_bytes()
    assert "echo é".encode() in (own / "test").read_bytes()
    shown = json.loads(sandbox.metadata(unpacked))["data"]["attributes"]
    assert shown["labels"]["a"] == "é"
    assert "echo é" in shown["test"]
    assert shown["environment"]["/.singularity.d/env/10-docker-\ufffd.sh"] == "A=\ufffd"


# -- the header -----------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A SIF with one object, as `sif new` and `sif add` write it."""
    path, data = tmp_path / "bare.sif", tmp_path / "data"
    fake_apptainer.new(path)
    data.write_text("content")
    fake_apptainer.add(["--datatype", "1", str(path), str(data)])
    return path


def test_the_header(bare: Path) -> None:
    before = bare.read_bytes()
    name = header.identity("00" * 32)
    header.normalise(bare, name, EPOCH)
    after = bare.read_bytes()
    launch, magic, version, arch, identity, *numbers = HEADER.unpack_from(after)
    assert launch == b"#!/usr/bin/env run-singularity\n\0"
    assert (magic, version, arch) == (b"SIF_MAGIC\0", b"01\0", b"00\0")
    assert uuid.UUID(bytes=identity) == name
    assert numbers[:2] == [EPOCH, EPOCH]
    assert numbers[2:] == list(HEADER.unpack_from(before)[7:])
    old, new = (DESCRIPTOR.unpack_from(data, 4096) for data in (before, after))
    assert new[:8] == old[:8]
    assert new[8:12] == (EPOCH, EPOCH, 0, 0)
    unused = 4096 + DESCRIPTOR.size
    assert after[unused:] == before[unused:], "descriptors without use, and data"


def test_a_bill_of_materials_is_one_whatever_type_it_was_added_as(bare: Path) -> None:
    """As `sif add --datatype 9 --sbomformat cyclonedx-json` writes it, which not every one can."""
    header.normalise(bare, header.identity("a"), EPOCH, sboms=("other",))
    assert DESCRIPTOR.unpack_from(bare.read_bytes(), 4096)[0] == 0x4001
    header.normalise(bare, header.identity("a"), EPOCH, sboms=("data",))
    kind, *_, name, special = DESCRIPTOR.unpack_from(bare.read_bytes(), 4096)
    assert kind == 0x4009
    assert name.rstrip(b"\0") == b"data"
    assert special == b"\1".ljust(384, b"\0")


def test_the_identity_is_a_uuid_of_the_archive() -> None:
    assert header.identity("a").version == 5
    assert header.identity("a") == header.identity("a") != header.identity("b")


@given(
    at=st.integers(0, 140),
    value=st.binary(min_size=1, max_size=16),
    cut=st.integers(0, 40_000) | st.none(),
)
def test_what_is_no_sif(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: bytes, cut: int | None
) -> None:
    folder = tmp_path_factory.mktemp("sif")
    path = folder / "x.sif"
    fake_apptainer.new(path)
    data = path.read_bytes()
    data = (data[:at] + value + data[at + len(value) :])[:cut]
    path.write_bytes(data)
    with suppress(LadingError):
        header.normalise(path, header.identity("a"), EPOCH)
    assert path.stat().st_size == len(data)


# -- the temporary folder -------------------------------------------------------------------


def test_where_temporary_files_go(tmp_path: Path) -> None:
    assert workplace.parent({"TMPDIR": "/a"}) == Path("/a")
    assert workplace.parent({"TMPDIR": "/a", "APPTAINER_TMPDIR": "/b"}) == Path("/b")
    with (
        pytest.raises(EnvironmentProblem, match="no folder /nowhere"),
        workplace.opened({"TMPDIR": "/nowhere"}, 0, ""),
    ):
        pass


def test_no_room(tmp_path: Path) -> None:
    with (
        pytest.raises(EnvironmentProblem, match=r"not enough room in .*needed") as caught,
        workplace.opened({"TMPDIR": str(tmp_path)}, 1 << 60, "it is large"),
    ):
        pass
    assert caught.value.why == "it is large"
    assert "TMPDIR=/path" in caught.value.do
    assert not list(tmp_path.iterdir())


def test_a_program_that_still_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked to end, it may take a moment; while it writes, a folder can't be removed."""
    real, tries = shutil.rmtree, []

    def busy(path: Path, ignore_errors: bool) -> None:
        tries.append(path)
        if len(tries) > 2:
            real(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", busy)
    with workplace.opened({"TMPDIR": str(tmp_path)}, 0, ""):
        pass
    assert len(tries) == 3
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    environ = {"TMPDIR": str(tmp_path)}
    left = tmp_path / f"{workplace.PREFIX}left"
    (left / "deep").mkdir(parents=True)
    (left / "lock").write_text("1")
    (left / "deep").chmod(0)
    begun = tmp_path / f"{workplace.PREFIX}begun"
    begun.mkdir()
    (begun / "lock").write_text("")
    for folder in (left, tmp_path):
        os.utime(folder, (1000, 1000))
    with workplace.opened(environ, 0, "") as first, workplace.opened(environ, 0, "") as second:
        assert first.is_dir()
        assert second.is_dir()
        assert not left.exists()
        os.utime(first, (1000, 1000))
        with workplace.opened(environ, 0, ""):
            assert first.is_dir()
    assert list(tmp_path.iterdir()) == [begun]


# -- all of it, with an Apptainer that is none ----------------------------------------------


def test_the_same_bytes_from_another_folder(order: Order, fake: Fake, tmp_path: Path) -> None:
    told: list[Ran] = []
    first = fake.sif(order, tmp_path / "dist/one.sif", told=told.append)
    assert [(tested.how, tested.result.command) for tested in told] == [
        ("contained", "good"),
        ("contained", "it's 'quoted'"),
        ("with traps", "good"),
        ("with traps", "it's 'quoted'"),
        ("as %test", "apptainer test"),
    ]
    other = tmp_path / "elsewhere/deep/one.tar"
    other.parent.mkdir(parents=True)
    shutil.copy(order.archive, other)
    second = fake.sif(replace(order, archive=other), tmp_path / "out/two.sif")
    assert first.sha256 == second.sha256 == files.sha256_of(tmp_path / "out/two.sif")
    assert first.size == (tmp_path / "dist/one.sif").stat().st_size
    assert (tmp_path / "dist/one.sif").stat().st_mode & 0o777 == 0o755
    assert not list(fake.tmp.iterdir())
    assert [path.name for path in (tmp_path / "dist").iterdir()] == ["one.sif"]
    third = fake.sif(replace(order, sha256="00" * 32), tmp_path / "out/two.sif")
    assert third.sha256 != first.sha256, "another archive's SIF has another UUID"


def test_how_the_tests_are_run(order: Order, fake: Fake, tmp_path: Path) -> None:
    fake.sif(order, tmp_path / "one.sif")
    runs = [call for call in fake.calls if call[0][0] == "exec"]
    probe, *rest = runs
    assert all(call[0][1:3] == ["--containall", "--no-home"] for call in (probe, *rest[:2]))
    assert [call[0][-3:] for call in rest[:2]] == [["/bin/sh", "-c", test] for test in order.tests]
    for words, told, path in rest[2:]:
        assert words[1] == "--home"
        assert path == f"{words[2]}/outside"
        assert told["APPTAINER_TMPDIR"].startswith(str(fake.tmp))


def test_where_it_can_not_be_mounted_it_is_unpacked_once(
    order: Order, fake: Fake, tmp_path: Path
) -> None:
    fake.orders("unpacks")
    fake.sif(order, tmp_path / "one.sif")
    builds = [words for words, *_ in fake.calls if words[0] == "build"]
    assert len(builds) == 2
    tests = [words for words, *_ in fake.calls if words[0] == "exec"][1:]
    assert {words[-4] for words in tests} == {builds[1][-2]}


@pytest.mark.parametrize(
    ("orders", "error", "what", "why"),
    [
        (["fail build FATAL: odd"], LadingError, "apptainer 1.4.5 failed", "FATAL: odd"),
        (["fail sif add broken"], LadingError, "apptainer 1.4.5 failed", "broken"),
        (["kill build"], LadingError, "was ended by signal 9", "printed nothing"),
        (["kill sif add"], LadingError, "was ended by signal 9", "printed nothing"),
        (["fail build x: no space left on device"], EnvironmentProblem, "no room left", "no space"),
        (["fail sif add Disk quota exceeded"], EnvironmentProblem, "no room left", "quota"),
        (["fail exec no user namespaces"], EnvironmentProblem, "can't run containers", "no user"),
        (["fail test bad"], LadingError, "as %test: apptainer test .exit code 255", "bad"),
    ],
)
def test_what_goes_wrong_leaves_nothing(
    order: Order,
    fake: Fake,
    tmp_path: Path,
    orders: list[str],
    error: type[LadingError],
    what: str,
    why: str,
) -> None:
    fake.orders(*orders)
    out = tmp_path / "dist/one.sif"
    out.parent.mkdir()
    out.write_text("the old one")
    with pytest.raises(LadingError, match=what) as caught:
        fake.sif(order, out, replacing=lambda: pytest.fail("it is not replaced"))
    assert type(caught.value) is error
    assert why in caught.value.why
    assert caught.value.do
    assert out.read_text() == "the old one"
    assert [path.name for path in out.parent.iterdir()] == ["one.sif"]
    assert not list(fake.tmp.iterdir())


def test_a_test_that_fails(order: Order, fake: Fake, tmp_path: Path) -> None:
    fake.orders("exec 3")
    order = replace(order, tests=("good", "bad one"))
    with pytest.raises(LadingError) as caught:
        fake.sif(order, tmp_path / "one.sif")
    what = "a test of one failed inside the SIF, contained: bad one (exit code 3)"
    assert caught.value.what == what
    assert not (tmp_path / "one.sif").exists()


def test_mksquashfs_that_skips_a_file(order: Order, fake: Fake, tmp_path: Path) -> None:
    """It says so and goes on; a SIF without a file's content is none."""
    text = "Failed to read file root/etc/shadow, creating empty file"
    fake.script("mksquashfs", f'echo "{text}"; printf "hsqs%99s" x > "$2"')
    with pytest.raises(LadingError, match="could not pack") as caught:
        fake.sif(order, tmp_path / "one.sif")
    assert text in caught.value.why
    fake.script("mksquashfs", "echo 'Compressor \"zstd\" is not supported!'; exit 1")
    with pytest.raises(LadingError, match="could not pack") as caught:
        fake.sif(order, tmp_path / "one.sif")
    assert "sif: {compression: gzip}" in caught.value.do


def test_the_disk_of_the_sif_is_full(
    order: Order, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, out = shutil.disk_usage, tmp_path / "dist/one.sif"

    def usage(path: Path) -> Any:
        return SimpleNamespace(free=1) if path == out.parent else real(path)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(EnvironmentProblem, match=f"not enough room in {out.parent}"):
        fake.sif(order, out)
    assert not list(out.parent.iterdir())
    monkeypatch.undo()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(layout, "write", full)
    with pytest.raises(EnvironmentProblem, match="no room left on the disk"):
        fake.sif(order, out)
    assert not list(fake.tmp.iterdir())


# -- the traps ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "modules"),
    [
        ("", ("numpy",)),
        ("astropy==8.0.2", ("astropy", "numpy")),
        ("Foo-Bar==1, zope.interface==2", ("foo_bar", "numpy", "zope_interface")),
        ("../../x==1", (".._.._x",)),
    ],
)
def test_modules(label: str, modules: tuple[str, ...]) -> None:
    found = inside.modules(label)
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in found)
    if "/" not in label:
        assert found == modules


def test_the_traps_close(tmp_path: Path) -> None:
    """An image that lets the host's modules in would fail."""
    env = inside.set_traps(tmp_path / "home", ["numpy"])
    plain = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")}

    def runs(more: dict[str, str]) -> str:
        command = [sys.executable, "-c", "import numpy"]
        return subprocess.run(
            command, env=plain | more, capture_output=True, text=True, check=False
        ).stderr

    assert "the numpy of the host, in outside" in runs(env)
    user = {"PYTHONUSERBASE": str(tmp_path / "home/.local")}
    if not os.environ.get("VIRTUAL_ENV") and sys.prefix == sys.base_prefix:
        assert "the numpy of the host, in site-packages" in runs(user)
    code = subprocess.run(["bash", "-ic", "true"], env=plain, capture_output=True, check=False)
    assert code.returncode == 1


def test_the_swap_is_asked_for(fake: Fake, tmp_path: Path) -> None:
    opened = inside.Inside(program=fake.find(), sif=tmp_path / "x.sif", folder=tmp_path)
    result = inside.swap(opened, Path("/opt/mpich"), ["python", "swap.py"])
    assert result.code == 0
    words, told, _ = fake.calls[-1]
    assert words[-2:] == ["python", "swap.py"]
    assert words[words.index("--bind") + 1] == "/opt/mpich:/host/mpi:ro"
    assert told["APPTAINERENV_LD_LIBRARY_PATH"] == "/host/mpi/lib"


def test_a_hosts_mpi_that_does_not_take_over_in_the_sif() -> None:
    result = Result(command="whose MPI answers: 4.3.2", code=1, output="MPICH 4.0.2", seconds=1)
    with pytest.raises(LadingError, match="with a host's MPI: whose MPI answers") as caught:
        making._test("one", [(making.SWAPPED, result)], lambda _: None)
    assert caught.value.why == "MPICH 4.0.2"
    assert "`doit check` says of the image's MPI" in caught.value.do


@pytest.mark.parametrize(
    ("library", "mapped", "code"),
    [
        ("MPICH Version: 4.3.2", "/host/mpi/lib/libmpi.so.12", 0),
        ("MPICH Version: 4.0.2", "/host/mpi/lib/libmpi.so.12", 1),
        ("MPICH Version: 4.3.2", "/usr/lib/libmpi.so.12", 1),
        ("MPICH Version: 4.3.2", "/usr/lib/libc.so.6", 0),
    ],
)
def test_whose_mpi_answers(
    monkeypatch: pytest.MonkeyPatch, library: str, mapped: str, code: int
) -> None:
    module = SimpleNamespace(MPI=SimpleNamespace(Get_library_version=lambda: f"{library}\nmore"))
    monkeypatch.setitem(sys.modules, "mpi4py", module)
    monkeypatch.setattr(sys, "argv", ["-c", "4.3.2"])
    lines = f"7f00-7f01 r-xp 00000000 08:01 42    {mapped}\n7f01-7f02 rw-p 0 0 0\n"
    with pytest.raises(SystemExit) as ended:
        exec(making.WHO, {"open": lambda _: io.StringIO(lines)})
    assert int(ended.value.code or 0) == code


# -- doit sif -------------------------------------------------------------------------------


@pytest.fixture
def trial(tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    yield Trial.make(tmp_path / "trial", **fake.environ)


Said = pytest.CaptureFixture[str]


def test_doit_sif(trial: Trial, fake: Fake, capsys: Said) -> None:
    assert trial.doit() == 0
    assert not list((trial.root / "dist").glob("*.sif"))
    capsys.readouterr()
    assert trial.doit("sif") == 0
    said = capsys.readouterr().out
    assert "sif        one" in said
    assert "sif        two" in said
    assert "spare" not in said
    assert 'one, with traps: python -c "import a"' in said
    record = json.loads((trial.root / "dist/one.sif.json").read_text())
    archive = json.loads((trial.root / "dist/one.json").read_text())
    sif = trial.root / "dist/one.sif"
    assert record["archive"] == archive["sha256"]
    assert record["key"] == archive["key"]
    assert record["sha256"] == files.sha256_of(sif)
    assert record["size"] == sif.stat().st_size
    assert record["program"] == "apptainer 1.4.5"
    assert [test["how"] for test in record["tests"]] == ["contained", "with traps", "as %test"]
    assert objects(sif)[0x4009] == [(trial.root / "dist/one.cdx.json").read_bytes()]

    calls = len(fake.calls)
    assert trial.doit("sif") == 0
    assert len(fake.calls) == calls
    assert "nothing to do" in capsys.readouterr().out


def objects(sif: Path) -> dict[int, list[bytes]]:
    """What is in a SIF, by its type."""
    data = sif.read_bytes()
    found: dict[int, list[bytes]] = {}
    for number in range(48):
        at = HEADER.unpack_from(data)[9] + number * DESCRIPTOR.size
        kind, used, _, _, _, offset, size, *_ = DESCRIPTOR.unpack_from(data, at)
        if used:
            found.setdefault(kind, []).append(data[offset : offset + size])
    return found


@pytest.mark.parametrize("change", ["sif", "record", "archive", "sbom", "test", "compression"])
def test_when_it_is_made_again(trial: Trial, fake: Fake, capsys: Said, change: str) -> None:
    assert trial.doit("sif:one") == 0
    yaml = trial.root / "project.yaml"
    match change:
        case "sif":
            (trial.root / "dist/one.sif").write_text("cut off")
        case "record":
            (trial.root / "dist/one.sif.json").write_text('{"inputs":')
        case "archive":
            yaml.write_text(yaml.read_text().replace("    test:", "    env: {A: b}\n    test:"))
        case "sbom":
            record = trial.root / "dist/one.json"
            said = json.loads(record.read_text())
            record.write_text(json.dumps(said | {"sbom": said["sbom"] | {"sha256": "0" * 64}}))
        case "test":
            yaml.write_text(yaml.read_text().replace("import a", "import a as b"))
        case "compression":
            yaml.write_text(yaml.read_text() + "sif: {compression: gzip}\n")
    capsys.readouterr()
    assert trial.doit("sif:one") == 0
    assert "sif        one" in capsys.readouterr().out


def test_without_apptainer(trial: Trial, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trial.environ["PATH"] = str(tmp_path)
    assert trial.doit() == 0
    assert trial.doit("sif:one") == 2
    said = capfd.readouterr().out
    assert "scp dist/one.tar cluster:" in said
    assert "apptainer build one.sif docker-archive:one.tar" in said
    assert (trial.root / "dist/one.tar").is_file()


def test_doit_sif_with_a_hosts_mpi(
    trial: Trial, fake: Fake, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in is of another version than the MPI that check found, for the base's glibc."""
    from lading.checks import mpi

    asked: list[tuple[str, str]] = []

    def find(version: str, glibc: str) -> mpi.HostMpi:
        asked.append((version, glibc))
        return mpi.HostMpi(flavour="mpich", version="4.3.2", glibc="2.28", folder=fake.folder)

    found = {"flavour": "mpich", "mpi": "MPICH 4.0.2", "abi": "MPICH", "soname": "libmpi.so.12"}
    found |= {"library": "/usr/lib/libmpi.so.12", "glibc": "2.41", "host": ""}
    report = mpi.MpiReport(**found, outcomes=(), swaps=())
    monkeypatch.setattr(mpi, "finder", lambda *_: find)
    monkeypatch.setattr(mpi, "run", lambda *_: report)
    yaml = trial.root / "project.yaml"
    more = '    mpi: mpich\n    allow: {"M2:libmpi.so.12": there is none}\n    test:'
    yaml.write_text(yaml.read_text().replace("    test:", more))
    fake.orders("has opt/conda/lib/python3.12/site-packages/mpi4py")
    assert trial.doit("sif:one") == 0
    said = capsys.readouterr().out
    assert asked == [("4.0.2", "2.41")]
    assert "one, with a host's MPI: whose MPI answers: 4.3.2" in said
    record = json.loads((trial.root / "dist/one.sif.json").read_text())
    assert record["tests"][-1]["how"] == making.SWAPPED
    words, told, _ = fake.calls[-1]
    assert words[-4:] == ["python", "-c", making.WHO, "4.3.2"]
    assert f"{fake.folder}:/host/mpi:ro" in words
    assert told["APPTAINERENV_LD_LIBRARY_PATH"] == "/host/mpi/lib"

    state = trial.state()
    assert sif_verb._host(state, state.project.images["one"], False) is None
    assert len(asked) == 1


def test_clean(trial: Trial) -> None:
    assert trial.doit("sif:one") == 0
    assert trial.doit("clean", "sif:one") == 0
    assert {path.name for path in (trial.root / "dist").iterdir()} == {
        "one.tar",
        "one.json",
        "one.cdx.json",
    }


def test_the_superblock(tmp_path: Path) -> None:
    program = shutil.which("mksquashfs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        pytest.skip("mksquashfs is not installed")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").write_text("content")
    os.utime(tmp_path / "root/file", (5, 5))
    os.utime(tmp_path / "root", (5, 5))
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        squashfs.pack(program, tmp_path / "root", out, "gzip", EPOCH, lambda _: None)
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert struct.unpack_from("<I", outs[0].read_bytes(), 8) == (EPOCH,)
