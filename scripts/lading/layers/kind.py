"""What every kind of layer can do: say what it is made from, lock it, and add it to an image.

A kind is one object of a class that follows `Kind`; `kinds.py` lists them. Its lock is some files
of its own in the image's folder of locks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from msgspec import Struct, field

from lading.facts import Facts
from lading.layers.base import BaseLock
from lading.locks import Header
from lading.moved import Pinned, Withdrawn
from lading.parts import Start
from lading.plan import Contribution
from lading.project import Image, Project
from lading.store import Artifact, Source, Store

if TYPE_CHECKING:
    from lading.engines import Mount, RunResult


class Lock(Protocol):
    """A layer's lock as read. `texts` are its files by name, under the image's folder."""

    @property
    def header(self) -> Header: ...
    @property
    def texts(self) -> Mapping[str, str]: ...
    @property
    def artifacts(self) -> tuple[Artifact, ...]: ...


class Request(Protocol):
    """Everything that a layer's lock is made from; `digest` is its sha256, for the header."""

    @property
    def digest(self) -> str: ...


class Subject(Struct, frozen=True, kw_only=True):
    """What a layer is part of: an image on its locked base.

    facts: the base's, as the layers that were locked before leave them (a conda layer brings a
    Python of its own). locks: those layers' locks, by kind.
    """

    project: Project
    image: Image
    base: BaseLock
    facts: Facts
    locks: Mapping[str, Lock] = field(default_factory=dict)


class InBase(Protocol):
    """Runs a command in a throwaway container of the image's base, with the network, under the
    user's own settings for it (proxy, CA, .netrc).
    """

    def __call__(
        self,
        command: Sequence[str],
        *,
        mounts: Sequence[Mount] = (),
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        line: Callable[[str], None] | None = None,
    ) -> RunResult: ...


class Tools(Struct, frozen=True, kw_only=True):
    """What locking may use. `in_base` makes the base first, where the engine has it not."""

    environ: Mapping[str, str]
    store: Store
    note: Callable[[str], None]
    in_base: Callable[[], InBase]


Moves = Callable[[str], bool]
"""Whether the package of this name is to move."""

R = TypeVar("R", bound=Request)
L = TypeVar("L", bound=Lock)


class Kind(ABC, Generic[R, L]):
    """One kind of layer. All that it is asked for follows from what it is given."""

    name: str
    """The section of `images:` that asks for it."""
    changed: str
    """Why a lock is stale whose inputs are others now."""
    below = ""
    """Where its lock's files are in the image's folder of locks: "", or a path that ends in /."""

    def wanted(self, image: Image, project: Project) -> bool:
        """Whether the image has this layer."""
        return getattr(image, self.name) is not None

    @abstractmethod
    def request(self, subject: Subject) -> R:
        """Reads what the lock is made from. Raises `DeclarationError` for what can't be locked."""

    @abstractmethod
    def read(self, folder: Path) -> L | None:
        """The lock in this folder; None if there is none. Raises `LadingError` if damaged."""

    def adopted(self, folder: Path) -> L | None:
        """What can be kept of a lock that `read` refuses; None if nothing."""
        return None

    def completed(self, old: L, new: L) -> L:
        """A lock that was adopted, to compare with the one made from it: what it can't say of
        itself, it has from there.
        """
        return old

    @abstractmethod
    def lock(self, request: R, old: L | None, tools: Tools) -> L:
        """Resolves a request; pins of `old` are kept where they still fit."""

    @abstractmethod
    def loosened(self, lock: L, moves: Moves) -> L:
        """The lock without the pins that are to move: what `lock` is given as the old one. Its
        texts are the same, and so is what its date stands for.
        """

    @abstractmethod
    def write(self, folder: Path, lock: L) -> None:
        """Writes the lock's files; the one that makes it valid last."""

    def left(self, folder: Path, lock: L) -> set[str]:
        """The files in this folder that are an older lock's, and none of this one's."""
        return set()

    @abstractmethod
    def sources(
        self, request: R, lock: L, lacking: Sequence[Artifact], tools: Tools
    ) -> Mapping[str, Sequence[Source]]:
        """Where these artifacts of the lock can be had today, by sha256; what is gone is left
        out.
        """

    @abstractmethod
    def contribute(self, request: R, lock: L, start: Start) -> Contribution:
        """What it adds to the image; `start` is what a part of it is built upon: the base, with
        what the layers before bring to build with.
        """

    @abstractmethod
    def pinned(self, lock: L) -> Sequence[Pinned]:
        """What the lock pins, to be compared with another lock of this kind."""

    def outlook(self, request: R, old: L | None, tools: Tools) -> Sequence[Pinned]:
        """What a lock made today would pin. Nothing is fetched that can be done without."""
        return self.pinned(self.lock(request, old, tools))

    def withdrawn(self, request: R, lock: L, tools: Tools) -> Sequence[Withdrawn]:
        """The pins that were taken back where they come from, as far as that can be asked."""
        return ()

    @abstractmethod
    def summary(self, request: R, lock: L) -> str:
        """What was locked, for the console: "7 packages, 45 MB"."""

    def artifacts(self, lock: L, used: Container[str]) -> Sequence[Artifact]:
        """What has to be fetched to make the image; `used` are the sha256 of what goes into
        contexts as it lies in the store: the image's, and those of its parts.
        """
        found: Sequence[Artifact] = lock.artifacts
        return found

    def prepared(self, request: R, lock: L, tools: Tools) -> bool:
        """Whether all is there that lading itself makes of the lock's artifacts."""
        return True

    def prepare(self, request: R, lock: L, tools: Tools) -> None:
        """Makes, in the store, what goes into the context and is no artifact."""

    def facts(self, lock: L, facts: Facts) -> Facts:
        """The facts that hold above this layer."""
        return facts


AnyKind = Kind[Any, Any]
