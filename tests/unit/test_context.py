"""The build context: whole or not there, and the same on every machine."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from lading import context
from lading.errors import EnvironmentProblem, LadingError
from lading.plan import Plan
from lading.steps import Content, Stage, Stored, Unpacked
from lading.store import Store
from tests.support.index import wheel
from tests.support.projects import Trial


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial.make(tmp_path / "project")


def plan(**files: Content) -> Plan:
    named = {at.replace("__", "/"): content for at, content in files.items()}
    return Plan(name="x", title="x", stages=(Stage(base="scratch", why="", steps=()),), files=named)


class Made:
    """A context and what it is made from."""

    def __init__(self, trial: Trial) -> None:
        self.root, self.store = trial.root, trial.state().store
        self.folder = trial.root / "build" / "x" / "context"
        self.folder.parent.mkdir(parents=True)
        self.stored = trial.keep("a-1-py3-none-any.whl", b"a wheel")
        name, data = wheel("uv", "9", files={"uv-9.data/scripts/uv": b"#!/bin/sh\n"})
        self.program = trial.keep(name, data)
        (trial.root / "recipes/tree/sub").mkdir(parents=True)
        (trial.root / "recipes/tree/run").write_text("#!/bin/sh\n")
        (trial.root / "recipes/tree/run").chmod(0o700)
        (trial.root / "recipes/tree/sub/data").write_text("data\n")
        (trial.root / "recipes/tree/sub/data").chmod(0o600)
        self.plan = plan(
            pip__wheels__a=Stored(sha256=self.stored.sha256),
            pip__bin__uv=Unpacked(sha256=self.program.sha256),
            pip__list=b"a==1\n",
            files__0__tree=PurePosixPath("recipes/tree"),
            files__1__motd=PurePosixPath("recipes/motd"),
        )

    def make(self, key: str = "k") -> None:
        context.make(self.plan, key, self.root, self.store, self.folder)

    def whole(self, key: str = "k") -> bool:
        return context.is_whole(self.plan, key, self.root, self.store, self.folder)


@pytest.fixture
def made(trial: Trial) -> Made:
    return Made(trial)


def test_it_holds_everything_with_modes_that_follow_from_the_content(made: Made) -> None:
    old = os.umask(0o077)
    try:
        made.make()
    finally:
        os.umask(old)
    found = {
        str(path.relative_to(made.folder)): oct(path.stat().st_mode & 0o7777)
        for path in sorted(made.folder.rglob("*"))
    }
    folders = {"files", "files/0", "files/0/tree", "files/0/tree/sub", "files/1", "pip", "pip/bin"}
    assert found == {
        **dict.fromkeys(sorted(folders | {"pip/wheels"}), "0o755"),
        "files/0/tree/run": "0o755",
        "files/0/tree/sub/data": "0o644",
        "files/1/motd": "0o644",
        "pip/bin/uv": "0o555",
        "pip/list": "0o644",
        "pip/wheels/a": "0o444",
        "Dockerfile": "0o644",
    }
    assert oct(made.folder.stat().st_mode & 0o7777) == "0o755"
    assert (made.folder / "pip/wheels/a").read_bytes() == b"a wheel"
    assert (made.folder / "pip/bin/uv").read_bytes() == b"#!/bin/sh\n"
    assert (made.folder / "files/0/tree/run").read_text() == "#!/bin/sh\n"


def test_artifacts_are_links_into_the_store(made: Made) -> None:
    made.make()
    stored = made.store.path(made.stored.sha256)
    assert (made.folder / "pip/wheels/a").samefile(stored)


def test_where_there_can_be_no_links_there_are_copies(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    made.make()
    copy = made.folder / "pip/wheels/a"
    assert not copy.samefile(made.store.path(made.stored.sha256))
    assert (copy.read_bytes(), copy.stat().st_mode & 0o777) == (b"a wheel", 0o444)
    assert made.whole()


def test_it_is_whole_when_it_is_what_would_be_made(made: Made) -> None:
    assert not made.whole()
    made.make()
    assert made.whole()
    assert not made.whole("another key")
    for path in made.folder.rglob("*"):
        os.utime(path, (1, 1))
    assert made.whole()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "Dockerfile").write_text("FROM scratch\n"),
        lambda folder: (folder / "pip/list").write_text("a==2\n"),
        lambda folder: (folder / "pip/list").unlink(),
        lambda folder: (folder / "pip/wheels/a").unlink(),
        lambda folder: (folder / "pip/list").chmod(0o600),
        lambda folder: (folder / "files/0/tree/sub/data").write_text("daten\n"),
        lambda folder: (folder / "left").write_text(""),
        lambda folder: (folder / "files/0/tree/sub/more").write_text(""),
        lambda folder: (folder / "files/0/tree/run").chmod(0o644),
    ],
)
def test_it_is_not_whole_when_something_else_is_there(made: Made, damage: object) -> None:
    assert callable(damage)
    made.make()
    damage(made.folder)
    assert not made.whole()
    made.make()
    assert made.whole()


def test_an_artifact_that_is_no_link_is_held_against_the_stores(made: Made) -> None:
    made.make()
    (made.folder / "pip/wheels/a").unlink()
    (made.folder / "pip/wheels/a").write_bytes(b"another")
    (made.folder / "pip/wheels/a").chmod(0o444)
    assert not made.whole(), "the same size and mode, but not the same"
    made.make()
    data = (made.folder / "pip/wheels/a").read_bytes()
    (made.folder / "pip/wheels/a").unlink()
    (made.folder / "pip/wheels/a").write_bytes(data)
    (made.folder / "pip/wheels/a").chmod(0o444)
    assert made.whole(), "a copy, as where no link can be made"


def test_an_edit_of_the_same_size_and_mtime_is_seen(made: Made) -> None:
    made.make()
    data = made.root / "recipes/tree/sub/data"
    times = data.stat()
    data.write_text("DATA\n")
    os.utime(data, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not made.whole()


def test_without_the_store_nothing_is_whole(made: Made) -> None:
    made.make()
    made.store.path(made.stored.sha256).unlink()
    assert not made.whole()


def test_one_that_cannot_be_made_leaves_the_old_one(made: Made) -> None:
    made.make("old")
    made.store.path(made.stored.sha256).unlink()
    with pytest.raises((LadingError, OSError)):
        made.make("new")
    assert '"lading.key"="old"' in (made.folder / "Dockerfile").read_text()


def test_what_a_killed_run_left_is_in_nobodys_way(made: Made) -> None:
    left = made.folder.with_name(".context.part")
    (left / "pip").mkdir(parents=True)
    (left / "pip/wrong").write_text("x")
    made.make()
    assert made.whole()
    assert not left.exists()


def test_a_full_disk_is_said_in_words(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(context, "put", full)
    with pytest.raises(EnvironmentProblem, match="no room left on the disk"):
        made.make()
    assert not made.folder.exists()


def test_a_store_on_its_own(tmp_path: Path) -> None:
    """The context says what it lacks by raising, never by leaving it out."""
    store = Store(tmp_path / "empty")
    with pytest.raises(OSError, match="No such file"):
        context.make(plan(a=Stored(sha256="0" * 64)), "k", tmp_path, store, tmp_path / "c")
    assert not (tmp_path / "c").exists()
