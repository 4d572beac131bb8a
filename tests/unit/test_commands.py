"""doit as a person has it: names, exit codes, turns, and how a run ends."""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lading import files, process
from lading.commands import LOCK, Attentive, check_names, clear_leftovers
from lading.engines import RunResult
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from lading.verbs import dockerfile as dockerfile_verb
from tests.support.index import only_loopback
from tests.support.projects import REPOSITORY, Trial, run_doit

Said = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only_loopback(monkeypatch, tmp_path, tmp_path / "uv-cache")
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial.make(tmp_path / "project")


# -- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["archvie"], "there is no task 'archvie'; did you mean archive"),
        (["build:on"], "there is no task 'build:on'; did you mean build:one"),
        (["one"], "there is no task 'one'; did you mean archive:one?"),
        (["zzzz"], "there is no task 'zzzz'; `doit list --all` shows all"),
        (["archive:one", "nosuch"], "there is no task 'nosuch'"),
        (["run", "buidl"], "there is no task 'buidl'; did you mean build"),
        (["clean", "archvie"], "there is no task 'archvie'; did you mean archive"),
        (["list", "archvie"], "there is no task 'archvie'; did you mean archive"),
        (["info", "build:on"], "there is no task 'build:on'; did you mean build:one"),
        (["info"], "must select *one* task"),
        (["zzzz*"], "no task fits 'zzzz*'; `doit list --all` shows all"),
        (["build:on-*"], "no task fits 'build:on-*'; did you mean build:one"),
        (["on*"], "no task fits 'on*'; did you mean archive:on*?"),
        (["archive:one", "nosuch*"], "no task fits 'nosuch*'"),
        (["clean", "nosuch*"], "no task fits 'nosuch*'"),
        (["forget", "archvie"], "there is no task 'archvie'; did you mean archive"),
        (["ignore", "build:on"], "there is no task 'build:on'; did you mean build:one"),
        (["-n", "-1"], "-n is how many at once: not -1"),
        (["dumpdb"], "there is no .doit.db: nothing has been run here yet"),
        (["--nosuch"], "option --nosuch not recognized"),
    ],
)
def test_a_name_that_does_not_exist_gets_suggestions(
    trial: Trial, capsys: Said, arguments: list[str], said: str
) -> None:
    assert trial.doit(*arguments) == 3
    found = capsys.readouterr()
    assert said in found.err
    assert "Traceback" not in found.err
    assert trial.engine.calls == []
    assert not (trial.root / "build").exists(), "nothing ran"


def test_an_empty_word_is_refused() -> None:
    """As `doit "$NAME"` gives one, where there is no such variable."""
    ended = subprocess.run(
        [REPOSITORY / "scripts" / "doit", "lock", ""], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr == "doit: an empty word is neither a task nor an option\n"


def test_a_pattern_is_for_the_tasks_that_fit(trial: Trial, capsys: Said) -> None:
    assert trial.doit("arch*:o*") == 0
    assert "archive    one" in capsys.readouterr().out
    assert trial.doit("clean", "archive:*") == 0
    assert not (trial.root / "dist/one.tar").exists()
    check_names(["-x"], {})  # what follows is the business of the task


# -- exit codes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([LadingError("a")], 1),
        ([EnvironmentProblem("a")], 2),
        ([DeclarationError("a")], 3),
        ([LadingError("a"), EnvironmentProblem("b")], 2),
        ([DeclarationError("a"), EnvironmentProblem("b")], 3),
    ],
)
@pytest.mark.parametrize("parallel", [[], ["-n", "2"]])
def test_the_exit_code_is_the_one_of_the_gravest_kind(
    trial: Trial,
    capsys: Said,
    monkeypatch: pytest.MonkeyPatch,
    errors: list[LadingError],
    code: int,
    parallel: list[str],
) -> None:
    by_image = dict(zip(("one", "two"), errors, strict=False))
    real = dockerfile_verb.ensure

    def ensure(state: object, image: object, **more: object) -> None:
        error = by_image.get(getattr(image, "name", ""))
        if error is not None:
            raise error
        real(state, image, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(dockerfile_verb, "ensure", ensure)
    assert trial.doit("-c", *parallel) == code
    said = capsys.readouterr()
    assert "dockerfile one  failed after" in said.out
    assert said.out.count("left out: ") == 3 * len(errors)
    assert "Traceback" not in said.out + said.err


def test_an_error_that_nobody_expected_is_no_traceback(
    trial: Trial, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **more: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(dockerfile_verb, "ensure", fail)
    assert trial.doit() == 1
    said = capsys.readouterr()
    assert "an error that lading does not know: RuntimeError: odd" in said.out
    assert "build/unexpected-error.log" in said.out
    assert "Traceback" not in said.out + said.err


def test_a_project_that_cannot_be_read(trial: Trial, capsys: Said) -> None:
    (trial.root / "project.yaml").write_text("lading: 1\nname: x\nbasse: {}\n")
    assert trial.doit() == 3
    said = capsys.readouterr()
    assert said.err.startswith("ERROR: project.yaml:3: ")
    assert "Traceback" not in said.err


def test_a_folder_that_cannot_be_written_is_a_problem_of_the_environment(
    trial: Trial, capsys: Said
) -> None:
    (trial.root / LOCK).mkdir()
    assert trial.doit() == 2
    said = capsys.readouterr()
    assert said.err.startswith("ERROR: ")
    assert "Traceback" not in said.err


# -- what is printed ------------------------------------------------------------------------


def test_a_run_in_a_log(trial: Trial, capsys: Said) -> None:
    trial.engine.results = [RunResult(code=0, output="")]
    assert trial.doit() == 0
    text = re.sub(r"\d+\.\d s", "0.0 s", capsys.readouterr().out)
    text = re.sub(r", [0-9a-f]{12}$", ", SHA", text, flags=re.MULTILINE)
    assert text == (
        "build      base:slim  0.0 s · 1.0 kB\n"
        "dockerfile one  0.0 s · build/one/context\n"
        "dockerfile two  0.0 s · build/two/context\n"
        "build      one  0.0 s · 1.0 kB\n"
        "build      two  0.0 s · 1.0 kB\n"
        '  passed 0.0 s one: python -c "import a"\n'
        "check      one  0.0 s · 1 test passed, ready for Apptainer\n"
        "check      two  0.0 s · 0 tests passed, ready for Apptainer\n"
        "archive    one  0.0 s · dist/one.tar, 17 kB, SHA\n"
        "archive    two  0.0 s · dist/two.tar, 17 kB, SHA\n"
    )
    assert trial.doit() == 0
    text = capsys.readouterr().out
    assert re.fullmatch(r"nothing to do: 14 tasks are up to date \(\d\.\d\d s\)\n", text)


def test_the_list_reads_like_the_pipeline(trial: Trial, capsys: Said) -> None:
    assert trial.doit("list") == 0
    lines = capsys.readouterr().out.splitlines()
    verbs = ["lock", "fetch", "dockerfile", "build", "check", "archive"]
    verbs += ["sif", "push", "verify", "upgrade", "env"]
    assert [line.split()[0] for line in lines] == verbs
    assert all(len(line) <= 80 for line in lines)
    assert trial.engine.calls == []


def test_the_list_with_status(trial: Trial, capsys: Said) -> None:
    def status(*more: str) -> dict[str, str]:
        assert trial.doit("list", "--status", *more) == 0
        lines = capsys.readouterr().out.splitlines()
        return {line.split()[1]: line[0] for line in lines}

    assert status() == {
        "lock": "U", "fetch": "U", "dockerfile": "R", "build": "R", "check": "R", "archive": "R",
        "sif": "R", "push": "R", "verify": "R", "upgrade": "R", "env": "U",
    }  # fmt: skip
    assert trial.engine.asked == ["images"]
    assert trial.engine.closed
    assert trial.doit() == 0
    capsys.readouterr()
    done = status()
    asked_for = {"sif", "push", "verify", "upgrade"}
    assert {name for name, letter in done.items() if letter == "R"} == asked_for
    (trial.root / "dist/two.tar").unlink()
    found = status("--all")
    still = {name for name, letter in found.items() if letter == "R"}
    assert {name for name in still if name.partition(":")[0] not in asked_for} == {
        "archive", "archive:two",
        "dockerfile:spare", "build:spare", "check:spare", "archive:spare",
    }  # fmt: skip


def test_info(trial: Trial, capsys: Said) -> None:
    assert trial.doit("info", "archive:one") == 1
    said = capsys.readouterr().out
    assert "status     : run" in said
    assert "what it makes is not there" in said
    assert "<function" not in said
    assert trial.doit() == 0
    capsys.readouterr()
    assert trial.doit("info", "archive:one") == 0
    assert "status     : up-to-date" in capsys.readouterr().out


def test_clean_says_what_it_cleans(trial: Trial, capsys: Said) -> None:
    assert trial.doit("archive:one") == 0
    capsys.readouterr()
    assert trial.doit("clean", "-n", "-c", "archive:one") == 0
    assert capsys.readouterr().out == (
        "would clean  archive:one\n"
        "would clean  check:one\n"
        "would clean  build:one\n"
        "would clean  build:base:slim\n"
        "would clean  dockerfile:one\n"
    )
    assert trial.doit("clean", "-c", "--forget", "archive:one") == 0
    assert capsys.readouterr().out.splitlines()[0] == "clean  archive:one"
    assert not (trial.root / "dist/one.tar").exists()


def test_forget_makes_nothing_be_made_again(trial: Trial, capsys: Said) -> None:
    assert trial.doit() == 0
    assert trial.doit("forget") == 0
    assert "forgetting archive:one" in capsys.readouterr().out
    assert trial.doit("forget", "--all") == 0
    assert trial.doit() == 0
    assert trial.engine.calls == []


def test_ignored_tasks_are_named(trial: Trial, capsys: Said) -> None:
    assert trial.doit("ignore", "archive:one") == 0
    capsys.readouterr()
    assert trial.doit("archive") == 0
    assert "ignored: archive:one (`doit forget archive:one` ends that)" in capsys.readouterr().out
    assert not (trial.root / "dist/one.tar").exists()


def test_other_reporters_are_left_alone(trial: Trial, capsys: Said) -> None:
    assert trial.doit("-r", "zero") == 0
    assert "archive" not in capsys.readouterr().out.replace("dist", "")


def test_what_is_said_can_go_into_a_file(trial: Trial, capsys: Said) -> None:
    said = trial.root / "said"
    assert trial.doit("-o", str(said), "archive:one") == 0
    assert capsys.readouterr().out == ""
    assert said.read_text().splitlines()[-1].startswith("archive    one  ")
    assert trial.doit("-o", str(trial.root), "archive:one") == 2
    found = capsys.readouterr()
    assert found.err.startswith("ERROR: ")
    assert "Traceback" not in found.err


def test_always_makes_all_again(trial: Trial, capsys: Said) -> None:
    assert trial.doit() == 0
    assert trial.doit("-a", "-s", "build:two") == 0
    assert len(trial.engine.named("build")) == 1
    assert trial.doit("-a", "-s", "lock:two") == 0
    assert "nothing to lock" in capsys.readouterr().out


def test_many_at_once_do_not_write_into_each_others_lines(tmp_path: Path, capsys: Said) -> None:
    images = "".join(
        f"  image{n}:\n    base: slim\n    test: [one {n}, two {n}, three {n}]\n" for n in range(6)
    )
    yaml = f"lading: 1\nname: x\nbases: {{slim: {{image: python}}}}\nimages:\n{images}"
    trial = Trial.make(tmp_path / "many", yaml)
    trial.engine.before["build"] = lambda: time.sleep(0.005)
    trial.engine.before["run"] = lambda: time.sleep(0.002)
    assert trial.doit("-n", "4") == 0
    lines = capsys.readouterr().out.splitlines()
    line = re.compile(
        r"(?:dockerfile|build|check|archive) +(?:image\d|base:slim)  \d\.\d s · \S.*"
        r"|  passed \d\.\d s image(?P<n>\d): (?:one|two|three) (?P=n)"
    )
    assert [text for text in lines if not line.fullmatch(text)] == []
    assert len(lines) == 1 + 6 * (4 + 3)
    assert trial.engine.asked.count("build") == 6
    assert trial.doit("-n", "4") == 0
    assert trial.engine.calls == []


# -- doit's database ------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["list", "--status"], ["forget"], ["clean"], ["ignore"]])
def test_a_broken_database_is_no_traceback(trial: Trial, capsys: Said, command: list[str]) -> None:
    (trial.root / ".doit.db").write_bytes(b"not a database" * 500)
    assert trial.doit(*command) in (0, 3)
    said = capsys.readouterr()
    assert ".doit.db can't be read" in said.err
    assert "Traceback" not in said.err


def test_what_doit_remembers_is_shown(trial: Trial, capsys: Said) -> None:
    assert trial.doit("ignore", "archive:one") == 0
    capsys.readouterr()
    assert trial.doit("dumpdb") == 0
    assert capsys.readouterr().out == 'archive:one -> {"ignore:": "1"}\n'


def written_by(monkeypatch: pytest.MonkeyPatch, pragma: str) -> None:
    """Lets SQLite be on a disk of which this is true."""
    connect = sqlite3.connect

    def on_that_disk(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        if args[0] != ":memory:":
            connection.execute(f"pragma {pragma}")
        return connection

    monkeypatch.setattr(sqlite3, "connect", on_that_disk)


@pytest.mark.parametrize(
    ("disk", "there"),
    [("max_page_count=1", False), ("query_only=1", False), ("query_only=1", True)],
)
def test_a_disk_that_takes_no_database_is_a_note(
    trial: Trial, capsys: Said, monkeypatch: pytest.MonkeyPatch, disk: str, there: bool
) -> None:
    if there:
        assert trial.doit("ignore", "sif") == 0
    written_by(monkeypatch, disk)
    assert trial.doit() == 0
    assert (trial.root / "dist/one.tar").exists()
    said = capsys.readouterr()
    assert said.err.count(".doit.db can't be written (") == 1
    assert "Traceback" not in said.err
    assert trial.doit() == 0, "and it is remembered all the same what is up to date"
    assert "nothing to do" in capsys.readouterr().out
    for command in ("ignore", "forget"):
        assert trial.doit(command, "archive:one") == 2, "which does nothing else"
        assert ".doit.db can't be written (" in capsys.readouterr().err


# -- runs at once, and runs that are ended --------------------------------------------------


@contextmanager
def running(
    trial: Trial, method: str, seconds: float, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """doit as a process of its own, with an engine that is slow at one thing."""
    command = [sys.executable, "-m", "tests.support.projects", str(trial.root), method]
    process = subprocess.Popen(
        [*command, str(seconds), *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY / 'scripts'}:{REPOSITORY}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 30
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def half_written(trial: Trial) -> list[str]:
    """What lies under a final name and is not whole, and what is left beside."""
    found = [str(path) for path in (trial.root / "dist").rglob("*.part")]
    for tar in (trial.root / "dist").glob("*.tar"):
        if not tar.with_suffix(".json").exists():
            found.append(str(tar))
    return found


@pytest.mark.parametrize(
    ("number", "arguments"),
    [(signal.SIGTERM, []), (signal.SIGINT, []), (signal.SIGTERM, ["-n", "4"])],
)
def test_a_run_that_is_stopped_ends_cleanly(
    trial: Trial, number: signal.Signals, arguments: list[str]
) -> None:
    with running(trial, "build", 60, *arguments) as process:
        wait_for(trial.root / "busy", process)
        start = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert time.monotonic() - start < 5
    assert process.returncode == 130
    assert "stopped; what was done stays done" in err
    assert "Traceback" not in out + err
    assert "nothing to do" not in out
    assert not list((trial.root / "dist").glob("*"))
    assert (trial.root / ".doit.db").exists()
    assert trial.doit() == 0, "the lock is free, and the rest is made"
    assert half_written(trial) == []


def test_a_signal_that_another_thread_takes() -> None:
    """Python hears it in the main thread, which waits for a task that takes long."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    waited = Attentive()
    before = signal.signal(signal.SIGUSR1, stop)
    late = threading.Timer(15, waited.put, ["a result"])
    late.start()
    try:
        takes = threading.Timer(
            0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        )
        takes.start()
        with pytest.raises(KeyboardInterrupt):
            waited.get()
    finally:
        late.cancel()
        signal.signal(signal.SIGUSR1, before)
    waited.put("next")
    assert waited.get() == "next"
    with pytest.raises(queue.Empty):
        waited.get(block=False)


@pytest.mark.parametrize(("method", "kept"), [("build", "dockerfile"), ("save", "build")])
def test_a_run_that_is_killed_leaves_nothing_half_written(
    trial: Trial, capsys: Said, method: str, kept: str
) -> None:
    with running(trial, method, 60) as process:
        wait_for(trial.root / "busy", process)
        process.kill()
        process.communicate(timeout=20)
    assert half_written(trial) == []
    engine = type(trial.engine)(trial.root / "engine")
    assert run_doit(trial.root, [], trial.environ, lambda: engine) == 0
    said = capsys.readouterr().out
    assert f"{kept:<10} one" not in said, "what was done is done"
    assert (trial.root / "dist/one.tar").exists()
    assert not list(trial.root.rglob("*.part")), "what the killed run left is swept"


def test_two_runs_take_turns(trial: Trial) -> None:
    with running(trial, "build", 30, "archive:one") as first:
        wait_for(trial.root / "busy", first)
        with running(trial, "build", 0, "archive:one") as second:
            assert second.stdout is not None
            waiting = second.stdout.readline()
            (trial.root / "go").touch()
            out, err = second.communicate(timeout=30)
            assert second.returncode == 0, err
        first_out, _ = first.communicate(timeout=30)
        assert first.returncode == 0
    assert "archive    one" in first_out
    assert re.fullmatch(
        rf"waiting for another run in this project \(process {first.pid}: doit .*archive:one\)\n",
        waiting,
    )
    assert re.fullmatch(r"nothing to do: .*\n", out)


def test_one_that_waits_for_its_turn_can_be_stopped(trial: Trial) -> None:
    with (
        files.locked(trial.root / LOCK, "somebody"),
        running(trial, "build", 0, "archive:one") as process,
    ):
        assert process.stdout is not None
        assert "waiting for another run in this project (somebody)" in process.stdout.readline()
        process.terminate()
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["archive:one", "list", "info archive:one"])
def test_a_reader_that_has_gone_is_no_error(trial: Trial, command: str) -> None:
    with running(trial, "build", 0, *command.split()) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(30) == 0
    assert (trial.root / "dist/one.tar").exists() == (command == "archive:one")


def test_programs_that_threads_started_end_with_the_run() -> None:
    ended: list[process.Finished] = []
    thread = threading.Thread(target=lambda: ended.append(process.run(["sleep", "60"])))
    thread.start()
    until = time.monotonic() + 10
    while not process._running and time.monotonic() < until:
        time.sleep(0.01)
    process.end_all()
    thread.join(5)
    assert [finished.code for finished in ended] == [-signal.SIGTERM]
    assert not process._running


def test_what_killed_runs_left_is_cleared(tmp_path: Path) -> None:
    kept = ["dist/a.tar", "build/a/.hidden", "build/a/context/x.part", "locks/.b.part"]
    left = [
        "dist/.a.tar.x1.part",
        "build/.log.part",
        "build/a/.candidate.tar.x2.part",
        "build/a/.context.part/Dockerfile",
        "build/parts/p/.context.part/Dockerfile",
        "locks/bases/b/linux-amd64/.base.yaml.x3.part",
        "locks/images/a/linux-amd64/.requirements.txt.x4.part",
        "locks/images/a/linux-amd64/conda/tools/.conda.lock.x5.part",
    ]
    for path in (*kept, *left):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    clear_leftovers(tmp_path)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == set(kept)
    shutil.rmtree(tmp_path)
    clear_leftovers(tmp_path)
