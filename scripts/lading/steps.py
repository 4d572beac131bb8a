"""What is done to make an image, as plain data.

Layers render to these; one printer (`dockerfile.py`) turns them into text. Every step says why
it stands where it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from msgspec import Struct


class Mount(Struct, frozen=True, kw_only=True):
    """A folder of the build context, or of another stage, lent to one `Run`; never in a layer."""

    source: str
    target: str
    stage: str = ""


class Arg(Struct, frozen=True, kw_only=True):
    """A variable of the build alone: set in every later `Run`, not in the image. One without a
    value is set by who builds by hand.
    """

    name: str
    value: str | None
    why: str


class Env(Struct, frozen=True, kw_only=True):
    """Variables of the image."""

    values: Mapping[str, str]
    why: str


class Run(Struct, frozen=True, kw_only=True):
    """Shell commands, each run if the one before succeeded, in one layer.

    A line break in a command is a place where the printer may fold it.
    """

    commands: tuple[str, ...]
    why: str
    mounts: tuple[Mount, ...] = ()


class Copy(Struct, frozen=True, kw_only=True):
    """A file or folder that goes in as it stands: of the build context, or of another stage."""

    source: str
    target: str
    why: str
    stage: str = ""


class Add(Struct, frozen=True, kw_only=True):
    """A tar of the build context whose files go into the image."""

    source: str
    target: str
    why: str


class Label(Struct, frozen=True, kw_only=True):
    """Labels of the image; their values end in `BY_HAND` where one of these variables is set."""

    values: Mapping[str, str]
    why: str
    unless: tuple[str, ...] = ()


BY_HAND = "-by-hand"


class Cmd(Struct, frozen=True, kw_only=True):
    """What a container runs when nothing else is asked for."""

    arguments: tuple[str, ...]
    why: str


class User(Struct, frozen=True, kw_only=True):
    """Who the steps behind it run as, and, as the last one, a container."""

    name: str
    why: str


Step = Arg | Env | Run | Copy | Add | Label | Cmd | User


class Stage(Struct, frozen=True, kw_only=True):
    """One FROM and what follows it; the last stage of a list is the image."""

    base: str
    steps: tuple[Step, ...]
    why: str
    name: str = ""


class Stored(Struct, frozen=True, kw_only=True):
    """A file of the build context that lies in the store under its sha256."""

    sha256: str


class Unpacked(Struct, frozen=True, kw_only=True):
    """The `uv` program, taken out of the wheel with this sha256."""

    sha256: str


class Derived(Struct, frozen=True, kw_only=True):
    """A file, or a folder of files, that lading made and keeps in the store under its key."""

    key: str
    name: str


AS_ROOT = User(name="root", why="What is installed is root's, as on a base that runs as root.")

Content = bytes | PurePosixPath | Stored | Unpacked | Derived
"""What a file of the build context holds; a `PurePosixPath` is a file or folder of the project."""
