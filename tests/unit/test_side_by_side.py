"""`doit -n 4`: what several tasks share is made once, errors stay apart, what fits is counted."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lading import room
from lading.errors import LadingError
from lading.room import Room
from lading.verbs import base as base_verb
from tests.support.projects import Trial

GB = 10**9


@pytest.mark.parametrize(
    ("memory", "disk", "asked", "fits", "why"),
    [
        (8 * GB, 100 * GB, 4, 4, ""),
        (None, 100 * GB, 64, 50, "50 at once instead of 64: 100 GB of disk are free"),
        (2 * GB + 5, 100 * GB, 4, 2, "2 at once instead of 4: 2.0 GB of memory are free"),
        (GB // 2, 100 * GB, 4, 1, "1 at once instead of 4: 500 MB of memory are free"),
        (8 * GB, 5 * GB, 4, 2, "2 at once instead of 4: 5.0 GB of disk are free"),
        (0, 0, 1, 1, ""),
    ],
)
def test_what_fits(memory: int | None, disk: int, asked: int, fits: int, why: str) -> None:
    found, said = room.fitting(asked, Room(memory=memory, disk=disk))
    assert found == fits
    assert said.startswith(why)
    assert bool(said) == bool(why)


@pytest.mark.parametrize(
    ("environ", "builders", "counts"),
    [
        ({}, (), True),
        ({"DOCKER_HOST": "unix:///x"}, (), True),
        ({"DOCKER_HOST": "ssh://far"}, (), False),
        ({}, ("far",), False),
        ({}, ("far", "default"), True),
    ],
)
def test_memory_counts_where_builds_run(
    tmp_path: Path, environ: dict[str, str], builders: tuple[str, ...], counts: bool
) -> None:
    found = room.here(tmp_path, environ, builders)
    assert (found.memory is not None) == counts
    assert found.disk > 0


def test_fewer_are_said_once_and_only_where_something_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    trial = Trial.make(tmp_path / "project")
    monkeypatch.setattr(room, "here", lambda *_: Room(memory=2 * GB, disk=100 * GB))
    assert trial.doit("-n", "4") == 0
    assert capsys.readouterr().out.count("2 at once instead of 4") == 1
    assert trial.doit("-n", "4") == 0
    assert "at once" not in capsys.readouterr().out


def test_no_more_than_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    trial = Trial.make(tmp_path / "project")
    monkeypatch.setattr(room, "here", lambda *_: Room(memory=GB, disk=100 * GB))
    active, most = 0, 0

    def build() -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        time.sleep(0.3)
        active -= 1

    trial.engine.before["build"] = build
    assert trial.doit("-n", "4", "build") == 0
    assert len(trial.engine.named("build")) == 2
    assert most == 1


def test_a_base_is_brought_once(tmp_path: Path) -> None:
    """Four tasks want it in the engine at the same time."""
    trial = Trial.make(tmp_path / "project")
    state = trial.state()
    trial.engine.before["pull"] = lambda: time.sleep(0.05)
    base = state.project.bases["slim"]
    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(lambda _: base_verb.ensure(state, base), range(4)))
    assert len(found) == 1
    assert len(trial.engine.named("pull")) == 1


def test_an_image_that_fails_keeps_no_other_from_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    trial = Trial.make(tmp_path / "project")
    engine_build = trial.engine.build

    def build(context: Path, tag: str, **options: object) -> str:
        if context.parent.name == "one":
            raise LadingError("one can't be built")
        return engine_build(context, tag, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(trial.engine, "build", build)
    assert trial.doit("-n", "4", "--continue") == 1
    said = capsys.readouterr().out
    assert "one can't be built" in said
    assert "left out: check:one, which stands on what failed" in said
    assert (trial.root / "dist/two.tar").exists()
    assert not (trial.root / "dist/one.tar").exists()
