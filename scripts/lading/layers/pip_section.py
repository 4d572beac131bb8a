"""The `pip:` section of an image: what pip's packages are resolved from."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from lading.schema.scalars import CONTROL, Choice, ProjectPath, Text
from lading.schema.shapes import VARIABLES, Field, List, Record

# PEP 508 names; ":all:" is pip's word for every package.
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VERSION = r"(?:===|==|~=|!=|<=|>=|<|>) *[A-Za-z0-9*+!._-]+"
_EXTRAS = r"\[[A-Za-z0-9._, -]*\]"

LOCKERS = ("uv", "pip-tools", "freeze")


class PipSection(Struct, frozen=True, kw_only=True):
    """Paths are relative to the project's root and name files; requirements are PEP 508's.

    Without `requirements` it is what environment.yaml has in its `pip:` that is asked for.
    """

    requirements: str = ""
    constraints: tuple[str, ...] = ()
    no_binary: tuple[str, ...] = ()
    build_constraints: tuple[str, ...] = ()
    build_env: Mapping[str, str] = field(default_factory=dict)
    no_build_isolation: tuple[str, ...] = ()
    locker: str = LOCKERS[0]


def _packages(pattern: str) -> List[str]:
    item = Text(pattern=pattern, longest=128, expected="the name of a Python package")
    return List(item=item, or_one=True, unique=True)


SECTION = Record(
    make=PipSection,
    expected="a mapping with the key 'requirements'",
    fields={
        "requirements": Field(
            kind=ProjectPath(),
            about="the file of requirements, as pip reads it (requirements.in)",
            required=True,
        ),
        "constraints": Field(
            kind=List(item=ProjectPath(), or_one=True, unique=True),
            about="files of constraints, as pip's -c",
        ),
        "no-binary": Field(
            kind=_packages(rf"{_NAME}|:all:"),
            about="packages that are built from source, wheels or not",
        ),
        "build-constraints": Field(
            kind=List(
                item=Text(
                    # Close to PEP 508, which only packaging, slow to import, reads exactly.
                    pattern=rf"{_NAME}(?: *{_EXTRAS})?(?: *{_VERSION}(?: *, *{_VERSION})*)?"
                    rf"(?: *;[^{CONTROL}]+)?",
                    longest=512,
                    expected="a package and its versions, as setuptools<69",
                ),
                or_one=True,
                unique=True,
            ),
            about="versions of what packages are built with, as setuptools<69",
        ),
        "no-build-isolation": Field(
            kind=_packages(_NAME),
            about="packages that are built with the image's other Python packages at hand",
        ),
        "build-env": Field(
            kind=VARIABLES, about="variables while packages are built, as MPICC: /usr/bin/mpicc"
        ),
        "locker": Field(
            kind=Choice(of=LOCKERS),
            about="uv; pip-tools: pip-compile in the base; freeze: what a trial install by pip in "
            "the base brings",
        ),
    },
)
