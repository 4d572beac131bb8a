"""A shell in a real container: piped, at a terminal, and where a real build has stopped."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lading import context as contexts
from lading import plan as plans
from lading.engines import BuildFailed, Engine
from lading.plan import Plan
from lading.steps import Arg, Env, Mount, Run, Stage
from lading.store import Store
from lading.verbs import shell
from tests.support.engines import Running
from tests.support.images import BASE
from tests.support.projects import Trial

CODE = """\
import sys
from lading.engines import connect
engine = connect()
code = engine.interact(sys.argv[1], ["/bin/sh", "-c", sys.argv[2]], env={"SAID": "so"})
engine.close()
sys.exit(code)
"""


def command(script: str) -> list[str]:
    return [sys.executable, "-c", CODE, BASE, script]


@pytest.mark.parametrize("size", [0, 3, 300_000])
def test_what_is_piped_in_comes_out(running: Running, base: str, size: int) -> None:
    given = b"x" * size
    said = subprocess.run(
        command("cat; echo $SAID >&2; exit 7"),
        input=given,
        capture_output=True,
        env=running.environ,
        timeout=60,
    )
    assert (said.returncode, said.stdout, said.stderr) == (7, given, b"so\n")


def test_a_shell_reads_commands_from_a_pipe(running: Running, base: str, engine: Engine) -> None:
    said = subprocess.run(
        command(shell.BEST),
        input=b"ls /etc/nothing; cd /opt\npwd\nexit 3\n",
        capture_output=True,
        env=running.environ,
        timeout=60,
    )
    assert (said.returncode, said.stdout) == (3, b"/opt\n")
    assert b"/etc/nothing" in said.stderr


def test_a_reader_that_has_gone_ends_it(running: Running, base: str) -> None:
    line = f"{sys.executable} -c '{CODE}' {BASE} 'while :; do echo y; done' </dev/null | head -n 1"
    start = time.monotonic()
    said = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        env=running.environ,
        timeout=60,
    )
    assert (said.returncode, said.stdout) == (141, b"y\n")
    assert time.monotonic() - start < 50


def test_at_a_terminal(running: Running, base: str) -> None:
    process, terminal = pty.fork()
    if not process:
        os.execve(sys.executable, command("sh"), running.environ)
    try:
        text = wait_for(terminal, b"# ")
        os.write(terminal, b"echo $((40 + 2)); ls -d /o*\n")
        text = wait_for(terminal, b"/opt")
        assert b"42" in text
        os.write(terminal, b"exit 5\n")
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 5
    finally:
        os.close(terminal)


def wait_for(terminal: int, wanted: bytes) -> bytes:
    """What comes, until this has come."""
    found = b""
    while wanted not in found:
        found += os.read(terminal, 1000)
    return found


# -- where a build stops --------------------------------------------------------------------


ONCE = "cat /proc/sys/kernel/random/uuid > /opt/id; echo id=; cat /opt/id"
"""What gives the same only when it is taken out of the cache."""


def failing() -> Plan:
    """A plan whose second step that runs fails, for it has no such file."""
    lent = (Mount(source="files", target="/dev/shm/lent"),)
    steps = (
        Arg(name="SAID", value="in the build", why="An argument."),
        Env(values={"PLACE": "here"}, why="A variable."),
        Run(commands=(ONCE,), why="It works."),
        Run(commands=("cat /dev/shm/lent/a", "cat\n/dev/shm/lent/b"), why="It fails.", mounts=lent),
        Run(commands=("touch /opt/third",), why="It is never reached."),
    )
    stage = Stage(base=BASE, steps=steps, why="The base.")
    return plans.make("trial", "A trial.", (stage,), {"files/a": b"content\n"})


def test_where_a_build_stops(running: Running, engine: Engine, base: str, tmp_path: Path) -> None:
    trial = Trial.make(tmp_path / "project")
    state = trial.state(lambda: engine)
    plan, folder = failing(), trial.root / "build/trial/context"
    contexts.make(plan, "key", trial.root, Store(tmp_path / "store"), folder)
    log: list[str] = []
    with pytest.raises(BuildFailed) as raised:
        engine.build(folder, "localhost/trial:1", platform="linux/amd64", log=log.append)
    raised.value.context = folder
    place = shell.stopped(state, {folder: plan}, raised.value)
    try:
        script = "cat /dev/shm/lent/a; ls /opt; echo $SAID $PLACE"
        found = engine.run(
            place.image, ["/bin/sh", "-c", script], mounts=place.mounts, env=place.env
        )
        written = engine.run(place.image, ["touch", "/dev/shm/lent/a"], mounts=place.mounts)
        first = engine.run(place.image, ["cat", "/opt/id"]).output
        assert found.output.splitlines() == ["content", "id", "in the build here"]
        assert written.code
        assert "ead-only" in written.output
        assert "  cat /dev/shm/lent/a && \\\n  cat /dev/shm/lent/b\n" in place.said
        assert first.strip() in "\n".join(log), "out of the cache"
    finally:
        engine.remove(place.image)
