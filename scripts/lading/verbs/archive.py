"""archive: publish the checked candidate as dist/NAME.tar, with a record beside it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

from lading import archive
from lading.console import size
from lading.files import disk_errors, written_whole
from lading.project import Image
from lading.state import State
from lading.verbs import check as check_verb
from lading.verbs import pushed


def current(state: State, image: Image) -> bool:
    """Whether dist/ has the archive with today's key, and it was checked; where it is only to be
    pushed, whether the registry has it.
    """
    if state.archived(image):
        return True
    wanted = any(f"{verb}:{image.name}" in state.involved for verb in ("sif", "verify"))
    return not (wanted or state.asked_for("archive", image)) and pushed.checked(state, image)


def make(state: State, image: Image) -> str:
    """Moves the candidate to its name. One that is not there, or not whole, is exported again."""
    key = state.key(image)
    state.all_locked(image)
    assert key is not None
    final = state.archive(image)
    if pushed.checked(state, image) and pushed.download(state, image, final, state.record(image)):
        return f"{_said(state, image)}, out of the registry"
    candidate = state.candidate(image)
    record = candidate.with_suffix(".json")
    checked = check_verb.read(state, image).get("archive")
    there = archive.current(candidate, record, key) and archive.config_of(record) == checked
    # The same key gives the same bytes; where it does not, these were never tested.
    if not there and check_verb.export(state, image) != checked:
        check_verb.make(state, image)
    with disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        # Without its record an archive is not current: a kill in between costs one export.
        state.record(image).unlink(missing_ok=True)
        moved(candidate, final)
        moved(record, state.record(image))
    state.forget("archived")
    return _said(state, image)


def _said(state: State, image: Image) -> str:
    found = json.loads(state.record(image).read_text())
    return f"dist/{image.name}.tar, {size(found['size'])}, {found['sha256'][:12]}"


def moved(source: Path, target: Path) -> None:
    """Gives a file its final name, whole; where that is on another disk, by a copy beside it."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with written_whole(target) as file, source.open("rb") as read:
            shutil.copyfileobj(read, file, 1 << 20)
        source.unlink()


def clean(state: State, image: Image) -> None:
    """Removes the archive and its record."""
    state.record(image).unlink(missing_ok=True)
    state.archive(image).unlink(missing_ok=True)
    state.forget("archived")
