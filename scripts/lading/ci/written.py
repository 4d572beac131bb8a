"""Files that `doit ci` writes: whether somebody has changed one is seen by its own header."""

from __future__ import annotations

import hashlib
import re

from lading.errors import LadingError

HEADER = """\
# Written by `doit ci` from project.yaml. What is changed here is not overwritten without --force.
# sha256 of the rest: {digest}
"""
_HEADER = re.compile(re.escape(HEADER).replace(r"\{digest\}", "([0-9a-f]{64})"))


def headed(body: str) -> str:
    """The file of this body."""
    return HEADER.format(digest=_digest(body)) + body


def refuse_edited(name: str, there: str) -> None:
    """Raises `LadingError` where a file is not as lading has written it."""
    header = _HEADER.match(there)
    if header is not None and header[1] == _digest(there[header.end() :]):
        return
    raise LadingError(
        f"{name} was not written by lading"
        if header is None
        else f"{name} was changed since lading wrote it",
        why="what is in it would be lost",
        do="`doit ci --force` writes it all the same; `git diff` then shows what has become of it",
    )


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
