"""Locks: where they lie, the header they all have, and when one is current.

A lock is a text file made to be read and compared: comments on top that say what made it, as of
which inputs, and below them what was resolved, in a form of its kind.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from pathlib import Path

from msgspec import Struct

from lading.errors import LadingError
from lading.files import content_of

FORMAT = 1


class Header(Struct, frozen=True, kw_only=True):
    """What every lock says of itself.

    `date` moves only when what is pinned moves; `inputs` is the sha256 of everything the pins
    were resolved from.
    """

    command: str
    date: date
    inputs: str

    @property
    def epoch(self) -> int:
        """The date as SOURCE_DATE_EPOCH: seconds since 1970, at midnight UTC."""
        moment = datetime(self.date.year, self.date.month, self.date.day, tzinfo=UTC)
        return int(moment.timestamp())


def today() -> date:
    """Today in UTC, so that a lock's date does not depend on where it was made."""
    return datetime.now(UTC).date()


def folder(root: Path, kind: str, name: str, platform: str) -> Path:
    """Where the locks of one thing lie; `kind` is images, bases or sources."""
    return root / f"locks/{kind}/{name}/{platform.replace('/', '-')}"


def text_of(header: Header, body: str, about: str) -> str:
    """A whole lock file."""
    return (
        f"# {about}\n"
        f"# lading-lock: {FORMAT}\n"
        f"# command: {header.command}\n"
        f"# date: {header.date}\n"
        f"# inputs: sha256:{header.inputs}\n"
        f"\n{body}"
    )


HEADER = re.compile(
    r"(?:#.*\n)*?# lading-lock: (?P<format>\d{1,9})\n# command: (?P<command>.*)\n"
    r"# date: (?P<date>\d{4}-\d\d-\d\d)\n# inputs: sha256:(?P<inputs>[0-9a-f]{64})\n"
)


def read(path: Path | str) -> str | None:
    """The text of a lock file; None if there is none. Raises `LadingError` if it is no text."""
    try:
        text = content_of(path).decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LadingError(
            f"{path}: can't be read", why=str(error), do="delete it, and lock again"
        ) from error
    # As git leaves it on Windows.
    return text.replace("\r\n", "\n") if "\r" in text else text


def split(text: str, path: str) -> tuple[Header, str]:
    """The header and the body of a lock file.

    Raises `LadingError` for a file that is no lock, or one of a newer lading.
    """
    found = HEADER.match(text)
    try:
        if found is None:
            raise ValueError
        day = date.fromisoformat(found["date"])
    except ValueError:
        raise LadingError(
            f"{path}: not a lock of lading's",
            why="its header is missing or was changed",
            do="undo the edit, or delete the file and lock again",
        ) from None
    if int(found["format"]) > FORMAT:
        raise LadingError(
            f"{path}: written by a newer lading (format {found['format']}, not {FORMAT})",
            do="use the newer lading, or delete the file and lock again",
        )
    header = Header(command=found["command"], date=day, inputs=found["inputs"])
    return header, text[found.end() :]


def renewed(old: tuple[Header, str] | None, inputs: str, body: str, command: str) -> Header:
    """The header of a lock made again: its date is kept when what is pinned is the same."""
    same = old is not None and old[1].strip() == body.strip()
    return Header(
        command=command,
        date=old[0].date if same and old is not None else today(),
        inputs=inputs,
    )
