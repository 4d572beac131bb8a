"""The file system of a SIF, packed the same way every time."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from lading import process
from lading.errors import LadingError

MEMORY = "512M"
"""How much mksquashfs may take for its queues; its own default is a quarter of the machine's."""
_MADE_AT = 8
"""Where the superblock has its time of making, four bytes, little-endian."""


def options(compression: str) -> list[str]:
    """What mksquashfs is told of a `compression:` as zstd:3."""
    kind, _, level = compression.partition(":")
    return ["-comp", kind, *(["-Xcompression-level", level] if level else [])]


def pack(
    program: str, root: Path, out: Path, compression: str, epoch: int, line: Callable[[str], None]
) -> None:
    """Packs a folder. All is root's, as in a SIF that Apptainer makes for an ordinary user, and
    has no extended attributes, which mean nothing there and which only root can write.

    Versions of mksquashfs before 4.4 do not pack the same twice. Raises `LadingError`.
    """
    command = [program, str(root), str(out), "-noappend", "-no-progress", "-mem", MEMORY]
    command += ["-all-root", "-no-xattrs", *options(compression)]
    # It refuses to be told a time by both this and an option, and older ones know neither.
    finished = process.run(command, env={"SOURCE_DATE_EPOCH": None}, line=line)
    lost = [text for text in finished.output.splitlines() if "creating empty file" in text]
    if finished.code or lost:
        raise LadingError(
            "mksquashfs could not pack the image",
            why="\n".join(lost or finished.output.splitlines()[-10:]) or f"exit {finished.code}",
            do=f"see above; if it does not know {compression}, take another in project.yaml: "
            "sif: {compression: gzip}",
        )
    with out.open("r+b") as file:
        file.seek(_MADE_AT)
        file.write(struct.pack("<I", epoch))
