"""What runs before what: each compiled source on each base, and images by the sources they need.

It follows from project.yaml alone, whatever is locked: so a workflow stays as it is while locks
move, and while images come and go that need no other sources than those before.
"""

from __future__ import annotations

import hashlib
import re

from msgspec import Struct

from lading.layers.source_section import in_order
from lading.project import Project

FIRST = "stale"
"""The job that finds what is to be made."""
LONGEST = 80
"""Characters of a job's name: GitHub takes 100."""


class Pair(Struct, frozen=True, kw_only=True):
    """A source on a base, which is compiled by itself. `id` is what workflows call it; `needs` are
    the ids of those that it stands on.
    """

    id: str
    source: str
    base: str
    needs: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """What doit calls it, behind the verb."""
        return f"source:{self.source}@{self.base}"


class Group(Struct, frozen=True, kw_only=True):
    """Images that need the same sources on the same base; `pairs` are the ids of these."""

    id: str
    images: tuple[str, ...]
    pairs: tuple[str, ...] = ()


class Layout(Struct, frozen=True, kw_only=True):
    """All pairs, each behind what it stands on, and all groups; of images that `doit` makes."""

    pairs: tuple[Pair, ...]
    groups: tuple[Group, ...]


def of(project: Project) -> Layout:
    """The layout of a project."""
    pairs: dict[str, Pair] = {}
    groups: dict[str, list[str]] = {}
    of_groups: dict[str, tuple[str, ...]] = {}
    for image in project.images.values():
        if not image.default:
            continue
        ids = []
        for source in in_order(image.source, project.sources):
            needs = in_order(source.needs, project.sources)
            pair = Pair(
                id=_id("source", (source.name,), image.base),
                source=source.name,
                base=image.base,
                needs=tuple(_id("source", (one.name,), image.base) for one in needs),
            )
            pairs[pair.id] = pair
            ids.append(pair.id)
        names = tuple(pairs[one].source for one in ids)
        group = _id("images-with", names, image.base) if ids else "images"
        groups.setdefault(group, []).append(image.name)
        of_groups[group] = tuple(ids)
    return Layout(
        pairs=tuple(pairs.values()),
        groups=tuple(
            Group(id=name, images=tuple(images), pairs=of_groups[name])
            for name, images in groups.items()
        ),
    )


def _id(kind: str, sources: tuple[str, ...], base: str) -> str:
    """A name that GitHub takes for a job: letters, digits, - and _. Two things never have the same:
    where it does not say all that they are called, what they are called is hashed into it.
    """
    said = f"{kind}-{'-'.join(sources)}-on-{base}"
    plain = re.sub(r"[^a-z0-9_-]", "-", said)
    ambiguous = any("-" in source for source in sources) or "-on-" in base
    if plain == said and len(said) <= LONGEST and not ambiguous:
        return said
    whole = "\n".join((kind, *sources, base))
    return f"{plain[:LONGEST]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
