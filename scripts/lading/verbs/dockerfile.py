"""dockerfile: write the Dockerfile and the whole build context."""

from __future__ import annotations

import shutil

from lading import context
from lading.layers.kind import Tools
from lading.project import Image
from lading.state import State
from lading.verbs import base as base_verb
from lading.verbs import in_base
from lading.verbs import part as part_verb
from lading.verbs import source as source_verb


def current(state: State, image: Image) -> bool:
    """Whether the image exists already, or its context is the one that would be made."""
    key = state.key(image)
    if key is None:
        return False
    if not state.asked_for("dockerfile", image) and state.exists(image):
        return True
    return _whole(state, image, key)


def _whole(state: State, image: Image, key: str) -> bool:
    return context.is_whole(
        state.plan(image), key, state.project.root, state.store, state.context(image)
    )


def make(state: State, image: Image) -> str:
    """Writes build/NAME/context."""
    ensure(state, image, again=True)
    return f"build/{image.name}{state.at}/context"


def ensure(state: State, image: Image, *, again: bool = False) -> None:
    """The context is there; made if it is not."""
    key = state.key(image)
    plan = state.plan(image)
    assert key is not None
    prepare(state, image)
    for source in state.sources_of(image):
        source_verb.ensure(state, source, state.base_of(image))
    for part in plan.parts:
        if not part_verb.there(state, part):
            base_verb.ensure(state, state.base_of(image))
            part_verb.ensure(state, part)
    if again or not _whole(state, image, key):
        context.make(plan, key, state.project.root, state.store, state.context(image))


def prepare(state: State, image: Image, tools: Tools | None = None) -> None:
    """What lading itself makes of the layers' artifacts is there; made if it is not."""
    tools = tools or in_base.tools(state, state.base_of(image))
    for layer in state.all_locked(image).layers:
        if not layer.kind.prepared(layer.request, layer.lock, tools):
            layer.kind.prepare(layer.request, layer.lock, tools)


def clean(state: State, image: Image) -> None:
    """Removes build/NAME."""
    shutil.rmtree(state.build_folder(image), ignore_errors=True)
