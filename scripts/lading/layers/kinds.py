"""The kinds of layers there are, in two orders."""

from __future__ import annotations

from lading.facts import Facts
from lading.layers.apt_kind import APT
from lading.layers.kind import AnyKind
from lading.layers.pip_kind import PIP
from lading.project import Image, Project

ADDED = ("apt", "source", "conda", "pip")
"""In the order they go into an image, with the sources that it has among them."""


def of(image: Image, project: Project, upon: Facts | None = None) -> tuple[AnyKind, ...]:
    """The kinds of layers that an image has, in the order they are locked: a layer is asked upon
    those before it. `upon` are the facts of its base, where they are known.

    What pip builds says which Debian packages it is built with; but where the base has no Python,
    it is Debian's packages that bring the one that pip's are for.
    """
    found: list[AnyKind] = []
    if image.conda is not None:
        # A tenth of what it takes doit to start is what this imports.
        from lading.layers import conda_named
        from lading.layers.conda_kind import CONDA

        found += [CONDA, *conda_named.of(image)]
    last: tuple[AnyKind, ...] = (PIP, APT)
    if upon is not None and not upon.python:
        last = (APT, PIP)
    return (*found, *(kind for kind in last if kind.wanted(image, project)))
