"""upgrade: move the pins of an image's locks, as far as today's declarations allow."""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from lading import moved, together
from lading.errors import DeclarationError, LadingError
from lading.layers import apt_kind
from lading.layers import base as bases
from lading.project import Base, Image
from lading.state import State
from lading.verbs import renewing
from lading.verbs.renewing import Renewed


def current(state: State, thing: Image | Base) -> bool:
    """Never: it is asked for in order to be done."""
    return False


def make(state: State, image: Image) -> str:
    """Moves what may move of the image: its base, what its sources are built with, its layers; or,
    of these, the packages that are named, and what they force. All of it is written, or nothing.
    """
    _refuse_frozen(state, image.name)
    with _alone(state) as done:
        if state.only and not _has_all(state, image):
            return f"has no {' or '.join(sorted(state.only))}"
        base = state.base_of(image)
        parts: dict[str, Callable[[], Renewed]] = {}
        if not state.only:
            parts[base.name] = partial(renewing.base, state, base)
        for source in state.sources_of(image):
            parts[f"{source.name}@{base.name}"] = partial(renewing.source, state, source, base)
        for kind in state.kinds(image):
            parts[f"{image.name} {kind.name}"] = partial(renewing.layer, state, image, kind)
        found = Renewed()
        # What several images stand on moves once a run.
        for name in [name for name in parts if name not in done]:
            found += parts[name]()
        told = _written(state, found)
        done.update(parts)
        if any(change.what == "base" for change in found.changes):
            _say_others(state, base, image.name)
    return told


def make_base(state: State, base: Base) -> str:
    """Moves a base, as a whole."""
    _refuse_frozen(state, f"base:{base.name}")
    if state.only:
        if f"upgrade:base:{base.name}" not in state.named:
            return "stays as it is"
        raise DeclarationError(
            f"{base.name} is a base, which moves as a whole, not {', '.join(sorted(state.only))}",
            do=f"doit upgrade:base:{base.name}",
        )
    with _alone(state) as done:
        if base.name in done:
            return "done"
        found = renewing.base(state, base)
        told = _written(state, found)
        done.add(base.name)
        if found.changes:
            _say_others(state, base, "")
    return told


@contextmanager
def _alone(state: State) -> Iterator[set[str]]:
    """What is not written yet counts for one upgrade only, and not for another thread's. Yields
    the names of what has been upgraded in this run.
    """
    done: set[str] = state.once(("upgraded",), set)
    turn = state.once(("upgrading",), threading.Lock)
    with turn:
        try:
            yield done
        finally:
            state.assume_nothing()


def _refuse_frozen(state: State, name: str) -> None:
    if state.frozen:
        raise LadingError(
            f"{name} is not upgraded",
            why="with CI or frozen=1 set, locks are not changed",
            do=f"run `doit upgrade:{name}` without them, and commit the locks",
        )


def _written(state: State, found: Renewed) -> str:
    together.write(state.project.root, found.files, found.gone)
    moved.say(state.console, found.changes)
    if found.changes:
        return moved.total(found.changes)
    return "locked for the first time" if found.first else "nothing moves"


# -- packages by name -----------------------------------------------------------------------


def _has_all(state: State, image: Image) -> bool:
    """Whether the image's locks have the packages that are named. Of one that was asked for in a
    group, that is no error: then it is not of interest.

    Raises `DeclarationError`.
    """
    known = set(_packages(state, image))
    for name in sorted(state.only):
        if any(map(renewing.named([name]), known)):
            continue
        if f"upgrade:{image.name}" not in state.named:
            return False
        raise _unknown(state, image, name, sorted(known))
    return True


def _packages(state: State, image: Image) -> Iterator[str]:
    """The names of all that the image's own locks pin."""
    for source in state.sources_of(image):
        tools = state.tools_lock(source, state.base_of(image))
        if tools is not None:
            yield from (one.name for one in apt_kind.pinned(tools))
    for kind in state.kinds(image):
        lock = state.layer_lock(image, kind)
        if lock is not None:
            yield from (one.name for one in kind.pinned(lock))


def _unknown(state: State, image: Image, name: str, known: list[str]) -> DeclarationError:
    base = state.base_of(image)
    lock = state.base_lock(base)
    below = bases.contents(base, lock) if lock is not None else ()
    if any(renewing.named([name])(one.name) for one in below):
        return DeclarationError(
            f"{name} is part of the base {base.name}, which moves as a whole",
            do=f"doit upgrade:base:{base.name}",
        )
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    do = f"did you mean {' or '.join(near)}?" if near else ""
    if re.search(r"[=<>~!]", name):
        do = "name it without a version: which ones may be taken, the declaration says"
    return DeclarationError(f"no lock of {image.name} has a package {name}", do=do)


def _say_others(state: State, base: Base, name: str) -> None:
    """Whose locks may have to follow; `lock` finds out."""
    others = [one.name for one in state.project.images.values() if one.base == base.name]
    others = [other for other in others if other != name]
    if others:
        shown = ", ".join(others[:4]) + (f" and {len(others) - 4} more" if len(others) > 4 else "")
        state.console.note(f"  {base.name} is also the base of {shown}: `doit lock` goes on there")
