"""What images and tasks are called by who asks for them, and what a wrong name may have meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from lading.project import Image
from lading.state import State

Here = tuple[State, Image]
"""An image, and the run for the platform that it is meant for."""


def images_of(states: Iterable[State]) -> Mapping[str, Sequence[Here]]:
    """All images by their names, which are those of their tasks: NAME, for another platform
    NAME@PLATFORM; the name of a matrix is that of all its variants.
    """
    found: dict[str, list[Here]] = {}
    for state in states:
        for image in state.project.images.values():
            found[f"{image.name}{state.at}"] = [(state, image)]
        for image in state.project.images.values():
            if image.variant_of and image.variant_of not in state.project.images:
                found.setdefault(f"{image.variant_of}{state.at}", []).append((state, image))
    return found


def fitting(name: str, known: Collection[str]) -> Collection[str]:
    """The task of this name, or those that fit this pattern, as doit reads it."""
    if "*" not in name:
        return (name,) if name in known else ()
    import fnmatch

    return fnmatch.filter(known, name)


def meant(name: str, known: Collection[str]) -> str:
    """What a name may have been meant for, to stand behind an error; empty if that is not known."""
    # An image is named with what is to be done: its archive, as `doit` alone would do.
    import difflib

    whole = [task for task in (f"archive:{name}",) if fitting(task, known)]
    near = whole or difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""
