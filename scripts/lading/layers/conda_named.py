"""A conda prefix beside the first one: a layer of its own, with a lock of its own.

Nothing of it is on PATH or in the image's variables: two environments that set the same would stand
in each other's way. Its programs are called by their whole path.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from msgspec.structs import replace

from lading.errors import DeclarationError
from lading.facts import Facts
from lading.layers import conda, conda_image, conda_store
from lading.layers.conda import CondaLock, Request
from lading.layers.conda_kind import Conda, pinned
from lading.layers.kind import Subject, Tools
from lading.moved import Pinned
from lading.parts import Start
from lading.plan import Contribution
from lading.project import Image


class Named(Conda):
    """The environment of this name, of those that a `conda:` section has."""

    def __init__(self, environment: str) -> None:
        self.environment = environment
        self.name = f"conda:{environment}"
        self.changed = f"what {environment} has in it, or the base's glibc, has changed"
        self.below = f"conda/{environment}/"

    def request(self, subject: Subject) -> Request:
        """What it does not say itself is as for the first prefix."""
        root, image, first = subject.project.root, subject.image, subject.image.conda
        assert first is not None
        own = first.environments[self.environment]
        wanted = conda.read_wanted(root, image.name, own, self.environment, image.matrix)
        if wanted.pip:
            raise DeclarationError(
                f"{wanted.pip[0][1]}: pip's packages go on top of the first prefix only, "
                f"{first.prefix}",
                do="ask for them there, or give this environment an image of its own",
            )
        section = replace(
            own,
            channels=own.channels or (() if wanted.channels else first.channels),
            channel_priority=first.channel_priority,
            cuda=first.cuda,
        )
        return conda.request(
            root,
            image.name,
            section,
            subject.base.facts,
            subject.project.platform,
            image.as_of,
            named=self.environment,
            values=image.matrix,
        )

    def read(self, folder: Path) -> CondaLock | None:
        return conda.read(folder / self.below)

    def lock(self, request: Request, old: CondaLock | None, tools: Tools) -> CondaLock:
        new = super().lock(request, old, tools)
        for variable in request.wanted.variables:
            tools.note(f"  {variable} is not set: {self.environment} is not the first prefix")
        for one in conda_store.looked_into(new.packages, tools):
            if one.activation or one.variables:
                tools.note(
                    f"  {one.name} sets variables when conda activates {self.environment}, which "
                    "the image does not"
                )
        return new

    def write(self, folder: Path, lock: CondaLock) -> None:
        conda.write(folder / self.below, lock)

    def contribute(self, request: Request, lock: CondaLock, start: Start) -> Contribution:
        return conda_image.beside(lock, f"conda/{self.environment}")

    def pinned(self, lock: CondaLock) -> Sequence[Pinned]:
        return tuple(pinned(lock.packages, lock.variables, self.environment))

    def summary(self, request: Request, lock: CondaLock) -> str:
        return f"{super().summary(request, lock)} in {lock.prefix}"

    def facts(self, lock: CondaLock, facts: Facts) -> Facts:
        """Those of the first prefix: its Python is the one on PATH."""
        return facts


@cache
def _named(environment: str) -> Named:
    return Named(environment)


def of(image: Image) -> Sequence[Named]:
    """The kinds of an image's further prefixes, in the order they are declared."""
    return [_named(name) for name in (image.conda.environments if image.conda else ())]
