"""The `conda:` section of an image: which packages, from which channels, and how they go in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from lading.schema.nodes import Node
from lading.schema.problems import Place, RejectedError
from lading.schema.scalars import CONTROL, Choice, ProjectPath, Schema, Text
from lading.schema.shapes import Field, Kind, List, Map, Record

PREFIX = "/opt/conda"
INSTALLERS = ("rattler", "conda")
LOCKERS = ("rattler", "conda-export")
PRIORITIES = ("strict", "disabled")


class CondaSection(Struct, frozen=True, kw_only=True):
    """Exactly one of `packages`, specs as conda has them, and `file`, a path from the project's
    root: environment.yaml, or a list of specs.

    environments: further prefixes, by name, each solved and locked by itself; what they do not say
    is as here. Only the first one's programs are found without their path. line: of one of these,
    where project.yaml declares it.
    """

    channels: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    file: str = ""
    prefix: str = PREFIX
    locker: str = LOCKERS[0]
    installer: str = INSTALLERS[0]
    channel_priority: str = PRIORITIES[0]
    cuda: str = ""
    environments: Mapping[str, CondaSection] = field(default_factory=dict)
    line: int = 0


class _Apart(Struct, frozen=True, kw_only=True):
    """A conda section whose prefixes lie beside each other, not in each other."""

    section: Kind[CondaSection]

    def parse(self, node: Node, place: Place) -> CondaSection:
        found = self.section.parse(node, place)
        before = len(place.report.problems)
        taken = {found.prefix: "the first prefix"}
        for name, one in found.environments.items():
            for other, whose in taken.items():
                if f"{one.prefix}/".startswith(f"{other}/"):
                    what = "is" if one.prefix == other else "lies in"
                elif f"{other}/".startswith(f"{one.prefix}/"):
                    what = "has in it"
                else:
                    continue
                at = place.child("environments", one.line).child(name, one.line)
                at.note(
                    f"its prefix {one.prefix} {what} {whose}, {other}; give it a `prefix:` apart"
                )
            taken[one.prefix] = f"the one of {name}"
        if len(place.report.problems) > before:
            raise RejectedError
        return found

    def schema(self) -> Schema:
        return self.section.schema()


def _environment(*, name: str, line: int, prefix: str = "", **given: Any) -> CondaSection:
    return CondaSection(prefix=prefix or f"/opt/{name}", line=line, **given)


_FIRST = Record(
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
                pattern=r"(?!/(?:tmp|root|home|dev|proc|sys|var|run|etc|boot|s?bin|lib(?:32|64|x32)?"
                r"|usr(?!/local/))(?:/|$))"
                r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._+-]+){2,}",
                longest=80,
                expected="a path as /opt/conda: absolute, and neither the system's nor a user's",
            ),
            about=f"where the packages lie in the image; else {PREFIX}",
        ),
        "locker": Field(
            kind=Choice(of=LOCKERS),
            about="rattler; conda-export: what a trial install by the base's own conda brings",
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

_SHARED = ("channels", "packages", "file", "prefix")
"""What each of several prefixes says for itself; what they run on is the same for all."""

_ENVIRONMENTS = Map(
    key=Text(
        pattern="[a-z0-9]+(?:[._-][a-z0-9]+)*",
        longest=40,
        expected="the name of an environment: small letters and digits, with '.', '_' or '-' "
        "between them",
    ),
    value=Record(
        make=_environment,
        expected="a mapping with one of the keys 'packages' and 'file'",
        exactly_one=("packages", "file"),
        also=lambda place: {"name": place.key, "line": place.line},
        fields={name: _FIRST.fields[name] for name in _SHARED},
    ),
    expected="a mapping from names to what is in each",
)

SECTION = _Apart(
    section=replace(
        _FIRST,
        fields={
            **_FIRST.fields,
            "environments": Field(
                kind=_ENVIRONMENTS,
                about="further prefixes by name, in /opt/NAME: their programs are called by their "
                "whole path",
            ),
        },
    )
)
