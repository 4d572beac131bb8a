"""Several files of locks, written all or none, whatever ends the process in the middle.

They are written whole into a folder beside, which then gets the name that says "this is to be
done": from then on it is done, by who wrote it or by the next one who has the project to himself.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from lading.files import disk_errors, write_text

WRITING, MOVING = "locks/.writing.part", "locks/.moving.part"
"""Where files are gathered; and where they are when all of them are there."""
GONE = "gone.json"


def write(root: Path, files: Mapping[str, str], gone: Iterable[str] = ()) -> None:
    """Writes these files, path below the project to text, and removes those that are `gone`.

    Raises `EnvironmentProblem` where the disk is full; then nothing has changed. Whoever calls it
    has the project to himself.
    """
    writing = root / WRITING
    settle(root)
    try:
        for path, text in files.items():
            write_text(writing / "new" / path, text)
        write_text(writing / GONE, json.dumps(sorted(gone)))
        with disk_errors(writing):
            writing.rename(root / MOVING)
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)
        raise
    try:
        settle(root)
    except BaseException:
        # Ctrl-C, say: what has begun is quickly done.
        settle(root)
        raise


def settle(root: Path) -> None:
    """Does what was to be done when a process was killed; what it had only gathered is thrown away.

    Where nothing is left of one, this is two looks at the disk.
    """
    if os.path.lexists(f"{root}/{WRITING}"):
        shutil.rmtree(root / WRITING, ignore_errors=True)
    if not os.path.lexists(f"{root}/{MOVING}"):
        return
    moving = root / MOVING
    new = moving / "new"
    with disk_errors(root / "locks"):
        for path in sorted(new.rglob("*")) if new.is_dir() else []:
            if path.is_file():
                target = root / path.relative_to(new)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
        with suppress(FileNotFoundError):
            for name in json.loads((moving / GONE).read_text()):
                (root / name).unlink(missing_ok=True)
        shutil.rmtree(moving)
