"""`doit shell`: what it opens, where a build stops, and what comes through a connection."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lading import dockerfile
from lading.engines import BuildFailed, RunResult, terminal
from lading.errors import EnvironmentProblem
from lading.parts import Start
from lading.plan import KEY_LABEL
from lading.state import State
from lading.steps import Copy, Env, Mount, Run, Stage
from lading.verbs import part as part_verb
from lading.verbs import shell
from lading.verbs import source as source_verb
from tests.support.index import only_loopback
from tests.support.projects import YAML, Tiny, Trial

Said = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only_loopback(monkeypatch, tmp_path, tmp_path / "uv-cache")
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial.make(tmp_path / "project")


class Failing(Tiny):
    """An engine in which every step fails that asks for the wheels, as BuildKit would say it."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def _record(self, method: str, **arguments: object) -> None:
        super()._record(method, **arguments)
        if method != "build":
            return
        context = arguments["context"]
        assert isinstance(context, Path)
        text = (context / "Dockerfile").read_text()
        self.texts.append(text)
        start = text.find("RUN --mount=")
        if start >= 0:
            step = text[start : text.index("\n\n", start)].replace("\\\n", "")
            raise BuildFailed(str(arguments["tag"]), f"[2/4] {step}", ["no such wheel"])


@pytest.fixture
def failing(trial: Trial) -> Trial:
    trial.engine = Failing()
    trial.engine.results = [RunResult(code=9, output="")]
    return trial


# -- names ----------------------------------------------------------------------------------


def test_without_a_name_it_lists_them(trial: Trial, capsys: Said) -> None:
    assert trial.doit("shell") == 0
    assert capsys.readouterr().out.splitlines() == ["one", "two", "spare"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["on"], "there is nothing called 'on'; did you mean one?"),
        (["nosuch-at-all"], "there is nothing called 'nosuch-at-all'"),
        (["one", "two"], "one shell at a time"),
    ],
)
def test_a_name_that_does_not_exist(
    trial: Trial, capsys: Said, arguments: list[str], said: str
) -> None:
    assert trial.doit("shell", *arguments) == 3
    found = capsys.readouterr()
    assert said in found.err
    assert "Traceback" not in found.err
    assert trial.engine.calls == []


SOURCES = """\
sources:
  zlib:
    version: "1"
    urls: ["https://example.org/zlib-{version}.tar.gz"]
    configure: ""
"""


def test_a_source_on_several_bases_asks_which(tmp_path: Path, capsys: Said) -> None:
    yaml = YAML.replace("bases:\n", "bases:\n  other: {image: docker.io/library/python:3.12}\n")
    yaml += "    source: [zlib]\n  more:\n    base: other\n    source: [zlib]\n" + SOURCES
    trial = Trial.make(tmp_path / "project", yaml)
    assert trial.doit("shell") == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[4:] == ["source:zlib", "source:zlib@slim", "source:zlib@other"]
    assert trial.doit("shell", "source:zlib") == 3
    assert "source:zlib@slim or source:zlib@other" in capsys.readouterr().err
    assert trial.doit("shell", "source:zlib@other") == 1, "it is not locked"
    assert "doit lock:source:zlib" in capsys.readouterr().err


# -- what opens -----------------------------------------------------------------------------


def test_an_image_is_built_and_opened(trial: Trial, capsys: Said) -> None:
    trial.engine.results = [RunResult(code=5, output="")]
    assert trial.doit("shell", "two") == 5
    assert trial.holds("two")
    (asked,) = trial.engine.named("interact")
    assert asked["image"] == trial.engine.images(KEY_LABEL)[trial.key("two")]
    assert asked["command"][:2] == ("/bin/sh", "-c")
    assert asked["network"] == "none"
    assert asked["mounts"] == ()
    assert trial.doit("shell", "two") == 5
    assert trial.engine.named("build") == [], "it is there"
    assert trial.engine.closed


def test_a_lock_that_is_not_current_is_said(trial: Trial, capsys: Said) -> None:
    assert trial.doit("shell", "one") == 0
    assert "not current" not in capsys.readouterr().err
    before = trial.key("one")
    (trial.root / "recipes/one.in").write_text("a<2\n")
    lock = trial.state().lock_folder(trial.image("one")) / "requirements.txt"
    text = lock.read_text()
    assert trial.doit("shell", "one") == 0
    said = capsys.readouterr().err
    assert "the lock of one is not current: the requirements, " in said
    assert "-> this is as it is locked; `doit lock:one` makes the lock anew" in said
    assert lock.read_text() == text
    assert trial.key("one") != before or trial.holds("one")
    assert len(trial.engine.named("interact")) == 1


def test_the_project_is_free_while_the_shell_is_open(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lading import files
    from lading.commands import LOCK

    def meanwhile() -> None:
        with files.locked(trial.root / LOCK, "another", wait=False):
            held.append(True)

    held: list[bool] = []
    trial.engine.before["interact"] = meanwhile
    assert trial.doit("shell", "two") == 0
    assert held == [True]


def test_where_a_build_stops(failing: Trial, capsys: Said) -> None:
    engine = failing.engine
    assert isinstance(engine, Failing)
    assert failing.doit("shell", "one") == 9
    out, said = capsys.readouterr()
    assert out == "", "that is the shell's"
    assert "building one:2026.11.01 failed" in said
    assert "uv pip install --quiet" in said
    assert ": lent" not in said.partition("the step that fails")[2]
    whole, cut = engine.texts
    assert whole.startswith(cut.removesuffix("\n"))
    assert "ENV " in cut
    assert "RUN" not in cut
    (asked,) = engine.named("interact")
    (mount,) = asked["mounts"]
    assert mount.target == "/dev/shm/lading/pip"
    assert mount.read_only
    assert asked["env"]["SOURCE_DATE_EPOCH"].isdigit()
    assert asked["image"].startswith("localhost/lading/shell/one:")
    assert engine.named("remove")[-1] == {"ref": asked["image"]}
    assert not mount.source.exists(), "nothing of it stays"
    assert (failing.root / "build/one/context/pip/wheels").is_dir(), "the context is left alone"
    assert (failing.root / "build/one/context/Dockerfile").read_text() == whole


def test_the_lent_files_are_there_while_it_is_open(failing: Trial) -> None:
    seen: list[str] = []

    def look() -> None:
        (mount,) = failing.engine.named("interact")[0]["mounts"]
        seen.extend(sorted(path.name for path in mount.source.iterdir()))

    failing.engine.before["interact"] = look
    assert failing.doit("shell", "one") == 9
    assert seen == ["bin", "bytecode.py", "requirements.txt", "wheels"]


def test_where_a_source_stops(
    tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial.make(tmp_path / "project", YAML + "    source: [zlib]\n" + SOURCES)
    trial.engine = Failing()
    start = Start(reference="slim:1", platform="linux/amd64", root=trial.root, epoch=1)
    lent = (Mount(source="sdist", target="/dev/shm/lading/sdist"),)
    step = Run(commands=("make",), why="It fails.", mounts=lent)
    inner = start.part("inner", "what it needs", (step,), {"sdist/a": b"a"}, "")
    outer = replace(start.part("zlib", "zlib 1", (), {}, ""), parts=(inner,))

    def ensure(state: State, *_: object) -> str:
        return part_verb.ensure(state, outer)

    def compiled_on(*_: object) -> SimpleNamespace:
        return SimpleNamespace(part=outer)

    monkeypatch.setattr(source_verb, "ensure", ensure)
    monkeypatch.setattr(State, "compiled_on", compiled_on)
    assert trial.doit("shell", "source:zlib") == 0
    assert "  make\n" in capsys.readouterr().err
    (asked,) = trial.engine.named("interact")
    assert asked["image"].startswith("localhost/lading/shell/inner:")
    assert [mount.target for mount in asked["mounts"]] == ["/dev/shm/lading/sdist"]


def test_a_source_that_compiles_has_no_such_step(
    tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial.make(tmp_path / "project", YAML + "    source: [zlib]\n" + SOURCES)
    monkeypatch.setattr(source_verb, "ensure", lambda *_: "1 kB")
    assert trial.doit("shell", "source:zlib@slim") == 1
    assert "zlib compiles on slim" in capsys.readouterr().err


def test_a_failure_at_no_step_is_said_as_it_is(trial: Trial, capsys: Said) -> None:
    trial.engine.failures["build"] = BuildFailed("one", "[internal] load metadata", ["gone"])
    assert trial.doit("shell", "one") == 1
    assert "ERROR: building one failed at [internal] load metadata" in capsys.readouterr().err
    assert trial.engine.named("interact") == []


def test_what_a_killed_shell_left_is_removed(failing: Trial) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = failing.root / "build" / f".shell.two.{ended.pid}"
    other = failing.root / "build" / f".shell.two.{os.getppid()}"
    for folder in (left, other):
        (folder / "context").mkdir(parents=True)
    assert failing.doit("shell", "one") == 9
    assert {"ref": f"localhost/lading/shell/two:{ended.pid}"} in failing.engine.named("remove")
    assert not left.exists()
    assert other.exists(), "it may be open"


# -- the failed step ------------------------------------------------------------------------

RUNS = (
    Env(values={"A": "b"}, why="First."),
    Run(commands=("make  -C x", "make\ninstall"), why="Second."),
    Copy(source="a", target="/a", why="Third."),
    Run(commands=("make test",), why="Fourth."),
)
STAGES = (Stage(base="a", steps=RUNS, why="", name="build"), Stage(base="b", steps=RUNS, why=""))


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ("[build 2/4] RUN make  -C x &&     make         install", (0, 1)),
        ("[1/2] STEP 3/5: RUN make -C x &&     make         install", (0, 1)),
        ("STEP 5/5: RUN make test", (0, 3)),
        ("[4/4] RUN make test", (0, 3)),
        ("[3/4] COPY [a, /a]", None),
        ("[4/4] RUN make tests", None),
        ("STEP 5/5: RUN make tests", None),
        # BuildKit fills in variables and takes quotes away; the number says which it is.
        ("[build 2/4] RUN make -C what was in a variable && make install", (0, 1)),
        ("[stage-1 4/4] RUN make b", (1, 3)),
        ("[build 3/4] RUN what is a COPY", None),
        ("[build 2/5] RUN of another Dockerfile", None),
        ("[other 2/4] RUN make b", None),
        ("", None),
    ],
)
def test_the_step_that_a_log_names(said: str, at: tuple[int, int] | None) -> None:
    assert shell.located(STAGES, said) == at


def test_numbers_of_a_stage_without_a_base_of_its_own() -> None:
    build, last = STAGES
    assert shell.located((replace(last, base="scratch"),), "[2/3] RUN x") is None, "a COPY"
    assert shell.located((replace(last, base="scratch"),), "[3/3] RUN x") == (0, 3)
    assert shell.located((build, replace(last, base="build")), "[stage-1 1/3] RUN x") == (1, 1)


def test_a_stage_up_to_a_step() -> None:
    first = shell.until(STAGES[0], 1)
    assert (first.steps, first.name) == (RUNS[:1], "")
    assert shell.until(STAGES[0], 3).steps == (*RUNS[:3], shell.KEPT)
    text = dockerfile.render("", (shell.until(STAGES[0], 3),))
    assert text.count("RUN ") == 2, "else Podman would not look into its cache"


def test_the_command_can_be_repeated(tmp_path: Path) -> None:
    step = Run(commands=(": lent 0123", "echo a", "echo\nb", f"touch {tmp_path}/c"), why="")
    told = shell.told(step)
    assert "lent 0123" not in told
    script = told[told.index("  echo a") : told.index("\n\n", told.index("  echo a"))]
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "a\nb\n"
    assert (tmp_path / "c").exists()


# -- the connection -------------------------------------------------------------------------

FRAMES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)))


@given(FRAMES, st.lists(st.integers(0, 400)))
def test_frames_however_they_are_cut(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    whole = b"".join(
        bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for stream, data in frames
    )
    at = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    found = terminal.Frames()
    pieces = [whole[a:b] for a, b in pairwise(at)]
    assert [frame for piece in pieces for frame in found.feed(piece)] == frames


@contextmanager
def tied(given: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, int]]:
    """A connection's far end, and where the output comes out, while `given` is the input."""
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    out_read, out_write = os.pipe()
    os.write(writing, given)
    os.close(writing)
    monkeypatch.setattr(terminal, "IN", reading)
    monkeypatch.setattr(terminal, "OUT", out_write)
    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(terminal.talk(ours, terminal=True)))
    thread.start()
    yield theirs, out_read
    theirs.close()
    thread.join(10)
    assert ended == [True]
    for handle in (reading, out_read, out_write):
        os.close(handle)
    ours.close()


def test_the_end_of_the_input_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with tied(b"ls\n", monkeypatch) as (container, out):
        assert container.recv(100) == b"ls\n"
        assert container.recv(100) == b""
        container.sendall(b"late answer")
        assert os.read(out, 100) == b"late answer"


def test_a_connection_without_a_socket_is_an_error_in_words() -> None:
    with pytest.raises(EnvironmentProblem, match="no shell can be opened"):
        terminal.connected(object())
