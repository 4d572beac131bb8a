"""lock: resolve an image's requirements, on its base, and pin what was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lading import net, store
from lading.console import counted, size
from lading.errors import LadingError
from lading.layers import pip
from lading.project import Image
from lading.requirements import Pin, normalised
from lading.state import State
from lading.store import Source
from lading.verbs import in_base


def current(state: State, image: Image) -> bool:
    """Whether the lock answers today's inputs, and what it names can still be had."""
    return reason(state, image) == ""


def reason(state: State, image: Image) -> str:
    """Why the lock has to be made again; empty if it has not."""
    if image.pip is None:
        return ""
    if state.base_lock(state.base_of(image)) is None:
        return "its base is not locked"
    lock = state.pip_lock(image)
    if lock is None:
        return "there is none yet"
    if lock.header.inputs != state.request(image).digest:
        return "the requirements, the base's Python or the options have changed"
    gone = missing_upstream(state, image)
    if gone:
        return f"no longer to be had: {', '.join(gone)}"
    return ""


def missing_upstream(state: State, image: Image) -> list[str]:
    """Files of the lock that neither the store nor any index has; asked at most once a run.

    An image that exists already needs none of its files; an index that can't be reached says
    nothing about what it has.
    """
    lock = state.pip_lock(image)
    assert lock is not None
    lacking = state.store.lacking(lock.artifacts)
    if not lacking or not _needed(state, image):
        return []

    try:
        found = located(state, image)
        gone = store.available({a.sha256: found.get(a.sha256, []) for a in lacking}, state.environ)
    except LadingError:
        return []
    return sorted(artifact.name for artifact in lacking if artifact.sha256 in gone)


def _needed(state: State, image: Image) -> bool:
    """Whether any file of the lock is needed: asked for by name, or for an image still to make."""
    asked = any(state.asked_for(verb, image) for verb in ("lock", "fetch", "dockerfile"))
    return asked or not state.exists(image)


def located(state: State, image: Image) -> Mapping[str, Sequence[Source]]:
    """Where the files that the store lacks can be had today; the indexes are asked once a run."""

    def ask() -> Mapping[str, Sequence[Source]]:
        lock = state.pip_lock(image)
        assert lock is not None
        wanted = [pin for pin in lock.all_pins if not state.store.has(pin.artifact)]
        return pip.sources(state.request(image), wanted, net.uv_environment(state.environ))

    return state.once(("located", image.name), ask)


def make(state: State, image: Image) -> str:
    """Locks the image; says what moved. Frozen, it is an error that names the lock."""
    if image.pip is None:
        return "nothing to lock"
    base = state.base_of(image)
    folder = state.lock_folder(image)
    if state.frozen:
        raise LadingError(
            f"{folder.relative_to(state.project.root)} is not current",
            why=f"{reason(state, image)}; with CI or frozen=1 set, locks are not changed",
            do=f"run `doit lock:{image.name}` without them, and commit the lock",
        )
    old = pip.readable(folder)
    if old is None and (folder / "requirements.txt").exists():
        state.console.note(f"  {image.name}: its lock can't be read; it is made anew")
    asked = state.request(image)
    new = pip.lock(
        asked,
        old,
        state.store,
        net.uv_environment(state.environ),
        in_base=lambda: in_base.runner(state, image),
    )
    pip.write(folder, new)
    state.locks_changed()
    for line in moved(old.pins if old else (), new.pins):
        state.console.note(f"  {line}")
    for pin in new.pins:
        if not pin.is_wheel and pin.name not in map(normalised, image.pip.no_binary):
            state.console.note(f"  {pin.name} {pin.version} has no wheel here: it will be built")
    total = sum(pin.artifact.size or 0 for pin in new.pins)
    return f"{counted(len(new.pins), 'package')}, {size(total)}, on {base.name}"


def moved(old: Iterable[Pin], new: Iterable[Pin]) -> list[str]:
    """What changed between two sets of pins, a line each; nothing for a first lock."""
    before = {pin.name: pin for pin in old}
    after = {pin.name: pin for pin in new}
    if not before:
        return []
    lines: list[str] = []
    for name in sorted({*before, *after}):
        was, now = before.get(name), after.get(name)
        if was is None and now is not None:
            lines.append(f"+ {name} {now.version}")
        elif now is None and was is not None:
            lines.append(f"- {name} {was.version}")
        elif was is not None and now is not None and was.artifact != now.artifact:
            same = was.version == now.version
            lines.append(
                f"{name} {was.artifact.name} → {now.artifact.name}"
                if same
                else f"{name} {was.version} → {now.version}"
            )
    return lines
