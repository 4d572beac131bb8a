"""Writes a draft: the section in project.yaml and the files of the recipe, both or none."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from lading import files, requirements
from lading.console import counted
from lading.errors import DeclarationError, LadingError
from lading.new import insertion, known
from lading.new.draft import Draft, requirement_file, section
from lading.project import IMAGE_NAME, Image, load
from lading.schema.nodes import text_of


class Written(Struct, frozen=True, kw_only=True):
    """What was written: files of the recipe, from the project's root, and entries of project.yaml
    as "bases.python-3.9-slim"; sources that were there already.
    """

    base: str
    files: tuple[str, ...]
    entries: tuple[str, ...]
    reused: tuple[str, ...]


def check_name(root: Path, name: str) -> None:
    """Raises `DeclarationError` for a name that is none, or taken."""
    if len(name) > IMAGE_NAME.longest or not re.fullmatch(IMAGE_NAME.pattern, name):
        raise DeclarationError(f"{name!r} is not {IMAGE_NAME.expected}")
    if name in IMAGE_NAME.refused:
        raise DeclarationError(f"{name!r} {IMAGE_NAME.refused[name]}")
    if name in known.read(text_of(root / "project.yaml")).images:
        raise DeclarationError(f"project.yaml has an image {name!r} already; nothing was written")


def write(root: Path, name: str, draft: Draft) -> Written:
    """Adds an image to the project. Nothing that is there is overwritten.

    Raises `DeclarationError` for what project.yaml could not be read with, and `LadingError` where
    a file is in the way; then all is as it was.
    """
    path = root / "project.yaml"
    with files.locked(root / ".project.yaml.lock", "doit new", remove=True):
        check_name(root, name)
        text = _text(path)
        there = known.read(text)
        base, definition = known.base(there, draft.base)
        file, content = requirement_file(draft)
        entries = [] if definition is None else [("bases", base, definition)]
        sources, reused = _sources(draft, there)
        entries += [("sources", each, value) for each, value in sources.items() if value]
        folder = f"recipes/{name}"
        draft.sources = sources
        image = section(draft, folder, base, file)
        entries.append(("images", name, image))
        for where, key, value in entries:
            text = insertion.inserted(text, where, key, value, one_line=where == "bases")
        recipe = dict(draft.recipe) | ({file: content} if content is not None else {})
        with _made(root, folder, recipe) as made:
            _check(path, text, name)
            target = path.resolve()
            with files.written_whole(target, stat.S_IMODE(target.stat().st_mode)) as out:
                out.write(text.encode())
    return Written(
        base=base,
        files=tuple(made),
        entries=tuple(f"{where}.{key}" for where, key, _ in entries),
        reused=tuple(reused),
    )


def _text(path: Path) -> str:
    """The text with its mark of the byte order and its line ends as they are."""
    text_of(path)
    return path.read_bytes().decode()


def _sources(draft: Draft, there: known.Known) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The sources by the names they get; those that are there in that version have no section."""
    made: dict[str, dict[str, Any]] = {}
    reused: list[str] = []
    for name, source in draft.sources.items():
        if there.sources.get(name) == source["version"]:
            made[name] = {}
            reused.append(name)
            draft.notes.append(
                f"sources.{name} stays as it is; its options were here: {source['configure']!r}"
            )
            continue
        if name in there.sources:
            plain = re.sub(r"[^a-z0-9.]+", "-", str(source["version"]).lower())
            name = f"{name}-{plain.strip('.-')}"
        if name in there.sources:
            reused.append(name)
        made[name] = {} if name in there.sources else source
    return made, reused


@contextmanager
def _made(root: Path, folder: str, recipe: dict[str, bytes | Path]) -> Iterator[list[str]]:
    """The recipe's files, written; whatever ends the work within, they are taken away again."""
    taken = [f"{folder}/{name}" for name in recipe if os.path.lexists(root / folder / name)]
    if taken:
        raise LadingError(
            f"{', '.join(taken)} {'is' if len(taken) == 1 else 'are'} there already; nothing was "
            "written",
            do="take another name for the image, or move what is there away",
        )
    new = [part for part in ("recipes", folder) if not (root / part).exists()] if recipe else []
    made: list[str] = []
    try:
        for name, content in recipe.items():
            made.append(f"{folder}/{name}")
            _put(root / folder / name, content)
        yield made
    except BaseException:
        for each in made:
            _gone(root / each)
        for each in reversed(new):
            with suppress(OSError):
                (root / each).rmdir()
        raise


def _put(path: Path, content: bytes | Path) -> None:
    if isinstance(content, Path) and content.is_dir():
        with files.disk_errors(path):
            # A link out of the project is refused later, with its name; it is not followed here.
            shutil.copytree(content, path, symlinks=True)
        return
    data = content if isinstance(content, bytes) else content.read_bytes()
    mode = 0o755 if isinstance(content, Path) and os.access(content, os.X_OK) else 0o644
    with files.written_whole(path, mode) as file:
        file.write(data)


def _gone(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _check(path: Path, text: str, name: str) -> None:
    """Reads what project.yaml is to be, as doit will. Raises `DeclarationError`."""
    scratch = path.with_name(f".{path.name}.new{files.PART}")
    try:
        with files.written_whole(scratch) as out:
            out.write(text.encode())
        project = load(scratch)
        _readable(project.root, project.images[name])
    except DeclarationError as error:
        # The line of a text that nobody will see says nothing.
        said = re.sub(
            rf"^{re.escape(scratch.name)}:\d+: (?=images\.{re.escape(name)}\b)",
            "",
            str(error),
            flags=re.MULTILINE,
        ).replace(scratch.name, path.name)
        count = counted(len(said.splitlines()), "problem") if "images." in said else "problems"
        raise DeclarationError(
            f"project.yaml would have {count}; nothing was written", why=said
        ) from None
    finally:
        _gone(scratch)


def _readable(root: Path, image: Image) -> None:
    """What pip is asked for can be read as far as that is known before it is locked."""
    if image.pip is not None:
        requirements.read(root, image.pip.requirements, image.pip.constraints)


Say = Callable[[str], None]


def report(say: Say, name: str, draft: Draft, written: Written) -> None:
    """Says what was written, what was not carried over, and what comes next."""
    for path in written.files:
        say(f"written  {path}")
    for entry in written.entries:
        on = f", on the base {written.base}" if entry == f"images.{name}" else ""
        say(f"added    {entry} in project.yaml{on}")
    for source in written.reused:
        say(f"as it is sources.{source}, which project.yaml has already")
    for note in draft.notes:
        say(f"note     {note}")
    if draft.left:
        say("Not carried over:")
        for left in draft.left:
            say(f"  {left.where}: {left.text}\n      {left.why}")
    say(f"Next: doit lock:{name}")
