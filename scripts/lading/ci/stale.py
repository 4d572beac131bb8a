"""What neither the registry nor this machine has, by keys: no engine is asked, nothing is made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from math import ceil

from msgspec import Struct

from lading.ci import layout
from lading.ci.layout import Layout, Pair
from lading.errors import LadingError
from lading.files import digest_of
from lading.parts import PRODUCT
from lading.project import Image
from lading.registry.asking import Answer, Wanted
from lading.state import State
from lading.verbs import base as base_verb
from lading.verbs import check as check_verb
from lading.verbs import lock as lock_verb
from lading.verbs import source as source_verb

MOST_JOBS = 256
"""Jobs that GitHub makes of matrices in a run."""


class Item(Struct, frozen=True, kw_only=True):
    """An image, or a source on a base. `key` is empty while it is not locked; `where` it is,
    "registry" or "here", else empty; `why` it is to be made, empty if it is not.
    """

    name: str
    key: str = ""
    where: str = ""
    why: str = ""

    @property
    def stale(self) -> bool:
        return bool(self.why)


class Found(Struct, frozen=True, kw_only=True):
    """What was found: images, sources by the ids of their pairs, and what could not be asked."""

    registry: str
    images: tuple[Item, ...]
    sources: dict[str, Item]
    notes: tuple[str, ...] = ()

    @property
    def stale(self) -> list[Item]:
        return [item for item in (*self.sources.values(), *self.images) if item.stale]

    @property
    def code(self) -> int:
        """0: nothing is to be made, 1: something is, 2: not all could be asked."""
        return 2 if self.notes else 1 if self.stale else 0


def find(state: State, images: Sequence[Image], *, push: bool = True) -> Found:
    """What is to be made of these images, and of the sources that those of them need. Where it is
    not pushed, nobody asks for the tags of what is there.
    """
    plan = layout.of(state.project)
    keys = {image.name: _key(state, image) for image in images}
    parts = {pair.id: _part(state, pair) for pair in plan.pairs}
    answers, notes = _asked(state, images, keys, parts.values(), push)
    found = tuple(_image(state, image, *keys[image.name], answers, push) for image in images)
    stale = {item.name for item in found if item.stale}
    wanted = {
        pair for group in plan.groups if stale.intersection(group.images) for pair in group.pairs
    }
    sources = {
        pair.id: _source(state, pair, parts[pair.id], answers, needed=pair.id in wanted)
        for pair in plan.pairs
    }
    return Found(registry=state.project.registry, images=found, sources=sources, notes=tuple(notes))


def _key(state: State, image: Image) -> tuple[str, str]:
    """The image's key, and why its locks have to be made again."""
    base = state.base_of(image)
    try:
        if why := base_verb.unanswered(state, base):
            return "", f"locks/bases/{base.name} is not current: {why}"
        for source in state.sources_of(image):
            if why := source_verb.unanswered(state, source, base):
                return "", f"locks/sources/{source.name} is not current: {why}"
        if why := lock_verb.unanswered(state, image):
            return "", f"locks/images/{image.name} is not current: {why}"
        return state.key(image) or "", ""
    except LadingError as error:
        return "", error.what  # its own job says it whole


def _part(state: State, pair: Pair) -> Wanted | None:
    """Where the registry would have what a source leaves; None while it is not locked."""
    project = state.project
    try:
        made = state.compiled_on(project.sources[pair.source], project.bases[pair.base])
    except LadingError:
        return None
    if made is None:
        return None
    where = state.part_repository(made.part) if project.registry else ""
    return Wanted(repository=where, key=made.part.key, product=True)


def _asked(
    state: State,
    images: Iterable[Image],
    keys: dict[str, tuple[str, str]],
    parts: Iterable[Wanted | None],
    push: bool,
) -> tuple[dict[str, Answer], list[str]]:
    """What the registry has, by key; and what it could not be asked, or what is not believed."""
    if not state.project.registry:
        return {}, []
    wanted = {part.key: part for part in parts if part is not None}
    for image in images:
        key, why = keys[image.name]
        if key and not why:
            where, tag = state.pushed_as(image)
            wanted[key] = Wanted(repository=where, key=key, tag=tag if push else "")
    notes: list[str] = []
    return state.ask_registry(wanted, lambda text: notes.append(text.strip())), notes


def _image(
    state: State, image: Image, key: str, why: str, answers: dict[str, Answer], push: bool
) -> Item:
    there = answers.get(key)
    tagged = there is not None and (there.tagged or not push)
    where = ""
    if why:
        pass
    elif there is not None and tagged and there.kept.checks == check_verb.checks(image):
        where = "registry"
    elif state.archived(image):
        where = "here"
    elif there is None:
        why = "not in the registry" if state.project.registry else "there is no registry to ask"
    elif not tagged:
        why = f"its tag {state.pushed_as(image)[1]} is not there, or is another image's"
    else:
        why = "it was checked by other checks than today's"
    return Item(name=image.name, key=key, where=where, why=why)


def _source(
    state: State, pair: Pair, part: Wanted | None, answers: dict[str, Answer], *, needed: bool
) -> Item:
    name = f"{pair.source}@{pair.base}"
    if part is None:
        return Item(name=name)  # said of the images that need it
    if part.key in answers:
        return Item(name=name, key=part.key, where="registry")
    if state.store.has_derived(part.key, PRODUCT):
        return Item(name=name, key=part.key, where="here")
    return Item(name=name, key=part.key, why="not compiled yet" if needed else "")


# -- said -----------------------------------------------------------------------------------


def text(found: Found) -> str:
    """For people: a line each, and what is as it should be in one at the end."""
    lines = [f"{item.name}: {item.why}" for item in found.stale]
    current = sum(not image.stale for image in found.images)
    lines.append(f"{len(found.images) - current} of {len(found.images)} images are to be made")
    return "".join(f"{line}\n" for line in lines)


def as_json(found: Found) -> str:
    """For programs."""
    said = {
        "registry": found.registry or None,
        "images": {item.name: _plain(item) for item in found.images},
        "sources": {item.name: _plain(item) for item in found.sources.values()},
        "notes": list(found.notes),
        "exit": found.code,
    }
    return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


def _plain(item: Item) -> dict[str, str | bool | None]:
    return {
        "stale": item.stale,
        "key": item.key or None,
        "where": item.where or None,
        "why": item.why or None,
    }


def outputs(found: Found, plan: Layout) -> str:
    """For GitHub: the outputs of a job. Of a source its key, empty if it is not to be compiled; of
    a group the entries of its matrix. Where there are more images than GitHub makes jobs, several
    go into an entry.
    """
    stale = {item.name: item.key for item in found.images if item.stale}
    size = max(1, ceil(len(stale) / max(1, MOST_JOBS - len(plan.groups))))
    lines = [f"{id}={item.key if item.stale else ''}" for id, item in found.sources.items()]
    for group in plan.groups:
        names = [name for name in group.images if name in stale]
        cut = [names[start : start + size] for start in range(0, len(names), size)]
        entries = [
            {
                "name": _entry(some),
                "images": " ".join(some),
                "key": digest_of([stale[name] for name in some])[:16],
            }
            for some in cut
        ]
        lines.append(f"{group.id}={json.dumps(entries)}")
    return "".join(f"{line}\n" for line in lines)


def _entry(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
