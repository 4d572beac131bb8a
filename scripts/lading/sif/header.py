"""The header and the descriptors of a SIF, in place: who made it when goes, what it is stays.

The layout is the SIF specification's, version 01 (package sif of the SIF project): little-endian,
a global header of 128 bytes, and from its `Descroff` on descriptors of 585 bytes each.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Collection
from pathlib import Path

from lading.errors import LadingError

LAUNCH = b"#!/usr/bin/env run-singularity\n"
MAGIC = b"SIF_MAGIC\0"
VERSION = b"01\0"
# Launch script, magic, version, arch, UUID; created, modified, then six numbers: free and all
# descriptors, their offset and length, the data's offset and length.
HEADER = struct.Struct("<32s10s3s3s16s8q")
# Type, used, ID, group, link; offset, size, padded size, created, modified, uid, gid.
DESCRIPTOR = struct.Struct("<i?3I7q")
_NAME = struct.Struct("128s")
_SBOM = struct.Struct("<i380x")
"""What is particular to an object that is a bill of materials: its format."""
DESCRIPTOR_SIZE = DESCRIPTOR.size + _NAME.size + _SBOM.size
"""With the name and what is particular to the type."""
_SBOM_TYPE, _CYCLONEDX_JSON = 0x4009, 1
MOST = 4096
"""More descriptors than any SIF has."""


def identity(sha256: str) -> uuid.UUID:
    """The UUID of the SIF of an archive: by name (RFC 9562, version 5), from its sha256."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"urn:lading:sif:{sha256}")


def normalise(path: Path, name: uuid.UUID, epoch: int, sboms: Collection[str] = ()) -> None:
    """Sets the launch script, which `sif new` leaves out, the UUID and all times; no owners.

    The objects that are called as one of `sboms` become bills of materials, CycloneDX in JSON: not
    every `sif add` knows that type, and all are to make the same SIF.

    Raises `LadingError` for what is no SIF of version 01.
    """
    with path.open("r+b") as file:
        head = file.read(HEADER.size)
        if len(head) < HEADER.size:
            raise LadingError(f"{path.name} is no SIF")
        _, magic, version, arch, _, _, _, *rest = HEADER.unpack(head)
        free, total, offset, *_ = rest
        if magic != MAGIC or version != VERSION:
            raise LadingError(f"{path.name} is no SIF of version 01")
        if not (0 <= free <= total <= MOST and HEADER.size <= offset < path.stat().st_size):
            raise LadingError(f"{path.name} is no SIF: its header leads nowhere")
        file.seek(0)
        file.write(HEADER.pack(LAUNCH, magic, version, arch, name.bytes, epoch, epoch, *rest))
        for number in range(total):
            at = offset + number * DESCRIPTOR_SIZE
            file.seek(at)
            common = file.read(DESCRIPTOR.size)
            if len(common) < DESCRIPTOR.size:
                raise LadingError(f"{path.name} ends within its descriptors")
            kind, used, *fields = DESCRIPTOR.unpack(common)
            if used:
                kept = fields[:6]
                (called,) = _NAME.unpack(file.read(_NAME.size).ljust(_NAME.size, b"\0"))
                if called.rstrip(b"\0").decode(errors="replace") in sboms:
                    kind = _SBOM_TYPE
                    file.write(_SBOM.pack(_CYCLONEDX_JSON))
                file.seek(at)
                file.write(DESCRIPTOR.pack(kind, used, *kept, epoch, epoch, 0, 0))
