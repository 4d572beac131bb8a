"""The section `ci:` of project.yaml: what runners are like that `doit ci` writes workflows for."""

from __future__ import annotations

from msgspec import Struct

from lading.schema.scalars import CONTROL, Text
from lading.schema.shapes import Field, Kind, List, Record


class CiSection(Struct, frozen=True, kw_only=True):
    """`setup` are the commands that bring `doit` and lading to a runner; empty where the project
    has scripts/doit, which does it by itself. `runs_on` is GitHub's label of a runner; `image` and
    `tags` are GitLab's: what its jobs run in, and which runners take them.
    """

    setup: tuple[str, ...] = ()
    runs_on: str = "ubuntu-24.04"
    image: str = "python:3.13"
    tags: tuple[str, ...] = ()


def section(command: Text) -> Kind[CiSection]:
    """The section; `command` is what a command can be."""
    word = Text(
        pattern=rf"[^{CONTROL}\s'\"\\]+", longest=255, expected="a word without spaces and quotes"
    )
    return Record(
        make=CiSection,
        expected="a mapping with the keys 'setup', 'runs-on', 'image' and 'tags'",
        fields={
            "setup": Field(
                kind=List(item=command, or_one=True, expected="a command or a list of commands"),
                about="commands that install lading on a runner, where there is no scripts/doit",
            ),
            "runs-on": Field(kind=word, about="GitHub: the label of a runner, as ubuntu-24.04"),
            "image": Field(kind=word, about="GitLab: the image that jobs run in, as python:3.13"),
            "tags": Field(
                kind=List(item=word, or_one=True, unique=True, expected="a list of tags"),
                about="GitLab: the tags of the runners that take the jobs",
            ),
        },
    )
