"""upgrade: move the pins of an image's locks, as far as today's declarations allow."""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
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
    _refuse_frozen(state, f"{image.name}{state.at}")
    with _alone(state) as done:
        lacking = _lacking(state, image)
        if lacking and len(lacking) == len(state.only):
            if _unlocked(state, image):
                return f"is not locked yet: doit lock:{image.name}{state.at}"
            return f"has no {' or '.join(lacking)}"
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
    return f"{told}; it has no {' or '.join(lacking)}" if lacking else told


def make_base(state: State, base: Base) -> str:
    """Moves a base, as a whole."""
    _refuse_frozen(state, f"base:{base.name}{state.at}")
    if state.only:
        if f"upgrade:base:{base.name}" not in state.named:
            return "stays as it is"
        raise DeclarationError(
            f"{base.name} is a base, which moves as a whole, not {', '.join(sorted(state.only))}",
            do=f"doit upgrade:base:{base.name}{state.at}",
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
    turn = state.everywhere[0].once(("upgrading",), threading.Lock)
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


def refuse_unknown(state: State) -> None:
    """Raises `DeclarationError` where a package is named that nothing has which is to be upgraded,
    or `LadingError` where that is not locked yet; before anything is.
    """
    asked = [
        (one, image)
        for one in state.everywhere
        for image in one.project.images.values()
        if one.asked_for("upgrade", image)
    ]
    if not asked:
        return
    known: set[str] = set()
    for one, image in asked:
        try:
            known |= set(_packages(one, image))
        except LadingError:
            return  # what is in it, nobody knows; that it can't be read, its own task says
    unknown = [name for name in sorted(state.only) if not any(map(renewing.named([name]), known))]
    if not unknown:
        return
    for one, image in asked:
        if _unlocked(one, image):
            raise LadingError(
                f"{image.name}{one.at} is not locked yet", do=f"doit lock:{image.name}{one.at}"
            )
    raise _unknown(asked, unknown[0], sorted(known))


def _lacking(state: State, image: Image) -> list[str]:
    """Those of the named packages that the image's own locks do not have."""
    if not state.only:
        return []
    known = set(_packages(state, image))
    return [name for name in sorted(state.only) if not any(map(renewing.named([name]), known))]


def _packages(state: State, image: Image) -> Iterator[str]:
    """The names of all that the image's own locks pin."""
    for source in state.sources_of(image):
        tools = state.tools_lock(source, state.base_of(image))
        if tools is not None:
            yield from (one.name for one in apt_kind.pinned(tools))
    for kind in state.kinds(image):
        lock, _ = state.lock_or_pins(image, kind)
        if lock is not None:
            yield from (one.name for one in kind.pinned(lock))


def _unlocked(state: State, image: Image) -> bool:
    return any(state.lock_or_pins(image, kind)[0] is None for kind in state.kinds(image))


def _unknown(
    asked: Sequence[tuple[State, Image]], name: str, known: Sequence[str]
) -> DeclarationError:
    for state, image in asked:
        base = state.base_of(image)
        lock = state.base_lock(base)
        below = bases.contents(base, lock) if lock is not None else ()
        if any(renewing.named([name])(one.name) for one in below):
            return DeclarationError(
                f"{name} is part of the base {base.name}, which moves as a whole",
                do=f"doit upgrade:base:{base.name}{state.at}",
            )
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    do = f"did you mean {' or '.join(near)}?" if near else ""
    if re.search(r"[=<>~!]", name):
        do = "name it without a version: which ones may be taken, the declaration says"
    state, image = asked[0]
    whose = f"{image.name}{state.at}" if len(asked) == 1 else f"these {len(asked)} images"
    return DeclarationError(f"no lock of {whose} has a package {name}", do=do)


def _say_others(state: State, base: Base, name: str) -> None:
    """Whose locks may have to follow; `lock` finds out."""
    others = [one.name for one in state.project.images.values() if one.base == base.name]
    others = [other for other in others if other != name]
    if others:
        shown = ", ".join(others[:4]) + (f" and {len(others) - 4} more" if len(others) > 4 else "")
        name = f"{base.name}{state.at}"
        state.console.note(f"  {name} is also the base of {shown}: `doit lock` goes on there")
