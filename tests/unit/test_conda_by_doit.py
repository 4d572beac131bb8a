"""The conda layer the user's way: what doit locks, fetches and refuses, in which words."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from types import SimpleNamespace

import pytest

from lading import registry
from lading.store import Store
from tests.support.channels import Channel, link, only_loopback
from tests.support.index import Index
from tests.support.projects import Trial

YAML = """\
lading: 1
name: trial
bases:
  slim: {image: docker.io/library/python:3.13-slim}
images:
  one:
    base: slim
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    only_loopback(monkeypatch, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def channel(tmp_path: Path, home: Path) -> Iterator[Channel]:
    with Channel(tmp_path / "channels") as found:
        found.package("libfoo", "1.0", format=".tar.bz2")
        found.package("libfoo", "1.2")
        found.package("tool", "2.0", depends=["libfoo >=1.1"])
        yield found


@pytest.fixture
def trial(tmp_path: Path, channel: Channel) -> Trial:
    environ = {**os.environ, "CONDA_CHANNEL_ALIAS": channel.alias}
    return Trial.make(tmp_path / "project", YAML, **environ)


@pytest.fixture
def run(trial: Trial, capsys: pytest.CaptureFixture[str]) -> Run:
    """Declares the image's section `conda:`, and runs doit; its exit code, and all it said."""

    def ran(*arguments: str, conda: str = "", **more: str) -> tuple[int, str]:
        if conda:
            lines = {"conda": conda, **{key.replace("_", "-"): text for key, text in more.items()}}
            text = "".join(f"    {key}: {text}\n" for key, text in lines.items())
            (trial.root / "project.yaml").write_text(YAML + text)
        capsys.readouterr()
        code = trial.doit(*arguments)
        said = "".join(capsys.readouterr())
        assert "Traceback" not in said
        return code, said

    return ran


LATER = datetime(2025, 6, 1, 12, tzinfo=UTC)
TOOL = "{channels: lab, packages: tool}"


def locked(trial: Trial) -> Path:
    return trial.root / "locks/images/one/linux-amd64"


def test_it_is_locked_and_fetched(trial: Trial, run: Run) -> None:
    code, said = run("fetch:one", conda=TOOL)
    assert code == 0, said
    assert "2 conda packages" in said
    assert (locked(trial) / "conda.lock").exists()
    code, said = run("fetch:one")
    assert code == 0, said


def test_why_a_package_is_there(run: Run, trial: Trial) -> None:
    several = "{channels: lab, packages: tool, environments: {more: {packages: [libfoo<2]}}}"
    assert run("lock:one", conda=several)[0] == 0
    code, said = run("why", "one", "libfoo")
    assert code == 0
    second, first = said.split("\n\n")  # the topmost comes first
    assert first.startswith("libfoo 1.2: conda, in locks/images/one/linux-amd64/conda.lock\n")
    assert second.startswith("libfoo 1.2: conda, in /opt/more, in ")
    assert first.splitlines()[2:5] == [
        "  wanted by",
        "    project.yaml:8: images.one.conda.packages: tool",
        "      tool 2.0: libfoo >=1.1",
    ]
    where = "project.yaml:8: images.one.conda.environments.more.packages: libfoo<2"
    assert f"    {where}\n" in second
    assert f"bounded by {where};" in second
    assert run("why", "one", "libfo")[0] == 1


# -- what is locked, and stays so -------------------------------------------------------------


def test_pins_move_when_they_are_told_to(
    trial: Trial, run: Run, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = "{channels: lab, packages: tool, environments: {side: {packages: libfoo}}}"
    assert run("lock:one", conda=both)[0] == 0
    channel.package("libfoo", "1.3")
    channel.package("tool", "2.1", depends=["libfoo >=1.1"])
    base = trial.state().base_lock(trial.state().project.bases["slim"])
    assert base is not None

    def same(image: str, platform: str, environ: object) -> SimpleNamespace:
        return SimpleNamespace(digest=base.digest)

    monkeypatch.setattr(registry, "resolve", same)
    before = {path: path.read_bytes() for path in locked(trial).rglob("*") if path.is_file()}
    packages = len(list((trial.state().store.root).rglob("*")))
    code, said = run("outdated", "one")
    assert code == 1, said
    assert "  conda packages: 2 moved" in said
    assert "      libfoo 1.2 → 1.3 " in said
    assert "      tool   2.0 → 2.1 " in said
    assert "  conda packages, side: 1 moved" in said
    assert {path: path.read_bytes() for path in before} == before
    assert len(list((trial.state().store.root).rglob("*"))) == packages, "no package is fetched"

    code, said = run("upgrade:one", "package=tool")
    assert code == 0, said
    assert "tool 2.0 → 2.1" in said
    assert "libfoo" not in said
    changed = {path.parent for path in before if path.read_bytes() != before[path]}
    assert changed == {locked(trial)}, "not the other environment"
    code, said = run("upgrade:one", "package=libfoo")
    assert code == 0, said
    assert said.count("libfoo 1.2 → 1.3") == 2, "in both environments"
    assert run("frozen=1", "lock:one")[0] == 0
    channel.stop()
    code, said = run("outdated", "one")
    assert code == 2, said
    assert "! conda can't be asked: images.one.conda: a channel can't be read" in said
    assert "! conda:side can't be asked" in said


def test_pins_stay_and_a_day_counts(trial: Trial, run: Run, channel: Channel) -> None:
    assert run("lock:one", conda=TOOL)[0] == 0
    before = (locked(trial) / "explicit.txt").read_text().partition("@EXPLICIT")[2]
    channel.package("libfoo", "1.3", at=LATER)
    code, said = run("lock:one", conda="{channels: lab, packages: [tool, libfoo]}")
    assert code == 0, said
    assert (locked(trial) / "explicit.txt").read_text().partition("@EXPLICIT")[2] == before
    code, said = run("lock:one", conda="{channels: lab, packages: [tool, libfoo>1.2]}")
    assert code == 0, said
    assert "      libfoo 1.2 → 1.3  " in said

    # Without the lock, as of a day the older one again.
    shutil.rmtree(locked(trial))
    code, said = run("lock:one", conda=TOOL, as_of="2025-05-31")
    assert code == 0, said
    assert "libfoo-1.2-0.conda" in (locked(trial) / "explicit.txt").read_text()


def test_packages_for_cuda(run: Run, channel: Channel) -> None:
    channel.package("gpu", "1", depends=["__cuda >=12"])
    code, said = run("lock:one", conda="{channels: lab, packages: gpu}")
    assert code == 1
    assert "packages for CUDA are resolved with `cuda:`" in said
    code, said = run("lock:one", conda="{channels: lab, packages: gpu, cuda: 12.4}")
    assert code == 0, said


def test_what_takes_long_is_told(run: Run, channel: Channel) -> None:
    """One that takes longer than two seconds shows what it is doing, and for how long."""
    channel.delay = 0.8
    code, said = run("lock:one", conda=TOOL)
    assert code == 0, said
    assert re.search(
        r"^  (starting|reading what lab offers|resolving 1 specs) \(\d s\)$", said, re.MULTILINE
    )


YAML_WITH_PIP = "channels: [lab]\ndependencies:\n- python\n- six\n- pip:\n  - {}\n"


def test_pip_on_top(
    run: Run, trial: Trial, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its part of the lock moves alone; what does not fit conda's is said with both sides."""
    channel.package("python", "3.12.4", build="0_cpython")
    info = {"site-packages/six-1.5.dist-info/METADATA": ""}
    channel.package("six", "1.5", info, noarch="python", depends=["python"])
    environment = trial.root / "recipes/environment.yaml"
    environment.write_text(YAML_WITH_PIP.format("a"))
    with Index() as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        index.wheel("uv", version_of("uv"), tags="py3-none-manylinux_2_17_x86_64")
        index.wheel("a", "1.0", requires=["six>=1.5"])
        index.wheel("b", "1.0", requires=["six>=1.16"])
        code, said = run("lock:one", conda="{file: recipes/environment.yaml}")
        assert code == 0, said
        lines = (locked(trial) / "requirements.txt").read_text()
        assert "a==1.0" in lines
        assert "# via: -r recipes/environment.yaml\n" in lines
        assert "six" not in lines
        before = (locked(trial) / "conda.lock").read_bytes(), len(channel.requests)

        environment.write_text(YAML_WITH_PIP.format("b"))
        code, said = run("lock:one")
        assert code == 1
        assert "what pip is asked for (recipes/environment.yaml:6: b) does not fit what" in said
        assert "conda installs (six 1.5)" in said
        assert "six>=1.16" in said

        index.wheel("c", "1.0")
        environment.write_text(YAML_WITH_PIP.format("c"))
        code, said = run("lock:one")
        assert code == 0, said
        assert "    - a 1.0\n    + c 1.0   628 B\n" in said
        # The same lock of conda's packages, for which no channel was asked.
        assert ((locked(trial) / "conda.lock").read_bytes(), len(channel.requests)) == before


# -- what can't be locked ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        ("toool", ["No candidates were found for toool", "there is no toool; do you mean tool?"]),
        ("qqqqq", ["there is no qqqqq in these channels"]),
        ("libfoo>3", ["of libfoo there are 1.0, 1.2"]),
        (
            "[tool, libfoo<1.1]",
            ["libfoo >=1.1", "images.one.conda.packages: tool", "packages: libfoo<1.1"],
        ),
        ("newest", ["__glibc >=9.9", "the base has glibc 2.41: choose a newer base"]),
        ("arm", ["arm is there for linux-aarch64, not for linux-64"]),
    ],
)
def test_what_does_not_fit(run: Run, channel: Channel, packages: str, said: list[str]) -> None:
    channel.package("newest", "1", depends=["__glibc >=9.9"])
    channel.package("arm", "1", subdir="linux-aarch64")
    code, output = run("build:one", conda=f"{{channels: lab, packages: {packages}}}")
    assert code == 1
    assert "images.one.conda: no packages of lab fit linux-64, glibc 2.41" in output
    for text in said:
        assert text in output


def test_a_channel_that_is_down(run: Run, channel: Channel) -> None:
    channel.stop()
    code, said = run("lock:one", conda=TOOL)
    assert code == 2
    assert "images.one.conda: a channel can't be read (lab)" in said
    assert "`channel_alias`" in said


@pytest.mark.parametrize("there", [True, False])
def test_a_channel_half_updated(run: Run, trial: Trial, channel: Channel, there: bool) -> None:
    """Its index names a file that it has not yet, or has another of."""
    path = channel.folder / "linux-64/tool-2.0-0.conda"
    data = path.read_bytes()
    path.unlink()
    if there:
        path.write_bytes(data[:-1] + b"x")
    code, said = run("lock:one", conda=TOOL)
    assert code == 1
    assert "tool-2.0-0.conda" in said
    assert ("not what is locked" if there else "is no longer there") in said
    assert not locked(trial).exists()
    path.write_bytes(data)
    assert run("lock:one")[0] == 0


def test_a_package_that_is_another_than_it_is_called(run: Run, channel: Channel) -> None:
    channel.crafted("odd", "1", [("share/odd", b"")], index={"subdir": "linux-aarch64"})
    code, said = run("lock:one", conda="{channels: lab, packages: odd}")
    assert code == 1
    assert "odd-1-0.tar.bz2 can't be unpacked safely" in said
    assert "it says that it is for linux-aarch64, not linux-64" in said


EVIL: Mapping[str, list[tarfile.TarInfo | tuple[str, bytes]]] = {
    "absolute-link": [link("lib/x", "/etc/passwd")],
    "link-out": [link("lib/x", "../../out")],
    "up": [("../out", b"evil")],
    "absolute": [("/out", b"evil")],
}


def test_archives_that_lead_out(run: Run, trial: Trial, channel: Channel, tmp_path: Path) -> None:
    for name, inside in EVIL.items():
        channel.crafted(name, "1", [("share/ok", b""), *inside])
    code, said = run("build:one", conda=f"{{channels: lab, packages: [{', '.join(EVIL)}]}}")
    assert code == 1
    assert "4 packages can't be unpacked safely" in said
    for name in EVIL:
        assert f"{name}-1-0.tar.bz2: " in said
    assert not locked(trial).exists()
    assert not list(tmp_path.rglob("out"))


# -- locked, and then something goes wrong ----------------------------------------------------


@pytest.fixture
def emptied(run: Run, trial: Trial) -> Store:
    """All is locked, and the store has nothing of it."""
    code, said = run("lock:one", conda=TOOL)
    assert code == 0, said
    store = trial.state().store
    shutil.rmtree(store.root)
    return store


def test_what_comes_is_not_what_is_locked(run: Run, channel: Channel, emptied: Store) -> None:
    path = channel.folder / "linux-64/tool-2.0-0.conda"
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    code, said = run("fetch:one", "frozen=1")
    assert code == 1
    assert "tool-2.0-0.conda" in said
    assert "not what is locked" in said
    assert "sha256" in said


def test_the_channel_is_down_when_packages_are_wanted(
    run: Run, channel: Channel, emptied: Store
) -> None:
    channel.stop()
    code, said = run("fetch:one")
    assert code == 2
    assert "tool-2.0-0.conda" in said or "libfoo-1.2-0.conda" in said


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("explicit.txt", "#sha256:", " ", r"explicit\.txt:\d+: not a line of a conda lock"),
        (
            "explicit.txt",
            ".conda#sha256:",
            ".conda#",
            r"explicit\.txt:\d+: a package without a sha256|explicit\.txt:\d+: not a line",
        ),
        (
            "explicit.txt",
            "libfoo-1.2",
            "libfoo-1.0",
            r"explicit\.txt: does not follow",
        ),
        ("conda.lock", "  sha256: ", "  sha1: ", ": no sha256"),
    ],
)
def test_a_lock_that_was_edited(
    run: Run, trial: Trial, file: str, old: str, new: str, said: str
) -> None:
    """Nothing is fetched by it where locks are not to change; else it is made anew."""
    assert run("lock:one", conda=TOOL)[0] == 0
    path = locked(trial) / file
    text = path.read_text()
    path.write_text(text.replace(old, new))
    code, output = run("fetch:one", "frozen=1")
    assert code == 1
    assert re.search(said, output)
    code, output = run("fetch:one")
    assert code == 0, output
    assert "its lock can't be read; it is made anew" in output
    assert path.read_text() == text


def test_a_line_without_a_hash(run: Run, trial: Trial) -> None:
    assert run("lock:one", conda=TOOL)[0] == 0
    path = locked(trial) / "explicit.txt"
    path.write_text(re.sub(r"(?m)^(channel:.*)#sha256:.*", r"\1", path.read_text()))
    code, said = run("fetch:one", "frozen=1")
    assert code == 1
    assert "a package without a sha256" in said
