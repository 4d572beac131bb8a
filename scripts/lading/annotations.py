"""What GitHub shows beside the line of a file: workflow commands, one for each error.

GitHub's documentation, 'Workflow commands for GitHub Actions': they are read from standard output
and standard error alike. Elsewhere nothing is written.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from lading.errors import LadingError

_AT = re.compile(r"\s*(?P<file>[\w.@+-]+(?:/[\w.@+-]+)*):(?P<line>[1-9][0-9]*): (?P<text>.+)")

LINES = 12
"""Lines of an error that are shown, besides the first."""


def annotate(
    error: LadingError | str,
    root: Path,
    *,
    environ: Mapping[str, str] | None = None,
    stream: IO[str] | None = None,
    title: str = "",
    line: int = 0,
) -> None:
    """Writes what GitHub makes annotations of, if this is a run of its Actions.

    What an error says of lines of files (`project.yaml:12: …`) is shown there; else all of it at
    `line` of project.yaml, where one is given.
    """
    environ = os.environ if environ is None else environ
    if environ.get("GITHUB_ACTIONS") != "true":
        return
    out = sys.stderr if stream is None else stream
    for one in commands(str(error), _below(root, environ), title=title, line=line, root=root):
        out.write(one + "\n")
    out.flush()


def commands(text: str, below: str, *, title: str = "", line: int = 0, root: Path) -> Iterator[str]:
    """The workflow commands for an error; `below` is the project's folder in the repository."""
    found = [match for each in text.splitlines() if (match := _AT.fullmatch(each))]
    named = [match for match in found if (root / match["file"]).is_file()]
    for match in named:
        yield command("error", match["text"], f"{below}{match['file']}", int(match["line"]), title)
    if not named:
        file = f"{below}project.yaml" if line else ""
        yield command("error", _shortened(text), file, line, title)


def _shortened(text: str) -> str:
    """The first line and the last ones: the log has the rest."""
    first, *rest = text.splitlines() or [""]
    left_out = ["…"] if len(rest) > LINES else []
    return "\n".join([first, *left_out, *rest[-LINES:]])


def command(kind: str, text: str, file: str = "", line: int = 0, title: str = "") -> str:
    """One workflow command: `::error file=project.yaml,line=12::…`."""
    given = {"file": file, "line": str(line) if line else "", "title": title}
    properties = ",".join(f"{name}={_property(value)}" for name, value in given.items() if value)
    return f"::{kind}{f' {properties}' if properties else ''}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _below(root: Path, environ: Mapping[str, str]) -> str:
    """Where the project is below what was checked out: "" or "folder/"."""
    workspace = environ.get("GITHUB_WORKSPACE", "")
    try:
        below = root.relative_to(Path(workspace).resolve()) if workspace else Path()
    except ValueError:
        return ""
    return f"{below.as_posix()}/" if below.parts else ""
