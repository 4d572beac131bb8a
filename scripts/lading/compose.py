"""Puts an image together: from its declaration and its locks to stages and files.

Nothing here asks a network or an engine: what comes out follows from committed files alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from lading import dockerfile
from lading.files import digest_of
from lading.layers import base as bases
from lading.layers import kinds
from lading.layers.base import BaseLock
from lading.layers.kind import AnyKind, Lock, Request
from lading.locks import Header
from lading.project import Image, Project
from lading.steps import Arg, Cmd, Content, Contribution, Copy, Env, Label, Run, Stage, Step
from lading.store import Artifact

SHARE = "/usr/share/lading"
KEY_LABEL = "lading.key"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of an image: what it is made from, and its lock as read."""

    kind: AnyKind
    request: Request
    lock: Lock


@dataclass(frozen=True, kw_only=True)
class Locked:
    """An image's locks as read; its layers in the order they are locked."""

    base: BaseLock
    layers: tuple[Layer, ...] = ()

    @property
    def texts(self) -> Mapping[str, str]:
        """Every lock's file name and text."""
        texts = {"base.yaml": self.base.text}
        for layer in self.layers:
            texts |= layer.lock.texts
        return texts

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """All that the layers' locks name; the base is made by itself."""
        return tuple(artifact for layer in self.layers for artifact in layer.lock.artifacts)

    @property
    def header(self) -> Header:
        """The header with the latest date: nothing in the image is younger."""
        headers = [self.base.header, *(layer.lock.header for layer in self.layers)]
        return max(headers, key=lambda header: header.date)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an image is built from: the stages, and the files of the build context."""

    name: str
    title: str
    stages: tuple[Stage, ...]
    files: Mapping[str, Content]

    def text(self, key: str) -> str:
        """The Dockerfile; without a key, the text that the key is computed over."""
        stages = self.stages
        if key:
            label = Label(
                values={KEY_LABEL: key},
                why="What this image is called by: the sha256 of everything it is made from.",
            )
            *before, last = stages
            last = Stage(base=last.base, steps=(*last.steps, label), why=last.why)
            stages = (*before, last)
        return dockerfile.render(self.title, stages)


def version(image: Image, locked: Locked) -> str:
    """The image's version: declared, else the day of its locks."""
    return image.version or f"{locked.header.date:%Y.%m.%d}"


def name(project: Project, image: Image, locked: Locked) -> str:
    """What the image is called: [REGISTRY/]NAME:VERSION."""
    registry = f"{project.registry.rstrip('/')}/" if project.registry else ""
    return f"{registry}{image.name}:{version(image, locked)}"


def plan(project: Project, image: Image, locked: Locked) -> Plan:
    """The stages and files of an image."""
    base = project.bases[image.base]
    reference = bases.reference(base, locked.base)
    added = _contributions(locked, reference)
    epoch = Arg(
        name="SOURCE_DATE_EPOCH",
        value=str(locked.header.epoch),
        why=f"The times that steps write: the locks' date, {locked.header.date}, never the clock.",
    )
    files: dict[str, Content] = dict(added.files)
    steps: list[Step] = [epoch, _environment(image, added)]
    steps += _users(image, "before-layers")
    steps += added.steps
    steps += _own_files(image, files)
    steps += _users(image, "after-layers")
    steps += _share(image, locked, files)
    steps.append(_labels(project, image, locked, added))
    steps.append(Cmd(arguments=image.cmd or ("/bin/bash",), why="Without a command: a shell."))
    final = Stage(
        base=reference,
        steps=tuple(steps),
        why=f"The base {base.name}, as locked.",
    )
    before = tuple(
        Stage(name=stage.name, base=stage.base, why=stage.why, steps=(epoch, *stage.steps))
        for stage in added.stages
    )
    before, (final,) = _told_what_is_lent(before, files), _told_what_is_lent((final,), files)
    return Plan(
        name=image.name,
        title=(
            f"{image.name}: written by lading from project.yaml and locks/; "
            f"`doit dockerfile:{image.name}` writes it again.\n"
            "Everything it needs lies beside it. By hand (BuildKit; or podman build):\n"
            f"  docker build --network none -t {name(project, image, locked)}"
            f" build/{image.name}/context"
        ),
        stages=(*before, final),
        files=files,
    )


BUILDER = "tools"
"""The stage with what the layers bring to build with."""


def _contributions(locked: Locked, reference: str) -> Contribution:
    """What all layers add, as one. What they bring to build with makes a stage of its own."""
    layers = {layer.kind.name: layer for layer in locked.layers}
    found: list[Contribution] = []
    tools: list[Step] = []
    for kind in kinds.ADDED:
        layer = layers.get(kind.name)
        if layer is not None:
            start = BUILDER if tools else reference
            found.append(kind.contribute(layer.request, layer.lock, start))
            tools += found[-1].tools
    stages = tuple(stage for one in found for stage in one.stages)
    if any(stage.base == BUILDER for stage in stages):
        why = "What is needed to build, and stays behind."
        stages = (Stage(name=BUILDER, base=reference, steps=tuple(tools), why=why), *stages)
    return Contribution(
        stages=stages,
        steps=tuple(step for one in found for step in one.steps),
        path=tuple(folder for one in reversed(found) for folder in one.path),
        env={name: value for one in found for name, value in one.env.items()},
        labels={name: value for one in found for name, value in one.labels.items()},
        files={at: what for one in found for at, what in one.files.items()},
    )


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
        lent = {at: _identity(what) for at, what in files.items() if at.startswith(sources)}
        return replace(step, commands=(f": lent {digest_of(lent)[:16]}", *step.commands))

    return tuple(replace(stage, steps=tuple(map(told, stage.steps))) for stage in stages)


def _identity(content: Content) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else str(content)


def _environment(image: Image, added: Contribution) -> Env:
    values = {
        "LANG": "C.UTF-8",
        "PYTHONNOUSERSITE": "1",
        "PYTHONPATH": "",
        **added.env,
        **({"PATH": ":".join([*added.path, "$PATH"])} if added.path else {}),
        **image.env,
    }
    return Env(
        values=values,
        why="Under Apptainer the host's ~/.local and PYTHONPATH would shadow what is installed "
        "here: PYTHONNOUSERSITE and an empty PYTHONPATH keep them out.",
    )


def _users(image: Image, point: str) -> list[Step]:
    return [
        Run(commands=(command,), why="From `run:` in project.yaml.")
        for command in image.run.get(point, ())
    ]


def _own_files(image: Image, files: dict[str, Content]) -> list[Step]:
    steps: list[Step] = []
    for number, (target, source) in enumerate(sorted(image.files.items())):
        # A folder of its own each: two files of one name do not meet.
        at = f"files/{number}/{PurePosixPath(source).name}"
        files[at] = PurePosixPath(source)
        steps.append(Copy(source=at, target=target, why=f"{source}, from `files:`."))
    return steps


def _share(image: Image, locked: Locked, files: dict[str, Content]) -> list[Step]:
    for path, text in locked.texts.items():
        files[f"share/locks/{path}"] = text.encode()
    why = "What it was made from, for whoever has only the image."
    return [Copy(source="share", target=f"{SHARE}/", why=why)]


def _labels(project: Project, image: Image, locked: Locked, added: Contribution) -> Label:
    """From declarations and locks alone: a clock or a git revision would change the key."""
    base = project.bases[image.base]
    # Of the lesson's labels, an empty one says nothing and is left out.
    values = {
        "maintainer": project.maintainer,
        "description": image.description,
        "org.opencontainers.image.title": image.name,
        "org.opencontainers.image.description": image.description,
        "org.opencontainers.image.version": version(image, locked),
        "org.opencontainers.image.created": f"{locked.header.date}T00:00:00Z",
        "org.opencontainers.image.base.name": base.image or f"debian:{locked.base.suite}",
        "org.opencontainers.image.base.digest": locked.base.digest,
        **added.labels,
    }
    declared = {**project.labels, **image.labels}
    return Label(
        values={k: v for k, v in {**values, **declared}.items() if v or k in declared},
        why="Labels that follow from the declarations and the locks.",
    )
