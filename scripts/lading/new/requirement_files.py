"""A requirement file from elsewhere, and all it includes, taken into a recipe folder."""

from __future__ import annotations

from pathlib import Path

from lading.errors import DeclarationError
from lading.net import redact
from lading.new.draft import Draft, Left, free
from lading.requirements import INCLUDE, URL, included, lines_of, refused

_NO_BINARY = "--no-binary"
INSTALLERS = frozenset(["pip", "setuptools", "wheel", "uv"])


def take(draft: Draft, path: Path, shown: str) -> str:
    """The name in the recipe of a requirement file; what it includes goes along.

    A line that can't be locked is left out, and a comment says why. Raises `DeclarationError` for
    a file that can't be read.
    """
    place = path.resolve()
    if place in draft.taken:
        return draft.taken[place]
    name = draft.taken[place] = free(path.name, draft.recipe)
    data = content(path, shown)
    draft.recipe[name] = b""  # the name is taken
    lines = data.decode("utf-8-sig", "replace").replace("\r\n", "\n").split("\n")
    for line in lines_of(shown, data):
        last = line.number
        while last < len(lines) and lines[last - 1].endswith("\\"):
            last += 1
        new = _line(draft, path, f"{shown}:{line.number}", line.text)
        if new is not None:
            lines[line.number - 1 : last] = [new, *[""] * (last - line.number)]
    draft.recipe[name] = "\n".join(lines).encode()
    return name


def content(path: Path, shown: str) -> bytes:
    """What is in a file. Raises `DeclarationError` where that can't be read."""
    try:
        # Asked first: to read a pipe would wait.
        if path.exists() and not path.is_file():
            raise DeclarationError(f"{shown} is not a file")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise DeclarationError(f"{shown} can't be read: {why}") from None


def _line(draft: Draft, path: Path, where: str, text: str) -> str | None:
    """What stands in the recipe instead of a line; None if it stays as it is."""
    include = INCLUDE.match(text)
    if include and not URL.match(included(include)):
        target = path.parent / included(include)
        name = take(draft, target, f"{Path(where).parent / included(include)}")
        return f"{include['option']} {name}"
    if text.startswith(_NO_BINARY):
        packages = text.removeprefix(_NO_BINARY).replace("=", " ").replace(",", " ").split()
        without(draft, packages)
        return "# `no-binary` in project.yaml has what stood here."
    problem = refused(text)
    if problem is None:
        return None
    left_out(draft, where, text, problem)
    return f"# Left out: {problem[0]}."


def without(draft: Draft, packages: list[str]) -> None:
    """Packages that are built from source."""
    draft.no_binary += [name for name in packages if name not in (":none:", *draft.no_binary)]


def left_out(draft: Draft, where: str, text: str, problem: tuple[str, str]) -> None:
    """Notes a requirement that can't be locked."""
    why = f"{problem[0]}; {problem[1]}"
    draft.left.append(Left(where=where, text=redact(text), why=why))


def checked(text: str) -> str:
    """A requirement as it was asked for. Raises `DeclarationError` where it is none of PEP 508."""
    from packaging.requirements import InvalidRequirement, Requirement

    problem = refused(text)
    if problem is not None:
        raise DeclarationError(f"{redact(text)}: {problem[0]}", do=problem[1])
    try:
        if not URL.match(text):
            Requirement(text)
    except InvalidRequirement as error:
        why = str(error).splitlines()[0]
        raise DeclarationError(
            f"{text!r} is no requirement", why=why, do="write it as astropy or 'astropy>=6'"
        ) from None
    return text
