"""The section `sif:` of project.yaml: which Apptainer, and how the SIF is compressed."""

from __future__ import annotations

from msgspec import Struct

from lading.schema.scalars import CONTROL, Text, Words
from lading.schema.shapes import Field, Record


class SifSection(Struct, frozen=True, kw_only=True):
    """`command` is Apptainer or SingularityCE, as one would type it; empty for the one on PATH.

    `compression` is mksquashfs's name of it, with a level behind a colon where it has levels.
    """

    command: str = ""
    compression: str = "zstd:3"


SECTION = Record(
    make=SifSection,
    expected="a mapping with the keys 'command' and 'compression'",
    fields={
        "command": Field(
            kind=Words(
                pattern=rf"(?=.*\S)[^{CONTROL}]+",
                longest=4096,
                expected="a program, as /opt/apptainer/bin/apptainer",
            ),
            about="Apptainer or SingularityCE; else the one on PATH",
        ),
        "compression": Field(
            kind=Text(
                pattern="gzip(?::[1-9])?|zstd(?::(?:[1-9]|1[0-9]|2[0-2]))?|lz4|xz",
                expected="gzip, zstd, lz4 or xz, the first two also with a level, as zstd:3",
            ),
            about="how the SIF is compressed: zstd:3 (the default), gzip:9, lz4, xz, …",
        ),
    },
)
