"""A small project with locks written by hand, its artifacts in a store, and an engine in memory.

Nothing of it needs a network: what doit does with it is what lading decides, and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import sys
import tarfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from doit.doit_cmd import DoitMain
from msgspec.structs import replace

from lading import locks, tasks
from lading.console import Console
from lading.engines import Engine, Mount, RunResult
from lading.engines.fake import RecordingEngine
from lading.facts import Facts
from lading.layers import base as bases
from lading.layers.pip_kind import PIP
from lading.locks import Header
from lading.plan import KEY_LABEL
from lading.project import Image, load
from lading.requirements import Pin, render
from lading.state import State
from lading.store import Artifact
from tests.support.index import tar, wheel

REPOSITORY = Path(__file__).parents[2]
DAY = date(2026, 11, 1)
FACTS = Facts(
    python="/usr/bin/python3",
    python_version="3.13.5",
    glibc="2.41",
    os="debian 13",
    package_manager="apt",
)
YAML = """\
lading: 1
name: trial
bases:
  slim: {image: docker.io/library/python:3.13-slim}
images:
  one:
    base: slim
    pip: {requirements: recipes/one.in}
    test: [python -c "import a"]
  two:
    base: slim
    files: {/etc/motd: recipes/motd}
  spare:
    base: slim
    default: false
"""


class Tiny(RecordingEngine):
    """An engine that remembers, and saves a tiny image as whatever it is asked for.

    With `memory`, a file, what it holds outlives the process, as in a real engine.
    """

    def __init__(self, memory: Path | None = None) -> None:
        super().__init__()
        self.memory = memory
        self.labels: dict[str, Mapping[str, str]] = {}
        self.before: dict[str, Callable[[], None]] = {}
        """What to do when a method is called, by its name."""
        if memory is not None and memory.exists():
            self.held = pickle.loads(memory.read_bytes())

    @property
    def asked(self) -> list[str]:
        """The methods that were called, in order."""
        return [name for name, _ in self.calls if name != "close"]

    def _record(self, method: str, **arguments: Any) -> None:
        super()._record(method, **arguments)
        self.before.get(method, lambda: None)()

    def hold(self, ref: str, labels: Any = None) -> Any:
        """As in a real engine, an image's ID is the digest of its configuration."""
        info = replace(
            super().hold(ref, labels),
            id=f"sha256:{config_digest(labels or {})}",
            diff_ids=TINY_IDS[:1] if not labels else TINY_IDS,
        )
        self.held[ref] = info
        self.labels[ref] = info.labels
        self._keep()
        return info

    def save(self, ref: str) -> Iterator[bytes]:
        held = self._found(ref)
        self.archive = tiny_archive(held.labels if held else {})
        return super().save(ref)

    def remove(self, ref: str) -> None:
        super().remove(ref)
        self._keep()

    def load(self, path: Path) -> str:
        """An image out of an archive has the labels that its configuration has."""
        self._record("load", path=path)
        with tarfile.open(path) as archive:
            manifest = archive.extractfile("manifest.json")
            assert manifest is not None
            listed = json.load(manifest)[0]
            config = archive.extractfile(listed["Config"])
            assert config is not None
            text = config.read()
        identity = f"sha256:{hashlib.sha256(text).hexdigest()}"
        name = listed["RepoTags"][0]
        info = replace(self.hold(name, json.loads(text)["config"].get("Labels")), id=identity)
        self.held[name] = info
        self._keep()
        return identity

    def _keep(self) -> None:
        if self.memory is not None:
            part = self.memory.with_suffix(".part")
            part.write_bytes(pickle.dumps(self.held))
            part.replace(self.memory)


def tiny_config(labels: Mapping[str, str]) -> bytes:
    """The configuration of an image with one layer."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": dict(sorted(labels.items()))},
        "rootfs": {"type": "layers", "diff_ids": list(TINY_IDS)},
    }
    return json.dumps(config).encode()


def config_digest(labels: Mapping[str, str]) -> str:
    """The ID, without its prefix, of the tiny image with these labels."""
    return hashlib.sha256(tiny_config(labels)).hexdigest()


def tiny_layer(*paths: str) -> bytes:
    """A layer with some programs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as inner:
        for path in paths:
            info = tarfile.TarInfo(path)
            info.size, info.mode = 5, 0o755
            inner.addfile(info, io.BytesIO(b"hello"))
    return out.getvalue()


TINY_LAYERS = {
    "base.tar": tiny_layer("bin/sh", "etc/passwd", "etc/group"),
    "own.tar": tiny_layer("hello"),
}
"""The layers of the tiny image: its base's, and its own."""
TINY_IDS = tuple(f"sha256:{hashlib.sha256(data).hexdigest()}" for data in TINY_LAYERS.values())


def tiny_archive(labels: Mapping[str, str], name: str = "x:1") -> bytes:
    """A docker-archive of an image with two layers."""
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": list(TINY_LAYERS)}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in (
            ("config.json", tiny_config(labels)),
            *TINY_LAYERS.items(),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@dataclass
class Trial:
    """The project, and everything a State of it needs from outside."""

    root: Path
    environ: dict[str, str]
    engine: Tiny = field(default_factory=Tiny)

    @classmethod
    def make(cls, root: Path, yaml: str = YAML, **environ: str) -> Trial:
        """Writes the project; its images are locked, their artifacts in the store."""
        root = root.resolve()
        (root / "recipes").mkdir(parents=True)
        (root / "recipes" / "one.in").write_text("a\n")
        (root / "recipes" / "motd").write_text("welcome\n")
        (root / "project.yaml").write_text(yaml)
        (root / "dodo.py").write_bytes((REPOSITORY / "dodo.py").read_bytes())
        made = cls(root, {"LADING_CACHE": str(root.parent / f"{root.name}.cache"), **environ})
        made.lock_bases()
        for image in made.state().project.images.values():
            if image.pip is not None:
                made.lock(image.name)
        return made

    def state(self, engine: Callable[[], Engine] | None = None) -> State:
        """A run's view of the project as it lies there."""
        return State(
            load(self.root / "project.yaml"),
            environ=self.environ,
            console=Console(io.StringIO(), {}),
            connect=engine or (lambda: self.engine),
        )

    def image(self, name: str) -> Image:
        return load(self.root / "project.yaml").images[name]

    def key(self, name: str) -> str:
        key = self.state().key(self.image(name))
        assert key is not None
        return key

    def lock_bases(self) -> None:
        """Locks of the bases, as if a registry had answered."""
        project = load(self.root / "project.yaml")
        for base in project.bases.values():
            digest = f"sha256:{hashlib.sha256(base.name.encode()).hexdigest()}"
            text = bases.text_of(base, project.platform, FACTS, None, digest=digest)
            text = re.sub(r"# date: \S+", f"# date: {DAY}", text)
            path = bases.path(project.root, base.name, project.platform)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def lock(self, name: str, version: str = "1.0") -> None:
        """A lock of the image, which answers its requirements: a, and uv to install it."""
        state, image = self.state(), self.image(name)
        folder = state.lock_folder(image)
        folder.mkdir(parents=True, exist_ok=True)
        header = Header(
            command=f"doit lock:{name}", date=DAY, inputs=state.request(image, PIP).digest
        )
        program = {"uv-9.data/scripts/uv": b"#!/bin/sh\n"}
        for file, (package, data) in {
            "requirements.txt": ("a", wheel("a", version)),
            "installer.txt": ("uv", wheel("uv", "9", files=program)),
        }.items():
            artifact = self.keep(*data)
            pin = Pin(
                name=package,
                version=version if package == "a" else "9",
                artifact=artifact,
                via=("-r recipes/one.in",) if package == "a" else (),
            )
            (folder / file).write_text(locks.text_of(header, render([pin]), f"About {file}."))

    def keep(self, name: str, data: bytes) -> Artifact:
        """Puts a file into the store."""
        artifact = Artifact(name=name, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        path = self.state().store.path(artifact.sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(data)
            path.chmod(0o444)
        return artifact

    def doit(self, *arguments: str) -> int:
        """Runs doit in this process, as the command would; returns its exit code."""
        self.engine.calls.clear()
        return run_doit(self.root, arguments, self.environ, lambda: self.engine)

    def holds(self, name: str) -> bool:
        """Whether the engine has the image with today's key."""
        return self.key(name) in self.engine.images(KEY_LABEL)


def commands() -> dict[str, str]:
    """lading's commands for doit, as pyproject.toml declares them to be installed."""
    text = (REPOSITORY / "pyproject.toml").read_text()
    found: dict[str, str] = tomllib.loads(text)["project"]["entry-points"]["doit.COMMAND"]
    return found


def run_doit(
    root: Path, arguments: Sequence[str], environ: dict[str, str], connect: Callable[[], Engine]
) -> int:
    """doit's own main, with its commands from pyproject.toml and an engine of one's own."""
    before, path = Path.cwd(), list(sys.path)
    os.chdir(root)
    sys.modules.pop("dodo", None)
    setattr(tasks, "State", partial(State, environ=environ, connect=connect))  # noqa: B010
    tasks._state = None
    try:
        main = DoitMain(config_filenames=(), extra_config={"COMMAND": commands()})
        return int(main.run(list(arguments)) or 0)
    finally:
        setattr(tasks, "State", State)  # noqa: B010
        tasks._state = None
        sys.modules.pop("dodo", None)
        sys.path[:] = path
        os.chdir(before)


def main() -> int:
    """`python -m tests.support.projects ROOT METHOD SECONDS [doit's arguments …]`: to be stopped.

    The engine takes so long for every call of one method, or until there is a file ROOT/go; it
    says in ROOT/busy that it began.
    """
    import time

    root, method, seconds, *arguments = sys.argv[1:]
    engine = Tiny(Path(root) / "engine")

    def slow() -> None:
        (Path(root) / "busy").touch()
        until = time.monotonic() + float(seconds)
        while time.monotonic() < until and not (Path(root) / "go").exists():
            time.sleep(0.01)

    engine.before[method] = slow
    environ = {"LADING_CACHE": str(Path(root).parent / f"{Path(root).name}.cache")}
    return run_doit(Path(root), arguments, environ, lambda: engine)


__all__ = ["DAY", "FACTS", "YAML", "Mount", "RunResult", "Tiny", "Trial", "run_doit", "tar"]

if __name__ == "__main__":
    sys.exit(main())
