"""Puts an image together: from its declaration and its locks to stages and files.

Nothing here asks a network or an engine: what comes out follows from committed files alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import PurePosixPath

from msgspec import Struct

from lading import plan as plans
from lading.layers import base as bases
from lading.layers import kinds
from lading.layers.base import BaseLock
from lading.layers.kind import AnyKind, Lock, Request
from lading.layers.source_image import LAST, Compiled
from lading.locks import Header
from lading.parts import Start
from lading.plan import Contribution, Part, Plan
from lading.project import Image, Project
from lading.steps import (
    AS_ROOT,
    Arg,
    Cmd,
    Content,
    Copy,
    Env,
    Label,
    Run,
    Stage,
    Step,
    Stored,
    User,
)
from lading.store import Artifact

SHARE = "/usr/share/lading"


class Layer(Struct, frozen=True, kw_only=True):
    """A layer of an image: what it is made from, and its lock as read."""

    kind: AnyKind
    request: Request
    lock: Lock


class Locked(Struct, frozen=True, kw_only=True, dict=True):
    """An image's locks as read; its layers in the order they are locked."""

    base: BaseLock
    layers: tuple[Layer, ...] = ()
    sources: tuple[Compiled, ...] = ()

    @cached_property
    def texts(self) -> Mapping[str, str]:
        """Every lock's file name and text."""
        texts = {"base.yaml": self.base.text}
        for layer in self.layers:
            below = layer.kind.below
            texts |= {f"{below}{name}": text for name, text in layer.lock.texts.items()}
        for compiled in self.sources:
            texts |= {f"sources/{name}": text for name, text in compiled.texts.items()}
        return texts

    @cached_property
    def header(self) -> Header:
        """The header with the latest date: nothing in the image is younger."""
        headers = [self.base.header, *(layer.lock.header for layer in self.layers)]
        headers += [header for compiled in self.sources for header in compiled.headers]
        return max(headers, key=lambda header: header.date)


def version(image: Image, locked: Locked) -> str:
    """The image's version: declared, else the day of its locks."""
    return image.version or f"{locked.header.date:%Y.%m.%d}"


def name(project: Project, image: Image, locked: Locked) -> str:
    """What the image is called: [REGISTRY/]NAME:VERSION."""
    registry = f"{project.registry.rstrip('/')}/" if project.registry else ""
    return f"{registry}{image.name}:{version(image, locked)}"


def artifacts(locked: Locked, plan: Plan) -> tuple[Artifact, ...]:
    """What has to be fetched to make an image and its parts; the base and its sources are made
    by themselves.
    """
    used = set(_stored(plan.files, plan.parts))
    return tuple(
        artifact for layer in locked.layers for artifact in layer.kind.artifacts(layer.lock, used)
    )


def _stored(files: Mapping[str, Content], parts: Iterable[Part]) -> Iterator[str]:
    """The sha256 of what goes into contexts as it lies in the store."""
    yield from (content.sha256 for content in files.values() if isinstance(content, Stored))
    for part in parts:
        yield from _stored(part.plan.files, part.parts)


def plan(project: Project, image: Image, locked: Locked) -> Plan:
    """The stages and files of an image."""
    base = project.bases[image.base]
    reference = bases.reference(base, locked.base)
    added = _contributions(project, locked, reference)
    mpi = _mpi(image, locked)
    epoch = Arg(
        name="SOURCE_DATE_EPOCH",
        value=str(locked.header.epoch),
        why=f"The times that steps write: the locks' date, {locked.header.date}, never the clock.",
    )
    files: dict[str, Content] = dict(added.files)
    user = locked.base.facts.user
    steps: list[Step] = [epoch, *([AS_ROOT] if user else []), _environment(image, added, mpi)]
    steps += _users(image, "before-layers")
    steps += added.steps
    steps += mpi.steps
    steps += _own_files(image, files)
    steps += _users(image, "after-layers")
    steps += _share(image, locked, files)
    if user:
        steps.append(User(name=user, why="As the base runs. Under Apptainer: its caller."))
    steps.append(_labels(project, image, locked, added))
    steps.append(Cmd(arguments=image.cmd or ("/bin/bash",), why="Without a command: a shell."))
    final = Stage(
        base=reference,
        steps=tuple(steps),
        why=f"The base {base.name}, as locked.",
    )
    return plans.make(
        name=image.name,
        title=(
            f"{image.name}: written by lading from project.yaml and locks/; "
            f"`doit dockerfile:{image.name}` writes it again.\n"
            "Everything it needs lies beside it. By hand (BuildKit; or podman build):\n"
            f"  docker build --network none -t {name(project, image, locked)}"
            f" build/{image.name}/context"
        ),
        stages=(final,),
        files=files,
        parts=added.parts,
    )


def _contributions(project: Project, locked: Locked, reference: str) -> Contribution:
    """What all layers add, as one; each is built upon what those before it bring to build with."""
    found: list[Contribution] = []
    start = Start(
        reference=reference,
        platform=project.platform,
        root=project.root,
        epoch=locked.base.header.epoch,
        user=locked.base.facts.user,
    )
    for name in kinds.ADDED:
        added: list[Contribution] = []
        if name == "source":
            added = [compiled.contribution() for compiled in locked.sources]
        else:
            # Of a kind there can be several, as conda and conda:NAME.
            added = [
                layer.kind.contribute(layer.request, layer.lock, start)
                for layer in locked.layers
                if layer.kind.name.partition(":")[0] == name
            ]
        for one in added:
            start = start.with_tools(one)
        found += added
    steps = [step for one in found for step in one.steps]
    if steps.count(LAST) > 1:
        last = len(steps) - 1 - steps[::-1].index(LAST)
        steps = [step for at, step in enumerate(steps) if step != LAST or at == last]
    return Contribution(
        steps=tuple(steps),
        path=tuple(folder for one in reversed(found) for folder in one.path),
        env={name: value for one in found for name, value in one.env.items()},
        labels={name: value for one in found for name, value in one.labels.items()},
        files={at: what for one in found for at, what in one.files.items()},
        parts=tuple(part for one in found for part in one.parts),
    )


def _mpi(image: Image, locked: Locked) -> Contribution:
    """What lets a host's MPI take the place of the image's own."""
    if not image.mpi:
        return Contribution()
    from lading.layers import mpi_image, pip, pip_image

    home = pip_image.VENV
    for layer in locked.layers:
        if isinstance(layer.request, pip.Request):
            home = pip_image.home(layer.request)
    found = pins(locked)
    return Contribution(
        env=mpi_image.environment(image.mpi, found, home),
        steps=mpi_image.steps(image.mpi, found, home),
    )


def pins(locked: Locked) -> Mapping[str, str]:
    """The image's Python packages that pip's lock names: name to version."""
    from lading.layers.pip import PipLock

    found = (layer.lock for layer in locked.layers if isinstance(layer.lock, PipLock))
    return {pin.name: pin.version for lock in found for pin in lock.pins}


def _environment(image: Image, added: Contribution, mpi: Contribution) -> Env:
    values = {
        "LANG": "C.UTF-8",
        "PYTHONNOUSERSITE": "1",
        "PYTHONPATH": "",
        **added.env,
        **mpi.env,
        **({"PATH": ":".join([*added.path, "$PATH"])} if added.path else {}),
        **image.env,
    }
    return Env(
        values=values,
        why="Under Apptainer the host's ~/.local and PYTHONPATH would shadow what is installed "
        "here: PYTHONNOUSERSITE and an empty PYTHONPATH keep them out.",
    )


def _users(image: Image, point: str) -> list[Step]:
    """The user's own steps at one point; before the first of all, what can be set by hand."""
    steps: list[Step] = []
    if image.run.get(point) and (point == "before-layers" or not image.run.get("before-layers")):
        steps += [
            Arg(
                name=name,
                value=None,
                why=f"From `args:`; {value!r}, unless --build-arg says otherwise.",
            )
            for name, value in image.args.items()
        ]
    given = tuple(f'export {name}="${{{name}:-{value}}}"' for name, value in image.args.items())
    return steps + [
        Run(commands=(*given, command), why="From `run:` in project.yaml.")
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
