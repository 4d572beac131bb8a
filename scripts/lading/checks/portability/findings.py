"""What the portability checks say: findings, what of them is allowed, and the report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any, Literal, NamedTuple

from lading.errors import DeclarationError

Level = Literal["error", "warn", "info"]

LEVELS: tuple[Level, ...] = ("error", "warn", "info")
SHOWN = 5
"""Paths that a finding names; the rest is counted."""
LONGEST = 5000
"""Characters of a text that are shown: no path has more, and a setting may have a million."""

_ID = re.compile(r"([A-Z])([1-9][0-9]?)")


class Found(NamedTuple):
    """One fault at one place: a path in the image, or a setting (`ENV PATH`, `CMD`).

    `effect` is what will happen under Apptainer, `mend` what to do about it.
    """

    id: str
    level: Level
    path: str
    effect: str
    mend: str


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """A finding that is meant: its id, a pattern of paths as a shell's (`*` spans folders), why.

    A setting is named as findings name it; `ENV ` may be left out.
    """

    id: str
    path: str
    reason: str = ""

    def covers(self, found: Found) -> bool:
        if found.id != self.id:
            return False
        names = (found.path, found.path.removeprefix("ENV "))
        return any(self.path == name or fnmatchcase(name, self.path) for name in names)


def allowed(text: str, reason: str = "") -> Allowed:
    """`F1:/opt/x` as data. Raises `DeclarationError`."""
    name, colon, path = text.partition(":")
    if not colon or not path or not _ID.fullmatch(name):
        raise DeclarationError(
            f"{text!r} does not name a finding",
            do="write its id and its path, as in F1:/opt/x; * in the path stands for anything",
        )
    return Allowed(id=name, path=path, reason=reason)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault at all its places: the first `SHOWN` of `count` paths, sorted.

    `allowed` is the reason why it is let through; None where it is not.
    """

    id: str
    level: Level
    paths: tuple[str, ...]
    count: int
    effect: str
    mend: str
    allowed: str | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found in an archive, the gravest first; `facts` is plain data for check.json.

    `unused` are the allowances that met nothing.
    """

    archive: str
    platform: str
    findings: tuple[Finding, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    unused: tuple[Allowed, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What keeps the archive from being published."""
        return self._of("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return self._of("warn")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "archive": self.archive,
            "platform": self.platform,
            "passed": not self.errors,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "findings": [asdict(finding) for finding in self.findings],
            "facts": dict(self.facts),
            "unused": [asdict(one) for one in self.unused],
        }

    def _of(self, level: Level) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.level == level and f.allowed is None)


def grouped(founds: Iterable[Found], allow: Sequence[Allowed] = ()) -> tuple[Finding, ...]:
    """The same fault at many places becomes one finding; the order is always the same."""
    judged = sorted({(found, _reason(found, allow)) for found in founds}, key=_order)
    findings = []
    for _, group in groupby(judged, key=lambda one: _order(one)[:-1]):
        members = list(group)
        found, reason = members[0]
        findings.append(
            Finding(
                id=found.id,
                level=found.level,
                paths=tuple(told(one.path) for one, _ in members[:SHOWN]),
                count=len(members),
                effect=told(found.effect),
                mend=told(found.mend),
                allowed=reason,
            )
        )
    return tuple(findings)


def shown(text: str) -> str:
    """The text in which nothing acts on a terminal: other bytes than UTF-8 and controls escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def told(value: Any) -> Any:
    """Plain data in which each text is `shown`, and is not endless."""
    if isinstance(value, str):
        return shown(value if len(value) <= LONGEST else f"{value[:LONGEST]}…")
    if isinstance(value, Mapping):
        return {key: told(inner) for key, inner in value.items()}
    return value


def _escaped(character: str) -> str:
    # A byte that is not UTF-8, as surrogateescape holds it (PEP 383).
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def _reason(found: Found, allow: Sequence[Allowed]) -> str | None:
    for one in allow:
        if one.covers(found):
            return one.reason
    return None


def _order(judged: tuple[Found, str | None]) -> tuple[Any, ...]:
    found, reason = judged
    family, number = found.id[:1], int(found.id[1:])
    return (
        reason is not None,
        LEVELS.index(found.level),
        "AEFCM".index(family),
        number,
        found.effect,
        found.mend,
        reason or "",
        found.path,
    )
