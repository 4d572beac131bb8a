"""fetch: bring what an image's lock names into the store. The lock is never changed."""

from __future__ import annotations

from lading.console import counted, size
from lading.project import Image
from lading.state import State
from lading.verbs import lock as lock_verb


def current(state: State, image: Image) -> bool:
    """Whether the image exists already, or the store has every artifact of its lock."""
    locked = state.locked(image)
    if locked is None:
        return False
    if not state.store.lacking(locked.artifacts):
        return True
    asked = state.asked_for("fetch", image) or state.asked_for("dockerfile", image)
    return not asked and state.exists(image)


def make(state: State, image: Image) -> str:
    """Downloads what the store lacks, checked by size and sha256."""
    locked = state.all_locked(image)
    if not locked.artifacts:
        return "nothing to fetch"
    lacking = state.store.lacking(locked.artifacts)
    total = sum(artifact.size or 0 for artifact in lacking)
    with state.console.transfer(f"fetch {image.name}", total) as advance:
        state.store.fetch(lacking, lambda _: lock_verb.located(state, image), advance)
    return f"{counted(len(lacking), 'file')}, {size(total)}"
