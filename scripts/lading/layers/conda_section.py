"""The `conda:` section of an image: which packages, from which channels, and how they go in."""

from __future__ import annotations

from dataclasses import dataclass

from lading.schema.scalars import CONTROL, Choice, ProjectPath, Text
from lading.schema.shapes import Field, List, Record

PREFIX = "/opt/conda"
INSTALLERS = ("rattler", "conda")
PRIORITIES = ("strict", "disabled")


@dataclass(frozen=True, kw_only=True)
class CondaSection:
    """Exactly one of `packages`, specs as conda has them, and `file`, a path from the project's
    root: environment.yaml, or a list of specs.
    """

    channels: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    file: str = ""
    prefix: str = PREFIX
    installer: str = INSTALLERS[0]
    channel_priority: str = PRIORITIES[0]
    cuda: str = ""


SECTION = Record(
    make=CondaSection,
    expected="a mapping with one of the keys 'packages' and 'file'",
    exactly_one=("packages", "file"),
    fields={
        "channels": Field(
            kind=List(
                item=Text(
                    pattern=r"[A-Za-z0-9_][A-Za-z0-9._/-]*|(?:https?|file)://[!-~]+",
                    longest=1024,
                    expected="the name of a channel, as conda-forge",
                ),
                or_one=True,
                unique=True,
            ),
            about="the channels by name, the one that goes before the others first",
        ),
        "packages": Field(
            kind=List(
                item=Text(
                    pattern=rf"(?=\S)[^{CONTROL}]+",
                    longest=512,
                    expected="a package, as numpy=1.26",
                ),
                or_one=True,
                unique=True,
            ),
            about="the packages, as python=3.12 or numpy>=1.26,<2",
        ),
        "file": Field(
            kind=ProjectPath(), about="environment.yaml, or a list of packages, one a line"
        ),
        "prefix": Field(
            kind=Text(
                # Under Apptainer the first of these are the host's, or nobody's.
                pattern=r"(?!/(?:tmp|root|home|dev|proc|sys|var|run|etc|usr/s?bin|usr/lib)(?:/|$))"
                r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._+-]+){2,}",
                longest=80,
                expected="a path as /opt/conda: absolute, and neither the system's nor a user's",
            ),
            about=f"where the packages lie in the image; else {PREFIX}",
        ),
        "installer": Field(
            kind=Choice(of=INSTALLERS),
            about="rattler: on any base; conda: by the base's own conda, into its prefix",
        ),
        "channel-priority": Field(
            kind=Choice(of=PRIORITIES),
            about="strict: a package comes from the first channel that has it",
        ),
        "cuda": Field(
            kind=Text(
                pattern=r"[0-9]{1,2}(?:\.[0-9]{1,2})?",
                longest=5,
                expected="the version of CUDA that the driver there supports, as 12.4",
            ),
            about="the CUDA version to resolve for, as 12.4 (conda's __cuda)",
        ),
    },
)
