"""What an image is built from, as data: stages in order, the files of the build context, and what
is built by itself before it. Layers contribute to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from lading import dockerfile
from lading.files import digest_of
from lading.steps import Arg, Content, Label, Run, Stage, Step

KEY_LABEL = "lading.key"
AGAIN = "localhost/lading/verify/"
"""What the names of images begin with that were built again to be compared, and are none."""
LENT = "localhost/lading/build:"
"""Likewise, of those that are built elsewhere, until they are here; the key's beginning follows."""


class Plan(Struct, frozen=True, kw_only=True):
    """What an image is built from: the stages, the files of the build context, and the parts
    that some of these files come out of.
    """

    name: str
    title: str
    stages: tuple[Stage, ...]
    files: Mapping[str, Content]
    parts: tuple[Part, ...] = ()

    def text(self, key: str) -> str:
        """The Dockerfile; without a key, the text that the key is computed over."""
        stages = self.stages
        if key:
            *before, last = stages
            label = Label(
                values={KEY_LABEL: key},
                why="What this image is called by: the sha256 of everything it is made from.",
                unless=tuple(
                    step.name for step in last.steps if isinstance(step, Arg) and step.value is None
                ),
            )
            last = Stage(base=last.base, steps=(*last.steps, label), why=last.why)
            stages = (*before, last)
        return dockerfile.render(self.title, stages)


class Share(Struct, frozen=True, kw_only=True):
    """What an image gets of a product: a choice of its files (`parts.PRODUCT`), or all of them, as
    a folder (`parts.FILES`).
    """

    key: str
    name: str
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class Part(Struct, frozen=True, kw_only=True):
    """Something that is built by itself: what for people, its plan, and what is taken from it.

    parts: what must be made before it.
    epoch: seconds since 1970; nothing in the product is younger.
    """

    what: str
    key: str
    plan: Plan
    epoch: int
    shares: tuple[Share, ...] = ()
    parts: tuple[Part, ...] = ()


class Contribution(Struct, frozen=True, kw_only=True):
    """What one layer adds to an image: steps, variables, labels and files of its context.

    tools, tool_files: steps, and the files lent to them, where layers after this one build.
    path: folders to go before $PATH. parts: what is built by itself, before the image.
    """

    tools: tuple[Step, ...] = ()
    tool_files: Mapping[str, Content] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    path: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Content] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()


def make(
    name: str,
    title: str,
    stages: tuple[Stage, ...],
    files: Mapping[str, Content],
    parts: tuple[Part, ...] = (),
) -> Plan:
    """A plan whose steps say what they are lent."""
    told = _told_what_is_lent(stages, files)
    return Plan(name=name, title=title, stages=told, files=files, parts=parts)


def _told_what_is_lent(
    stages: tuple[Stage, ...], files: Mapping[str, Content]
) -> tuple[Stage, ...]:
    """Puts a digest of the files that a step is lent into its text.

    Podman keeps a step's result by the text alone, whatever the mounts hold.
    """

    def told(step: Step) -> Step:
        if not isinstance(step, Run) or not step.mounts:
            return step
        # What a stage gives follows from all that went into it.
        sources = tuple("" if mount.stage else f"{mount.source}/" for mount in step.mounts)
        lent = {at: identity(what) for at, what in files.items() if at.startswith(sources)}
        return replace(step, commands=(f": lent {digest_of(lent)[:16]}", *step.commands))

    return tuple(replace(stage, steps=tuple(map(told, stage.steps))) for stage in stages)


def identity(content: Content) -> str:
    """What tells one content from another; of the project's files only the path."""
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else str(content)
