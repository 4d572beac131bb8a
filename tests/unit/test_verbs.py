"""What each verb decides and does, seen by what an engine in memory is asked for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from lading import debian, net, requirements
from lading.engines import RunResult
from lading.errors import EnvironmentProblem, LadingError
from lading.facts import Facts
from lading.layers import base as bases
from lading.layers.pip_kind import PIP
from lading.plan import AGAIN, KEY_LABEL
from lading.project import load
from lading.requirements import Pin
from lading.store import Store
from lading.verbs import base as base_verb
from lading.verbs import lock as lock_verb
from tests.support import projects
from tests.support.index import Index, only_loopback
from tests.support.projects import DAY, FACTS, Trial, run_doit


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only_loopback(monkeypatch, tmp_path, tmp_path / "uv-cache")
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # nothing here outlives a power cut


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial.make(tmp_path / "project")


@pytest.fixture
def made(trial: Trial, capsys: pytest.CaptureFixture[str]) -> Trial:
    """The project with both archives made."""
    assert trial.doit() == 0
    capsys.readouterr()
    return trial


Said = pytest.CaptureFixture[str]


def edit(trial: Trial, path: str, before: str, after: str) -> None:
    text = (trial.root / path).read_text()
    assert before in text
    (trial.root / path).write_text(text.replace(before, after))


# -- what is up to date ---------------------------------------------------------------------


def test_all_is_made_and_then_nothing_is_asked(trial: Trial, capsys: Said) -> None:
    assert trial.doit() == 0
    assert trial.engine.named("build")[0]["tag"] == "one:2026.11.01"
    assert sorted(path.name for path in (trial.root / "dist").iterdir()) == [
        "one.cdx.json",
        "one.json",
        "one.tar",
        "two.cdx.json",
        "two.json",
        "two.tar",
    ]
    record = json.loads((trial.root / "dist/one.json").read_text())
    assert record["key"] == trial.key("one")
    assert trial.engine.held["one:2026.11.01"].labels["lading.key"] == record["key"]
    capsys.readouterr()
    assert trial.doit() == 0
    assert trial.engine.calls == []
    assert "nothing to do" in capsys.readouterr().out


def test_an_engine_that_is_not_there_is_not_missed(made: Trial) -> None:
    def none() -> Any:
        raise AssertionError("an engine was looked for")

    assert run_doit(made.root, [], made.environ, none) == 0


def test_without_its_database_nothing_is_made_again(made: Trial) -> None:
    (made.root / ".doit.db").unlink()
    assert made.doit() == 0
    assert made.engine.calls == []


def test_a_clone_elsewhere_has_the_same_keys_and_builds_nothing(
    made: Trial, tmp_path: Path
) -> None:
    clone = Trial(tmp_path / "clone", {"LADING_CACHE": str(tmp_path / "empty")}, made.engine)
    shutil.copytree(made.root, clone.root, ignore=shutil.ignore_patterns("build", "dist", ".*"))
    assert clone.key("one") == made.key("one")
    assert clone.doit() == 0
    assert "build" not in clone.engine.asked
    assert clone.engine.asked.count("images") == 1
    assert len(clone.engine.named("run")) == 1
    assert (clone.root / "dist/one.tar").read_bytes() == (made.root / "dist/one.tar").read_bytes()
    in_store = {path.name for path in (tmp_path / "empty").iterdir()}
    assert in_store == {"projects"}, "nothing had to be fetched"


def test_another_mtime_alone_changes_nothing(made: Trial) -> None:
    for path in made.root.rglob("*"):
        if path.is_file() and not path.name.startswith(".doit"):
            os.utime(path, (1_000_000_000, 1_000_000_000))
    assert made.doit() == 0
    assert made.engine.calls == []


def test_an_edit_that_keeps_mtime_and_size_is_seen(made: Trial) -> None:
    motd = made.root / "recipes/motd"
    times = motd.stat()
    motd.write_text("goodbye\n")
    os.utime(motd, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert made.doit() == 0
    assert [call["tag"] for call in made.engine.named("build")] == ["two:2026.11.01"]
    assert (made.root / "build/two/context/files/0/motd").read_text() == "goodbye\n"


def test_a_mode_that_changes_is_seen(made: Trial) -> None:
    (made.root / "recipes/motd").chmod(0o755)
    assert made.doit() == 0
    assert [call["tag"] for call in made.engine.named("build")] == ["two:2026.11.01"]
    assert (made.root / "build/two/context/files/0/motd").stat().st_mode & 0o777 == 0o755
    (made.root / "recipes/motd").chmod(0o770)
    assert made.doit() == 0
    assert made.engine.calls == [], "only who may run it counts"


def test_an_archive_that_is_gone_is_exported_again_and_not_built(made: Trial) -> None:
    before = (made.root / "dist/one.tar").read_bytes()
    shutil.rmtree(made.root / "dist")
    assert made.doit() == 0
    assert "build" not in made.engine.asked
    assert "run" not in made.engine.asked
    assert made.engine.asked.count("save") == 2
    assert (made.root / "dist/one.tar").read_bytes() == before


@pytest.mark.parametrize("damage", ["shorter", "no record", "half a record", "other key"])
def test_an_archive_that_is_not_whole_is_exported_again(made: Trial, damage: str) -> None:
    tar, record = made.root / "dist/one.tar", made.root / "dist/one.json"
    before = tar.read_bytes()
    if damage == "shorter":
        tar.write_bytes(before[:-512])
    elif damage == "no record":
        record.unlink()  # as when a run is killed between the two
    elif damage == "half a record":
        record.write_text(record.read_text()[:40])
    else:
        record.write_text(record.read_text().replace(made.key("one"), "0" * 64))
    assert made.doit() == 0
    assert "build" not in made.engine.asked
    assert [call["ref"] for call in made.engine.named("save")] == ["one:2026.11.01"]
    assert tar.read_bytes() == before
    assert made.doit() == 0
    assert made.engine.calls == []


def test_an_engine_that_lost_the_image_is_not_missed_until_it_is_asked_for(made: Trial) -> None:
    made.engine.held.clear()
    assert made.doit() == 0
    assert made.engine.calls == []
    # Asked for by name, it is wanted here; an image that was built once is not built again.
    assert made.doit("build:one") == 0
    assert "build" not in made.engine.asked
    assert [call["path"].name for call in made.engine.named("load")] == ["one.tar"]
    assert made.holds("one")
    assert made.doit("build:one") == 0
    assert made.engine.asked == ["images"]


@pytest.mark.parametrize("goal", ["build:one", "check:one"])
def test_an_archive_that_was_damaged_is_thrown_away_and_made_again(
    made: Trial, capsys: Said, goal: str
) -> None:
    made.engine.held.clear()
    made.engine.failures["load"] = LadingError("the engine refuses it")
    if goal == "check:one":
        edit(made, "project.yaml", "import a", "import b")
    assert made.doit(goal) == 1, "a sound one is not what is wrong"
    assert "the engine refuses it" in capsys.readouterr().out
    path = made.root / "dist/one.tar"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"hello", b"jello"))
    assert made.doit(goal) == 0
    said = capsys.readouterr().out
    assert "dist/one.tar was damaged on this machine's disk, and thrown away" in said
    assert made.engine.asked.count("build") == 1
    assert not path.exists()
    assert made.doit() == 0
    assert path.read_bytes() == whole


def test_what_is_asked_for_by_name_is_made_though_the_image_exists(made: Trial) -> None:
    shutil.rmtree(made.root / "build")
    assert made.doit("dockerfile:one") == 0
    assert (made.root / "build/one/context/Dockerfile").exists()
    assert not (made.root / "build/two").exists()
    assert made.doit("dockerfile") == 0
    assert (made.root / "build/two/context/Dockerfile").exists()
    assert made.engine.calls == []


def test_a_store_that_is_empty_is_not_missed_while_the_image_exists(made: Trial) -> None:
    shutil.rmtree(made.state().store.root)
    shutil.rmtree(made.root / "dist")
    assert made.doit() == 0
    assert "build" not in made.engine.asked


def test_images_that_are_not_default_are_made_when_named(trial: Trial, capsys: Said) -> None:
    assert trial.doit() == 0
    assert not (trial.root / "dist/spare.tar").exists()
    for verb in ("lock", "fetch", "dockerfile", "build", "check", "archive"):
        assert trial.doit(verb) == 0
    assert not (trial.root / "build/spare").exists()
    assert trial.doit("archive:spare") == 0
    assert (trial.root / "dist/spare.tar").exists()
    assert "archive    spare" in capsys.readouterr().out


def test_one_image_changes_alone(made: Trial) -> None:
    made.lock("one", "2.0")
    assert made.doit() == 0
    assert len(made.engine.named("build")) == 1
    assert made.engine.held["one:2026.11.01"].labels["python.packages"] == "a==2.0"


# -- check ----------------------------------------------------------------------------------


def test_another_test_is_run_and_nothing_built_or_exported(made: Trial) -> None:
    edit(made, "project.yaml", "import a", "import b")
    assert made.doit() == 0
    assert [call["command"][2] for call in made.engine.named("run")] == ['python -c "import b"']
    assert not {"build", "save", "load"} & set(made.engine.asked)
    assert not (made.root / "build/one/candidate.tar").exists()
    assert made.doit() == 0
    assert made.engine.calls == []


def test_tests_are_run_as_apptainer_would(made: Trial) -> None:
    shutil.rmtree(made.root / "build")
    assert made.doit("check:one") == 0
    (call,) = made.engine.named("run")
    assert call["command"] == ("/bin/sh", "-c", 'python -c "import a"')
    assert (call["user"], call["read_only"], call["network"]) == ("1000:1000", True, "none")
    assert call["env"] == {"HOME": "/home/user"}
    assert call["tmpfs"] == ("/home/user", "/tmp", "/var/tmp")
    assert call["workdir"] == "/home/user"


def test_a_test_that_fails_is_shown_and_nothing_is_archived(trial: Trial, capsys: Said) -> None:
    edit(trial, "project.yaml", '[python -c "import a"]', '[good, "bad one", worse]')
    trial.engine.results = [
        RunResult(code=0, output="fine\n"),
        RunResult(code=7, output="first\nNo module named a\n"),
        RunResult(code=1, output="also bad\n"),
    ]
    assert trial.doit("-c", "archive:one", "archive:two") == 1
    said = capsys.readouterr().out
    assert "a test of one failed: bad one (exit code 7)" in said
    assert "No module named a" in said
    assert "left out: archive:one" in said
    assert not (trial.root / "dist/one.tar").exists()
    assert (trial.root / "dist/two.tar").exists(), "others go on"
    found = json.loads((trial.root / "build/one/check.json").read_text())
    assert found["passed"] is False
    assert [test["code"] for test in found["tests"]] == [0, 7, 1]
    assert found["tests"][1]["output"] == "first\nNo module named a\n"
    # It does not pass by being tried again, and is built once all the same.
    trial.engine.results = [RunResult(code=1, output="")]
    assert trial.doit("archive:one") == 1
    assert "build" not in trial.engine.asked
    assert "it printed nothing" in capsys.readouterr().out
    trial.engine.results = [RunResult(code=0, output="")]
    assert trial.doit("archive:one") == 0


def test_what_would_not_work_under_apptainer_is_archived_only_where_it_is_allowed(
    trial: Trial, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tarfile.TarInfo("opt/tool")
    own.mode = 0o600
    layers = {**projects.TINY_LAYERS, "own.tar": own.tobuf() + bytes(1024)}
    ids = tuple(f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers.values())
    monkeypatch.setattr(projects, "TINY_LAYERS", layers)
    monkeypatch.setattr(projects, "TINY_IDS", ids)
    assert trial.doit("archive:two") == 1
    said = capsys.readouterr().out
    assert "two would not work under Apptainer: 1 error, above" in said
    assert not list(trial.root.glob("dist/*"))

    report = trial.root / "build/two/check.json"
    assert json.loads(report.read_text())["passed"] is False
    allowed = "    allow: {F1:/opt/tool: nobody runs it}\n    files:"
    edit(trial, "project.yaml", "    files:", allowed)
    assert trial.doit("archive:two") == 0
    assert "nobody runs it" in capsys.readouterr().out
    assert (trial.root / "dist/two.tar").exists()
    found = json.loads(report.read_text())
    assert found["passed"] is True
    errors = [one for one in found["portability"]["findings"] if one["level"] == "error"]
    assert [(one["id"], one["allowed"]) for one in errors] == [("F1", "nobody runs it")]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}', "\xff"])
def test_a_check_that_was_cut_off_is_made_again(made: Trial, text: str) -> None:
    (made.root / "build/one/check.json").write_text(text, encoding="latin-1")
    assert made.doit() == 0
    assert len(made.engine.named("run")) == 1
    assert made.doit() == 0
    assert made.engine.calls == []


# -- build ----------------------------------------------------------------------------------


def test_a_build_writes_its_whole_log(trial: Trial) -> None:
    assert trial.doit("build:one") == 0
    assert (trial.root / "build/one/build.log").read_text() == "building one:2026.11.01\n"


def test_a_build_that_fails_leaves_the_rest_for_the_next_run(trial: Trial, capsys: Said) -> None:
    trial.engine.failures["build"] = LadingError("building failed at RUN x", why="line 1\nline 2")
    assert trial.doit() == 1
    said = capsys.readouterr()
    assert "building failed at RUN x" in said.out
    assert "Traceback" not in said.out + said.err
    trial.engine.failures["build"] = EnvironmentProblem("the engine has gone away")
    assert trial.doit() == 2
    del trial.engine.failures["build"]
    assert trial.doit() == 0
    assert "dockerfile" not in capsys.readouterr().out.split()


def test_another_image_under_our_name_is_refused(trial: Trial, capsys: Said) -> None:
    def meddle() -> None:
        trial.engine.before.clear()
        real = trial.engine.hold
        trial.engine.hold = lambda ref, labels=None: real(ref, {"lading.key": "other"})  # type: ignore[method-assign]

    trial.engine.before["build"] = meddle
    assert trial.doit("build:one") == 1
    assert "the engine shows another image under that name" in capsys.readouterr().out


def test_an_image_that_is_known_by_its_key_gets_its_name(made: Trial) -> None:
    info = made.engine.held.pop("one:2026.11.01")
    made.engine.held["elsewhere:5"] = info
    shutil.rmtree(made.root / "dist")
    assert made.doit("archive:one") == 0
    assert "build" not in made.engine.asked
    assert {"image": info.id, "ref": "one:2026.11.01"} in made.engine.named("tag")


# -- locks that are not current -------------------------------------------------------------


@pytest.mark.parametrize("how", ["frozen=1", "CI"])
def test_a_frozen_lock_that_is_stale_is_an_error_that_says_what_to_do(
    made: Trial, capsys: Said, how: str
) -> None:
    (made.root / "recipes/one.in").write_text("a<9\n")
    before = sorted((made.root / "locks").rglob("*.txt"))
    texts = [path.read_text() for path in before]
    if how == "CI":
        made.environ["CI"] = "true"
    assert made.doit(*([how] if "=" in how else [])) == 1
    said = capsys.readouterr().out
    assert "locks/images/one/linux-amd64 is not current" in said
    assert "the requirements, the base's Python or the options have changed" in said
    assert "run `doit lock:one` without them" in said
    assert [path.read_text() for path in before] == texts
    assert made.engine.calls == []


@pytest.mark.parametrize(("ci", "argument", "code"), [("1", "frozen=0", 2), ("0", "", 2)])
def test_what_is_not_frozen_is_locked(
    made: Trial, monkeypatch: pytest.MonkeyPatch, ci: str, argument: str, code: int
) -> None:
    """It asks an index, then; here there is none."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    made.environ.update(os.environ, CI=ci)
    (made.root / "recipes/one.in").write_text("a<9\n")
    assert made.doit(*filter(None, [argument])) == code


def test_a_frozen_run_with_current_locks_builds(trial: Trial) -> None:
    trial.environ["CI"] = "true"
    assert trial.doit() == 0
    assert (trial.root / "dist/one.tar").exists()


def test_a_damaged_lock_is_named_with_its_line_when_frozen(made: Trial, capsys: Said) -> None:
    path = made.root / "locks/images/one/linux-amd64/requirements.txt"
    path.write_text(path.read_text() + "=======\n")
    assert made.doit("frozen=1") == 1
    said = capsys.readouterr().out
    assert f"{path.relative_to(made.root)}:11: not a line of a lock" in said
    assert "run `doit lock:one` without them" in said


def test_a_base_lock_that_is_stale_or_missing(made: Trial, capsys: Said) -> None:
    edit(made, "project.yaml", "python:3.13-slim", "python:3.14-slim")
    assert made.doit("frozen=1") == 1
    said = capsys.readouterr().out
    assert "locks/bases/slim/linux-amd64/base.yaml is not current" in said
    assert "its declaration has changed" in said
    assert "run `doit lock:base:slim`" in said
    (made.root / "locks/bases/slim/linux-amd64/base.yaml").unlink()
    assert made.doit("frozen=1") == 1
    assert "there is none yet" in capsys.readouterr().out


def test_what_has_no_base_lock_is_an_error_in_words(made: Trial, capsys: Said) -> None:
    shutil.rmtree(made.root / "locks")
    for task in ("lock:one", "dockerfile:one", "build:one", "check:one", "archive:one"):
        assert made.doit("-s", task) == 1
        assert "is not locked" in capsys.readouterr().out.replace("locked yet", "locked")


# -- locking, with an index -----------------------------------------------------------------


@pytest.fixture
def index(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index that has what the project's lock names."""
    monkeypatch.setattr(net, "BACKOFF", 0.0)
    with Index() as made:
        monkeypatch.setenv("UV_DEFAULT_INDEX", made.url)
        trial.environ.update(os.environ)
        trial.environ["LADING_CACHE"] = str(trial.root.parent / "project.cache")
        made.wheel("a", "1.0")
        made.wheel("uv", "9", files={"uv-9.data/scripts/uv": b"#!/bin/sh\n"})
        yield made


def test_a_lock_made_again_says_what_moved(trial: Trial, index: Index, capsys: Said) -> None:
    index.wheel("a", "2.0", requires=["b"])
    index.wheel("b", "3.1")
    (trial.root / "recipes/one.in").write_text("a>1\n")
    assert trial.doit("lock") == 0
    said = capsys.readouterr().out
    assert "  Python packages: 1 moved, 1 added" in said
    assert "\n      a 1.0 → 2.0  " in said and "\n    + b 3.1 " in said
    assert "2 packages" in said
    assert trial.engine.calls == []
    assert trial.doit("lock") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert trial.doit() == 0
    assert (trial.root / "build/one/context/pip/wheels/b-3.1-py3-none-any.whl").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: f"{text}=======\n", "requirements.txt:11: not a line of a lock"),
        # As a merge leaves it that takes away build-a.txt.
        (
            lambda text: text.replace("a-1.0-py3-none-any.whl", "a-1.0.tar.gz"),
            "requirements.txt: what builds a is not locked beside it (there is no build-a.txt)",
        ),
    ],
)
def test_a_damaged_lock_is_made_anew(
    trial: Trial, index: Index, capsys: Said, damage: Callable[[str], str], said: str
) -> None:
    path = trial.root / "locks/images/one/linux-amd64/requirements.txt"
    index.wheel("uv", __import__("importlib.metadata").metadata.version("uv"))
    whole = path.read_text()
    path.write_text(damage(whole))
    # Nothing that the image stands on is taken for out of date with it.
    assert not trial.state().exists(trial.image("one"))
    assert trial.doit("frozen=1") == 1
    shown = capsys.readouterr().out
    assert said in shown and "run `doit lock:one` without them" in shown
    assert trial.doit("lock") == 0
    assert requirements.parse(path.read_text(), "") == requirements.parse(whole, "")


def test_what_the_index_no_longer_has_is_locked_again_loudly(
    trial: Trial, index: Index, capsys: Said
) -> None:
    shutil.rmtree(trial.state().store.root)
    assert trial.doit("lock") == 0
    assert "nothing to do" in capsys.readouterr().out
    index.drop("a-1.0-py3-none-any.whl")
    index.wheel("a", "1.1")
    assert trial.doit("frozen=1", "lock") == 1
    said = capsys.readouterr().out
    assert "no longer to be had: a-1.0-py3-none-any.whl" in said
    gone = "a 1.0 is no longer there (it was on 2026-11-01, when it was locked); near it: 1.1\n"
    assert gone in said
    assert trial.doit("lock") == 0
    assert "a 1.0 → 1.1" in capsys.readouterr().out


def test_a_pin_that_was_yanked_is_kept_and_said(trial: Trial, index: Index, capsys: Said) -> None:
    index.wheel("a", "1.1")
    index.wheel("b", "1")
    index.yank("a-1.0-py3-none-any.whl", "wrong results")
    (trial.root / "recipes/one.in").write_text("a\nb\n")
    assert trial.doit("lock") == 0
    said = capsys.readouterr().out
    assert "  a 1.0 was yanked (wrong results); near it: 1.1: `doit upgrade:one` takes" in said
    assert "+ b 1 " in said
    assert "a 1.0 →" not in said


def test_an_index_that_is_down_does_not_make_a_lock_stale(trial: Trial, index: Index) -> None:
    shutil.rmtree(trial.state().store.root)
    index.stop()
    state = trial.state()
    state.goals = frozenset(["lock:one"])
    assert lock_verb.reason(state, trial.image("one")) == ""


def test_an_index_with_another_password_does_not_make_a_lock_stale(
    trial: Trial, index: Index
) -> None:
    shutil.rmtree(trial.state().store.root)
    index.user, index.password = "ann", "s3cret"
    state = trial.state()
    state.goals = frozenset(["lock:one"])
    assert lock_verb.reason(state, trial.image("one")) == ""


def test_files_are_fetched_once_and_the_lock_is_left_alone(
    trial: Trial, index: Index, capsys: Said
) -> None:
    shutil.rmtree(trial.state().store.root)
    texts = {path: path.read_text() for path in (trial.root / "locks").rglob("*.*")}
    assert trial.doit("fetch:one") == 0
    assert "2 files" in capsys.readouterr().out
    lock = trial.state().layer_lock(trial.image("one"), PIP)
    assert lock is not None
    assert trial.state().store.lacking(lock.artifacts) == []
    assert {path: path.read_text() for path in (trial.root / "locks").rglob("*.*")} == texts
    index.requests.clear()
    assert trial.doit("fetch:one") == 0
    assert index.requests == []


def test_a_line_that_cannot_be_read_is_a_problem_of_the_declaration(
    trial: Trial, index: Index, capsys: Said
) -> None:
    (trial.root / "recipes/one.in").write_text("a\nb = 1\n")
    assert trial.doit("lock:one") == 3
    assert "recipes/one.in:2: this can't be read" in capsys.readouterr().out
    (trial.root / "recipes/one.in").write_text("a\n-e .\n")
    assert trial.doit("lock:one") == 3
    assert "recipes/one.in:2: a local or editable package" in capsys.readouterr().out


# -- the facts of a base --------------------------------------------------------------------

LOOKED = """\
python=/usr/local/bin/python3
python_version=3.13.5
glibc=2.41
glibc=2.41
package_manager=apt-get
os=debian 13
"""


@pytest.mark.parametrize(
    ("output", "facts"),
    [
        (LOOKED, replace(FACTS, python="/usr/local/bin/python3")),
        (
            f"{LOOKED}conda=/opt/conda\nconda_version=4.10.3\n",
            replace(
                FACTS,
                python="/usr/local/bin/python3",
                conda="/opt/conda",
                conda_version="4.10.3",
            ),
        ),
        (
            "glibc=2.17\npackage_manager=yum\nos=centos 7\n",
            Facts(glibc="2.17", os="centos 7", package_manager="yum"),
        ),
        (
            "package_manager=apk\nos=alpine 3.20\nnoise\n",
            Facts(os="alpine 3.20", package_manager="apk"),
        ),
        ("", Facts()),
    ],
)
def test_the_facts_of_a_base_are_found_by_running_it(
    trial: Trial, output: str, facts: Facts
) -> None:
    trial.engine.results = [RunResult(code=0, output=output)]
    assert base_verb.facts_of_image(trial.state(), "x@sha256:1") == facts
    (call,) = trial.engine.named("run")
    assert call["network"] == "none"
    assert trial.engine.asked == ["pull", "run", "inspect"]
    assert call["user"] == "0:0"


def test_where_a_bases_conda_is_looked_for(tmp_path: Path) -> None:
    program = tmp_path / "mini/bin/conda"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho conda 4.3.16 >&2\n")
    program.chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/conda").symlink_to(program)

    def look() -> str:
        environ = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
        command = ["/bin/sh", "-c", base_verb.LOOK]
        return subprocess.run(command, env=environ, capture_output=True, text=True).stdout

    assert "conda=" not in look()  # a program of that name, but no conda
    (tmp_path / "mini/conda-meta").mkdir()
    assert f"conda={tmp_path}/mini\nconda_version=4.3.16\n" in look()


def test_a_base_without_conda_says_nothing_of_it() -> None:
    assert "conda" not in json.dumps(FACTS.to_dict())
    known = replace(FACTS, conda="/opt/conda", conda_version="4.10.3")
    assert Facts.from_dict(known.to_dict()) == known
    assert Facts.from_dict(FACTS.to_dict()) == FACTS


def test_a_base_that_cannot_be_looked_into(trial: Trial) -> None:
    trial.engine.results = [RunResult(code=127, output="no such file: /bin/sh")]
    with pytest.raises(LadingError, match="x@sha256:1 can't be looked into"):
        base_verb.facts_of_image(trial.state(), "x@sha256:1")


def test_a_base_is_locked_to_the_digest_for_the_platform(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    from types import SimpleNamespace

    from lading import locks, registry

    monkeypatch.setattr(locks, "today", lambda: DAY)
    digest = "sha256:" + "5" * 64
    asked = []

    def resolve(image: str, platform: str, environ: object) -> SimpleNamespace:
        asked.append((image, platform))
        return SimpleNamespace(digest=digest)

    monkeypatch.setattr(registry, "resolve", resolve)
    trial.engine.results = [RunResult(code=0, output=LOOKED)]
    shutil.rmtree(trial.root / "locks/bases")
    assert trial.doit("lock:base:slim") == 0
    assert asked == [("docker.io/library/python:3.13-slim", "linux/amd64")]
    assert trial.engine.named("pull")[0]["ref"] == f"docker.io/library/python@{digest}"
    base = load(trial.root / "project.yaml").bases["slim"]
    lock = trial.state().base_lock(base)
    assert lock is not None
    assert (lock.digest, lock.facts.python_version) == (digest, "3.13.5")
    assert bases.reference(base, lock) == f"docker.io/library/python@{digest}"
    # The same facts: no image lock on it is stale.
    assert lock_verb.reason(trial.state(), trial.image("one")) == ""


@pytest.mark.parametrize(
    ("version", "lacks"), [("3.9.2", True), ("3.10.0", False), ("3.13", False)]
)
def test_which_pythons_of_debian_lack_distutils(version: str, lacks: bool) -> None:
    assert debian.lacks_distutils(version) is lacks


# -- clean ----------------------------------------------------------------------------------


def test_clean_removes_what_was_made_and_the_images_too(made: Trial) -> None:
    before = set(made.engine.held)
    assert made.doit("clean", "-n") == 0
    assert made.engine.calls == []
    assert (made.root / "dist/one.tar").exists()
    assert set(made.engine.held) == before
    assert made.doit("clean") == 0
    assert list((made.root / "dist").iterdir()) == []
    assert list((made.root / "build").iterdir()) == []
    assert not any("lading.key" in info.labels for info in made.engine.held.values())
    assert (made.root / "locks/images/one/linux-amd64/requirements.txt").exists()
    assert made.doit() == 0
    assert len(made.engine.named("build")) == 2


def test_clean_of_one_task_is_of_that_alone(made: Trial) -> None:
    assert made.doit("clean", "archive:one") == 0
    assert sorted(path.name for path in (made.root / "dist").iterdir()) == [
        "two.cdx.json",
        "two.json",
        "two.tar",
    ]
    assert made.holds("one")


def test_clean_without_an_engine(made: Trial, capsys: Said) -> None:
    def none() -> Any:
        raise EnvironmentProblem("no container engine answers")

    assert run_doit(made.root, ["clean"], made.environ, none) == 0
    assert list((made.root / "dist").iterdir()) == []
    assert "Traceback" not in capsys.readouterr().err


def test_other_bytes_of_the_same_key_are_tested_before_they_are_archived(made: Trial) -> None:
    """No build is quite like another: what ships is what was tested, not what has its key."""
    (name,) = [name for name in made.engine.held if name.startswith("one:")]
    labels = dict(made.engine.held[name].labels)
    shutil.rmtree(made.root / "dist")
    assert made.doit("archive:one") == 0
    assert made.engine.named("run") == [], "the image that was tested is there"

    made.engine.calls.clear()
    shutil.rmtree(made.root / "dist")
    made.engine.remove(name)
    made.engine.hold(name, {**labels, "built": "again"})
    made.engine.results = [RunResult(code=1, output="not today\n")]
    assert made.doit("archive:one") == 1
    assert len(made.engine.named("run")) == 1
    assert not (made.root / "dist/one.tar").exists()
    made.engine.results = [RunResult(code=0, output="")]
    assert made.doit("archive:one") == 0
    assert (made.root / "dist/one.tar").exists()


def test_what_stands_in_for_a_hosts_mpi_is_fetched_with_the_rest(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is fetched, an image can be built and checked without the network."""
    from lading.checks.mpi import host

    fetched: list[str] = []

    def fetch(pin: Pin, flavour: str, platform: str, store: Store, *_: object) -> None:
        fetched.append(pin.version)
        store.derived(pin.artifact.sha256, host.LAYOUT, lambda folder: folder.mkdir())

    monkeypatch.setattr(host, "fetched", fetch)
    text = (trial.root / "project.yaml").read_text()
    (trial.root / "project.yaml").write_text(text.replace("    pip:", "    mpi: mpich\n    pip:"))
    assert trial.doit("build:one") == 0
    assert fetched == [], "nobody wants it checked"
    assert trial.doit("fetch:one") == 0
    newest = next(pin.version for pin in host.locked() if pin.name == "mpich")
    assert fetched == [newest]
    assert trial.doit("fetch:one") == 0
    assert fetched == [newest], "it is there"


def test_what_a_killed_comparison_left_is_not_the_image(trial: Trial) -> None:
    trial.engine.hold(f"{AGAIN}two:{trial.key('two')[:16]}", {KEY_LABEL: trial.key("two")})
    assert trial.doit("build:two") == 0
    assert len(trial.engine.named("build")) == 1
    assert trial.doit("build:two") == 0
    assert trial.engine.named("build") == []
