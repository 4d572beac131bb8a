"""The `debian:` kind of base: any Debian mirror, no container registry.

`mirrors` finds the user's mirrors, `resolve` asks apt which .debs a base consists of (the only
step that uses the network), `locate` says where those are today, `assemble` makes the root
file system of exactly those, with mmdebstrap, the same bytes every time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lading.debian.packages import (
    Deb,
    debian_architecture,
    facts_of,
    image_config,
    lacks_distutils,
    locate,
    python_of,
)
from lading.later import attributes

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
    "lacks_distutils",
    "locate",
    "mirrors",
    "python_of",
    "resolve",
]

__getattr__ = attributes(
    __name__,
    {"mmdebstrap": ("assemble",), "mirrorlist": ("mirrors",), "solver": ("resolve",)},
)
