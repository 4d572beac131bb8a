"""env: show what conda's activation would set, and the image sets instead."""

from __future__ import annotations

from lading.console import counted
from lading.project import Image
from lading.state import State


def current(state: State, image: Image) -> bool:
    """Never: it is asked for in order to be read."""
    return False


def make(state: State, image: Image) -> str:
    """Prints the comparison of the variables before and after, as it was found when locked."""
    from lading.layers.conda import CondaLock
    from lading.layers.conda_kind import CONDA, comparison

    lock = state.layer_lock(image, CONDA)
    assert isinstance(lock, CondaLock)
    for line in comparison(lock).splitlines():
        state.console.note(f"  {line}")
    return counted(len(lock.variables), "variable")
