"""A copy of the project for each test, and engines of one's own for all of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from lading.store import Store
from tests.support import engines
from tests.support.apptainer import Apptainer, NotToBeHad, installed

REPOSITORY = Path(__file__).parents[2]
DOIT = Path(sys.executable).with_name("doit")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A command that ran: its exit code, all it printed, and how many seconds it took."""

    code: int
    output: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A project in a folder of its own, and the environment its commands run in."""

    root: Path
    environ: Mapping[str, str]
    patience: float = 600
    """Seconds that a command may take."""

    def run(self, *command: str | Path, **environ: str) -> Outcome:
        """Runs a command in the project, to its end."""
        start = time.monotonic()
        finished = subprocess.run(
            [str(part) for part in command],
            cwd=self.root,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=self.patience,
        )
        outcome = Outcome(
            code=finished.returncode,
            output=finished.stdout,
            seconds=time.monotonic() - start,
        )
        print(f"$ {' '.join(map(str, command))}  [{outcome.code}]\n{outcome.output}")
        return outcome

    def doit(self, *arguments: str, **environ: str) -> Outcome:
        """`doit …`, as in an activated environment."""
        return self.run(DOIT, *arguments, **environ)

    def done(self, *arguments: str, **environ: str) -> str:
        """`doit …`, which has to succeed; what it printed."""
        outcome = self.doit(*arguments, **environ)
        assert outcome.code == 0, outcome.output
        assert "Traceback" not in outcome.output
        return outcome.output

    def write(self, path: str, text: str) -> None:
        """Writes a file of the project."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def replace(self, path: str, old: str, new: str) -> None:
        """Changes a text in a file of the project, which must have it."""
        text = (self.root / path).read_text()
        assert old in text
        (self.root / path).write_text(text.replace(old, new))


def plain_environ() -> dict[str, str]:
    """This process's environment without what would change how lading works."""
    dropped = {"CI", "LADING_CACHE", "XDG_CACHE_HOME", "VIRTUAL_ENV", "PYTHONPATH"}
    dropped |= {*engines.FOREIGN}
    return {name: value for name, value in os.environ.items() if name not in dropped}


def copied(target: Path) -> Path:
    """The project's own files, as git would give them to someone who clones it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)
    return target


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that starts empty and serves all end-to-end tests of a session, in all processes."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder /= "cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def project(tmp_path: Path, cache: Path, running: engines.Running) -> Copy:
    """A fresh copy of the project, its engine, and the session's store."""
    environ = {**plain_environ(), "DOCKER_HOST": running.url, "LADING_CACHE": str(cache)}
    return Copy(root=copied(tmp_path / "project"), environ=environ)


@pytest.fixture
def on_docker(tmp_path: Path, cache: Path, docker: engines.Running) -> Copy:
    """A fresh copy of the project on Docker, for what does not depend on the engine."""
    environ = {**plain_environ(), "DOCKER_HOST": docker.url, "LADING_CACHE": str(cache)}
    return Copy(root=copied(tmp_path / "project"), environ=environ)


@pytest.fixture(scope="session")
def apptainer(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Apptainer:
    """A real Apptainer; where its packages can't be had, the tests are skipped with the reason."""
    try:
        return installed(tmp_path_factory.mktemp("apptainer"), Store(cache))
    except NotToBeHad as reason:
        pytest.skip(f"Apptainer can't be had: {reason}")
