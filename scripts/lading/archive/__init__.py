"""The canonical docker-archive, made of what an engine saves, and what is known of one.

canonical ── saved, tarfiles (what engines give) · normal (what every build gives) · writing
records (the JSON beside an archive) · compared (what differs between two)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lading.archive.records import config_of, current, places, record
from lading.later import attributes

if TYPE_CHECKING:
    from lading.archive.canonical import Merged, export, read, received, write
    from lading.archive.normal import Normal
    from lading.archive.writing import Archive, Layer

__all__ = [
    "Archive",
    "Layer",
    "Merged",
    "Normal",
    "config_of",
    "current",
    "export",
    "places",
    "read",
    "received",
    "record",
    "write",
]

__getattr__ = attributes(
    __name__,
    {
        "canonical": ("Merged", "export", "read", "received", "write"),
        "normal": ("Normal",),
        "writing": ("Archive", "Layer"),
    },
)
