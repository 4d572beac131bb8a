"""upgrade: which pins move, that all of it is written or nothing, and what is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from lading import net, registry, together
from lading.engines import RunResult
from lading.layers import base as bases
from lading.project import load
from tests.support.index import Index, only_loopback
from tests.support.projects import Trial

Said = pytest.CaptureFixture[str]
LOOKED = """\
python=/usr/bin/python3
python_version=3.13.5
glibc=2.41
package_manager=apt-get
os=debian 13
"""


@dataclass
class Registry:
    """What the registry says; `seen` counts how often it was asked."""

    digest: str
    seen: int = 0

    def resolve(self, image: str, platform: str, environ: object) -> SimpleNamespace:
        self.seen += 1
        return SimpleNamespace(digest=self.digest)


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    only_loopback(monkeypatch, tmp_path, tmp_path / "uv-cache")
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(net, "BACKOFF", 0.0)
    made = Trial.make(tmp_path / "project")
    made.environ.update(os.environ)
    made.environ["LADING_CACHE"] = str(tmp_path / "project.cache")
    made.engine.results = [RunResult(code=0, output=LOOKED)] * 9
    yield made


@pytest.fixture
def index(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index with a newer version of all that the project's lock names."""
    with Index() as made:
        monkeypatch.setenv("UV_DEFAULT_INDEX", made.url)
        trial.environ["UV_DEFAULT_INDEX"] = made.url
        made.wheel("a", "1.0")
        made.wheel("uv", "9", files={"uv-9.data/scripts/uv": b"#!/bin/sh\n"})
        made.wheel("uv", __import__("importlib.metadata").metadata.version("uv"))
        yield made


@pytest.fixture
def remote(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry that has the base as it is locked."""
    lock = trial.state().base_lock(load(trial.root / "project.yaml").bases["slim"])
    assert lock is not None
    made = Registry(digest=lock.digest)
    monkeypatch.setattr(registry, "resolve", made.resolve)
    return made


def files(trial: Trial) -> dict[str, str]:
    return {
        str(path.relative_to(trial.root)): path.read_text()
        for path in sorted((trial.root / "locks").rglob("*"))
        if path.is_file()
    }


def versions(trial: Trial, image: str = "one") -> dict[str, str]:
    lock = trial.root / f"locks/images/{image}/linux-amd64/requirements.txt"
    lines = [line for line in lock.read_text().splitlines() if "==" in line]
    return dict(line.removesuffix(" \\").split("==") for line in lines)


def test_all_that_may_move_moves(
    trial: Trial, index: Index, remote: Registry, capsys: Said
) -> None:
    index.wheel("a", "2.0", requires=["b"])
    index.wheel("b", "1")
    remote.digest = "sha256:" + "7" * 64
    assert trial.doit("lock") == 0
    assert versions(trial) == {"a": "1.0"}, "lock keeps what fits"
    capsys.readouterr()

    assert trial.doit("upgrade:one") == 0
    said = capsys.readouterr().out
    assert versions(trial) == {"a": "2.0", "b": "1"}
    base = load(trial.root / "project.yaml").bases["slim"]
    lock = trial.state().base_lock(base)
    assert lock is not None and lock.digest == remote.digest
    assert bases.inputs(base, "linux/amd64") == lock.header.inputs
    assert "base slim: 1 moved" in said
    assert "→ sha256:777777777777" in said
    assert "Python packages: 1 moved, 1 added" in said
    assert "      a 1.0 → 2.0  " in said
    assert "Python packages, to install them: 1 moved" in said
    assert "slim is also the base of two, spare" in said

    # What is locked now is current, and a second time nothing moves.
    before = files(trial)
    assert trial.doit("frozen=1", "lock") == 0
    assert trial.doit("upgrade:one") == 0
    assert "nothing moves" in capsys.readouterr().out
    assert files(trial) == before


def test_only_what_is_named_moves_and_what_it_forces(
    trial: Trial, index: Index, remote: Registry, capsys: Said
) -> None:
    (trial.root / "recipes/one.in").write_text("a\nb\nc\n")
    for name in "bc":
        index.wheel(name, "1.0")
    assert trial.doit("lock") == 0
    index.wheel("a", "2.0", requires=["b>1"])
    index.wheel("b", "2.0")
    index.wheel("c", "2.0")
    remote.digest = "sha256:" + "7" * 64
    seen = remote.seen

    assert trial.doit("upgrade:one", "package=b") == 0
    assert versions(trial) == {"a": "1.0", "b": "2.0", "c": "1.0"}
    assert trial.doit("upgrade:one", "package=C,b") == 0
    assert versions(trial) == {"a": "1.0", "b": "2.0", "c": "2.0"}
    assert remote.seen == seen, "the base is not asked for"
    installer = trial.root / "locks/images/one/linux-amd64/installer.txt"
    assert "uv==9 " in installer.read_text(), "nor does the installer move"

    index.wheel("b", "3.0")
    index.wheel("a", "3.0", requires=["b==3.0"])
    capsys.readouterr()
    assert trial.doit("upgrade:one", "package=a") == 0
    assert versions(trial)["a"] in ("2.0", "3.0")
    assert versions(trial)["c"] == "2.0"


@pytest.mark.parametrize(
    ("task", "name", "said"),
    [
        ("upgrade:one", "numpyy", "no lock of one has a package numpyy"),
        ("upgrade:one", "aa", "-> did you mean a?"),
        ("upgrade:one", "a==2.0", "name it without a version"),
        ("upgrade:one", "python:3.13-slim", "is part of the base slim, which moves as a whole"),
        ("upgrade", "a,numpyy", "no lock of these 2 images has a package numpyy"),
        ("upgrade", "python:3.13-slim", "-> doit upgrade:base:slim"),
    ],
)
def test_a_package_that_no_lock_has(
    trial: Trial, index: Index, remote: Registry, capsys: Said, task: str, name: str, said: str
) -> None:
    index.wheel("a", "2.0")
    before = files(trial)
    assert trial.doit(task, f"package={name}") == 3
    found = capsys.readouterr()
    assert said in found.err
    assert found.out == "", "nothing has run"
    assert files(trial) == before


def test_in_a_group_images_that_have_it_not_are_passed_over(
    trial: Trial, index: Index, remote: Registry, capsys: Said
) -> None:
    index.wheel("a", "2.0")
    assert trial.doit("upgrade", "package=a") == 0
    said = capsys.readouterr().out
    assert versions(trial) == {"a": "2.0"}
    assert "two" in said and "has no a" in said
    assert trial.doit("upgrade:base:slim", "package=a") == 3
    assert "a base, which moves as a whole" in capsys.readouterr().out


def test_of_several_packages_each_image_moves_those_that_it_has(
    trial: Trial, index: Index, remote: Registry, capsys: Said
) -> None:
    """Also of the images of a matrix."""
    yaml = trial.root / "project.yaml"
    more = "  v:\n    matrix: {p: [b, c]}\n    base: slim\n    pip: {requirements: recipes/v.in}\n"
    yaml.write_text(yaml.read_text() + more)
    (trial.root / "recipes/v.in").write_text("{p}\n")
    for name in "bc":
        index.wheel(name, "1")
    assert trial.doit("lock:v") == 0
    for name in "abc":
        index.wheel(name, "2")
    capsys.readouterr()
    assert trial.doit("upgrade:one", "upgrade:v", "package=a,b") == 0
    said = capsys.readouterr().out
    assert (versions(trial), versions(trial, "v-b"), versions(trial, "v-c")) == (
        {"a": "2"}, {"b": "2"}, {"c": "1"}
    )  # fmt: skip
    assert re.search(r"(?m)^upgrade +one .*; it has no b$", said)
    assert re.search(r"(?m)^upgrade +v-b .*; it has no a$", said)
    assert re.search(r"(?m)^upgrade +v-c .* has no a or b$", said)


def test_one_that_is_not_locked_yet(
    trial: Trial, index: Index, remote: Registry, capsys: Said
) -> None:
    (trial.root / "locks/images/one/linux-amd64/requirements.txt").unlink()
    assert trial.doit("upgrade:one", "package=a") == 1
    assert "one is not locked yet\n  -> doit lock:one\n" in capsys.readouterr().err


def test_a_lock_that_something_else_has_written_into(
    trial: Trial, index: Index, remote: Registry, capsys: Said
) -> None:
    """Its versions are the old ones: they stay where they are not to move."""
    (trial.root / "recipes/one.in").write_text("a\nb\n")
    for name in "ab":
        for version in ("1.0", "2.0", "3.0"):
            index.wheel(name, version)
    folder = trial.root / "locks/images/one/linux-amd64"
    (folder / "requirements.txt").write_text(
        "".join(f"{name}==2.0 --hash=sha256:{'1' * 64}\n" for name in "ab")
    )
    (folder / "build-old.txt").write_text("old==1\n")
    assert trial.doit("outdated", "one") == 1
    said = capsys.readouterr().out
    assert " a 2.0 → 3.0 " in said and " b 2.0 → 3.0 " in said
    assert "! its lock is not as lading wrote it: doit lock:one takes its versions" in said
    assert trial.doit("why", "one", "a") == 1
    assert "-> `doit lock:one` takes its versions as pins" in capsys.readouterr().err
    assert trial.doit("upgrade:one", "package=b") == 0
    said = capsys.readouterr().out
    assert versions(trial) == {"a": "2.0", "b": "3.0"}
    assert "      b 2.0 → 3.0  " in said and "1 moved" in said
    assert not (folder / "build-old.txt").exists()


def test_what_images_share_moves_once_a_run(
    trial: Trial, index: Index, remote: Registry, capsys: Said
) -> None:
    assert trial.doit("upgrade") == 0
    assert remote.seen == 1
    assert trial.doit("upgrade:one", "upgrade:two", "upgrade:base:slim") == 0
    assert remote.seen == 2


@pytest.mark.parametrize("arguments", [("frozen=1",), ()])
def test_frozen_it_is_an_error(
    trial: Trial, index: Index, remote: Registry, capsys: Said, arguments: tuple[str, ...]
) -> None:
    index.wheel("a", "2.0")
    if not arguments:
        trial.environ["CI"] = "true"
    before = files(trial)
    for task in ("upgrade:one", "upgrade:base:slim"):
        assert trial.doit(*arguments, task) == 1
        said = capsys.readouterr().out
        assert "with CI or frozen=1 set, locks are not changed" in said
        assert f"`doit {task}` without them" in said
    assert files(trial) == before
    assert remote.seen == 0


def test_plain_doit_does_not_upgrade(trial: Trial, index: Index, remote: Registry) -> None:
    index.wheel("a", "2.0")
    assert trial.doit() == 0
    assert versions(trial) == {"a": "1.0"}
    assert remote.seen == 0


def test_where_a_part_fails_nothing_has_changed(
    trial: Trial, index: Index, remote: Registry, capsys: Said
) -> None:
    """The base has moved, and the index is down."""
    remote.digest = "sha256:" + "7" * 64
    index.statuses["a"] = 503
    before = files(trial)
    assert trial.doit("upgrade:one") == 2
    assert files(trial) == before
    # In the same run, what was not written counts for nobody.
    index.statuses.clear()
    index.wheel("a", "2.0")
    index.statuses["a"] = 503
    capsys.readouterr()
    assert trial.doit("-c", "upgrade:one", "upgrade:two") == 2
    assert capsys.readouterr().out.count("base slim: 1 moved") == 1, "it is two that moved it"
    after = files(trial)
    changed = {path for path in after if after[path] != before.get(path)}
    assert changed == {"locks/bases/slim/linux-amd64/base.yaml"}, "two has moved its base"


def test_what_a_killed_one_had_begun_is_done_by_the_next_run(
    trial: Trial, index: Index, remote: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.wheel("a", "2.0", requires=["b"])
    index.wheel("b", "1")
    before = files(trial)
    # Killed in the middle of moving: all is there, nothing has its name.
    settle = together.settle
    monkeypatch.setattr(together, "settle", lambda root: None)
    assert trial.doit("upgrade:one") == 0
    monkeypatch.setattr(together, "settle", settle)
    assert {path: text for path, text in files(trial).items() if ".part" not in path} == before

    assert trial.doit("frozen=1", "lock:one") == 0
    assert versions(trial) == {"a": "2.0", "b": "1"}
    assert not [path for path in files(trial) if ".part" in path]
