"""The kinds of layers there are, in two orders."""

from __future__ import annotations

from lading.layers.kind import AnyKind
from lading.layers.pip_kind import PIP
from lading.project import Image

LOCKED: tuple[AnyKind, ...] = (PIP,)
"""In the order they are locked: a layer is asked upon those before it."""

ADDED: tuple[AnyKind, ...] = (PIP,)
"""In the order they go into an image."""


def of(image: Image) -> tuple[AnyKind, ...]:
    """The kinds of layers that an image has, in the order they are locked."""
    return tuple(kind for kind in LOCKED if kind.wanted(image))
