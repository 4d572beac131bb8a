"""The `debian:` kind of base: any Debian mirror, no container registry.

`mirrors` finds the user's mirrors, `resolve` asks apt which .debs a base consists of (the only
step that uses the network), `locate` says where those are today, `assemble` makes the root
file system of exactly those, with mmdebstrap, the same bytes every time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lading.debian.packages import (
    Deb,
    debian_architecture,
    facts_of,
    image_config,
    locate,
)

if TYPE_CHECKING:
    from lading.debian.mirrorlist import mirrors
    from lading.debian.mmdebstrap import assemble
    from lading.debian.solver import resolve

__all__ = [
    "Deb",
    "assemble",
    "debian_architecture",
    "facts_of",
    "image_config",
    "locate",
    "mirrors",
    "resolve",
]

_LATER = {"assemble": "mmdebstrap", "mirrors": "mirrorlist", "resolve": "solver"}


def __getattr__(name: str) -> Any:
    """Loads what a run that makes no base doesn't need when it is first asked for (PEP 562)."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value
