"""outdated: what an upgrade would change, with nothing written in the project."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from msgspec import Struct

from lading.errors import LadingError
from lading.layers.kind import AnyKind
from lading.layers.source_section import SourceBuild
from lading.moved import Change
from lading.project import Base, Image
from lading.state import State
from lading.verbs import in_base, renewing

Ask = Callable[[str], "Outlook"]

AT_ONCE = 4
"""Bases, sources or images that are asked for at once: mostly it is a server that is waited for."""


class Problem(Struct, frozen=True, kw_only=True):
    """What could not be asked: of which part of an image, and why."""

    what: str
    text: str


class Outlook(Struct, frozen=True, kw_only=True):
    """What is known of a base, of a source on its base, or of an image without these two.

    notes: pins that were taken back, and locks that are missing.
    """

    name: str
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def code(self) -> int:
        """2: not all is known; 1: something would change; 0: nothing."""
        return 2 if self.problems else 1 if self.changes or self.notes else 0

    def __add__(self, other: Outlook) -> Outlook:
        return Outlook(
            name=self.name,
            changes=self.changes + other.changes,
            notes=tuple(dict.fromkeys(self.notes + other.notes)),
            problems=self.problems + other.problems,
        )


class Report(Struct, frozen=True, kw_only=True):
    """All that was asked for. of: the bases and sources that each image stands on, by name."""

    shared: dict[str, Outlook]
    images: dict[str, Outlook]
    of: dict[str, tuple[str, ...]]

    @property
    def code(self) -> int:
        """The exit code: that of the worst."""
        every = [*self.shared.values(), *self.images.values()]
        return max((one.code for one in every), default=0)

    def parts(self, image: str) -> list[Outlook]:
        """What the image stands on, and itself."""
        return [*(self.shared[name] for name in self.of[image]), self.images[image]]


def asked(images: Sequence[tuple[State, Image]]) -> Report:
    """What an upgrade of these images would change, each with the run for its platform. What can't
    be asked hides nothing else.
    """
    from concurrent.futures import ThreadPoolExecutor

    bases: dict[str, Ask] = {}
    sources: dict[str, Ask] = {}
    of: dict[str, tuple[str, ...]] = {}
    for state, image in images:
        base = state.base_of(image)
        own = [f"base:{base.name}{state.at}"]
        bases[own[0]] = partial(_base, state, base)
        for source in state.sources_of(image):
            own.append(f"source:{source.name}@{base.name}{state.at}")
            sources[own[-1]] = partial(_source, state, source, base)
        of[f"{image.name}{state.at}"] = tuple(own)
    # One behind the other: what stands on a base is asked upon the new one.
    shared: dict[str, Outlook] = {}
    with ThreadPoolExecutor(AT_ONCE) as several:
        for some in (bases, sources):
            shared |= dict(zip(some, several.map(_asks, some.items()), strict=True))
        found = list(several.map(_image, images))
    return Report(shared=shared, images={one.name: one for one in found}, of=of)


def _asks(one: tuple[str, Ask]) -> Outlook:
    name, ask = one
    return ask(name)


def _base(state: State, base: Base, name: str) -> Outlook:
    def ask() -> Outlook:
        if state.base_lock(base) is None:
            return Outlook(name=name, notes=(f"not locked yet: doit lock:{name}",))
        changes = renewing.base_outlook(state, base)
        moved = f"{base.image} is another image now; what stands on it is asked upon the locked one"
        notes = (moved,) if changes and base.image is not None else ()
        return Outlook(name=name, changes=changes, notes=notes)

    return _known(name, "base", ask)


def _source(state: State, source: SourceBuild, base: Base, name: str) -> Outlook:
    def ask() -> Outlook:
        if state.source_lock(source) is None:
            command = f"doit lock:source:{source.name}{state.at}"
            return Outlook(name=name, notes=(f"not locked yet: {command}",))
        return Outlook(name=name, changes=renewing.source(state, source, base).changes)

    return _known(name, "source", ask)


def _image(one: tuple[State, Image]) -> Outlook:
    state, image = one
    name = f"{image.name}{state.at}"

    def ask() -> Outlook:
        found = Outlook(name=name)
        for kind in state.kinds(image):
            found += _known(name, kind.name, partial(_layer, state, image, kind, name))
        return found

    return _known(name, "base", ask)


def _layer(state: State, image: Image, kind: AnyKind, name: str) -> Outlook:
    lock, adopted = state.lock_or_pins(image, kind)
    if lock is None:
        return Outlook(name=name, notes=(f"not locked yet: doit lock:{name}",))
    changes = renewing.layer_outlook(state, image, kind)
    if adopted:
        # Since when its versions are locked, it does not say.
        note = f"its lock is not as lading wrote it: doit lock:{name} takes its versions as pins"
        return Outlook(name=name, changes=changes, notes=(note,))
    tools = in_base.tools(state, state.base_of(image))
    taken_back = kind.withdrawn(state.request(image, kind), lock, tools)
    notes = tuple(one.said(lock.header.date) for one in taken_back)
    return Outlook(name=name, changes=changes, notes=notes)


def _known(name: str, what: str, ask: Callable[[], Outlook]) -> Outlook:
    try:
        return ask()
    except LadingError as error:
        return Outlook(name=name, problems=(Problem(what=what, text=str(error)),))
