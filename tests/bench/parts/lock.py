"""lock: resolving, in clean containers of the base, against pip-compile and pip freeze."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

from lading.engines import Engine, Mount
from lading.errors import LadingError
from tests.bench import clock, tools
from tests.bench.clock import Timed
from tests.bench.figures import Figure, Goal
from tests.bench.network import LENT, lend
from tests.bench.workshop import IMAGE, Workshop

RUNS = 3


def measure(workshop: Workshop) -> Iterator[Figure]:
    """Three ways from a requirement file to exact versions; then `doit lock` itself."""
    running = workshop.with_base(workshop.any_engine().kind)
    contest = Contest(workshop, workshop.connected(running.kind))
    ours, hashed, compiled, frozen = clock.alternating(
        RUNS,
        contest.lading,
        partial(contest.pip_compile, "--generate-hashes"),
        contest.pip_compile,
        contest.pip_freeze,
        limit=25,
    )
    yield Figure(
        what="pip-compile, hashes",
        ours=clock.seconds(ours),
        theirs=clock.seconds(hashed),
        goal=Goal(kind="faster", limit=15),
        note=hashing(hashed[0].output),
        step="pip-compile",
    )
    for what, runs, step in (
        ("pip-compile, none", compiled, "pip-compile, none"),
        ("pip install, freeze", frozen, "pip freeze"),
    ):
        yield Figure(what=what, ours=clock.seconds(ours), theirs=clock.seconds(runs), step=step)
    yield _doit_lock(workshop)


def hashing(output: str) -> str:
    """What to know where pip-compile had to make the hashes itself.

    It takes them from PyPI's JSON API, but only for files at the same URL as in the index's
    pages, which need not be so behind a mirror; all others it downloads, for all platforms.
    """
    count = len(re.findall(r"^\s*Hashing \S", output, re.MULTILINE))
    return f"pip-compile downloaded {count} files from this index to hash them" if count else ""


def _doit_lock(workshop: Workshop) -> Figure:
    """`doit lock:IMAGE` from nothing, on this machine, as a whole process."""
    project = workshop.project("lock")
    runs: list[Timed] = []
    for number in range(RUNS):
        shutil.rmtree(project / "locks" / "images" / IMAGE)
        cache = {"UV_CACHE_DIR": str(workshop.folder / f"uv-{number}")}
        runs.append(workshop.doit(project, f"lock:{IMAGE}", env=cache))
    return Figure(what=f"doit lock:{IMAGE}", ours=clock.seconds(runs), cpu=clock.cpu(runs))


class Contest:
    """One container a run, thrown away afterwards, so that every cache is empty.

    What is timed is the command inside; starting the container is nobody's work.
    """

    def __init__(self, workshop: Workshop, engine: Engine) -> None:
        self._engine = engine
        self._reference = workshop.reference()
        facts = workshop.base_lock().facts
        self._target = (facts.python_version, facts.glibc, workshop.declared().platform)
        self._python = facts.python
        self._lent = workshop.folder / "lent"
        self._settings = lend(workshop.environ(), self._lent / "settings")
        tools.install(workshop, ["pip"], self._lent / "pip")
        tools.install(workshop, ["pip", "pip-tools"], self._lent / "pip-tools")
        ours = [f"{name}=={version(name)}" for name in ("uv", "msgspec", "packaging", "requests")]
        tools.install(workshop, ours, self._lent / "ours")
        shutil.copytree(workshop.source / "scripts" / "lading", self._lent / "ours" / "lading")
        shutil.copytree(Path(__file__).parent.parent / "inside", self._lent / "inside")
        image = workshop.image()
        assert image.pip is not None
        (self._lent / "work").mkdir()
        shutil.copy(workshop.source / image.pip.requirements, self._lent / "work/requirements.in")
        # What is lent is read-only, so that Python could not keep what it compiles.
        self._run(["-m", "compileall", "-q", LENT], {}, read_only=False)

    def lading(self) -> Timed:
        """uv, as lading asks it: versions, then each version's one file with its hash."""
        script = f"{LENT}/inside/resolve.py"
        command = [script, "requirements.in", *self._target]
        return self._run(command, {"PYTHONPATH": f"{LENT}/ours"})

    def pip_compile(self, *options: str) -> Timed:
        """pip-tools."""
        options = (*options, "--verbose", "--output-file", "/tmp/requirements.txt")
        command = ["-m", "piptools", "compile", *options, "requirements.in"]
        return self._run(command, {"PYTHONPATH": f"{LENT}/pip-tools"})

    def pip_freeze(self) -> Timed:
        """What the lesson does: install, then write down what came."""
        pip = f"{self._python} -m pip"
        line = f"{pip} install --quiet -r requirements.in && {pip} freeze"
        script = f"import os; raise SystemExit(os.system({line!r}) != 0)"
        return self._run(["-c", script], {"PYTHONPATH": f"{LENT}/pip"})

    def _run(
        self, command: Sequence[str], env: Mapping[str, str], *, read_only: bool = True
    ) -> Timed:
        """The base's Python with these arguments."""
        result = self._engine.run(
            self._reference,
            [self._python, f"{LENT}/inside/stopwatch.py", self._python, *command],
            network="host",
            user="0:0",
            mounts=[
                Mount(source=self._lent, target=LENT, read_only=read_only),
            ],
            env={"HOME": "/tmp", **self._settings, **env},
            workdir=f"{LENT}/work",
        )
        if result.code:
            raise LadingError(
                f"{' '.join(command)} failed in a container",
                why="\n".join(result.output.splitlines()[-15:]),
            )
        seconds = float(result.output.rpartition("seconds: ")[2])
        return Timed(seconds=seconds, cpu=0.0, output=result.output)
