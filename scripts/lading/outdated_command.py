"""`doit outdated`: what an upgrade would change, as a table for people or as JSON for CI."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lading import moved
from lading.asking import Asking, chosen

if TYPE_CHECKING:
    from lading.moved import Change
    from lading.verbs.outdated import Outlook, Report

FORMATS = {"table": "for people, in 80 columns", "json": "for programs"}
WIDTH = 80


class Outdated(Asking):
    """`doit outdated [NAME …] [--format json]`."""

    doc_purpose = "say what an upgrade would change; nothing is written"
    doc_usage = "[NAME ...]"
    doc_description = (
        "Asks mirrors, indexes, channels and registries what they have today for the images of\n"
        "these names (NAME@PLATFORM for one of another platform), or for all that are not\n"
        "`default: false`, on all platforms: their bases, what their sources are built with,\n"
        "Debian, conda and Python packages. Pins that were yanked or deleted are said. What can't\n"
        "be asked is said, and hides nothing else.\n"
        "Exit code: 0 nothing would change, 1 something would, 2 not all could be asked."
    )
    cmd_options = (
        {
            "name": "format",
            "long": "format",
            "type": str,
            "default": "table",
            "choices": tuple(FORMATS.items()),
            "help": "how it is said",
        },
    )

    def _execute(self, pos_args: list[str], format: str) -> int:
        from lading.verbs import outdated

        state = self.opened()
        images = chosen(state.everywhere, pos_args)
        state.say_on(sys.stderr)
        try:
            report = outdated.asked(images)
        finally:
            for one in state.everywhere:
                one.assume_nothing()
        text = as_json(report) if format == "json" else table(report)
        self.outstream.write(text)
        return report.code


# -- said -----------------------------------------------------------------------------------


def table(report: Report) -> str:
    """What would change, a paragraph for each base, source and image; what is as it should be in
    a line at the end.
    """
    said: list[str] = []
    quiet: list[str] = []
    for outlook in (*report.shared.values(), *report.images.values()):
        if not outlook.code:
            quiet.append(outlook.name)
            continue
        users = [image for image, names in report.of.items() if outlook.name in names]
        said += [*_wrapped(f"{outlook.name}{_for(users)}"), *_paragraph(outlook), ""]
    if quiet:
        said += _wrapped(f"nothing to upgrade: {', '.join(quiet)}", "  ")
    return "".join(f"{line}\n" for line in said)


def _for(images: Sequence[str]) -> str:
    return f" (for {', '.join(images)})" if images else ""


def _paragraph(outlook: Outlook) -> list[str]:
    lines = [f"  {line}" for line in moved.lines(outlook.changes)]
    for note in outlook.notes:
        lines += _wrapped(f"  ! {note}", "    ")
    for problem in outlook.problems:
        first, *rest = problem.text.splitlines()
        lines += _wrapped(f"  ! {problem.what} can't be asked: {first}", "    ")
        for line in rest[:6]:
            lines += _wrapped(f"    {line}", "      ")
    return lines


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def as_json(report: Report) -> str:
    """Per image all that an upgrade of it would change, what it stands on included."""
    images = {
        name: {
            "outdated": any(part.changes or part.notes for part in report.parts(name)),
            "changes": [_plain(change) for part in report.parts(name) for change in part.changes],
            "notes": [note for part in report.parts(name) for note in part.notes],
            "problems": [
                {"what": problem.what, "text": problem.text}
                for part in report.parts(name)
                for problem in part.problems
            ],
        }
        for name in report.images
    }
    return json.dumps({"images": images, "exit": report.code}, indent=2, ensure_ascii=False) + "\n"


def _plain(change: Change) -> dict[str, Any]:
    return {
        "what": change.what,
        "part": change.part,
        "name": change.name,
        "how": change.how,
        "old": change.old or None,
        "new": change.new or None,
        "size": change.size,
    }
