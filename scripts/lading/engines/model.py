"""What every engine can do, and the plain data that goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from lading.engines.failure import shortened
from lading.errors import LadingError


class ImageInfo(Struct, frozen=True, kw_only=True):
    """An image in an engine. `id` and `diff_ids` are "sha256:…"; `size` is in bytes."""

    id: str
    labels: Mapping[str, str]
    size: int
    diff_ids: tuple[str, ...]
    env: tuple[str, ...]
    cmd: tuple[str, ...]
    entrypoint: tuple[str, ...]
    user: str
    architecture: str
    os: str
    settings: Mapping[str, Any] = {}
    """As an OCI image configuration has it: all that an engine tells of it."""


class Listed(Struct, frozen=True, kw_only=True):
    """An image as an engine lists it: the names that it has there, and whether a container stands
    on it, a stopped one too. `size` is in bytes, with layers that other images have as well.
    """

    id: str
    names: tuple[str, ...]
    labels: Mapping[str, str]
    size: int
    used: bool


class RunResult(Struct, frozen=True, kw_only=True):
    """A container that ran to its end: its exit code; its output and errors, as they came."""

    code: int
    output: str


class Mount(Struct, frozen=True, kw_only=True):
    """A file or folder of this machine, absolute, that a container sees at `target`."""

    source: Path
    target: str
    read_only: bool = True


class BuildFailed(LadingError):
    """A step of a Dockerfile failed: the step's text, and the last lines of the log."""

    def __init__(self, tag: str, step: str, lines: Sequence[str]) -> None:
        where = f" at {shortened(step)}" if step else ""
        super().__init__(f"building {tag} failed{where}", why="\n".join(lines))
        self.step = step
        self.lines = tuple(lines)
        self.context: Path | None = None
        """What was built, where that is known."""


class Engine(Protocol):
    """A container engine that answers.

    All methods raise `EnvironmentProblem` when the engine has gone away, and `LadingError`
    when it refuses. References are full names ("localhost/lading/base/x:1"), for Podman takes
    a bare one for Docker Hub's, or image ids.
    """

    kind: str
    """"docker" or "podman"."""
    version: str
    where: str
    """Where it answers, in words for people."""

    def images(self, label: str, *, apart: str = "") -> Mapping[str, str]:
        """All images that carry `label`: its value to the image's id. Asks the engine once.

        With `apart`, those are left out whose names all begin with it.
        """
        ...

    def listed(self) -> Sequence[Listed]:
        """All images that have a name or nothing above them, and what stands on them."""
        ...

    def inspect(self, ref: str) -> ImageInfo | None:
        """What the engine knows of one image; None when it has none of that name or id."""
        ...

    def build(
        self,
        context: Path,
        tag: str,
        *,
        platform: str,
        log: Callable[[str], None],
        cache: bool = True,
    ) -> str:
        """Builds the folder `context` with no network, tags the image and returns its id.

        `log` gets every line that the engine prints. Raises `BuildFailed`.
        """
        ...

    def run(
        self,
        image: str,
        command: Sequence[str],
        *,
        user: str = "",
        read_only: bool = False,
        tmpfs: Sequence[str] = (),
        network: str = "none",
        mounts: Sequence[Mount] = (),
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        line: Callable[[str], None] | None = None,
    ) -> RunResult:
        """Runs a command (not through the image's entrypoint) in a container of its own.

        `user` is like "1000:1000"; at each path of `tmpfs` there is an empty folder in memory
        that the user can write to (a path that the image has keeps the mode it has there);
        `line` gets each line as it comes. The container is gone
        afterwards, whatever happened. Raises `LadingError` when the command can't be started.
        """
        ...

    def interact(
        self,
        image: str,
        command: Sequence[str],
        *,
        network: str = "none",
        mounts: Sequence[Mount] = (),
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Runs a command as `run` does, at this process's own terminal, or where that is none, at
        its standard streams. Returns its exit code; the container is gone afterwards.
        """
        ...

    def save(self, ref: str) -> Iterator[bytes]:
        """The image as a docker-archive, in pieces. Ask by name, or it will have no tag."""
        ...

    def files(self, ref: str) -> Iterator[bytes]:
        """All files of the image, as a container of it would find them, as one tar, in pieces.

        What the engine itself puts into a container's /dev, /proc, /sys and /etc is there, too.
        """
        ...

    def load(self, path: Path) -> str:
        """Loads a docker-archive and returns the image's id."""
        ...

    def pull(self, ref: str, *, platform: str, log: Callable[[str], None]) -> str:
        """Pulls from a registry, with the user's own credentials, and returns the image's id."""
        ...

    def tag(self, image: str, ref: str) -> None:
        """Gives an image one more name."""
        ...

    def remove(self, ref: str) -> None:
        """Removes a name, and with the last one the image. One that isn't there is fine."""
        ...

    def discard(self, image: Listed) -> None:
        """Takes all names from an image, and with them the image; raises `LadingError` where a
        container stands on it.
        """
        ...

    def close(self) -> None:
        """Ends the connection; the embedded engine ends with it."""
        ...
