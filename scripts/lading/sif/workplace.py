"""The temporary folder that a SIF is made in: enough room in it, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from lading.console import size
from lading.errors import EnvironmentProblem
from lading.files import disk_errors, locked

PREFIX = "lading-sif-"
_LOCK = "lock"


def parent(environ: Mapping[str, str]) -> Path:
    """Where temporary folders are made: as Apptainer is told, else as all programs are."""
    for name in ("APPTAINER_TMPDIR", "SINGULARITY_TMPDIR", "TMPDIR"):
        if environ.get(name):
            return Path(environ[name]).absolute()
    return Path(tempfile.gettempdir())


def check_room(folder: Path, needed: int, why: str) -> None:
    """Raises `EnvironmentProblem` where fewer than `needed` bytes are free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise EnvironmentProblem(
            f"not enough room in {folder}: {size(needed)} needed, {size(free)} free",
            why=why,
            do="free some, or name a folder with more room on a local disk: TMPDIR=/path doit …",
        )


@contextmanager
def opened(environ: Mapping[str, str], needed: int, why: str) -> Iterator[Path]:
    """A new folder with room for `needed` bytes, removed with all that is in it.

    What killed runs of the same user left there is removed first.
    """
    above = parent(environ)
    if not above.is_dir():
        raise EnvironmentProblem(
            f"there is no folder {above} for temporary files",
            do="make it, or set TMPDIR (and APPTAINER_TMPDIR, if that is set) to one there is",
        )
    _sweep(above)
    check_room(above, needed, why)
    with disk_errors(above):
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=above))
    try:
        with locked(folder / _LOCK, str(os.getpid())):
            yield folder
    finally:
        remove(folder)


def _sweep(above: Path) -> None:
    for left in above.glob(f"{PREFIX}*"):
        with suppress(OSError):
            found = left.lstat()
            # One just begun may not be locked yet.
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < 60:
                continue
            if not (left / _LOCK).is_file():
                continue
            with locked(left / _LOCK, "", wait=False):
                remove(left)


def remove(folder: Path) -> None:
    """Removes a folder with all that is in it, also what its owner may not enter or write."""
    if os.getuid():
        for path, names, _ in os.walk(folder):
            for name in names:
                inside = Path(path, name)
                if not inside.is_symlink():
                    with suppress(OSError):
                        inside.chmod(0o700)
    # When a run is interrupted, a program that was asked to end may still write for a moment.
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
        time.sleep(0.1)
