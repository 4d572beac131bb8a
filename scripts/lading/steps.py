"""What is done to make an image, as plain data.

Layers render to these; one printer (`dockerfile.py`) turns them into text. Every step says why
it stands where it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder of the build context, or of another stage, lent to one `Run`; never in a layer."""

    source: str
    target: str
    stage: str = ""


@dataclass(frozen=True, kw_only=True)
class Arg:
    """A variable of the build alone: set in every later `Run`, not in the image."""

    name: str
    value: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Env:
    """Variables of the image."""

    values: Mapping[str, str]
    why: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """Shell commands, each run if the one before succeeded, in one layer.

    A line break in a command is a place where the printer may fold it.
    """

    commands: tuple[str, ...]
    why: str
    mounts: tuple[Mount, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A file or folder of the build context that goes into the image as it stands."""

    source: str
    target: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Label:
    """Labels of the image."""

    values: Mapping[str, str]
    why: str


@dataclass(frozen=True, kw_only=True)
class Cmd:
    """What a container runs when nothing else is asked for."""

    arguments: tuple[str, ...]
    why: str


Step = Arg | Env | Run | Copy | Label | Cmd


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One FROM and what follows it; the last stage of a list is the image."""

    base: str
    steps: tuple[Step, ...]
    why: str
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A file of the build context that lies in the store under its sha256."""

    sha256: str


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """The `uv` program, taken out of the wheel with this sha256."""

    sha256: str


Content = bytes | PurePosixPath | Stored | Unpacked
"""What a file of the build context holds; a `PurePosixPath` is a file or folder of the project."""


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What one layer adds to an image: stages before it, steps and variables in it, files.

    tools: steps of a stage that layers after this one build in.
    path: folders to go before $PATH.
    """

    stages: tuple[Stage, ...] = ()
    tools: tuple[Step, ...] = ()
    steps: tuple[Step, ...] = ()
    path: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Content] = field(default_factory=dict)
