"""fetch: bring what an image's lock names into the store. The lock is never changed."""

from __future__ import annotations

from lading import compose
from lading.console import counted, size
from lading.layers.source_image import Compiled
from lading.project import Image
from lading.requirements import Pin
from lading.state import State
from lading.verbs import lock as lock_verb
from lading.verbs import part as part_verb
from lading.verbs import source as source_verb


def current(state: State, image: Image) -> bool:
    """Whether the image exists already, or the store has every artifact of its lock; and what
    its checks need.
    """
    if state.locked(image) is None:
        return False
    # First what is looked up at once: in the store there may be hundreds of files to look for.
    if not _wanted(state, image) and state.archived(image):
        return True
    if _stand_in(state, image) is not None:
        return False
    if not state.store.lacking(state.artifacts(image)) and not _of_sources(state, image):
        return True
    return not _wanted(state, image) and state.exists(image)


def _wanted(state: State, image: Image) -> bool:
    """Whether all of it is to be there, be the image made or not."""
    return state.asked_for("fetch", image) or state.asked_for("dockerfile", image)


def _of_sources(state: State, image: Image) -> list[Compiled]:
    """The image's sources that are still to be compiled, and lack something for it."""
    base = state.base_of(image)
    return [
        compiled
        for compiled in state.all_locked(image).sources
        if not part_verb.compiled(state, compiled.part)
        and not part_verb.in_registry(state, compiled.part)
        and source_verb.lacking(state, compiled.source, base)
    ]


def _stand_in(state: State, image: Image) -> Pin | None:
    """What will stand in for a host's MPI when the image is checked, where it is not there yet."""
    asked = f"check:{image.name}" in state.involved or state.asked_for("fetch", image)
    base = state.base_lock(state.base_of(image))
    if not image.mpi or not asked or base is None:
        return None
    from lading.checks.mpi import host

    own = {source.version for source in state.sources_of(image)}
    own |= {
        version
        for name, version in compose.pins(state.all_locked(image)).items()
        if name == image.mpi
    }
    pin = host.expected(image.mpi, state.project.platform, own, base.facts.glibc)
    return None if pin is None or host.there(pin, state.store) else pin


def make(state: State, image: Image) -> str:
    """Downloads what the store lacks, checked by size and sha256: to make the image, if there is
    none, and to check it.
    """
    stand_in = _stand_in(state, image)
    if stand_in is not None:
        from lading.checks.mpi import host

        host.fetched(stand_in, image.mpi, state.project.platform, state.store, state.environ)
    if not _wanted(state, image) and state.exists(image):
        return "what its checks need"
    return everything(state, image)


def everything(state: State, image: Image) -> str:
    """Downloads what the store lacks to make the image, be it made or not."""
    for compiled in _of_sources(state, image):
        source_verb.fetch(state, compiled.source, state.base_of(image), compiled)
    artifacts = state.artifacts(image)
    if not artifacts:
        has_sources = bool(state.all_locked(image).sources)
        return "what its sources are made from" if has_sources else "nothing to fetch"
    lacking = state.store.lacking(artifacts)
    total = sum(artifact.size or 0 for artifact in lacking)
    with state.console.transfer(f"fetch {image.name}", total) as advance:
        state.store.fetch(lacking, lambda _: lock_verb.located(state, image), advance)
    return f"{counted(len(lacking), 'file')}, {size(total)}"
