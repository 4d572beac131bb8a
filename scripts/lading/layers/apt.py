"""The apt layer: Debian packages on top of a base, locked to the .debs that get installed.

Its lock, `apt.yaml`, has one .deb a line, with the sets it is in: `run`, what the image gets, and
`build`, what is installed where something is built (all of `run` among it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path

from msgspec import Struct

from lading import locks
from lading.debian import Deb
from lading.errors import LadingError
from lading.files import digest_of, write_text
from lading.layers import deb_lines
from lading.layers.apt_section import AptSection
from lading.layers.base import BaseLock
from lading.locks import Header
from lading.store import Artifact

FILE = "apt.yaml"
SETS = ("build", "run")


class AptLock(Struct, frozen=True, kw_only=True, dict=True):
    """An apt lock as read. `sets`: "build" and "run", where they have packages."""

    header: Header
    sets: Mapping[str, tuple[Deb, ...]]
    text: str

    @property
    def texts(self) -> Mapping[str, str]:
        return {FILE: self.text}

    @cached_property
    def debs(self) -> tuple[Deb, ...]:
        """All packages, each once."""
        return tuple(deb for deb, _ in _members(self.sets))

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        return tuple(Artifact(name=d.file, sha256=d.sha256, size=d.size) for d in self.debs)


class Request(Struct, frozen=True, kw_only=True, dict=True):
    """Everything an apt lock is made from. `implied`: what is needed to build, and not said.
    `declared`: where in project.yaml the packages stand. `for_pip`: pip's packages are for the
    Python that is among these.
    """

    image: str
    section: AptSection
    base: BaseLock
    platform: str
    implied: tuple[str, ...] = ()
    as_of: date | None = None
    declared: tuple[str, ...] = ()
    for_pip: bool = False

    @property
    def sets(self) -> dict[str, tuple[str, ...]]:
        """The packages to ask for; to build, `run` is needed too."""
        build, run = self.section.build, self.section.run
        return {"build": (*build, *self.implied, *run) if build else (), "run": run}

    @cached_property
    def digest(self) -> str:
        """The sha256 of the inputs: names, and what is installed on the base."""
        status = sorted([deb.name, deb.version] for deb in self.base.debs)
        return digest_of(
            {
                "sets": {name: sorted(packages) for name, packages in self.sets.items()},
                "suite": self.base.suite,
                "base": status or self.base.digest,
                "platform": self.platform,
                **({"for-pip": True} if self.for_pip else {}),
            }
        )


# -- the lock's file ------------------------------------------------------------------------


def read(folder: Path) -> AptLock | None:
    """The lock in this folder; None if there is none. Raises `LadingError` if it is damaged."""
    path = folder / FILE
    text = locks.read(path)
    return None if text is None else parse(text, str(path))


def made(
    sets: Mapping[str, Sequence[Deb]],
    old: AptLock | None,
    *,
    inputs: str,
    command: str,
    what: str,
) -> AptLock:
    """The lock of these packages; its date moves only when what is pinned moved.

    inputs: the digest of what it was made from. command: what makes it again. what: whose
    packages they are, for people.
    """
    body = "packages:\n" + "".join(
        f"  - {{{deb_lines.fields(deb)}, for: [{', '.join(names)}]}}\n"
        for deb, names in _members(sets)
    )
    before = (old.header, locks.split(old.text, "")[1]) if old is not None else None
    header = locks.renewed(before, inputs, body, command)
    about = f"The Debian packages of {what}, and what each is installed for."
    return parse(locks.text_of(header, body, about), FILE)


def write(folder: Path, lock: AptLock) -> None:
    """Writes the lock's file."""
    write_text(folder / FILE, lock.text)


def _members(sets: Mapping[str, Sequence[Deb]]) -> list[tuple[Deb, tuple[str, ...]]]:
    """Every package with the sets it is in, sorted by name."""
    every = {deb for debs in sets.values() for deb in debs}
    return [
        (deb, tuple(name for name in SETS if deb in sets.get(name, ())))
        for deb in sorted(every, key=lambda deb: (deb.name, deb.architecture, deb.version))
    ]


LINE = rf"  - \{{{deb_lines.FIELDS}, for: \[(?P<sets>build|run|build, run)\]\}}"


def parse(text: str, path: str) -> AptLock:
    """An apt lock from its text. Raises `LadingError`, with the line, for any other text."""
    header, body = locks.split(text, path)
    number = text[: len(text) - len(body)].count("\n") + 1
    sets: dict[str, list[Deb]] = {}
    try:
        lines = body.strip("\n").split("\n")
        number += len(body) - len(body.lstrip("\n"))
        if lines[0] != "packages:":
            raise ValueError("expected 'packages:'")
        for line in lines[1:]:
            number += 1
            found = re.fullmatch(LINE, line)
            if found is None:
                raise ValueError("not a line of a lock")
            deb = deb_lines.deb_of(found)
            for name in found["sets"].split(", "):
                sets.setdefault(name, []).append(deb)
    except ValueError as error:
        raise LadingError(
            f"{path}:{number}: not a lock of Debian packages",
            why=str(error),
            do="undo the edit, or delete the file and lock again",
        ) from error
    return AptLock(
        header=header, sets={name: tuple(debs) for name, debs in sets.items()}, text=text
    )
