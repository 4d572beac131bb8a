"""lock: resolve an image's layers, on its base, and pin what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Literal

from lading import moved, store
from lading.errors import LadingError
from lading.layers.kind import AnyKind, Lock
from lading.project import Image
from lading.state import State
from lading.store import Source
from lading.verbs import in_base


def current(state: State, image: Image) -> bool:
    """Whether the locks answer today's inputs, and what they name can still be had."""
    return reason(state, image) == ""


def reason(state: State, image: Image) -> str:
    """Why a lock has to be made again; empty if none has."""
    return _first(state, image, _reason)


def unanswered(state: State, image: Image) -> str:
    """Why a lock does not answer today's inputs; empty if all do. No server is asked."""
    return _first(state, image, _unanswered)


def _first(state: State, image: Image, asked: Callable[[State, Image, AnyKind], str]) -> str:
    wanted = state.kinds(image)
    if wanted and state.base_lock(state.base_of(image)) is None:
        return "its base is not locked"
    for kind in wanted:
        if why := asked(state, image, kind):
            return why
    return ""


def _reason(state: State, image: Image, kind: AnyKind) -> str:
    if why := _unanswered(state, image, kind):
        return why
    gone = missing_upstream(state, image, kind)
    return f"no longer to be had: {', '.join(gone)}" if gone else ""


def _unanswered(state: State, image: Image, kind: AnyKind) -> str:
    try:
        lock = state.layer_lock(image, kind)
    except LadingError as error:
        why = f" ({error.why})" if error.why else ""
        return f"it is not as lading wrote it: {_at_home(state, error.what)}{why}"
    if lock is None:
        return "there is none yet"
    if lock.header.inputs != state.request(image, kind).digest:
        return kind.changed
    return ""


def _at_home(state: State, text: str) -> str:
    """A message with its paths as they are in the project."""
    return text.replace(f"{state.project.root}/", "")


def missing_upstream(state: State, image: Image, kind: AnyKind) -> list[str]:
    """Files of the lock that neither the store nor any server has; asked at most once a run.

    An image that exists already needs none of its files; a server that can't be reached says
    nothing about what it has.
    """
    lock = state.layer_lock(image, kind)
    assert lock is not None
    wanted = _asked_for(state, image)
    # First what is looked up at once: in the store there may be hundreds of files to look for.
    if not wanted and state.archived(image):
        return []
    lacking = state.store.lacking(lock.artifacts)
    if not lacking or not (wanted or not state.exists(image)):
        return []
    try:
        found = _located(state, image, kind)
        gone = store.available({a.sha256: found.get(a.sha256, []) for a in lacking}, state.environ)
    except LadingError:
        return []
    return sorted(artifact.name for artifact in lacking if artifact.sha256 in gone)


def _asked_for(state: State, image: Image) -> bool:
    """Whether the files of the lock are wanted, be the image there or not."""
    return any(state.asked_for(verb, image) for verb in ("lock", "fetch", "dockerfile"))


def located(state: State, image: Image) -> Mapping[str, Sequence[Source]]:
    """Where the files that the store lacks can be had today; servers are asked once a run."""
    found: dict[str, Sequence[Source]] = {}
    for kind in state.kinds(image):
        found |= _located(state, image, kind)
    return found


def _located(state: State, image: Image, kind: AnyKind) -> Mapping[str, Sequence[Source]]:
    def ask() -> Mapping[str, Sequence[Source]]:
        lock = state.layer_lock(image, kind)
        assert lock is not None
        lacking = state.store.lacking(lock.artifacts)
        if not lacking:
            return {}
        tools = in_base.tools(state, state.base_of(image))
        return kind.sources(state.request(image, kind), lock, lacking, tools)

    return state.once(("located", image.name, kind.name), ask)


def make(state: State, image: Image) -> str:
    """Locks the layers that are not current; says what moved. Frozen, it is an error that names
    the lock.
    """
    wanted = state.kinds(image)
    if not wanted:
        return "nothing to lock"
    base = state.base_of(image)
    folder = state.lock_folder(image)
    if state.frozen:
        raise LadingError(
            f"{folder.relative_to(state.project.root)} is not current",
            why=f"{reason(state, image)}; with CI or frozen=1 set, locks are not changed"
            + "".join(f"\n{line}" for line in _deleted(state, image)),
            do=f"run `doit lock:{image.name}{state.at}` without them, and commit the lock",
        )
    said: list[str] = []
    for kind in wanted:
        lock = _current_lock(state, image, kind)
        if lock is None:
            lock = _lock(state, image, kind)
        said.append(kind.summary(state.request(image, kind), lock))
    return f"{', '.join(said)}, on {base.name}"


def _deleted(state: State, image: Image) -> Iterator[str]:
    """Of locks that name what is no longer to be had, which packages that are."""
    for kind in state.kinds(image):
        with suppress(LadingError):  # one that is damaged has been named
            lock = state.layer_lock(image, kind)
            if lock is None or not missing_upstream(state, image, kind):
                continue
            yield from _taken_back(state, image, kind, lock, "deleted")


def _taken_back(
    state: State, image: Image, kind: AnyKind, lock: Lock, how: Literal["yanked", "deleted"]
) -> Iterator[str]:
    """Pins that were yanked or deleted, a line each; nothing where that can't be asked."""
    tools = in_base.tools(state, state.base_of(image))
    with suppress(LadingError):
        for one in kind.withdrawn(state.request(image, kind), lock, tools):
            if one.how == how:
                yield one.said(lock.header.date)


def _current_lock(state: State, image: Image, kind: AnyKind) -> Lock | None:
    try:
        return state.layer_lock(image, kind) if not _reason(state, image, kind) else None
    except LadingError:
        return None  # a damaged lock is made anew; what is wrong with the inputs is said then


def _lock(state: State, image: Image, kind: AnyKind) -> Lock:
    folder = state.lock_folder(image)
    old: Lock | None
    try:
        old = state.layer_lock(image, kind)
        adopted = False
    except LadingError as error:
        old, adopted = kind.adopted(folder), True
        if old is None:
            state.console.note(f"  {image.name}: its lock can't be read; it is made anew")
        else:
            where = _at_home(state, error.what)
            state.console.note(f"  {where}; its versions are taken as pins")
    asked = state.request(image, kind)
    if old is not None and not adopted and old.header.inputs == asked.digest:
        for line in _taken_back(state, image, kind, old, "deleted"):
            state.console.note(f"  {line}")
    new: Lock = kind.lock(asked, old, in_base.tools(state, state.base_of(image)))
    for line in _taken_back(state, image, kind, new, "yanked"):
        state.console.note(f"  {line}: `doit upgrade:{image.name}` takes another, if one fits")
    kind.write(folder, new)
    state.locks_changed()
    if old is not None:
        before = kind.completed(old, new) if adopted else old
        moved.say(state.console, moved.compare(kind.pinned(before), kind.pinned(new)))
    return new
