"""A Dockerfile's instructions, as BuildKit's reference of them has it: no more than their text.

The one parser in Python that is kept (dockerfile-parse) knows no here-documents.
"""

from __future__ import annotations

import json
import re
from bisect import bisect
from collections.abc import Iterator

from msgspec import Struct

from lading.errors import DeclarationError

_DIRECTIVE = re.compile(r"#\s*([A-Za-z]+)\s*=\s*(\S+)\s*$")
_WORD = re.compile(r"\s*([A-Za-z]+)(?:\s+|$)")
_FLAG = re.compile(r"--([a-z][a-z-]*)(?:=(\"[^\"]*\"|'[^']*'|\S+))?(?:\s+|$)")
_HEREDOC = re.compile(r"(?<!<)<<(-?)(['\"]?)([A-Za-z_][A-Za-z0-9_]*)\2(?=\s|$)")
_WITH_FLAGS = frozenset(["FROM", "RUN", "COPY", "ADD", "HEALTHCHECK"])
_WITH_HEREDOCS = frozenset(["RUN", "COPY", "ADD"])


class Instruction(Struct, frozen=True, kw_only=True):
    """One instruction: its word in capitals, its flags, and the rest of its text.

    Lines that are continued are joined by a backslash and a newline. documents: the texts of its
    here-documents, whose marks are gone from `rest`. starts: where each line begins in `rest`.
    """

    line: int
    word: str
    rest: str
    flags: tuple[tuple[str, str], ...] = ()
    documents: tuple[str, ...] = ()
    starts: tuple[tuple[int, int], ...] = ()

    @property
    def text(self) -> str:
        """All of it, in one line."""
        flags = " ".join(f"--{key}={value}" if value else f"--{key}" for key, value in self.flags)
        rest = " ".join(self.rest.replace("\\\n", " ").split())
        return " ".join(filter(None, (self.word, flags, rest)))

    @property
    def listed(self) -> list[str] | None:
        """The words of the form in [brackets]; None where it has another."""
        if not self.rest.startswith("["):
            return None
        try:
            found = json.loads(self.rest.replace("\\\n", " "))
        except ValueError:
            return None
        texts = isinstance(found, list) and all(isinstance(item, str) for item in found)
        return found if texts else None

    def line_at(self, position: int) -> int:
        """The line of the file in which a character of `rest` stands."""
        index = bisect(self.starts, (position, 1 << 30)) - 1
        return self.starts[index][1] if index >= 0 else self.line


def read(name: str, text: str) -> list[Instruction]:
    """The instructions of a Dockerfile. Raises `DeclarationError` with the line of what is none."""
    lines = re.split(r"\r\n|\n|\r", text.removeprefix("\ufeff"))
    escape = _escape(lines)
    found: list[Instruction] = []
    rows = iter(enumerate(lines, 1))
    for number, line in rows:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = [(number, line.lstrip())]
        while (ends := _continued(parts[-1][1], escape)) is not None:
            parts[-1] = (parts[-1][0], ends)
            following = next(
                (row for row in rows if row[1].strip() and not row[1].lstrip().startswith("#")),
                None,
            )
            if following is None:
                break
            parts.append(following)
        found.append(_instruction(name, parts, rows))
    return found


def _escape(lines: list[str]) -> str:
    for line in lines:
        directive = _DIRECTIVE.fullmatch(line.strip())
        if directive is None:
            break
        if directive[1].lower() == "escape" and directive[2] in "\\`":
            return directive[2]
    return "\\"


def _continued(line: str, escape: str) -> str | None:
    """The line without the mark that it goes on; None if it does not."""
    bare = line.rstrip()
    return bare[:-1] if bare.endswith(escape) else None


def _instruction(
    name: str, parts: list[tuple[int, str]], rows: Iterator[tuple[int, str]]
) -> Instruction:
    number, first = parts[0]
    word = _WORD.match(first)
    if word is None:
        raise DeclarationError(f"{name}:{number}: this is no instruction of a Dockerfile")
    keyword = word[1].upper()
    rest, starts = first[word.end() :], [(0, number)]
    for line, part in parts[1:]:
        starts.append((len(rest) + 2, line))
        rest += f"\\\n{part}"
    flags: list[tuple[str, str]] = []
    cut = 0
    while keyword in _WITH_FLAGS and (flag := _FLAG.match(rest.replace("\\\n", "  "), cut)):
        flags.append((flag[1], (flag[2] or "").strip("'\"")))
        cut = flag.end()
    rest = rest[cut:]
    documents: list[str] = []
    if keyword in _WITH_HEREDOCS:
        for mark in _HEREDOC.finditer(rest):
            documents.append(_document(name, number, mark, rows))
        rest = _HEREDOC.sub("", rest) if documents else rest
    return Instruction(
        line=number,
        word=keyword,
        rest=rest.strip(),
        flags=tuple(flags),
        documents=tuple(documents),
        starts=tuple((max(start - cut, 0), line) for start, line in starts),
    )


def _document(name: str, number: int, mark: re.Match[str], rows: Iterator[tuple[int, str]]) -> str:
    lines: list[str] = []
    for _, line in rows:
        content = line.lstrip("\t") if mark[1] else line
        if content == mark[3]:
            return "".join(f"{line}\n" for line in lines)
        lines.append(content)
    raise DeclarationError(f"{name}:{number}: <<{mark[3]} has no end: no line is '{mark[3]}'")
