"""The conda layer's lock and prefix, against a channel on the loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from lading import locks
from lading.conda import explicit, prefix, settled, worker
from lading.conda.activation import Variable
from lading.conda.channels import Channels
from lading.conda.explicit import Package
from lading.engines import RunResult
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from lading.facts import Facts
from lading.files import sha256_of
from lading.layers import conda, conda_image, conda_own, conda_resolve, conda_store
from lading.layers.conda import CondaLock, Request
from lading.layers.conda_kind import CONDA, comparison, constraints, pip_requirements
from lading.layers.conda_section import CondaSection
from lading.layers.kind import InBase, Tools
from lading.moved import compare
from lading.project import load
from lading.steps import Add, Derived, Run
from lading.store import Store
from tests.support.channels import FORMATS, PLACEHOLDER, Channel, link, only_loopback

FACTS = Facts(glibc="2.36", os="debian 12", package_manager="apt")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    only_loopback(monkeypatch, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def channel(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Channel]:
    """A channel called lab, which the user's configuration knows."""
    with Channel(tmp_path / "channels") as found:
        monkeypatch.setenv("CONDA_CHANNEL_ALIAS", found.alias)
        found.package("libfoo", "1.0", format=".tar.bz2")
        found.package("libfoo", "1.2", format=".tar.bz2")
        found.package(
            "tool",
            "2.0",
            {"bin/tool": "#!/bin/sh\n"},
            depends=["libfoo >=1.1", "__glibc >=2.31"],
        )
        yield found


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One for all tests, so that a package is looked into once."""
    return Store(tmp_path_factory.mktemp("store"))


def _no_engine() -> InBase:
    raise EnvironmentProblem("no engine answers", do="start one")


@pytest.fixture
def tools(store: Store, notes: list[str]) -> Tools:
    return Tools(environ=os.environ, store=store, note=notes.append, in_base=_no_engine)


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., Request]:
    def ask(
        *packages: str,
        facts: Facts = FACTS,
        as_of: date | None = None,
        platform: str = "linux/amd64",
        file: str = "",
        **section: Any,
    ) -> Request:
        given: dict[str, Any] = {
            "channels": ("lab",),
            "packages": packages,
            "file": file,
            **section,
        }
        return conda.request(
            tmp_path,
            "trial",
            CondaSection(**given),
            facts,
            platform,
            as_of,
        )

    return ask


Ask = Callable[..., Request]


def versions(lock: CondaLock) -> dict[str, str]:
    return {package.name: package.version for package in lock.packages}


# -- the lock -------------------------------------------------------------------------------


def test_a_lock(channel: Channel, tools: Tools, asked: Ask, tmp_path: Path) -> None:
    lock = conda_resolve.lock(asked("tool"), None, tools)
    assert versions(lock) == {"tool": "2.0", "libfoo": "1.2"}
    assert {package.file for package in lock.packages} == {
        "tool-2.0-0.conda",
        "libfoo-1.2-0.tar.bz2",
    }
    assert all(tools.store.has(artifact) for artifact in lock.artifacts)

    folder = tmp_path / "locks"
    conda.write(folder, lock)
    assert conda.read(folder) == lock
    assert lock.header.inputs == asked("tool").digest

    # No file of it says where anything is.
    for text in lock.texts.values():
        assert "127.0.0.1" not in text
        assert "http" not in text
        assert str(tmp_path) not in text


def test_rattler_reads_the_truth_and_the_list_follows_from_it(
    channel: Channel, tools: Tools, asked: Ask, tmp_path: Path
) -> None:
    """In a process of its own, for py-rattler may crash at its end."""
    lock = conda_resolve.lock(asked("tool"), None, tools)
    conda.write(tmp_path / "locks", lock)
    program = """
import json, os, sys
from rattler import LockFile
lock = LockFile.from_path(sys.argv[1])
(platform,) = lock.platforms()
records = lock.default_environment().conda_repodata_records_for_platform(platform)
print(json.dumps([[r.url, r.sha256.hex(), r.size, list(r.depends)] for r in records]), flush=True)
os._exit(0)
"""
    said = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "locks/conda.lock")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    records = {url: (sha256, size, depends) for url, sha256, size, depends in json.loads(said)}
    listed = explicit.listed(lock.texts["explicit.txt"], "")
    assert dict(listed) == {url: record[0] for url, record in records.items()}
    assert {p.url: p.size for p in lock.packages} == {u: r[1] for u, r in records.items()}
    assert records["channel:///lab/linux-64/tool-2.0-0.conda"][2] == [
        "libfoo >=1.1",
        "__glibc >=2.31",
    ]


def test_pins_are_kept_and_the_date_moves_with_them_only(
    channel: Channel, tools: Tools, asked: Ask
) -> None:
    first = conda_resolve.lock(asked("tool"), None, tools)
    old = replace(first, header=replace(first.header, date=date(2026, 1, 1)))
    channel.package("libfoo", "1.3")

    same = conda_resolve.lock(asked("tool"), old, tools)
    assert versions(same) == {"tool": "2.0", "libfoo": "1.2"}
    assert same.header.date == date(2026, 1, 1)
    assert compare(CONDA.pinned(old), CONDA.pinned(same)) == ()

    # Another question, the same answer: the inputs' digest moves, the date does not.
    other = conda_resolve.lock(asked("tool", "libfoo<1.3"), old, tools)
    assert other.header.inputs != same.header.inputs

    new = conda_resolve.lock(asked("tool", "libfoo>=1.3"), old, tools)
    (change,) = compare(CONDA.pinned(old), CONDA.pinned(new))
    assert (change.name, change.old, change.new) == ("libfoo", "1.2", "1.3")
    assert new.header.date == locks.today()
    # Asked for anew, without the old lock.
    assert versions(conda_resolve.lock(asked("tool"), None, tools))["libfoo"] == "1.3"


def test_a_pin_that_is_gone_is_let_go(channel: Channel, tools: Tools, asked: Ask) -> None:
    old = conda_resolve.lock(asked("libfoo"), None, tools)
    channel.drop("libfoo-1.2-0.tar.bz2")
    assert versions(conda_resolve.lock(asked("libfoo"), old, tools)) == {"libfoo": "1.0"}


def test_as_of_a_day(channel: Channel, tools: Tools, asked: Ask) -> None:
    channel.package("libfoo", "1.9", at=datetime(2025, 6, 1, 12, tzinfo=UTC))
    assert versions(conda_resolve.lock(asked("libfoo"), None, tools)) == {"libfoo": "1.9"}
    for day, version in ((date(2025, 5, 31), "1.2"), (date(2025, 6, 1), "1.9")):
        lock = conda_resolve.lock(asked("libfoo", as_of=day), None, tools)
        assert versions(lock) == {"libfoo": version}


def test_what_the_target_is(channel: Channel, tools: Tools, asked: Ask) -> None:
    channel.package("gpu", "1", depends=["__cuda >=12", "__linux", "__unix", "__archspec 1 x86_64"])
    assert versions(conda_resolve.lock(asked("gpu", cuda="12.4"), None, tools)) == {"gpu": "1"}
    with pytest.raises(LadingError) as refused:
        conda_resolve.lock(asked("gpu"), None, tools)
    assert "cuda: 12.4" in refused.value.do

    # Never this machine's: a lock for another processor is made here.
    channel.package("arm", "1", subdir="linux-aarch64", depends=["__archspec 1 aarch64"])
    lock = conda_resolve.lock(asked("arm", platform="linux/arm64"), None, tools)
    assert lock.packages[0].subdir == "linux-aarch64"


def test_channels_have_an_order(
    channel: Channel, tools: Tools, asked: Ask, tmp_path: Path, home: Path
) -> None:
    with Channel(tmp_path / "others", "far") as far:
        (home / ".condarc").write_text(f"custom_channels: {{far: '{far.alias}'}}\n")
        far.package("libfoo", "9.0")
        far.package("more", "1.0", depends=["libfoo"])
        both = ("lab", "far")
        lock = conda_resolve.lock(asked("more", channels=both), None, tools)
        assert versions(lock) == {"more": "1.0", "libfoo": "1.2"}
        assert {package.channel for package in lock.packages} == set(both)
        disabled = asked("more", channels=both, channel_priority="disabled")
        assert versions(conda_resolve.lock(disabled, None, tools))["libfoo"] == "9.0"
        single = conda_resolve.lock(asked("far::libfoo"), None, tools)
        assert [p.url for p in single.packages] == ["channel:///far/linux-64/libfoo-9.0-0.conda"]


def test_a_channel_that_wants_a_password(
    tools: Tools, asked: Ask, tmp_path: Path, home: Path
) -> None:
    with Channel(tmp_path / "others", "lab", user="me", password="s3cret") as channel:
        channel.package("a", "1")
        own = channel.alias.replace("http://", "http://me:s3cret@")
        (home / ".condarc").write_text(f"channel_alias: {own}\n")
        lock = conda_resolve.lock(asked("a"), None, tools)
        assert "s3cret" not in "".join(lock.texts.values())
        assert versions(conda_resolve.lock(asked("lab::a"), None, tools)) == {"a": "1"}
        (home / ".condarc").write_text(f"channel_alias: {channel.alias}\n")
        with pytest.raises(EnvironmentProblem, match="a channel can't be read"):
            conda_resolve.lock(asked("a"), None, tools)


def test_passwords_from_netrc(
    tools: Tools, asked: Ask, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Channel(tmp_path / "others", "lab", user="me", password="s3cret") as channel:
        channel.package("netted", "1")
        monkeypatch.setenv("CONDA_CHANNEL_ALIAS", channel.alias)
        (home / ".netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
        (home / ".netrc").chmod(0o600)
        lock = conda_resolve.lock(asked("netted"), None, tools)
        assert tools.store.has(lock.packages[0].artifact)


@pytest.mark.parametrize("status", [403, 500])
def test_a_channel_that_answers_with_errors(
    channel: Channel, tools: Tools, asked: Ask, status: int
) -> None:
    for name in ("repodata.json", "repodata.json.zst", "repodata_shards.msgpack.zst"):
        channel.statuses[name] = status
    with pytest.raises(EnvironmentProblem) as refused:
        conda_resolve.lock(asked("tool"), None, tools)
    assert str(status) in refused.value.why


def test_an_index_that_is_cut_off(channel: Channel, tools: Tools, asked: Ask) -> None:
    path = channel.folder / "linux-64" / "repodata.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(EnvironmentProblem, match="a channel can't be read"):
        conda_resolve.lock(asked("tool"), None, tools)


def test_old_channels_tell_no_sha256(channel: Channel, tools: Tools, asked: Ask) -> None:
    path = channel.package("old", "1", format=".tar.bz2")
    record = channel.records["linux-64"][path.name]
    del record["sha256"], record["size"]
    channel.index()
    lock = conda_resolve.lock(asked("old"), None, tools)
    assert lock.packages[0].sha256 == sha256_of(path)
    assert lock.packages[0].size == path.stat().st_size

    record["md5"] = "0" * 32
    channel.index()
    with pytest.raises(LadingError, match="not the md5"):
        conda_resolve.lock(asked("old"), None, tools)


def test_environment_yaml(
    channel: Channel, tools: Tools, asked: Ask, tmp_path: Path, notes: list[str]
) -> None:
    (tmp_path / "environment.yaml").write_text(
        "name: x\nchannels: [lab]\ndependencies: [tool=2, {pip: [astropy]}]\n"
        "variables: {OMP_NUM_THREADS: 1}\n"
    )
    request = asked(file="environment.yaml", channels=())
    lock = conda_resolve.lock(request, None, tools)
    assert versions(lock) == {"tool": "2.0", "libfoo": "1.2"}
    assert notes[0] == "  environment.yaml:1: name: ignored; the image's name counts"
    assert conda_image.contribute(request, lock).env["OMP_NUM_THREADS"] == "1"


PROJECT = """\
lading: 1
name: trial
bases: {slim: {image: docker.io/library/debian:13}}
images:
  one:
    base: slim
    conda: """


def test_the_section_for_pip(tmp_path: Path) -> None:
    (tmp_path / "environment.yaml").write_text(
        "channels: [lab]\ndependencies:\n- tool\n- pip:\n  - astropy\n  # not:\n  - numpy>1\n"
    )
    (tmp_path / "project.yaml").write_text(PROJECT + "{file: environment.yaml}\n")
    project = load(tmp_path / "project.yaml")
    assert pip_requirements(project, project.images["one"]) == (
        "environment.yaml",
        b"\n\n\n\nastropy\n\nnumpy>1\n",
    )
    (tmp_path / "environment.yaml").write_text("channels: [lab]\ndependencies: [tool]\n")
    assert pip_requirements(project, project.images["one"]) is None


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{channels: lab, packages: a}", ""),
        ("{packages: [a], prefix: /srv/x, installer: conda, cuda: 12.4}", ""),
        ("{channels: lab}", "conda: expected exactly one of the keys"),
        ("{packages: a, file: project.yaml}", "conda: expected exactly one of the keys"),
        ("{packages: a, prefix: /tmp/conda}", "conda.prefix: expected a path as /opt/conda"),
        ("{packages: a, prefix: /opt}", "conda.prefix: expected a path as /opt/conda"),
        ("{packages: a, prefix: /opt/../x}", "conda.prefix: expected a path as /opt/conda"),
        ("{packages: a, installer: mamba}", "conda.installer: expected"),
        ("{packages: a, chanels: b}", "did you mean 'channels'?"),
        ("{packages: a, channels: ['a b']}", "expected the name of a channel"),
        ("{packages: a, cuda: new}", "conda.cuda: expected the version of CUDA"),
    ],
)
def test_the_section(tmp_path: Path, section: str, said: str) -> None:
    (tmp_path / "project.yaml").write_text(f"{PROJECT}{section}\n")
    if not said:
        assert load(tmp_path / "project.yaml").images["one"].conda is not None
        return
    with pytest.raises(DeclarationError) as refused:
        load(tmp_path / "project.yaml")
    assert said in str(refused.value)


# -- what can't be locked -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packages", "said", "do"),
    [
        (["toool"], "No candidates were found for toool", "there is no toool; do you mean tool?"),
        (["qqqqq"], "No candidates", "there is no qqqqq in these channels"),
        (["libfoo>3"], "libfoo >3", "of libfoo there are 1.0, 1.2"),
        (["tool", "libfoo<1.1"], "libfoo >=1.1", ""),
    ],
)
def test_what_does_not_fit(
    channel: Channel, tools: Tools, asked: Ask, packages: list[str], said: str, do: str
) -> None:
    with pytest.raises(LadingError) as refused:
        conda_resolve.lock(asked(*packages), None, tools)
    assert refused.value.what == ("images.trial.conda: no packages of lab fit linux-64, glibc 2.36")
    assert said in refused.value.why
    assert f"images.trial.conda.packages: {packages[0]}" in refused.value.why
    assert do in refused.value.do
    assert refused.value.exit_code == 1


@pytest.mark.parametrize(("glibc", "said"), [("2.28", "has glibc 2.28"), ("", "has no glibc")])
def test_a_glibc_too_old(channel: Channel, tools: Tools, asked: Ask, glibc: str, said: str) -> None:
    with pytest.raises(LadingError) as refused:
        conda_resolve.lock(asked("tool", facts=replace(FACTS, glibc=glibc)), None, tools)
    assert "__glibc >=2.31" in refused.value.why
    assert said in refused.value.do


def test_a_spec_that_is_none(channel: Channel, tools: Tools, asked: Ask, tmp_path: Path) -> None:
    (tmp_path / "conda.in").write_text("tool\nlibfoo[\n")
    with pytest.raises(DeclarationError, match=r"^conda\.in:2: 'libfoo\[' is no spec"):
        conda_resolve.lock(asked(file="conda.in"), None, tools)


def test_no_channel_is_named(asked: Ask) -> None:
    with pytest.raises(DeclarationError, match="no channel is named"):
        asked("tool", channels=())


def test_a_channel_that_is_down(channel: Channel, tools: Tools, asked: Ask) -> None:
    channel.stop()
    with pytest.raises(EnvironmentProblem) as refused:
        conda_resolve.lock(asked("tool"), None, tools)
    assert "(lab)" in refused.value.what
    assert refused.value.exit_code == 2


def test_a_channel_that_is_not_there(channel: Channel, tools: Tools, asked: Ask) -> None:
    with pytest.raises(EnvironmentProblem, match="a channel can't be read"):
        conda_resolve.lock(asked("tool", channels=("nowhere",)), None, tools)


def test_a_channel_half_updated(channel: Channel, tools: Tools, asked: Ask, tmp_path: Path) -> None:
    """Its index names files that it has not yet, or has others of."""
    path = channel.folder / "linux-64" / "tool-2.0-0.conda"
    data = path.read_bytes()
    path.unlink()
    tools = replace(tools, store=Store(tmp_path / "own"))
    with pytest.raises(LadingError, match=r"tool-2\.0-0\.conda is no longer there"):
        conda_resolve.lock(asked("tool"), None, tools)
    path.write_bytes(data + b"more")
    with pytest.raises(LadingError, match="not what is locked"):
        conda_resolve.lock(asked("tool"), None, tools)
    path.write_bytes(data)
    conda_resolve.lock(asked("tool"), None, tools)


def test_a_package_for_another_platform(channel: Channel, tools: Tools, asked: Ask) -> None:
    with pytest.raises(LadingError):
        conda_resolve.lock(asked("tool", platform="linux/arm64"), None, tools)


EVIL: dict[str, list[tarfile.TarInfo | tuple[str, bytes]]] = {
    "absolute-link": [link("lib/x", "/etc/passwd")],
    "link-out": [link("lib/x", "../../out")],
    "behind-a-link": [link("d", "lib"), ("d/x", b"")],
    "hard-link-out": [link("lib/x", "../out", hard=True)],
    "up": [("../out", b"evil")],
    "absolute": [("/out", b"evil")],
    "up-inside": [("lib/../../out", b"evil")],
    "sly": [("share/ok", b"ok")],
}


@pytest.mark.parametrize("format", FORMATS)
def test_archives_that_lead_out_are_never_unpacked(
    channel: Channel, tools: Tools, asked: Ask, format: str, tmp_path: Path
) -> None:
    for name, inside in EVIL.items():
        paths = ["../out"] if name == "sly" else None
        channel.crafted(name, "1", [("share/ok2", b""), *inside], format=format, paths=paths)
    own = replace(tools, store=Store(tmp_path / "own"))
    with pytest.raises(LadingError) as refused:
        conda_resolve.lock(asked(*EVIL), None, own)
    for name in EVIL:
        assert f"{name}-1-0{format}: " in refused.value.why
    assert not list(own.store.root.rglob("prefix.tar"))
    assert not list(tmp_path.rglob("out"))

    # Nor where the lock is there already, and only the packages come anew.
    digests = {path.name: sha256_of(path) for path in (channel.folder / "linux-64").iterdir()}
    for name in EVIL:
        file = f"{name}-1-0{format}"
        package = Package(channel="lab", subdir="linux-64", file=file, sha256=digests[file])
        with pytest.raises(LadingError, match="can't be unpacked safely"):
            conda_store.looked_into([package], own)


def test_a_file_that_is_no_package(channel: Channel, tools: Tools, asked: Ask) -> None:
    path = channel.package("broken", "1")
    record = channel.records["linux-64"][path.name]
    for data in (b"", b"no zip at all", path.read_bytes()[:-100]):
        path.write_bytes(data)
        channel.take_up(path, record)
        with pytest.raises(LadingError, match=r"broken-1-0\.conda: no conda package"):
            conda_resolve.lock(asked("broken"), None, tools)


# -- damaged locks --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The files of a lock."""
    folder = tmp_path_factory.mktemp("texts")
    with Channel(folder) as channel:
        channel.package("libfoo", "1.2", format=".tar.bz2")
        channel.package("tool", "2.0", depends=["libfoo"])
        environ = {**os.environ, "HOME": str(folder), "CONDA_CHANNEL_ALIAS": channel.alias}
        tools = Tools(environ=environ, store=store, note=print, in_base=_no_engine)
        section = CondaSection(channels=("lab",), packages=("tool",))
        asked = conda.request(folder, "trial", section, FACTS, "linux/amd64", None)
        return conda_resolve.lock(asked, None, tools).texts


@pytest.fixture
def written(texts: Mapping[str, str], tmp_path: Path) -> Path:
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("explicit.txt", "#sha256:", "#", "explicit.txt:"),
        ("explicit.txt", "tool-2.0-0.conda#sha256:", "tool-2.0-0.conda ", "not a line of"),
        ("explicit.txt", "libfoo-1.2", "libfoo-1.3", "does not follow from conda.lock"),
        ("explicit.txt", "channel:///lab", "https://x.example/lab", "not a line of"),
        ("conda.lock", "  sha256: ", "  sha255: ", ": no sha256"),
        ("conda.lock", "- conda: channel:///", "- conda: https://x.example/", "a URL is channel:"),
        ("conda.lock", "# date: 20", "# date: 19", "its header is another one"),
        ("conda.lock", "# lading-lock: 1", "# lading-lock: 2", "newer lading"),
        ("prefix.yaml", "specs:", "specks:", "prefix.yaml:"),
        ("prefix.yaml", '- "tool"', '- "tool', "prefix.yaml:"),
    ],
)
def test_a_lock_that_was_edited_is_refused(
    written: Path, file: str, old: str, new: str, said: str
) -> None:
    path = written / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(LadingError) as refused:
        conda.read(written)
    assert said in str(refused.value)


def test_a_line_without_a_hash_says_so(written: Path) -> None:
    path = written / "explicit.txt"
    lines = [line.partition("#sha256")[0] for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(LadingError, match="a package without a sha256"):
        conda.read(written)


def test_a_lock_that_lacks_a_file_is_none(written: Path) -> None:
    for name in conda.FILES:
        (written / name).rename(written / "away")
        assert conda.read(written) is None
        (written / "away").rename(written / name)
    assert conda.read(written) is not None


# -- the prefix -----------------------------------------------------------------------------


def members(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as archive:
        return {member.name: member for member in archive}


def content(path: Path, name: str) -> bytes:
    with tarfile.open(path) as archive:
        file = archive.extractfile(name)
        assert file is not None
        return file.read()


@pytest.mark.parametrize("format", FORMATS)
def test_the_prefix(channel: Channel, tools: Tools, asked: Ask, format: str) -> None:
    binary = b"\x7fELF\0" + PLACEHOLDER.encode() + b"/lib\0rest"
    channel.crafted(
        "patched",
        "1.0",
        [
            ("bin/run", f"#!{PLACEHOLDER}/bin/sh\necho {PLACEHOLDER}\n".encode()),
            ("lib/libx.so", binary),
            link("lib/liby.so", "libx.so"),
            ("share/one", b"same"),
            link("share/two", "share/one", hard=True),
        ],
        placeholders={"bin/run": "text", "lib/libx.so": "binary"},
        format=format,
    )
    request = asked("tool=2.0", "patched")
    lock = conda_resolve.lock(request, None, tools)
    tar = conda_store.prepared(request, lock, tools)
    found = members(tar)

    assert list(found) == sorted(found, key=lambda name: name.split("/"))
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in found.values()} == {
        (0, 0, "", "", 315532800)
    }
    assert {m.mode for m in found.values()} <= {0o644, 0o755, 0o777}
    assert all(m.issym() for m in found.values() if m.mode == 0o777)
    assert found["opt/conda/bin/run"].mode == 0o755
    assert found["opt/conda/lib/liby.so"].linkname == "libx.so"
    assert found["opt/conda/share/two"].islnk()
    assert found["opt/conda/share/two"].linkname == "opt/conda/share/one"
    assert content(tar, "opt/conda/bin/run") == b"#!/opt/conda/bin/sh\necho /opt/conda\n"
    patched = content(tar, "opt/conda/lib/libx.so")
    assert len(patched) == len(binary)
    assert patched.startswith(b"\x7fELF\0/opt/conda/lib\0")
    assert patched.endswith(b"\0rest")
    assert "opt/conda/CACHEDIR.TAG" not in found
    assert {name.partition("/")[0] for name in found} == {"opt"}

    record = json.loads(content(tar, "opt/conda/conda-meta/tool-2.0-0.json"))
    assert record["channel"] == "lab"
    assert record["url"] == "channel:///lab/linux-64/tool-2.0-0.conda"
    assert record["depends"] == ["libfoo >=1.1", "__glibc >=2.31"]
    assert record["requested_spec"] == "tool=2.0"
    assert record["files"] == ["bin/tool"]
    other = json.loads(content(tar, "opt/conda/conda-meta/libfoo-1.2-0.json"))
    assert other["requested_spec"] == "None"
    history = content(tar, "opt/conda/conda-meta/history").decode()
    assert "+lab/linux-64::tool-2.0-0\n" in history
    assert "# update specs: ['tool=2.0', 'patched']\n" in history
    # Neither this machine nor the channel's server is in it.
    data = tar.read_bytes()
    assert str(tools.store.root).encode() not in data
    assert b"127.0.0.1" not in data


def test_the_prefix_is_the_same_bytes_everywhere(
    channel: Channel, tools: Tools, asked: Ask, tmp_path: Path
) -> None:
    request = asked("tool")
    lock = conda_resolve.lock(request, None, tools)
    first = conda_store.prepared(request, lock, tools)
    other = replace(tools, store=Store(tmp_path / "another" / "store"))
    shutil.copytree(tools.store.root / "sha256", other.store.root / "sha256")
    assert not CONDA.prepared(request, lock, other)
    CONDA.prepare(request, lock, other)
    assert CONDA.prepared(request, lock, other)
    second = conda_store.prepared(request, lock, other)
    assert first != second
    assert sha256_of(first) == sha256_of(second)


def test_bytecode_that_times_make_stale_is_left_out(tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    (staged / "lib/__pycache__").mkdir(parents=True)
    (staged / "lib/a.py").touch()
    (staged / "lib/b.py").touch()
    by_time, by_hash = b"magi" + bytes(4) + b"timesize", b"magi\1" + bytes(3) + b"hash"
    (staged / "lib/__pycache__/a.cpython-312.pyc").write_bytes(by_time)
    (staged / "lib/__pycache__/b.cpython-312.pyc").write_bytes(by_hash)
    (staged / "lib/__pycache__/no-source.cpython-312.pyc").write_bytes(by_time)
    prefix.write(staged, "/opt/conda", tmp_path / "prefix.tar")
    found = [name for name in members(tmp_path / "prefix.tar") if name.endswith(".pyc")]
    assert found == [
        "opt/conda/lib/__pycache__/b.cpython-312.pyc",
        "opt/conda/lib/__pycache__/no-source.cpython-312.pyc",
    ]


def test_another_prefix(channel: Channel, tools: Tools, asked: Ask) -> None:
    request = asked("tool", prefix="/srv/lab/conda")
    lock = conda_resolve.lock(request, None, tools)
    found = members(conda_store.prepared(request, lock, tools))
    assert "srv/lab/conda/bin/tool" in found
    assert lock.key != conda_resolve.lock(asked("tool"), None, tools).key


def test_python_and_what_pip_finds_of_it(channel: Channel, tools: Tools, asked: Ask) -> None:
    channel.package("python", "3.12.4", {"bin/python3.12": "#!/bin/sh\n"})
    channel.package(
        "pytables",
        "3.9",
        {
            "site-packages/tables/__init__.py": "",
            "site-packages/Tables-3.9.2.dist-info/METADATA": "",
        },
        noarch="python",
        depends=["python >=3.8"],
    )
    request = asked("pytables", "python")
    lock = conda_resolve.lock(request, None, tools)
    assert constraints(lock) == {"tables": "3.9.2"}
    facts = CONDA.facts(lock, FACTS)
    assert (facts.python, facts.python_version) == ("/opt/conda/bin/python", "3.12.4")
    assert facts.glibc == "2.36"
    tar = conda_store.prepared(request, lock, tools)
    assert "opt/conda/lib/python3.12/site-packages/tables/__init__.py" in members(tar)
    added = conda_image.contribute(request, lock)
    assert added.labels["python.version"] == "3.12.4"
    assert added.labels["conda.packages"] == "pytables=3.9 python=3.12.4"
    (compile_,) = [step for step in added.steps if isinstance(step, Run)]
    assert "/opt/conda/lib/python3.12" in compile_.commands[0]
    assert f"{conda_image.LENT}/bytecode.py" in compile_.commands[0]
    assert [mount.target for mount in compile_.mounts] == [conda_image.LENT]
    assert f"{compile_.mounts[0].source}/bytecode.py" in added.files

    without = conda_resolve.lock(asked("tool"), None, tools)
    assert CONDA.facts(without, FACTS) == FACTS


@pytest.mark.parametrize(("version", "has"), [("3.12.4", True), ("3.7", True), ("3.6.1", False)])
def test_old_pythons_know_bytecode_by_time_only(version: str, has: bool) -> None:
    command = conda_image.compiled("/opt/conda", version)
    assert ("bytecode.py" in command) is has
    assert ("-m compileall" in command) is not has


# -- what goes into an image ----------------------------------------------------------------


def test_what_is_added(channel: Channel, tools: Tools, asked: Ask) -> None:
    request = asked("tool")
    lock = conda_resolve.lock(request, None, tools)
    added = conda_image.contribute(request, lock)
    (add,) = added.steps
    assert isinstance(add, Add)
    assert (add.source, add.target) == ("conda/prefix.tar", "/")
    assert added.files == {"conda/prefix.tar": Derived(key=lock.key, name="prefix.tar")}
    assert added.path == ("/opt/conda/bin",)
    assert added.env == {"CONDA_PREFIX": "/opt/conda"}

    given = replace(
        lock,
        variables=(
            Variable(name="PATH", value="/opt/conda/x:/opt/conda/y", script="a.sh"),
            Variable(name="T", value="1", script="a.sh"),
        ),
        scripts=(("tool", ("bin/.tool-post-link.sh", "bin/.tool-pre-link.sh")),),
    )
    added = conda_image.contribute(request, given)
    assert added.path == ("/opt/conda/x", "/opt/conda/y", "/opt/conda/bin")
    assert added.env == {"CONDA_PREFIX": "/opt/conda", "T": "1"}
    _, run = added.steps
    assert isinstance(run, Run)
    assert [".tool-pre-link.sh" in run.commands[0], ".tool-post-link.sh" in run.commands[1]] == [
        True,
        True,
    ]
    assert "PKG_NAME=tool PKG_VERSION=2.0 PKG_BUILDNUM=0" in run.commands[0]
    assert comparison(given) == "+PATH=/opt/conda/x:/opt/conda/y:$PATH  # a.sh\n+T=1  # a.sh\n"


def by_conda(version: str = "4.10.3", conda: str = "/opt/conda") -> Facts:
    """The facts of a base that has a conda."""
    return replace(FACTS, conda=conda, conda_version=version)


@pytest.mark.parametrize(("version", "sha256"), [("4.10.3", False), ("24.9.0", True)])
def test_by_the_bases_own_conda(
    channel: Channel, tools: Tools, asked: Ask, version: str, sha256: bool
) -> None:
    request = asked("tool", installer="conda", facts=by_conda(version))
    lock = conda_resolve.lock(request, None, tools)
    assert CONDA.prepared(request, lock, tools)
    added = conda_image.contribute(request, lock)
    (run,) = added.steps
    assert isinstance(run, Run)
    commands = [command.replace("\n", " ") for command in run.commands]
    assert commands[1:3] == [
        "conda install -y -p /opt/conda --no-deps --offline "
        "--file /dev/shm/lading/conda/explicit.txt",
        "conda clean -a -y",
    ]
    tool = next(package for package in lock.packages if package.name == "tool")
    at = "conda/packages/lab/linux-64/tool-2.0-0.conda"
    assert at in added.files
    listed = added.files["conda/explicit.txt"]
    assert isinstance(listed, bytes)
    assert listed.startswith(b"@EXPLICIT\n")
    check = f"sha256:{tool.sha256}" if sha256 else tool.md5
    assert f"file:///dev/shm/lading/{at}#{check}\n" in listed.decode()


def test_where_the_bases_conda_lives(channel: Channel, tools: Tools, asked: Ask) -> None:
    facts = by_conda(conda="/usr/local/miniconda3")
    request = asked("libfoo", installer="conda", facts=facts)
    lock = conda_resolve.lock(request, None, tools)
    assert lock.prefix == "/usr/local/miniconda3"
    added = conda_image.contribute(request, lock)
    assert added.env["CONDA_PREFIX"] == "/usr/local/miniconda3"
    assert added.path == ("/usr/local/miniconda3/bin",)

    other = asked("libfoo", installer="conda", facts=facts, prefix="/opt/other")
    (run,) = conda_image.contribute(other, conda_resolve.lock(other, None, tools)).steps
    assert isinstance(run, Run)
    assert run.commands[1].startswith("conda create -y -p /opt/other --no-deps --offline")
    settle, compile_ = run.commands[-2:]
    assert settle.startswith("/usr/local/miniconda3/bin/python -B ")
    assert " /usr/local/miniconda3/bin/python -S -B " in compile_


@pytest.mark.parametrize("section", [{"installer": "conda"}, {"locker": "conda-export"}])
def test_a_base_without_conda(asked: Ask, section: dict[str, str]) -> None:
    with pytest.raises(DeclarationError, match="but the base has no conda"):
        asked("tool", **section)


def test_a_base_whose_conda_is_in_the_way(asked: Ask) -> None:
    with pytest.raises(DeclarationError, match="own conda is in /opt/conda already"):
        asked("tool", facts=by_conda())
    asked("tool", facts=by_conda(), prefix="/opt/packages")


def test_a_conda_too_old_for_a_package(channel: Channel, tools: Tools, asked: Ask) -> None:
    with pytest.raises(LadingError, match=r"conda 4\.6\.14 reads no \.conda packages") as refused:
        conda_resolve.lock(asked("tool", installer="conda", facts=by_conda("4.6.14")), None, tools)
    assert refused.value.why == "tool-2.0-0.conda"
    conda_resolve.lock(asked("libfoo", installer="conda", facts=by_conda("4.6.14")), None, tools)


def test_what_conda_left_is_settled(tmp_path: Path) -> None:
    folder = "/dev/shm/lading/conda/packages"
    lent = f"file://{folder}/pkgs/main/linux-64"
    prefix = tmp_path / "prefix"
    meta = prefix / "conda-meta"
    meta.mkdir(parents=True)
    kept = {"source": f"{prefix}/pkgs/tool-2.0-0", "type": 1}
    said = {"channel": lent, "url": f"{lent}/tool-2.0-0.conda", "link": kept}
    (prefix / "pkgs/tool-2.0-0/info").mkdir(parents=True)
    (meta / "tool-2.0-0.json").write_text(json.dumps(said))
    before = {"channel": "https://x.example/main", "url": "https://x.example/main/linux-64/b.conda"}
    (meta / "b.json").write_text(json.dumps(before))
    old = "==> 2021-01-01 00:00:00 <==\n# cmd: constructor\n+b\n"
    new = f"==> 2026-01-01 10:00:00 <==\n# cmd: conda x\n+{lent[7:]}::tool-2.0-0\n"
    (meta / "history").write_text(old + new)
    (prefix / "pkgs/urls.txt").write_text(f"https://x.example/b.conda\n{lent}/tool-2.0-0.conda\n")
    (prefix / "pkgs/urls").write_text(f"{lent}/tool-2.0-0.conda\n")
    settled.main(prefix, folder)
    assert json.loads((meta / "tool-2.0-0.json").read_text()) == {
        "channel": "pkgs/main",
        "url": "channel:///pkgs/main/linux-64/tool-2.0-0.conda",
        "link": kept,
    }
    assert not (prefix / "pkgs/tool-2.0-0").exists()
    assert json.loads((meta / "b.json").read_text()) == before
    assert (meta / "history").read_text() == (
        f"{old}==> 1980-01-01 00:00:00 <==\n# cmd: lading\n+pkgs/main/linux-64::tool-2.0-0\n"
    )
    assert (prefix / "pkgs/urls.txt").read_text() == "https://x.example/b.conda\n"
    assert not (prefix / "pkgs/urls").exists()


def test_bytecode_that_conda_left_is_to_be_made_anew(tmp_path: Path) -> None:
    prefix = tmp_path / "tests/prefix"
    short = ".".join(map(str, sys.version_info[:2]))
    inside = f"lib/python{short}/site-packages/m"
    cached = f"{inside}/__pycache__/a.cpython-{short.replace('.', '')}.pyc"
    (prefix / cached).parent.mkdir(parents=True)
    (prefix / cached).write_bytes(b"stale")
    names = [f"{inside}/a.py", f"{inside}/tests/t.py", "share/b.py", cached]
    assert settled.modules(prefix, names) == [str(prefix / inside / "a.py")]
    assert not (prefix / cached).exists()


def test_digits_alone_stand_in_quotes() -> None:
    """To YAML they would be a number."""
    text = "version: 7\npackages:\n- conda: channel:///lab/noarch/a-1-0.conda\n"
    text += f"  sha256: '{7:064}'\n  md5: '{8:031}e'\n  size: 9\n"
    (package,) = explicit.locked(text, "conda.lock")
    assert (package.sha256, package.size) == (f"{7:064}", 9)


def test_the_bases_own_conda_keeps_its_python(channel: Channel, tools: Tools, asked: Ask) -> None:
    for version in ("3.9.5", "3.12.4"):
        channel.package("python", version)
    own = replace(by_conda(), python="/opt/conda/bin/python", python_version="3.9.2")
    lock = conda_resolve.lock(asked("python", installer="conda", facts=own), None, tools)
    assert versions(lock) == {"python": "3.9.5"}
    elsewhere = asked("python", facts=own, prefix="/opt/packages")
    assert versions(conda_resolve.lock(elsewhere, None, tools)) == {"python": "3.12.4"}


def test_what_the_bases_own_conda_leaves_counts_for_pip(
    channel: Channel, tools: Tools, asked: Ask
) -> None:
    ran: list[Sequence[str]] = []
    has = [["Some_Thing", "1.5", "some-thing"], ["libfoo", "0", "libfoo"], ["by.pip", "2", ""]]
    result = RunResult(code=0, output=f"a warning\n@lading has {json.dumps(has)}\n")

    def run(command: Sequence[str], **_: object) -> RunResult:
        ran.append(command)
        return result

    there = replace(tools, in_base=lambda: run)
    request = replace(asked("libfoo", installer="conda", facts=by_conda()), upon="sha256:1")
    assert request.digest != replace(request, upon="sha256:2").digest
    lock = conda_resolve.lock(request, None, there)
    assert lock.distributions == {"some-thing": "1.5", "by-pip": "2"}
    ((program, _, _, prefix),) = ran
    assert (program, prefix) == ("/opt/conda/bin/python", "/opt/conda")

    result = RunResult(code=1, output="no such file")
    with pytest.raises(LadingError, match="what the base has in /opt/conda can't be found out"):
        conda_resolve.lock(request, None, there)
    # Nobody is asked where pip has nothing to put there.
    conda_resolve.lock(asked("libfoo", installer="conda", facts=by_conda()), None, tools)


def test_the_python_packages_of_a_prefix_are_read(tmp_path: Path) -> None:
    prefix = tmp_path / "[conda]"
    site = prefix / "lib/python3.9/site-packages"
    for name, file in (("a-1.dist-info", "METADATA"), ("b.egg-info", "PKG-INFO")):
        (site / name).mkdir(parents=True)
        (site / name / file).write_text(f"Name: {name[0]}\nVersion: 1\n\nName: no\n")
    (site / "c-2.egg-info").write_bytes(b"Summary: \xff\nName: c\nVersion: 2\n")
    (site / "broken.dist-info").mkdir()
    (prefix / "conda-meta").mkdir()
    inside = "lib/python3.9/site-packages/a-1.dist-info/METADATA"
    record = {"name": "conda-a", "files": [inside]}
    (prefix / "conda-meta/conda-a-1-0.json").write_text(json.dumps(record))
    run = subprocess.run(
        [sys.executable, "-c", conda_own.LOOK, str(prefix)], capture_output=True, check=True
    )
    assert json.loads(run.stdout.decode().partition("@lading has ")[2]) == [
        ["a", "1", "conda-a"],
        ["b", "1", ""],
        ["c", "2", ""],
    ]


# -- activation -----------------------------------------------------------------------------


def test_activation_takes_an_engine(channel: Channel, tools: Tools, asked: Ask) -> None:
    channel.package("acts", "1", {"etc/conda/activate.d/acts.sh": "export A=1\n"})
    with pytest.raises(EnvironmentProblem) as refused:
        conda_resolve.lock(asked("acts"), None, tools)
    assert "takes an engine" in refused.value.what
    assert "acts.sh" in refused.value.why
    assert refused.value.do == "start one"


def test_variables_in_files(channel: Channel, tools: Tools, asked: Ask, tmp_path: Path) -> None:
    channel.package("says", "1", {"etc/conda/env_vars.d/says.json": '{"SAYS": "it", "TOO": "2"}'})
    lock = conda_resolve.lock(asked("says"), None, tools)
    assert [(v.name, v.value) for v in lock.variables] == [("SAYS", "it"), ("TOO", "2")]
    conda.write(tmp_path / "locks", lock)
    assert conda.read(tmp_path / "locks") == lock

    channel.package("loud", "1", {"etc/conda/env_vars.d/loud.json": '{"LOUD": "a`b"}'})
    with pytest.raises(LadingError) as refused:
        conda_resolve.lock(asked("loud"), None, tools)
    assert "of loud" in refused.value.why
    own = replace(asked("loud"), overridden=("LOUD",))
    assert conda_resolve.lock(own, None, tools).variables == ()


# -- py-rattler in its own process ----------------------------------------------------------


def test_who_waits_is_told_what_for(
    channel: Channel,
    tools: Tools,
    asked: Ask,
    notes: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "QUICK", 0.01)
    conda_resolve.lock(asked("tool"), None, tools)
    assert any(note.endswith("s)") for note in notes)


def test_its_crash_at_the_end_is_not_seen(channel: Channel, tools: Tools, asked: Ask) -> None:
    """py-rattler 0.28 crashes when the interpreter ends, in some of ten runs."""
    request, channels = asked("tool"), Channels(environ=tools.environ)
    assert len({conda_resolve.solved(request, None, channels, tools) for _ in range(8)}) == 1


def test_without_py_rattler(
    tools: Tools, asked: Ask, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rattler.py").write_text("raise ModuleNotFoundError(\"No module named 'rattler'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CONDA_CHANNEL_ALIAS", "http://127.0.0.1:9")
    environ = replace(tools, environ=os.environ)
    with pytest.raises(EnvironmentProblem, match="py-rattler is not installed"):
        conda_resolve.lock(asked("tool"), None, environ)
