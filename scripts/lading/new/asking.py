"""The questions of `doit new` on a terminal, each with a default."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lading.errors import LadingError
from lading.new import known, writing
from lading.new.draft import Draft
from lading.new.requirement_files import checked
from lading.schema.nodes import text_of

T = TypeVar("T")

Ask = Callable[[str], str]
"""Shows a question, and returns the line that was typed."""
Say = Callable[[str], None]


def ask_all(root: Path, name: str, draft: Draft, ask: Ask, say: Say) -> str:
    """Asks for the name, unless there is one, and for what the image is to be; returns the name.

    An answer that can't be is asked for again. Raises EOFError when nobody answers.
    """
    there = known.read(text_of(root / "project.yaml"))

    def a_name(text: str) -> str:
        writing.check_name(root, text)
        return text

    def a_base(text: str) -> str:
        known.base(there, text)
        return text

    def one(text: str, default: str, check: Callable[[str], T]) -> T:
        while True:
            answer = ask(f"{text} [{default or 'none'}]: ").strip() or default
            try:
                return check(answer)
            except (LadingError, ValueError) as problem:
                say(f"  {problem}")

    if not name:
        name = one("What is the image called?", _free("mine", there), a_name)
    draft.description = one("What is it for?", "", str)
    say(f"Bases: {', '.join(there.bases) or known.DEBIAN_NAME}; or an image, as python:3.13-slim")
    draft.base = one("Which base?", there.usual, a_base)
    draft.requirements = one("Python packages, as for pip?", "", _requirements)
    draft.conda = one("conda packages?", "", shlex.split)
    if draft.conda:
        draft.channels = one("From which channels?", "conda-forge", shlex.split)
    draft.apt_run = one("Debian packages in the image?", "", shlex.split)
    draft.apt_build = one("Debian packages only to build with?", "", shlex.split)
    test = one("A command that has to succeed in it?", "", str)
    draft.test = [test] if test else []
    draft.default = one("Is it made by `doit` alone?", "yes", _yes)
    return name


def _free(name: str, there: known.Known) -> str:
    number, made = 1, name
    while made in there.images:
        number += 1
        made = f"{name}-{number}"
    return made


def _requirements(text: str) -> list[str]:
    return [checked(each) for each in shlex.split(text)]


def _yes(text: str) -> bool:
    if text.lower() in ("y", "yes"):
        return True
    if text.lower() in ("n", "no"):
        return False
    raise ValueError("yes or no?")
