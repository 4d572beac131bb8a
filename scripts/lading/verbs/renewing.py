"""What locks would be if they were made today: worked out upon each other, with nothing written.

A lock that is found to be another one is taken for the one that lies there (`State.assume`), so
that what stands on it is asked upon the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from lading.layers import apt_kind
from lading.layers import base as bases
from lading.layers import source as sources
from lading.layers.kind import AnyKind, Lock, Moves
from lading.layers.source_section import SourceBuild
from lading.moved import Change, Pinned, compare
from lading.project import Base, Image
from lading.requirements import normalised
from lading.state import State
from lading.verbs import base as base_verb
from lading.verbs import in_base
from lading.verbs import source as source_verb


class Renewed(Struct, frozen=True, kw_only=True):
    """Locks made again: what moves in them, their files (path below the project, text), and the
    files that are no longer any.
    """

    changes: tuple[Change, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    first: bool = False
    """There was no lock before: nothing moves."""

    def __add__(self, other: Renewed) -> Renewed:
        return Renewed(
            changes=self.changes + other.changes,
            files={**self.files, **other.files},
            gone=self.gone + other.gone,
            first=self.first or other.first,
        )


def named(names: Iterable[str]) -> Moves:
    """Whether a package is one of these; Python's have several spellings."""
    wanted = {form for name in names for form in (name, normalised(name))}
    return lambda name: name in wanted or normalised(name) in wanted


def moves(state: State) -> Moves:
    """Whether a package is to move: all are, if none was named."""
    return named(state.only) if state.only else lambda _: True


def base(state: State, one: Base) -> Renewed:
    """The base as of today."""
    root, platform = state.project.root, state.project.platform
    path = bases.path(root, one.name, platform)
    old = state.base_lock(one)
    text, _ = base_verb.resolved(state, one, old)
    new = bases.parse(text, str(path))
    state.assume(("base", one.name), new)
    before = bases.contents(one, old) if old is not None else ()
    return Renewed(
        changes=_changes(before, bases.contents(one, new), first=old is None),
        files={str(path.relative_to(root)): text},
        first=old is None,
    )


def source(state: State, one: SourceBuild, on: Base) -> Renewed:
    """A source: its tarball, where its declaration is another one than when it was locked, and
    what it is built with on this base.
    """
    return _tarball(state, one) + _tools(state, one, on)


def _tarball(state: State, one: SourceBuild) -> Renewed:
    """A version keeps its tarball: one of another content is not taken silently."""
    old = state.source_lock(one)
    if old is not None and old.header.inputs == sources.inputs(one):
        return Renewed()
    path = state.source_folder(one) / sources.FILE
    artifact = source_verb.tarball(state, one, old)
    text = sources.text_of(one, artifact, old)
    new = sources.parse(text, path)
    state.assume(("source", one.name), new)
    before = sources.pinned(one, old) if old is not None else ()
    return Renewed(
        changes=_changes(before, sources.pinned(one, new), first=old is None),
        files={str(path.relative_to(state.project.root)): text},
        first=old is None,
    )


def _tools(state: State, one: SourceBuild, on: Base) -> Renewed:
    asked = state.tools_request(one, on)
    if asked is None:
        return Renewed()
    old = state.tools_lock(one, on)
    part = source_verb.tools_part(one, on)
    before = apt_kind.pinned(old, part) if old is not None else ()
    if old is not None and not _touched(state, before, old.header.inputs != asked.digest):
        return Renewed()
    kept = apt_kind.loosened(old, moves(state)) if old is not None else None
    new = source_verb.tools_resolved(state, one, on, kept)
    state.assume(("source-tools", one.name, on.name), new)
    path = state.tools_file(one, on)
    return Renewed(
        changes=_changes(before, apt_kind.pinned(new, part), first=old is None),
        files={str(path.relative_to(state.project.root)): new.text},
        first=old is None,
    )


def layer(state: State, image: Image, kind: AnyKind) -> Renewed:
    """One layer of an image, upon those before it as they are known by now. What something else
    has written into its lock counts as the old one.
    """
    old, adopted = state.lock_or_pins(image, kind)
    request = state.request(image, kind)
    before: Sequence[Pinned] = kind.pinned(old) if old is not None else ()
    if old is not None and not _touched(state, before, old.header.inputs != request.digest):
        return Renewed()
    kept = kind.loosened(old, moves(state)) if old is not None else None
    new: Lock = kind.lock(request, kept, in_base.tools(state, state.base_of(image)))
    state.assume(("layer", image.name, kind.name), new)
    folder = f"{state.lock_folder(image).relative_to(state.project.root)}/{kind.below}"
    gone = kind.left(state.lock_folder(image), new)
    if adopted:
        before = kind.pinned(kind.completed(old, new))
    return Renewed(
        changes=_changes(before, kind.pinned(new), first=old is None),
        files={f"{folder}{name}": text for name, text in new.texts.items()},
        gone=tuple(f"{folder}{name}" for name in sorted(gone)),
        first=old is None,
    )


# -- only looked at -------------------------------------------------------------------------


def base_outlook(state: State, one: Base) -> tuple[Change, ...]:
    """What moves in a base. One from a registry is not pulled for it: that its digest is another
    one is all that is known, and what stands on it is asked upon the one that is locked.
    """
    if one.image is None:
        return base(state, one).changes
    from lading import registry

    old = state.base_lock(one)
    digest = registry.resolve(one.image, state.project.platform, environ=state.environ).digest
    if old is None or digest == old.digest:
        return ()
    new = replace(old, digest=digest)
    return compare(bases.contents(one, old), bases.contents(one, new))


def layer_outlook(state: State, image: Image, kind: AnyKind) -> tuple[Change, ...]:
    """What moves in one layer, upon those before it as they are locked."""
    old, adopted = state.lock_or_pins(image, kind)
    if old is None:
        return ()
    tools = replace(in_base.tools(state, state.base_of(image)), note=lambda _: None)
    request, kept = state.request(image, kind), kind.loosened(old, moves(state))
    if adopted:
        new: Lock = kind.lock(request, kept, tools)
        return compare(kind.pinned(kind.completed(old, new)), kind.pinned(new))
    return compare(kind.pinned(old), kind.outlook(request, kept, tools))


def _touched(state: State, pinned: Sequence[Pinned], stale: bool) -> bool:
    """Whether a lock is to be made again: it has what is to move, or something forces it."""
    return stale or not state.only or any(moves(state)(one.name) for one in pinned)


def _changes(
    before: Sequence[Pinned], after: Sequence[Pinned], *, first: bool
) -> tuple[Change, ...]:
    return () if first else compare(before, after)
