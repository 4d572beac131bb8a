"""The base of an image: its lock, its facts, and what FROM names.

A `debian:` base is locked to its .debs and made from exactly those; an `image:` base is locked
to the digest of the manifest for the platform.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from msgspec import Struct

from lading import locks
from lading.debian import Deb
from lading.errors import LadingError
from lading.facts import Facts
from lading.files import digest_of
from lading.layers import deb_lines
from lading.locks import Header
from lading.moved import Pinned
from lading.project import Base
from lading.store import Artifact

FORMAT = 2
"""The format of what is assembled: raised when the same .debs would give other bytes."""


class BaseLock(Struct, frozen=True, kw_only=True, dict=True):
    """A base's lock as read: either the .debs of a suite, or the digest of an image."""

    header: Header
    facts: Facts
    text: str
    suite: str = ""
    debs: tuple[Deb, ...] = ()
    digest: str = ""

    @cached_property
    def key(self) -> str:
        """The sha256 that a Debian base is called by: of what it is made from, and its date."""
        debs = [[d.name, d.version, d.architecture, d.sha256] for d in self.debs]
        return digest_of(
            {"format": FORMAT, "suite": self.suite, "debs": debs, "date": str(self.header.date)}
        )

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        return tuple(
            Artifact(name=deb.path.rpartition("/")[2], sha256=deb.sha256, size=deb.size)
            for deb in self.debs
        )


def contents(base: Base, lock: BaseLock) -> tuple[Pinned, ...]:
    """What a base's lock pins: its .debs, or an image's digest and what it was found to have."""
    if base.debian is not None:
        return tuple(
            Pinned(
                what="base",
                part=base.name,
                name=deb.name,
                forms=(deb.version,),
                sha256=deb.sha256,
                size=deb.size,
            )
            for deb in lock.debs
        )
    facts = {"Python": lock.facts.python_version, "glibc": lock.facts.glibc, "OS": lock.facts.os}
    facts["conda"] = lock.facts.conda_version
    # Without its registry: a line is short.
    name = f"{base.image}".rpartition("/")[2]
    return (
        Pinned(what="base", part=base.name, name=name, forms=(lock.digest[:19],)),
        *(
            Pinned(what="base", part=base.name, name=f"with {name}", forms=(value,))
            for name, value in facts.items()
            if value
        ),
    )


def inputs(base: Base, platform: str) -> str:
    """The digest of what a base's lock is made from."""
    if base.debian is not None:
        declared: dict[str, Any] = {
            "suite": base.debian.suite,
            "packages": sorted(base.debian.packages),
        }
    else:
        declared = {"image": base.image}
    return digest_of({**declared, "platform": platform})


def reference(base: Base, lock: BaseLock) -> str:
    """What FROM names: BuildKit finds a local image by its tag only, a registry's by its digest."""
    if base.debian is not None:
        return f"localhost/lading/base/{base.name}:{lock.key[:16]}"
    assert base.image is not None
    return pinned(base.image, lock.digest)


def pinned(image: str, digest: str) -> str:
    """An image by its digest, under its full name: Podman takes no short one."""
    from lading import references

    found = references.parse(image)
    return f"{found.registry}/{found.repository}@{digest}"


def path(root: Path, name: str, platform: str) -> Path:
    """Where a base's lock lies."""
    return locks.folder(root, "bases", name, platform) / "base.yaml"


def text_of(
    base: Base,
    platform: str,
    facts: Facts,
    old: BaseLock | None,
    *,
    debs: tuple[Deb, ...] = (),
    digest: str = "",
) -> str:
    """The text of a base's lock; its date moves only when what is pinned moved."""
    body = "facts:\n"
    body += "".join(f"  {key}: {json.dumps(value)}\n" for key, value in facts.to_dict().items())
    if base.debian is not None:
        about = f"Debian {base.debian.suite} with {', '.join(base.debian.packages) or 'no more'}."
        body += f"suite: {base.debian.suite}\npackages:\n"
        body += "".join(f"  - {{{deb_lines.fields(deb)}}}\n" for deb in debs)
    else:
        # Where it comes from stands in project.yaml; a lock says what.
        about = "an image by its digest."
        body += f"digest: {digest}\n"
    before = (old.header, locks.split(old.text, "")[1]) if old is not None else None
    header = locks.renewed(before, inputs(base, platform), body, f"doit lock:base:{base.name}")
    return locks.text_of(header, body, f"The base {base.name}: {about}")


def read(path: Path) -> BaseLock | None:
    """The lock at this path; None if there is none. Raises `LadingError` if it is damaged."""
    text = locks.read(path)
    return None if text is None else parse(text, str(path))


LINE = re.compile(
    rf"  (?P<fact>\w+): (?P<value>{deb_lines.QUOTED})"
    r"|(?P<key>suite|digest): (?P<text>\S+)"
    rf"|  - \{{{deb_lines.FIELDS}\}}"
    r"|(?P<head>facts|packages):|"
)
"""The lines that `text_of` writes. They are YAML, but nothing else in YAML is one of them."""


def parse(text: str, path: str) -> BaseLock:
    """A base's lock from its text. Raises `LadingError`, with the line, for any other text."""
    header, body = locks.split(text, path)
    first = text[: len(text) - len(body)].count("\n") + 1
    facts: dict[str, str] = {}
    said: dict[str, str] = {}
    debs: list[Deb] = []
    number = first - 1
    try:
        for line in body.split("\n"):
            number += 1
            found = LINE.fullmatch(line)
            if found is None:
                raise ValueError("not a line of a lock")
            if found["fact"]:
                facts[found["fact"]] = json.loads(found["value"])
            elif found["key"]:
                said[found["key"]] = found["text"]
            elif found["name"]:
                debs.append(deb_lines.deb_of(found))
        if not said or not facts:
            raise ValueError("the rest is missing")
        return BaseLock(
            header=header,
            facts=Facts.from_dict(facts),
            text=text,
            suite=said.get("suite", ""),
            debs=tuple(debs),
            digest=said.get("digest", ""),
        )
    except ValueError as error:
        raise LadingError(
            f"{path}:{number}: not a lock of a base",
            why=str(error),
            do="undo the edit, or delete the file and lock again",
        ) from error
