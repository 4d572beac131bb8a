"""The problems of a declaration: collected, each with its line and path, and written out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from datetime import date
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct, field

from lading.schema.nodes import ListNode, MapNode, Node

SHOWN = 60
"""Characters of a bad value that a message quotes."""
MOST = 1000
"""Problems that are written out; nobody reads on."""


class RejectedError(Exception):
    """A node can't be used; the reason is in the report."""


class Problem(NamedTuple):
    place: Place
    message: str


class Report(Struct, kw_only=True):
    """What one reading of a declaration collects, and what it is read against.

    `root` is the project's folder with symbolic links resolved, `today` the last day that is not
    in the future. `defined` maps a section to its names, None when the section is unreadable.
    """

    root: Path
    today: date
    problems: list[Problem] = field(default_factory=list)
    defined: dict[str, Collection[str] | None] = field(default_factory=dict)
    references: list[tuple[str, str, str, Place]] = field(default_factory=list)
    comparisons_left: int = 5_000

    def settle(self) -> None:
        """Looks up every reference, now that all names are known."""
        for section, what, name, place in self.references:
            known = self.defined.get(section, ())
            if known is not None and name not in known:
                place.note(f"there is no {what} {quoted(name)}{self.hint(name, known)}")

    def hint(self, word: str, known: Collection[str]) -> str:
        """` (did you mean 'x'?)`, or nothing. Comparing is slow: a report does only so much."""
        if len(word) > 100 or len(known) > self.comparisons_left:
            return ""
        from difflib import get_close_matches

        self.comparisons_left -= len(known)
        close = get_close_matches(word.lower(), known, n=1)
        return f" (did you mean {quoted(close[0])}?)" if close else ""


class Place(NamedTuple):
    """Where a node stands: its path in the document, and the line to report it at."""

    report: Report
    line: int
    key: str | int = ""
    parent: Place | None = None

    def child(self, key: str | int, line: int) -> Place:
        return Place(self.report, line, key, self)

    @property
    def path(self) -> str:
        """`images.mpi4py.test[0]`, and nothing for the document itself."""
        if self.parent is None:
            return ""
        before = self.parent.path
        if isinstance(self.key, int):
            return f"{before}[{self.key}]"
        shown = self.key if re.fullmatch(r"[\w./+-]{1,60}", self.key) else quoted(self.key)
        return f"{before}.{shown}" if before else shown

    def note(self, message: str) -> None:
        self.report.problems.append(Problem(self, message))

    def rejected(self, message: str) -> RejectedError:
        """Notes a problem, and gives what to raise."""
        self.note(message)
        return RejectedError(message)

    def unexpected(self, expected: str, node: Node) -> RejectedError:
        return self.rejected(f"expected {expected}, not {shown(node)}")


def written(problems: Iterable[Problem], file: str) -> str:
    """One line a problem, in the order of lines: `project.yaml:12: images.x.base: …`."""
    ordered = sorted(problems, key=lambda problem: problem.place.line)
    lines = []
    for place, message in ordered[:MOST]:
        path = place.path
        lines.append(
            f"{file}:{place.line}: {path}: {message}" if path else f"{file}:{place.line}: {message}"
        )
    if len(ordered) > MOST:
        lines.append(f"{file}: and {len(ordered) - MOST:,} more problems")
    return "\n".join(lines)


def quoted(text: str) -> str:
    """The text between quotes for a message: shortened, and nothing in it acts on a terminal."""
    short = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
    plain = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)
    return "'" + "".join(plain) + "'"


def shown(node: Node) -> str:
    """What a message calls a node that was not expected."""
    if isinstance(node, MapNode):
        return "a mapping"
    if isinstance(node, ListNode):
        return "a list"
    return "nothing" if node.null else quoted(node.text)


def any_of(words: Collection[str]) -> str:
    """`'a', 'b' or 'c'`."""
    *most, last = (quoted(word) for word in words)
    return f"{', '.join(most)} or {last}" if most else last
