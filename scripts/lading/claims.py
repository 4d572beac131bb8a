"""Who made what: for each project of this user a file in the store, which projects share.

    projects/ID    the project's folder, then a line for each thing that it put into the store or
                   gave to an engine

A label can't say it: what is in an image follows from its key alone, and two projects with one key
have one image. Written when something is made, and read by `doit prune`; what was pushed, whenever
a registry is asked for it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from msgspec import Struct

from lading import files
from lading.errors import EnvironmentProblem

FOLDER = "projects"
ARTIFACT, DERIVED, IMAGE = "artifact", "derived", "image"
PUSHED = "pushed"
"""What a registry has under a key: its name is the digest of what was pushed, or first found."""


class Claim(Struct, frozen=True, kw_only=True):
    """Something that a project made: an artifact by its sha256, what was derived, or an image, by
    its key; its name, and when (seconds since 1970).
    """

    kind: str
    key: str
    name: str = ""
    since: int = 0


class Claims(Struct, frozen=True, kw_only=True):
    """A project, and all that it made as far as this store knows."""

    project: Path
    made: tuple[Claim, ...] = ()

    @property
    def exists(self) -> bool:
        """Whether the project is still in its folder; in one that can't be looked at it may be."""
        return any(_may_be(self.project / name) for name in ("project.yaml", "locks"))


def _may_be(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def register(store: Path, project: Path) -> None:
    """Makes a project known to the others that use the store. Costs one stat where it is."""
    if not os.path.exists(_file(store, project)):  # noqa: PTH110 - in every run
        add(store, project, ())


def add(store: Path, project: Path, made: Iterable[tuple[str, str, str]]) -> None:
    """Writes down that a project makes these: kind, key and name. What it says already stays.

    A store that can't be written to keeps no account; nothing that is in it is removed then.
    """
    path = Path(_file(store, project))
    with (
        suppress(OSError, EnvironmentProblem),
        files.locked(path.with_suffix(".lock"), f"process {os.getpid()}", remove=True),
    ):
        known = _read(path)
        lines = [] if known is not None else [f"project {_quoted(os.fsencode(project))}"]
        there = {(one.kind, one.key, one.name) for one in known.made} if known is not None else ()
        lines += [
            f"{int(time.time())} {kind} {_quoted(key.encode())} {_quoted(name.encode())}"
            for kind, key, name in dict.fromkeys(made)
            if (kind, key, name) not in there
        ]
        if lines:
            with path.open("ab+") as file:
                # A line that a full disk cut off is no line, and does not spoil the next.
                file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
                torn = file.read(1) not in (b"", b"\n")
                file.write(("\n" * torn + "".join(f"{line}\n" for line in lines)).encode())


def forget(store: Path, project: Path, gone: Iterable[tuple[str, str]]) -> None:
    """Strikes out what is no more: kind and key. A project that is gone and has nothing is, too."""
    path, struck = Path(_file(store, project)), set(gone)
    with (
        suppress(OSError, EnvironmentProblem),
        files.locked(path.with_suffix(".lock"), f"process {os.getpid()}", remove=True),
    ):
        known = _read(path)
        if known is None:
            return
        kept = [one for one in known.made if (one.kind, one.key) not in struck]
        if not known.exists and all(one.kind == PUSHED for one in kept):
            path.unlink()
            return
        lines = [f"project {_quoted(os.fsencode(project))}"] + [
            f"{one.since} {one.kind} {_quoted(one.key.encode())} {_quoted(one.name.encode())}"
            for one in kept
        ]
        with files.written_whole(path) as file:
            file.write("".join(f"{line}\n" for line in lines).encode())


def read(store: Path) -> tuple[Claims, ...]:
    """All projects that the store knows of, in the order of their folders."""
    found: list[Claims] = []
    with suppress(OSError):
        for path in sorted((store / FOLDER).iterdir()):
            known = _read(path) if not path.suffix else None
            if known is not None:
                found.append(known)
    return tuple(sorted(found, key=lambda one: one.project))


def pushed(store: Path) -> dict[str, set[str]]:
    """By key, the digests of what any project has pushed under it, or first found there."""
    found: dict[str, set[str]] = {}
    for one in read(store):
        for claim in one.made:
            if claim.kind == PUSHED:
                found.setdefault(claim.key, set()).add(claim.name)
    return found


def _file(store: Path, project: Path) -> str:
    return f"{store}/{FOLDER}/{hashlib.sha256(os.fsencode(project)).hexdigest()[:16]}"


def _quoted(data: bytes) -> str:
    return quote_from_bytes(data, safe="/:@+~=,")


def _read(path: Path) -> Claims | None:
    """What one file says; a line that is none, as a full disk leaves one, is left out."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    project: Path | None = None
    made: list[Claim] = []
    for line in lines:
        match line.split(" "):
            case ["project", folder]:
                project = Path(os.fsdecode(unquote_to_bytes(folder)))
            case [since, kind, key, name] if since.isdigit():
                words = (unquote_to_bytes(word).decode(errors="replace") for word in (key, name))
                key, name = words
                made.append(Claim(kind=kind, key=key, name=name, since=int(since)))
    return Claims(project=project, made=tuple(made)) if project is not None else None
