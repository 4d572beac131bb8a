"""An environment.yml from elsewhere, with what its `pip:` includes, taken into a recipe folder."""

from __future__ import annotations

import re
from pathlib import Path

from lading.conda import environment
from lading.errors import DeclarationError
from lading.new.draft import Draft, Left, free
from lading.new.requirement_files import content, left_out, take
from lading.requirements import INCLUDE, included, refused


def take_environment(draft: Draft, path: Path, shown: str) -> None:
    """An environment.yml, whole, with what its `pip:` includes. Raises `DeclarationError`."""
    name = free(re.sub(r"\.yml$", ".yaml", path.name), draft.recipe)
    data = content(path, shown)
    found = environment.parse(shown, decoded(data, shown))
    draft.recipe[name] = data
    draft.conda_file = name
    draft.notes += found.ignored
    if not found.channels and not draft.channels:
        draft.channels.append("conda-forge")
        draft.notes.append(f"{shown} names no channel: conda-forge is taken")
    for text, where in found.pip:
        include = INCLUDE.match(text)
        if include:
            other = included(include)
            if take(draft, path.parent / other, str(path.parent / other)) != other:
                why = "the file is not beside it; copy it there, or name it by its new name"
                draft.left.append(Left(where=where, text=text, why=why))
        elif problem := refused(text):
            line = int(where.rpartition(":")[2])
            data, gone = _without(data, line, text, problem[0])
            draft.recipe[name] = data
            do = problem[1] if gone else f"{problem[1]}; take it out of {name}"
            left_out(draft, where, text, (problem[0], do))


def _without(data: bytes, line: int, text: str, why: str) -> tuple[bytes, bool]:
    """A file of YAML with a comment where one item of a list was; as it is, where the item does
    not have its line for itself.
    """
    lines = data.decode("utf-8-sig").splitlines(keepends=True)
    item = lines[line - 1]
    found = re.fullmatch(r"(\s*)-\s+(['\"]?)(.+?)\2\s*(?:#.*)?\s*", item)
    if found is None or found[3] != text:
        return data, False
    lines[line - 1] = f"{found[1]}# Left out: {why}.\n"
    return "".join(lines).encode(), True


def decoded(data: bytes, shown: str) -> str:
    """A file as text. Raises `DeclarationError` for what is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DeclarationError(f"{shown}: not UTF-8", why=str(error)) from None
