"""archive: publish the checked candidate as dist/NAME.tar, with a record and an SBOM beside it."""

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
from lading.verbs import pushed, sbom


def current(state: State, image: Image) -> bool:
    """Whether dist/ has the archive with today's key, and it was checked, and its SBOM; where it is
    only to be pushed, whether the registry has it.
    """
    if state.archived(image):
        return sbom.current(state, image)
    wanted = any(f"{verb}:{image.name}" in state.involved for verb in ("sif", "verify"))
    return not (wanted or state.asked_for("archive", image)) and check_verb.pushed(state, image)


def make(state: State, image: Image) -> str:
    """Moves the candidate to its name. One that is not there, or not whole, is exported again.
    Where only the SBOM is missing, that is all that is made.
    """
    key = state.key(image)
    state.all_locked(image)
    assert key is not None
    if state.archived(image) and not sbom.current(state, image):
        return sbom.make(state, image)
    final = state.archive(image)
    if check_verb.pushed(state, image) and pushed.download(
        state, image, final, state.record(image)
    ):
        return f"{_whole(state, image)}, out of the registry"
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
    return _whole(state, image)


def _whole(state: State, image: Image) -> str:
    """Puts its SBOM beside the archive; says what there is."""
    sbom.make(state, image)
    found = json.loads(state.record(image).read_text())
    return f"dist/{state.archive(image).name}, {size(found['size'])}, {found['sha256'][:12]}"


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
    """Removes the archive, its record and its SBOM."""
    sbom.clean(state, image)
    state.record(image).unlink(missing_ok=True)
    state.archive(image).unlink(missing_ok=True)
    state.forget("archived")
