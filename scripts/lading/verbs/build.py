"""build: make the image in the engine, with no network, unless one with its key is there."""

from __future__ import annotations

from lading import archive, engines
from lading.console import size
from lading.errors import LadingError
from lading.files import disk_errors
from lading.project import Image
from lading.state import State
from lading.verbs import base as base_verb
from lading.verbs import building
from lading.verbs import dockerfile as dockerfile_verb
from lading.verbs import fetch as fetch_verb


def current(state: State, image: Image) -> bool:
    """Whether an image with today's key exists; asked for by name, it is wanted in the engine."""
    if state.asked_for("build", image):
        return state.in_engine(image)
    return state.exists(image)


def make(state: State, image: Image) -> str:
    """Builds the image; one that is archived or pushed already is never built twice, but loaded."""
    if not state.in_engine(image) and load(state, image):
        of = "the registry" if not state.archived(image) else f"dist/{state.archive(image).name}"
        return f"loaded from {of}"
    return build(state, image)


def load(state: State, image: Image) -> bool:
    """Gives the engine the image out of its archive, or the registry's; whether there was one, and
    it took it.
    """
    path = state.archive(image)
    archived = state.archived(image)
    if not archived:
        from lading.verbs import pushed

        path = state.candidate(image)
        if not pushed.download(state, image, path, path.with_suffix(".json")):
            return False
    state.claim_image(state.key(image) or "", state.name(image))
    try:
        state.engine.load(path)
    except LadingError:
        if not (archived and _thrown_away(state, image)):
            raise
        return False
    state.forget("images")
    return state.in_engine(image)


def _thrown_away(state: State, image: Image) -> bool:
    """Whether an archive that the engine refused is no longer what was made; then it goes."""
    path = state.archive(image)
    try:
        archive.read(path)
    except LadingError as damaged:
        with disk_errors(path):
            state.record(image).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        state.forget("archived")
        state.console.note(
            f"dist/{path.name} was damaged on this machine's disk, and thrown away"
            f" ({damaged.why or damaged.what})"
        )
        return True
    return False


def build(state: State, image: Image) -> str:
    """Builds the image from its context; the whole output goes to build/NAME/build.log."""
    name, key = state.tag(image), state.key(image)
    assert key is not None
    base_verb.ensure(state, state.base_of(image))
    fetch_needed(state, image)
    try:
        info = building.build(
            state,
            state.context(image),
            name,
            key=key,
            log=state.build_folder(image) / "build.log",
            what=image.name,
            builders=state.builders_of(image),
        )
    except engines.BuildFailed as failed:
        building.refuse_damaged(state, state.artifacts(image), failed, state.context(image))
        raise
    return size(info.size)


def fetch_needed(state: State, image: Image) -> None:
    """The artifacts and the context are there, also where the tasks before had no reason."""
    if state.store.lacking(state.artifacts(image)):
        fetch_verb.everything(state, image)
    dockerfile_verb.ensure(state, image)


def ensure(state: State, image: Image) -> str:
    """The image, here in the engine, under its name: found, loaded from the archive, or built.

    Returns its ID.
    """
    key = state.key(image)
    state.all_locked(image)
    assert key is not None
    if not state.in_engine(image):
        if load(state, image):
            state.claim_image(key, state.tag(image))
        else:
            build(state, image)
    # One that was found may be another user's: `doit prune` is not to take it from there.
    identity = state.images_by_key()[key]
    state.engine.tag(identity, state.tag(image))
    return identity


def clean(state: State, image: Image) -> None:
    """Takes the image, as it is keyed today, out of the engine."""
    if state.in_engine(image):
        state.engine.remove(state.tag(image))
        state.forget("images")
