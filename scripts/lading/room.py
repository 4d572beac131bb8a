"""How many builds fit side by side on this machine: an estimate, and on the careful side."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from lading.console import size

MEMORY = 10**9
"""Bytes that one build may want: a compiler on each core takes that, installing wheels less."""
DISK = 2 * 10**9
"""Bytes on the project's disk: an image on its way out of the engine, and its archive."""
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Room(Struct, frozen=True, kw_only=True):
    """Bytes that there are: of memory (None where builds run elsewhere), and on the disk."""

    memory: int | None
    disk: int


def here(root: Path, environ: Mapping[str, str], builders: tuple[str, ...]) -> Room:
    """The room for a project's builds. What runs on another machine takes none of this memory."""
    far = environ.get("DOCKER_HOST", "").startswith(("tcp:", "ssh:", "http:", "https:"))
    away = builders and "default" not in builders
    status = os.statvfs(root)
    return Room(memory=None if far or away else _memory(), disk=status.f_bavail * status.f_frsize)


def fitting(asked: int, room: Room) -> tuple[int, str]:
    """How many of so many tasks at once there will be, and why fewer; one always fits."""
    fits = [(room.disk // DISK, f"{size(room.disk)} of disk are free, and each takes {size(DISK)}")]
    if room.memory is not None:
        why = f"{size(room.memory)} of memory are free, and each takes {size(MEMORY)}"
        fits.append((room.memory // MEMORY, why))
    most, why = min(fits)
    most = max(most, 1)
    return (asked, "") if most >= asked else (most, f"{most} at once instead of {asked}: {why}")


def side_by_side(
    asked: int, root: Path, environ: Mapping[str, str], builders: tuple[str, ...]
) -> tuple[int, str]:
    """`fitting` here; where it can't be found out, as many as were asked for."""
    try:
        return fitting(asked, here(root, environ, builders))
    except (OSError, ValueError, StopIteration):
        return asked, ""


def _memory() -> int:
    """What programs can have without others being pushed out, as far as this container may."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    found = next(line for line in lines if line.startswith("MemAvailable:"))
    free = int(found.split()[1]) * 1024
    for path in _LIMITS:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            free = min(free, int(text))
    return free
