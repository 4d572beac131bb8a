"""prune: what no lock names any more is found, and removed when that is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path

from msgspec import Struct

from lading import claims, pruning
from lading.console import Console
from lading.engines import Engine
from lading.errors import EnvironmentProblem, LadingError
from lading.files import disk_errors
from lading.project import load
from lading.pruning import Named, Thing
from lading.state import State


class Outlook(Struct, frozen=True, kw_only=True):
    """What can go; what is left, with the reason; what else there is to know.

    unclaimed: bytes in the store that nobody who is known, and there, has made.
    """

    things: tuple[Thing, ...]
    left: tuple[str, ...]
    notes: tuple[str, ...]
    unclaimed: int = 0


def found(state: State, *, every: bool, busy: Sequence[Path] = ()) -> Outlook:
    """What can go of this project. `every`: also what is nobody's who is known and there.

    busy: projects in which a run is under way; what may be theirs too is left. Raises `LadingError`
    where this project's own declaration or locks can't be read.
    """
    things = list(pruning.built(state))
    things += pruning.halves(state.store.leftovers(pruning.DAY))
    left = [
        f"the store, and the images: a run is under way in {folder}, which may want something of it"
        for folder in busy
    ]
    notes: list[str] = []
    known = claims.read(state.store.root)
    named = pruning.named(state)
    for folder in pruning.others(known, state.project.root):
        try:
            named |= _named_there(state, folder)
        except LadingError as error:
            left.append(
                f"the store, and the images: what the project in {folder} names can't be read: "
                f"{error.what} (mend it, or delete it)"
            )
    unclaimed = 0
    if not left:
        owned = pruning.owners(known, state.project.root, every=every)
        things += pruning.stored(state.store.root, named, owned)
        unclaimed = 0 if every else pruning.unclaimed(state.store.root, named, owned)
        made, used, said = _images(state, named, owned)
        things += made
        left += used
        notes += said
    former = pruning.former(state)
    if former:
        notes.append(f"of no image in project.yaml, and yours to delete: {', '.join(former)}")
    return Outlook(things=tuple(things), left=tuple(left), notes=tuple(notes), unclaimed=unclaimed)


def _images(
    state: State, named: Named, owned: pruning.Owners
) -> tuple[list[Thing], list[str], list[str]]:
    try:
        listed = state.engine.listed()
    except LadingError as error:
        return [], [], [f"images were not looked at: {error.what}"]
    things, used = pruning.images(listed, named, owned)
    return things, used, []


def _named_there(state: State, folder: Path) -> Named:
    """What another project names, as it lies there."""
    try:
        project = load(folder / "project.yaml")
        other = State(
            project,
            environ=state.environ,
            console=Console(StringIO(), {}),
            connect=_no_engine,
        )
        return pruning.named(other)
    except LadingError:
        raise
    except Exception as error:  # of a project of another lading, nobody knows what is in there
        raise LadingError(f"{type(error).__name__}: {error}") from error


def _no_engine() -> Engine:
    raise EnvironmentProblem("no engine is asked for another project")


# -- removing -------------------------------------------------------------------------------


class Removed(Struct, frozen=True, kw_only=True):
    """What is gone, and what could not go, with the reason; and the exit code of that."""

    gone: tuple[Thing, ...]
    left: tuple[str, ...]
    code: int = 0


def remove(state: State, things: Iterable[Thing]) -> Removed:
    """Removes them, one by one; one that can't go keeps nothing else from going."""
    gone: list[Thing] = []
    left: list[str] = []
    code = 0
    for thing in things:
        try:
            if thing.image is not None:
                state.engine.discard(thing.image)
            for path in thing.paths:
                _removed(path)
        except LadingError as error:
            left.append(f"{thing.name}: {error}")
            # That a container stands on an image by now is no failure.
            code = max(code, error.exit_code if thing.paths or error.exit_code == 2 else 0)
            continue
        gone.append(thing)
    for one in claims.read(state.store.root):
        struck = [thing.claim for thing in gone if thing.claim is not None]
        if one.project == state.project.root or not one.exists:
            claims.forget(state.store.root, one.project, struck)
    state.store.sweep(pruning.DAY)
    state.forget("images")
    return Removed(gone=tuple(gone), left=tuple(left), code=code)


def _removed(path: Path) -> None:
    with disk_errors(path), suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    # A former image's folder goes with the last that is in it.
    if path.parent.parent.name == "build":
        with suppress(OSError):
            path.parent.rmdir()
