"""The tasks that dodo.py makes of a project, and what doit calls back."""

from __future__ import annotations

import errno
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doit.exceptions import InvalidDodoFile, TaskError, TaskFailed
from doit.loader import load_tasks

from lading import tasks
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from lading.tasks import Work
from tests.support.projects import YAML, Trial

VERBS = (
    *("lock", "fetch", "dockerfile", "build", "check", "archive"),
    *("sif", "push", "verify", "upgrade", "env"),
)


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """What the repository's dodo.py makes of a project.yaml: its tasks by name."""

    def made(yaml: str) -> dict[str, Any]:
        root = tmp_path / "project"
        trial = Trial.make(root) if not root.exists() else Trial(root, {})
        (trial.root / "project.yaml").write_text(yaml)
        monkeypatch.chdir(trial.root)
        spec = importlib.util.spec_from_file_location("a_dodo", trial.root / "dodo.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return {task.name: task for task in load_tasks(vars(module))}

    return made


Graph = Callable[[str], dict[str, Any]]


def test_the_graph(graph: Graph) -> None:
    found = graph(YAML)
    assert [name for name in found if ":" not in name] == list(VERBS)
    assert {name: task.task_dep for name, task in found.items() if name.endswith(":one")} == {
        "lock:one": ["lock:base:slim"],
        "fetch:one": ["lock:one"],
        "dockerfile:one": ["fetch:one"],
        "build:one": ["dockerfile:one", "build:base:slim"],
        "check:one": ["build:one"],
        "archive:one": ["check:one"],
        "sif:one": ["archive:one"],
        "push:one": ["archive:one"],
        "verify:one": ["archive:one"],
        "upgrade:one": [],
    }
    assert found["build:base:slim"].task_dep == ["lock:base:slim"]
    assert found["archive"].task_dep == ["archive:one", "archive:two"]
    assert found["lock"].task_dep == ["lock:base:slim", "lock:one", "lock:two"]
    assert all(task.doc for task in found.values())
    assert "archive:spare" in found
    assert found["archive:spare"].task_dep == ["check:spare"]
    for task in found.values():
        assert ":" not in task.name or task.subtask_of == task.name.partition(":")[0]


def test_what_activation_sets_is_shown_of_images_that_have_conda(graph: Graph) -> None:
    conda = "  lab: {base: slim, conda: {channels: lab, packages: a}}\n"
    found = graph(YAML + conda)
    assert found["env"].task_dep == ["env:lab"]
    assert found["env:lab"].task_dep == ["lock:lab"]
    assert "env:one" not in found


def test_a_project_where_nothing_is_default_has_its_groups_all_the_same(graph: Graph) -> None:
    yaml = YAML.replace("    base: slim\n", "    base: slim\n    default: false\n")
    found = graph(yaml.replace("    default: false\n    default: false\n", "    default: false\n"))
    assert [name for name in found if ":" not in name] == list(VERBS)
    assert found["archive"].task_dep == []
    assert found["archive"].has_subtask
    assert found["archive"].doc
    assert "archive:one" in found


def test_a_project_without_images(graph: Graph) -> None:
    assert list(graph("lading: 1\nname: x\nbases: {}\nimages: {}\n")) == list(VERBS)
    bases = "{b: {image: python}}"
    found = graph(f"lading: 1\nname: x\nbases: {bases}\nimages: {{}}\n")
    assert set(VERBS) < set(found)
    assert "lock:base:b" in found


def test_the_description_is_what_is_listed(graph: Graph) -> None:
    found = graph(YAML.replace("  two:\n", "  two:\n    description: The second\n"))
    assert found["archive:two"].doc == "The second"
    assert found["archive:one"].doc == "the image one, on slim"
    assert found["lock:base:slim"].doc == "the base slim: docker.io/library/python:3.13-slim"


def test_a_problem_in_the_project_is_one_of_doits_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidDodoFile):
        tasks.open_project()
    (tmp_path / "project.yaml").write_text("lading: 1\n")
    with pytest.raises(InvalidDodoFile, match=r"project\.yaml:1: "):
        tasks.open_project()


# -- actions --------------------------------------------------------------------------------


def test_an_action_says_what_it_made(tmp_path: Path) -> None:
    work = Work(lambda: "248 MB", tmp_path)
    before = sys.stdout
    assert work.execute() is None
    assert sys.stdout is before
    assert work.result is not None
    assert work.result["what"] == "248 MB"
    assert 0 <= work.result["seconds"] < 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (LadingError("a", why="b", do="c"), TaskFailed),
        (EnvironmentProblem("a"), TaskError),
        (DeclarationError("a"), TaskFailed),
    ],
)
def test_an_action_that_fails_says_so_to_doit(
    tmp_path: Path, error: LadingError, kind: Any
) -> None:
    def fail() -> str:
        raise error

    failure: Any = Work(fail, tmp_path).execute()
    assert type(failure) is kind
    assert failure.lading is error
    assert failure.get_msg().splitlines()[0] == str(error).splitlines()[0]


def test_an_error_that_nobody_expected_goes_into_a_file(tmp_path: Path) -> None:
    def fail() -> str:
        return {"a": "b"}["nosuch"]

    failure = Work(fail, tmp_path).execute()
    assert isinstance(failure, TaskFailed)
    assert "an error that lading does not know: KeyError: 'nosuch'" in failure.get_msg()
    assert "Traceback" not in failure.get_msg()
    log = (tmp_path / "build" / "unexpected-error.log").read_text()
    assert "Traceback" in log
    assert "in fail" in log


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "no room left on the disk"),
        (errno.EDQUOT, "no room left on the disk"),
        (errno.EROFS, "the disk does not let it be done"),
        (errno.EACCES, "the disk does not let it be done"),
    ],
)
def test_a_disk_that_fails_is_a_problem_of_the_environment(
    tmp_path: Path, number: int, said: str
) -> None:
    def fail() -> str:
        raise OSError(number, os.strerror(number), "build/one/build.log")

    failure: Any = Work(fail, tmp_path).execute()
    assert isinstance(failure, TaskError)
    assert failure.lading.exit_code == 2
    assert failure.lading.what == said
    assert "build/one/build.log" in failure.lading.why
    assert not (tmp_path / "build").exists()


def test_it_is_told_also_where_no_file_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("in the way")
    failure = Work(lambda: str(1 // 0), tmp_path).execute()
    assert failure is not None
    assert "ZeroDivisionError" in failure.get_msg()


def test_ctrl_c_is_no_failure_of_a_task(tmp_path: Path) -> None:
    def stop() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Work(stop, tmp_path).execute()
