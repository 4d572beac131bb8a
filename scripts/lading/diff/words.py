"""What moved, in words: as text for a terminal, as Markdown for a pull request, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import asdict

from lading import moved
from lading.console import counted, size
from lading.diff.git import Revision
from lading.diff.reading import Place
from lading.moved import Change

FOLDED = 30
"""From how many rows on a table is folded in Markdown."""


class Moved(Struct, frozen=True, kw_only=True):
    """What became of the locks of one place. at: what stands behind its name, where it is for
    another platform than this run's own. bytes: what their files are together, then and now, None
    where that is not known; problems: what could not be read, in words.
    """

    place: Place
    at: str = ""
    how: Literal["added", "removed", "changed"]
    changes: tuple[Change, ...]
    bytes: tuple[int | None, int | None]
    problems: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Whose locks, and what they are together."""
        was, now = self.bytes
        name = f"{self.place}{self.at}"
        if self.how != "changed":
            word = "locked for the first time" if self.how == "added" else "its locks are gone"
            known = now or was
            return f"{name}: {word}, {self._count}" + (f", {size(known)}" if known else "")
        said = f"{name}: {moved.total(self.changes) or 'no pin has moved'}"
        if was is None or now is None:
            return said
        sizes = size(now) if was == now else f"{size(was)} → {size(now)}"
        return f"{said}, {sizes} in all"

    @property
    def _count(self) -> str:
        return counted(len(self.changes), "thing")


def text(found: Sequence[Moved], old: Revision, new: Revision) -> str:
    """For a terminal: what was locked for the first time is counted, and not listed."""
    lines = [f"{old} → {new}"]
    for one in found:
        lines += ["", one.title]
        lines += [f"  {problem}" for problem in one.problems]
        if one.how == "changed":
            lines += [f"  {line}" for line in moved.lines(one.changes)]
    if not found:
        lines.append("no lock has changed")
    return "\n".join(lines) + "\n"


def markdown(found: Sequence[Moved], old: Revision, new: Revision) -> str:
    """For a pull request (GitHub's Markdown): a table for each place; a long one is folded."""
    lines = [f"### Locks: {code(str(old))} → {code(str(new))}", ""]
    for one in found:
        rows = _rows(one)
        folded = len(rows) > FOLDED or one.how != "changed"
        if folded:
            lines += ["<details>", f"<summary>{escaped(one.title)}</summary>", ""]
        else:
            lines += [f"**{escaped(one.title)}**", ""]
        lines += [f"- {escaped(problem)}" for problem in one.problems]
        lines += [""] if one.problems else []
        if rows:
            lines += ["| | | was | is | download |", "|---|---|---|---|---:|", *rows, ""]
        lines += ["</details>", ""] if folded else []
    if not found:
        lines += ["No lock has changed.", ""]
    return "\n".join(lines)


def _rows(one: Moved) -> list[str]:
    rows: list[str] = []
    for heading, changes in moved.grouped(one.changes):
        for change in changes:
            cells = (
                escaped(heading),
                code(change.name),
                code(change.old) if change.old else "",
                code(change.new) if change.new else "",
                size(change.size) if change.size else "",
            )
            rows.append(f"| {' | '.join(cells)} |")
    return rows


def code(text: str) -> str:
    """Text that is shown as it is, also in a table."""
    return f"`{text.replace('`', '').replace('|', chr(92) + '|')}`"


def escaped(text: str) -> str:
    for char in "\\`*_<>|[]":
        text = text.replace(char, f"\\{char}" if char not in "<>" else f"&{'lg'[char == '>']}t;")
    return text


def as_json(found: Sequence[Moved], old: Revision, new: Revision) -> str:
    """For programs; sizes in bytes, null where nothing is downloaded."""
    data = {
        "old": {"name": old.name, "commit": old.commit},
        "new": {"name": new.name, "commit": new.commit},
        "locks": [
            {
                "whose": one.place.whose,
                "name": one.place.name,
                "platform": one.place.platform,
                "how": one.how,
                "bytes": list(one.bytes),
                "problems": list(one.problems),
                "changes": [{**asdict(change), "how": change.how} for change in one.changes],
            }
            for one in found
        ],
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


FORMATS = {"text": text, "markdown": markdown, "json": as_json}
