"""What moved between two locks: compared as plain data, and said in lines.

Every kind of lock says what it pins as a list of `Pinned`; `compare` knows nothing else of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Literal

from msgspec import Struct

from lading.console import Console, size

What = Literal["base", "source", "apt", "conda", "pip"]
"""What a pinned thing is among, in the order in which it goes into an image."""

ORDER: tuple[What, ...] = ("base", "source", "apt", "conda", "pip")

HEADINGS: dict[What, str] = {
    "base": "base",
    "source": "sources",
    "apt": "Debian packages",
    "conda": "conda packages",
    "pip": "Python packages",
}


class Pinned(Struct, frozen=True, kw_only=True):
    """One thing that a lock pins.

    part: of its kind's things which, where there are several sets of them: "to build mpi4py", or
    the name of a conda environment. forms: what it is, first its version, then in ever more
    detail, as the name of its file. sha256: of the file that is downloaded, empty without one;
    size: that file's, in bytes, None where it is not known.
    """

    what: What
    part: str = ""
    name: str
    forms: tuple[str, ...]
    sha256: str = ""
    size: int | None = None


class Change(Struct, frozen=True, kw_only=True):
    """What became of one pinned thing. old: what it was, empty if it was added; new: what it is,
    empty if it was removed. size: bytes to be downloaded for the new one, None where there are
    none, or nobody knows.
    """

    what: What
    part: str = ""
    name: str
    old: str = ""
    new: str = ""
    size: int | None = None

    @property
    def how(self) -> Literal["added", "removed", "moved"]:
        if not self.old:
            return "added"
        return "moved" if self.new else "removed"


class Withdrawn(Struct, frozen=True, kw_only=True):
    """A pinned version that its index has taken back: "yanked" (PEP 592), with its reason, or
    "deleted"; and the versions near it that are there.
    """

    name: str
    version: str
    how: Literal["yanked", "deleted"]
    reason: str = ""
    near: tuple[str, ...] = ()

    def said(self, locked: date) -> str:
        """In a line. locked: the day of the lock; on it the version was still to be had."""
        what = f"{self.name} {self.version}"
        if self.how == "yanked":
            what += f" was yanked ({self.reason or 'no reason is given'})"
        else:
            what += f" is no longer there (it was on {locked}, when it was locked)"
        return f"{what}; near it: {', '.join(self.near)}" if self.near else what


def compare(old: Iterable[Pinned], new: Iterable[Pinned]) -> tuple[Change, ...]:
    """What changed between what two locks pin, in the order of an image's layers, by name."""
    before = {(one.what, one.part, one.name): one for one in old}
    after = {(one.what, one.part, one.name): one for one in new}
    found: list[Change] = []
    for key in sorted({*before, *after}, key=lambda key: (ORDER.index(key[0]), *key[1:])):
        was, now = before.get(key), after.get(key)
        what, part, name = key
        if was is None and now is not None:
            change = Change(what=what, part=part, name=name, new=now.forms[0], size=now.size)
        elif now is None and was is not None:
            change = Change(what=what, part=part, name=name, old=was.forms[0])
        else:
            assert was is not None and now is not None
            told = _told(was, now)
            if told is None:
                continue
            fetched = now.size if was.sha256 != now.sha256 else None
            change = Change(what=what, part=part, name=name, old=told[0], new=told[1], size=fetched)
        found.append(change)
    return tuple(found)


def _told(was: Pinned, now: Pinned) -> tuple[str, str] | None:
    """The least detail in which the two differ; None if they are the same."""
    for pair in zip(was.forms, now.forms, strict=False):
        if pair[0] != pair[1]:
            return pair
    if was.sha256 != now.sha256:
        return f"sha256:{was.sha256[:12]}", f"sha256:{now.sha256[:12]}"
    return None


# -- in lines -------------------------------------------------------------------------------

NAMES, BOTH = 34, 65
"""The widest column of names, and that with the one of versions: with sizes, and indented, a line
has 80 characters. What is longer stands out of its column.
"""
TOGETHER = 4
"""From how many packages on that moved alike they share a line, as those of one source do."""


def grouped(changes: Iterable[Change]) -> list[tuple[str, tuple[Change, ...]]]:
    """The changes under their headings, in order."""
    found: dict[str, list[Change]] = {}
    for change in changes:
        found.setdefault(heading(change.what, change.part), []).append(change)
    return [(name, tuple(some)) for name, some in found.items()]


def heading(what: What, part: str) -> str:
    """What stands above the changes of one kind."""
    between = " " if what == "base" else ", "
    return f"{HEADINGS[what]}{between}{part}" if part else HEADINGS[what]


def total(changes: Sequence[Change]) -> str:
    """The changes in a few words: 3 moved, 1 added, 20 MB to download."""
    counts = {how: sum(c.how == how for c in changes) for how in ("moved", "added", "removed")}
    said = [f"{count} {how}" for how, count in counts.items() if count]
    fetched = sum(change.size or 0 for change in changes)
    return ", ".join([*said, f"{size(fetched)} to download"] if fetched else said)


def lines(changes: Sequence[Change]) -> list[str]:
    """What moved, aligned, a heading above each kind; nothing if nothing did."""
    found: list[str] = []
    for name, some in grouped(changes):
        found += [f"{name}: {total(some)}", *(f"  {row}" for row in rows(some))]
    return found


def say(console: Console, changes: Sequence[Change]) -> None:
    """Says it on the console, in one piece."""
    if changes:
        console.note("\n".join(f"  {line}" for line in lines(changes)))


def rows(changes: Sequence[Change]) -> list[str]:
    """A line a change, with its mark: + added, - removed."""
    marks = {"added": "+", "removed": "-", "moved": " "}
    told = [
        (marks[some[0].how], _names(some), _versions(some[0]), sum(c.size or 0 for c in some))
        for some in _alike(changes)
    ]
    width = min(NAMES, max((len(names) for _, names, _, _ in told), default=0))
    wide = min(BOTH - width, max((len(versions) for _, _, versions, _ in told), default=0))
    return [
        f"{mark} {names:<{width}} {versions:<{wide}}  {size(count) if count else '':>6}".rstrip()
        for mark, names, versions, count in told
    ]


def _alike(changes: Sequence[Change]) -> list[tuple[Change, ...]]:
    """Changes that are the same but for the name, together where there are many of them."""
    found: dict[tuple[str, str, str], list[Change]] = {}
    for change in changes:
        found.setdefault((change.part, change.old, change.new), []).append(change)
    together: list[tuple[Change, ...]] = []
    for some in found.values():
        together += [tuple(some)] if len(some) >= TOGETHER else [(one,) for one in some]
    return sorted(together, key=lambda some: changes.index(some[0]))


def _names(changes: Sequence[Change]) -> str:
    first = changes[0].name
    return f"{first} and {len(changes) - 1} more" if len(changes) > 1 else first


def _versions(change: Change) -> str:
    return f"{change.old} → {change.new}" if change.how == "moved" else change.new or change.old
