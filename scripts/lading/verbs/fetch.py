"""fetch: bring what an image's lock names into the store. The lock is never changed."""

from __future__ import annotations

from lading.console import counted, size
from lading.layers.source_image import Compiled
from lading.project import Image
from lading.state import State
from lading.verbs import lock as lock_verb
from lading.verbs import part as part_verb
from lading.verbs import source as source_verb


def current(state: State, image: Image) -> bool:
    """Whether the image exists already, or the store has every artifact of its lock."""
    locked = state.locked(image)
    if locked is None:
        return False
    wanted = state.asked_for("fetch", image) or state.asked_for("dockerfile", image)
    # First what is looked up at once: in the store there may be hundreds of files to look for.
    if not wanted and state.archived(image):
        return True
    if not state.store.lacking(locked.artifacts) and not _of_sources(state, image):
        return True
    return not wanted and state.exists(image)


def _of_sources(state: State, image: Image) -> list[Compiled]:
    """The image's sources that are still to be compiled, and lack something for it."""
    base = state.base_of(image)
    return [
        compiled
        for compiled in state.all_locked(image).sources
        if not part_verb.there(state, compiled.part)
        and source_verb.lacking(state, compiled.source, base)
    ]


def make(state: State, image: Image) -> str:
    """Downloads what the store lacks, checked by size and sha256."""
    locked = state.all_locked(image)
    for compiled in _of_sources(state, image):
        source_verb.fetch(state, compiled.source, state.base_of(image), compiled)
    if not locked.artifacts:
        return "nothing to fetch" if not locked.sources else "what its sources are made from"
    lacking = state.store.lacking(locked.artifacts)
    total = sum(artifact.size or 0 for artifact in lacking)
    with state.console.transfer(f"fetch {image.name}", total) as advance:
        state.store.fetch(lacking, lambda _: lock_verb.located(state, image), advance)
    return f"{counted(len(lacking), 'file')}, {size(total)}"
