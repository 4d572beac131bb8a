"""Container registries (OCI distribution specification v1.1), and what lading keeps in them.

repository (one of them, and who may use it) ── resolving (a name's digest)
                                             └─ kept, asking (what was built, under its key)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lading.later import attributes

if TYPE_CHECKING:
    from lading.registry.resolving import Resolved, resolve

__all__ = ["Resolved", "resolve"]

__getattr__ = attributes(__name__, {"resolving": ("Resolved", "resolve")})
