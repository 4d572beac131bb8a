"""Where measurements are made: copies of the project, a store and engines of its own.

Nothing of the checkout is written to; all of it goes away at the end.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lading.engines import Engine, connect
from lading.errors import LadingError
from lading.layers import base as bases
from lading.project import Base, Image, Project, load
from lading.state import State
from lading.store import Store
from tests.bench.clock import Timed, timed
from tests.support import engines
from tests.support.engines import Running
from tests.support.machines import Machine

IMAGE = "astropy"
"""The image that is measured; its base is the clean container that others work in."""
NOWHERE = "unix:///nowhere/to/be/found.sock"
"""Where no engine is: who asks it fails."""
_LEFT = (
    *(".git", ".venv", ".ci", ".doit.db*", ".*_cache", ".hypothesis", ".lading.lock"),
    *("build", "dist", "tests", "__pycache__"),
)
_NOT_OURS = ("CI", "PYTHONDONTWRITEBYTECODE")
"""Variables of the caller's: in CI locks are frozen; and modules are compiled once, as usual."""
ENGINES = ("docker", "podman")


class NotMeasured(LadingError):
    """Something that a figure needs is not on this machine."""


class Workshop:
    """The folder of one run of the benchmark, and what is made in it when first asked for."""

    def __init__(self, root: Path, folder: Path, stack: ExitStack) -> None:
        self.root = root
        self.folder = folder
        self._stack = stack
        self._engines: dict[str, Running] = {}
        self._connected: dict[str, Engine] = {}
        self._bases: set[str] = set()
        self.source = self._copy("source")
        self.store = Store(folder / "cache")
        self._seed()

    # -- projects ---------------------------------------------------------------------------

    def _copy(self, name: str) -> Path:
        """The checkout without what was made in it.

        Nor has it a .venv: a link to the checkout's would let a copy's set-up write into that.
        """
        target = self.folder / name
        shutil.copytree(self.root, target, ignore=shutil.ignore_patterns(*_LEFT), symlinks=True)
        return target

    def project(self, name: str) -> Path:
        """A new copy of the project."""
        target = self.folder / name
        shutil.copytree(self.source, target, symlinks=True)
        return target

    def declared(self) -> Project:
        """The project as declared."""
        return load(self.source / "project.yaml")

    def image(self) -> Image:
        """The image that is measured."""
        return self.declared().images[IMAGE]

    def base(self) -> Base:
        """The base of the image that is measured."""
        return self.declared().bases[self.image().base]

    def base_lock(self) -> bases.BaseLock:
        """What the base is locked to. Raises `NotMeasured` while it is not."""
        project = self.declared()
        found = bases.read(bases.path(project.root, self.base().name, project.platform))
        if found is None:
            raise NotMeasured(f"the base {self.base().name} is not locked")
        return found

    def reference(self) -> str:
        """What FROM names for the base."""
        return bases.reference(self.base(), self.base_lock())

    def state(self, project: Path) -> State:
        """A project of this workshop, as a run of doit would see it."""
        return State(load(project / "project.yaml"), environ=self.environ())

    def _seed(self) -> None:
        """What the user's own store has of this project's artifacts is not fetched again."""
        theirs = Store.default(os.environ).root
        names = set(re.findall(r"\b[0-9a-f]{64}\b", self._lock_texts()))
        for lock in (self.source / "locks" / "bases").rglob("base.yaml"):
            if (found := bases.read(lock)) is not None:
                names.add(found.key)
        for name in sorted(names):
            stored = theirs / "sha256" / name[:2] / name
            made = [path for path in (theirs / "derived" / name).glob("*") if path.is_file()]
            for path in [stored, *made]:
                if path.is_file():
                    _link(path, self.store.root / path.relative_to(theirs))

    def _lock_texts(self) -> str:
        texts = (self.source / "locks").rglob("*.*")
        return "\n".join(path.read_text() for path in texts if path.is_file())

    # -- doit -------------------------------------------------------------------------------

    def environ(self, engine: Running | None = None) -> dict[str, str]:
        """The environment of our processes: this workshop's store, one engine or none at all."""
        environ = {
            name: text for name, text in engines.own_environ().items() if name not in _NOT_OURS
        }
        return environ | {
            "LADING_CACHE": str(self.folder / "cache"),
            "PYTHONPATH": str(self.folder / "source" / "scripts"),
            "DOCKER_HOST": engine.url if engine is not None else NOWHERE,
            "NO_COLOR": "1",
        }

    def doit(
        self,
        project: Path,
        *arguments: str,
        engine: Running | None = None,
        env: Mapping[str, str] | None = None,
        machine: Machine | None = None,
    ) -> Timed:
        """`doit ARGUMENTS` in a project, as a process, here or as on another machine. Raises where
        it fails.

        Not through scripts/doit, which may set up, and a copy must never do that.
        """
        command: list[str | Path] = [Path(sys.prefix) / "bin" / "doit", *arguments]
        if machine is not None:
            command = [*machine.command(*command)]
        environ = self.environ(engine) | dict(env or {})
        return timed(command, cwd=project, env=environ)

    def python(self, module: str, *arguments: str | Path, engine: Running | None = None) -> Timed:
        """A module of `inside/` as a child process, with the checkout's Python."""
        environ = self.environ(engine)
        environ["PYTHONPATH"] += os.pathsep + str(self.root)
        return timed(
            [sys.executable, "-m", f"tests.bench.inside.{module}", *arguments], env=environ
        )

    # -- engines ----------------------------------------------------------------------------

    def engine(self, kind: str) -> Running:
        """A private engine, started when first asked for. Raises `NotMeasured` without one."""
        if kind not in self._engines:
            why = engines.missing(kind)
            if why:
                raise NotMeasured(why)
            try:
                running = self._stack.enter_context(engines.private_engine(kind))
            except RuntimeError as error:
                raise NotMeasured(f"{kind} does not start", why=str(error)) from error
            self._engines[kind] = running
        return self._engines[kind]

    def any_engine(self) -> Running:
        """Docker, else Podman."""
        try:
            return self.engine("docker")
        except NotMeasured:
            return self.engine("podman")

    def connected(self, kind: str) -> Engine:
        """lading's own connection to a private engine."""
        if kind not in self._connected:
            engine = connect(self.engine(kind).environ)
            self._stack.callback(engine.close)
            self._connected[kind] = engine
        return self._connected[kind]

    def with_base(self, kind: str) -> Running:
        """A private engine that has the base."""
        running = self.engine(kind)
        if kind not in self._bases:
            self.doit(self.source, f"build:base:{self.base().name}", engine=running)
            self._bases.add(kind)
        return running


@contextmanager
def opened(root: Path) -> Iterator[Workshop]:
    """A workshop for the project at `root`; engines are ended and the folder is removed."""
    with ExitStack() as stack:
        folder = stack.enter_context(engines.private_folder())
        yield Workshop(root, folder, stack)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
