"""What a run knows of a project, asked once and remembered."""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lading.console import Console
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from lading.layers import base as bases
from lading.layers.pip_kind import PIP
from lading.state import State
from tests.support.projects import Tiny, Trial


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial.make(tmp_path / "project")


def test_a_question_is_asked_once(trial: Trial) -> None:
    state, asked = trial.state(), []

    def ask() -> int:
        asked.append(1)
        return len(asked)

    assert [state.once(("a", "x"), ask) for _ in range(3)] == [1, 1, 1]
    assert state.once(("a", "y"), ask) == 2
    state.forget("b")
    assert state.once(("a", "x"), ask) == 1
    state.forget("b", "a")
    assert state.once(("a", "x"), ask) == 3


def test_nothing_is_a_result_too(trial: Trial) -> None:
    state, asked = trial.state(), []
    for _ in range(2):
        assert state.once(("a",), lambda: asked.append(1)) is None
    assert len(asked) == 1


def test_threads_ask_once_and_can_ask_within_a_question(trial: Trial) -> None:
    state, asked = trial.state(), []

    def slow() -> str:
        asked.append(1)
        time.sleep(0.02)
        return state.once(("inner",), lambda: "inner") + " outer"

    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(state.once(("outer",), slow)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["inner outer"] * 8
    assert len(asked) == 1


def test_who_asks_something_else_does_not_wait(trial: Trial) -> None:
    """Else a thread that brings a base, and asks for the engine, and one that asks for the base
    would wait for each other.
    """
    state, asked, go = trial.state(), threading.Event(), threading.Event()

    def slow() -> bool:
        asked.set()
        return go.wait(10)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(state.once, ("slow",), slow)
        assert asked.wait(10)
        same = pool.submit(state.once, ("slow",), lambda: False)
        others = pool.submit(lambda: (state.once(("quick",), lambda: 1), state.engine))
        assert others.result(10) == (1, trial.engine)
        assert not same.done()
        go.set()
        assert first.result(10)
        assert same.result(10)


def test_an_answer_from_before_something_was_made_is_none_for_who_asks_next(trial: Trial) -> None:
    state = trial.state()

    def ask() -> str:
        state.forget("images")  # as another thread does that has built one
        return "without it"

    assert state.once(("images",), ask) == "without it"
    assert state.once(("images",), lambda: "with it") == "with it"
    assert state.once(("images",), lambda: "again") == "with it"


def test_nobody_who_ends_a_run_waits_for_an_engine_that_is_silent(trial: Trial) -> None:
    state, asked, go = trial.state(), threading.Event(), threading.Event()

    def silent() -> None:
        asked.set()
        go.wait(10)

    trial.engine.before["images"] = silent
    assert state.engine is trial.engine
    thread = threading.Thread(target=state.images_by_key)
    thread.start()
    assert asked.wait(10)
    start = time.monotonic()
    state.close()
    assert time.monotonic() - start < 5
    assert trial.engine.closed
    go.set()
    thread.join()


def test_an_engine_that_does_not_answer_is_looked_for_once(trial: Trial) -> None:
    looked = []

    def connect() -> Any:
        looked.append(1)
        raise EnvironmentProblem("no container engine answers")

    state = trial.state(connect)
    assert not state.in_engine(trial.image("one"))
    assert not state.exists(trial.image("two"))
    for _ in range(2):
        with pytest.raises(EnvironmentProblem, match="no container engine answers"):
            state.images_by_key()
    assert len(looked) == 1
    state.close()


def test_close_lets_go_of_the_engine_once(trial: Trial) -> None:
    state = trial.state()
    state.close()
    assert trial.engine.calls == [], "none was looked for"
    assert state.engine is trial.engine
    state.close()
    state.close()
    assert trial.engine.named("close") == [{}]


def test_images_are_listed_once_until_one_is_made(trial: Trial) -> None:
    state = trial.state()
    for name in ("one", "two", "spare"):
        assert not state.in_engine(trial.image(name))
    assert trial.engine.asked == ["images"]
    trial.engine.hold("x", {"lading.key": trial.key("two")})
    assert not state.in_engine(trial.image("two"))
    state.forget("images")
    assert state.in_engine(trial.image("two"))
    assert not state.in_engine(trial.image("one"))


def test_keys_follow_from_the_files_and_change_with_each(trial: Trial) -> None:
    keys = {trial.key("one")}
    assert trial.key("one") in keys
    for path, text in {
        "recipes/one.in": "a  # another word\n",  # /usr/share/lading has it
        "locks/images/one/linux-amd64/requirements.txt": "# x\n",
        "locks/images/one/linux-amd64/installer.txt": "# x\n",
        "locks/bases/slim/linux-amd64/base.yaml": "# x\n",
    }.items():
        file = trial.root / path
        before = file.read_text()
        file.write_text(text if path.startswith("recipes") else text + before)
        keys.add(trial.key("one"))
        file.write_text(before)
    yaml = (trial.root / "project.yaml").read_text()
    for extra in ("env: {A: b}", "labels: {a: b}", "version: v2", "cmd: [a]", "run: a"):
        changed = yaml.replace("  one:\n", f"  one:\n    {extra}\n")
        (trial.root / "project.yaml").write_text(changed)
        keys.add(trial.key("one"))
    assert len(keys) == 10
    # What makes no other image makes no other key.
    for before, after in (
        ("import a", "import b"),
        ("  one:\n", "  one:\n    default: true\n"),
        ("name: trial", "name: another"),
        ("  two:\n", "  two:\n    env: {A: b}\n"),
    ):
        (trial.root / "project.yaml").write_text(yaml.replace(before, after))
        assert trial.key("one") in keys
    (trial.root / "project.yaml").write_text(yaml)
    assert {trial.key("one")} <= keys


def test_what_is_not_locked_has_no_key(trial: Trial) -> None:
    folder = trial.root / "locks/images/one/linux-amd64"
    (folder / "installer.txt").unlink()
    state, image = trial.state(), trial.image("one")
    assert state.key(image) is None
    assert not state.archived(image)
    assert not state.in_engine(image)
    with pytest.raises(LadingError, match=r"one is not locked yet\n  -> doit lock:one"):
        state.all_locked(image)
    bases.path(trial.root, "slim", "linux/amd64").unlink()
    state = trial.state()
    assert state.key(trial.image("two")) is None
    with pytest.raises(LadingError, match="the base slim is not locked"):
        state.request(image, PIP)


def test_locks_that_were_written_are_read_again(trial: Trial) -> None:
    state, image = trial.state(), trial.image("one")
    before = state.key(image)
    trial.lock("one", "2.0")
    assert state.key(image) == before
    state.locks_changed()
    assert state.key(image) not in (None, before)


def test_a_requirement_file_that_went_missing_is_named(trial: Trial) -> None:
    state, image = trial.state(), trial.image("one")
    (trial.root / "recipes/one.in").unlink()
    with pytest.raises(DeclarationError, match=r"recipes/one\.in can't be read"):
        state.key(image)


@pytest.mark.parametrize(
    ("value", "frozen"),
    [("", False), ("0", False), ("false", False), ("No", False), ("1", True), ("true", True)],
)
def test_ci_freezes_the_locks(trial: Trial, value: str, frozen: bool) -> None:
    state = State(trial.state().project, environ={"CI": value}, console=Console(io.StringIO(), {}))
    assert state.frozen is frozen


def test_names_of_images(trial: Trial) -> None:
    yaml = (trial.root / "project.yaml").read_text()
    assert trial.state().name(trial.image("one")) == "one:2026.11.01"
    yaml = yaml.replace("  one:\n", "  one:\n    version: v7\n")
    (trial.root / "project.yaml").write_text("registry: r.example.org/group\n" + yaml)
    assert trial.state().name(trial.image("one")) == "r.example.org/group/one:v7"


def test_the_fake_is_an_engine() -> None:
    from lading.engines import Engine

    engine: Engine = Tiny()
    assert engine.kind == "docker"
