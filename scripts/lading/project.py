"""project.yaml: what a project builds, read whole or refused with all its problems.

`python -m lading.project` prints the JSON schema that editors complete and check with; the file
project.schema.json beside this one holds it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct, field

from lading.ci import section as ci_section
from lading.ci.section import CiSection
from lading.errors import DeclarationError
from lading.layers import apt_section, conda_section, pip_section, source_section
from lading.layers.apt_section import AptSection
from lading.layers.conda_section import CondaSection
from lading.layers.pip_section import PipSection
from lading.layers.source_section import SourceBuild
from lading.platforms import PLATFORMS, native
from lading.schema.nodes import MapNode, Node, ScalarNode, UnreadableError, read, text_of
from lading.schema.problems import Place, RejectedError, Report, quoted, written
from lading.schema.scalars import (
    CONTROL,
    Boolean,
    Choice,
    Day,
    ProjectPath,
    Reference,
    Schema,
    Text,
    Version,
)
from lading.schema.shapes import VARIABLES, Converted, Either, Field, Kind, List, Map, Record
from lading.schema.variants import KEY as MATRIX
from lading.schema.variants import Expanded, MatrixKind
from lading.sif import section as sif_section
from lading.sif.section import SifSection

T = TypeVar("T")

FORMAT = 1
POINTS = ("before-layers", "after-layers")
MPIS = ("mpich", "openmpi")


class DebianBase(Struct, frozen=True, kw_only=True):
    """A base assembled from a Debian suite's packages, with what these depend on."""

    suite: str
    packages: tuple[str, ...] = ()


class Base(Struct, frozen=True, kw_only=True):
    """What images start from: exactly one of `debian` and `image`, a reference."""

    name: str
    debian: DebianBase | None = None
    image: str | None = None


class Image(Struct, frozen=True, kw_only=True):
    """`files` maps absolute paths in the image to paths in the project; `run` maps points
    (`POINTS`) to commands; `mpi` is one of `MPIS` or empty; `allow` maps findings of the checks
    ("F1:/opt/x") to the reason why they are let through; `line` is where project.yaml declares it.
    `builder` names where it is built, if not where the project says.
    `args` are variables for `run` that --build-arg can set to something else by hand.
    `matrix` has the values of a variant by axis, and `variant_of` the name of what has the matrix.
    """

    name: str
    base: str
    default: bool = True
    version: str = ""
    description: str = ""
    as_of: date | None = None
    apt: AptSection | None = None
    conda: CondaSection | None = None
    pip: PipSection | None = None
    source: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    run: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    args: Mapping[str, str] = field(default_factory=dict)
    cmd: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    mpi: str = ""
    allow: Mapping[str, str] = field(default_factory=dict)
    builder: tuple[str, ...] = ()
    matrix: Mapping[str, str] = field(default_factory=dict)
    variant_of: str = ""
    line: int = 0


class Project(Struct, frozen=True, kw_only=True):
    """`root` is the folder of project.yaml, with symbolic links resolved. `platform` is the one
    that is made here, and `others` are those that are declared besides. `builder` names where
    images are built, if not in the run's engine.
    """

    root: Path
    name: str
    platform: str = PLATFORMS[0]
    others: tuple[str, ...] = ()
    maintainer: str = ""
    registry: str = ""
    builder: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    bases: Mapping[str, Base] = field(default_factory=dict)
    sources: Mapping[str, SourceBuild] = field(default_factory=dict)
    images: Mapping[str, Image] = field(default_factory=dict)
    sif: SifSection = field(default_factory=SifSection)
    ci: CiSection = field(default_factory=CiSection)


SECTIONS: Mapping[str, Kind[Any]] = {
    "apt": apt_section.SECTION,
    "conda": conda_section.SECTION,
    "pip": pip_section.SECTION,
}
"""The kinds of layers an image can have; each also is a field of `Image`."""

# The grammars of the OCI distribution specification and of Docker's references to images.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]{{1,5}})?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
_REPOSITORY = rf"(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*"


def _name(expected: str, refused: Mapping[str, str] | None = None) -> Text:
    return Text(
        pattern=_COMPONENT,
        longest=64,
        expected=f"{expected}: small letters and digits, with '.', '_' or '-' between them",
        refused=refused or {},
    )


def _line(expected: str) -> Text:
    return Text(expected=expected, pattern=rf"[^{CONTROL}]+")


_BASE_NAME = _name("the name of a base")
_SOURCE_NAME = _name("the name of a source")
_RESERVED = "is reserved: tasks are called like that"
IMAGE_NAME = _name("the name of an image", {"base": _RESERVED, "source": _RESERVED})


class Command(Text, frozen=True, kw_only=True):
    """A shell command whose quotes close, and which takes no line of a Dockerfile along."""

    def parse(self, node: Node, place: Place) -> str:
        text = super().parse(node, place)
        if text.rstrip().endswith("\\"):
            raise place.rejected(
                f"{quoted(text)}: it ends in a backslash, and what follows is lost"
            )
        if text.lstrip().startswith("#"):
            raise place.rejected(f"{quoted(text)}: that is a comment, not a command")
        if any(text.count(quote) % 2 for quote in "\"'"):
            try:
                shlex.split(text)
            except ValueError:
                raise place.rejected(
                    f"{quoted(text)}: a quote does not close; in [brackets] a comma ends a "
                    "command: write each on a line of its own, behind '- '"
                ) from None
        return text


_COMMAND = Command(
    pattern=rf"(?=.*\S)[^{CONTROL}]+",
    longest=65_536,
    expected="a command in one line (join several with '&&', fold a long one with '>-')",
)
_COMMANDS = List(item=_COMMAND, or_one=True, expected="a command or a list of commands")
_LABELS = Map(
    key=Text(
        pattern=r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?",
        longest=255,
        expected="a label as org.opencontainers.image.vendor",
    ),
    value=Text(
        pattern=rf"[^{CONTROL}]*", longest=65_536, expected='a text in one line ("" for none)'
    ),
    expected="a mapping of labels",
)

_BUILDER = Field(
    kind=source_section.Some(
        item=Text(
            # A password would be shown in messages: there is none behind a user.
            pattern=r"[A-Za-z0-9][A-Za-z0-9_.+-]*|(?:unix|tcp|ssh|https?)://"
            r"(?:(?:[A-Za-z0-9_.%~+-]+@)?[A-Za-z0-9_.:%~+-]+(?:/[A-Za-z0-9_.:/@%~+-]*)?"
            r"|/[A-Za-z0-9_.:/@%~+-]+)",
            longest=255,
            expected="a builder of docker buildx, a context of docker's, or an engine's address,"
            " as ssh://me@far.example.org",
        ),
        or_one=True,
        unique=True,
    ),
    about="where it is built: a builder of docker buildx, a docker context, an engine's address;"
    " of several the one with the least to do; `default` is this run's own engine",
)

_DEBIAN = Record(
    make=DebianBase,
    expected="a mapping with the keys 'suite' and 'packages'",
    fields={
        "suite": Field(
            kind=Text(
                pattern="[a-z]+", longest=64, expected="the code name of a release, as trixie"
            ),
            about="the code name of the Debian release, as trixie",
            required=True,
        ),
        "packages": Field(
            kind=List(
                # Debian policy, 5.6.1.
                item=Text(
                    pattern="[a-z0-9][a-z0-9+.-]+",
                    longest=128,
                    expected="the name of a Debian package: small letters, digits, '+', '-', '.'",
                ),
                or_one=True,
                unique=True,
                expected="a list of Debian packages",
            ),
            about="Debian packages to install on top of a minimal system, as python3",
        ),
    },
)

_BASE = Record(
    make=Base,
    expected="a mapping with one of the keys 'debian' and 'image'",
    exactly_one=("debian", "image"),
    also=lambda place: {"name": place.key},
    fields={
        "debian": Field(
            kind=_DEBIAN, about="assembled from a Debian mirror's packages; no registry is asked"
        ),
        "image": Field(
            kind=Text(
                pattern=rf"{_REPOSITORY}(?::{_TAG})?(?:@(?:{_DIGEST}))?",
                longest=512,
                expected="an image reference, as docker.io/library/python:3.13-slim",
            ),
            about="an image in a registry, as docker.io/library/python:3.13-slim",
        ),
    },
)

_RUN: Either[dict[str, tuple[str, ...]]] = Either(
    long=Record(
        make=lambda **given: {point.replace("_", "-"): given[point] for point in given},
        expected="a mapping",
        fields={
            point: Field(kind=_COMMANDS, about=f"commands to run {point.replace('-', ' the ')}")
            for point in POINTS
        },
    ),
    short=Converted(kind=_COMMANDS, into=lambda commands: {"after-layers": commands}),
)

_IMAGE = Record(
    make=Image,
    expected="a mapping with the key 'base'",
    also=lambda place: {"name": place.key, "line": place.line},
    fields={
        "base": Field(
            kind=Reference(section="bases", what="base", name=_BASE_NAME),
            about="the name of the base it starts from",
            required=True,
        ),
        "default": Field(kind=Boolean(), about="false: it is made only when it is named"),
        "version": Field(
            kind=Text(
                pattern=_TAG,
                longest=128,
                expected="a tag of an image (letters, digits, '_', '.', '-'; at most 128)",
            ),
            about="the tag it gets; else the date of its lock, as 2026.11.22",
        ),
        "description": Field(
            kind=Text(pattern=rf"[^{CONTROL}]+", longest=10_000, folded=True, expected="a text"),
            about="what it is for; becomes a label",
        ),
        "as-of": Field(kind=Day(), about="resolve packages as of this day, as 2021-08-15"),
        **{
            name: Field(kind=section, about=f"the layer that {name} makes")
            for name, section in SECTIONS.items()
        },
        "source": Field(
            kind=List(
                item=Reference(section="sources", what="source", name=_SOURCE_NAME),
                or_one=True,
                unique=True,
            ),
            about="the sources that are compiled on its base and go in",
        ),
        "env": Field(kind=VARIABLES, about="environment variables in the image"),
        "labels": Field(kind=_LABELS, about="labels of this image"),
        "files": Field(
            kind=Map(
                key=Text(
                    pattern=rf"(?:/(?!\.{{1,2}}(?:/|$))[^/{CONTROL}]+)+",
                    expected="an absolute path in the image, without '.', '..' or a final '/'",
                ),
                value=ProjectPath(folders=True),
                expected="a mapping from paths in the image to paths in the project",
            ),
            about="files and folders: the path in the image, and the one in the project",
        ),
        "run": Field(kind=_RUN, about="commands of your own while the image is built"),
        "args": Field(
            kind=Map(
                key=Text(
                    # Those that builders set by themselves, or that programs mind.
                    pattern=r"(?!(?:PATH|HOME|HOSTNAME|SOURCE_DATE_EPOCH|LANG|[A-Za-z]+_(?:PROXY|proxy)"
                    r"|PYTHON[A-Z0-9_]*|LD_[A-Z_]*|BUILDKIT_[A-Z_]*|(?:TARGET|BUILD)[A-Z]+)$)"
                    r"[A-Za-z_][A-Za-z0-9_]*",
                    longest=64,
                    expected="the name of a variable of your own: letters, digits, '_'",
                ),
                value=Text(
                    pattern=r"[A-Za-z0-9 ._/:@%+,=~-]+",
                    longest=1024,
                    expected="letters, digits, spaces and . _ / : @ % + , = ~ -",
                ),
                expected="a mapping of variables",
            ),
            about="variables for `run`, which --build-arg sets to something else by hand",
        ),
        "cmd": Field(
            kind=List(item=_line("a text in one line"), expected="a list, as [python3, -i]"),
            about="what the image runs by default: a program and its arguments",
        ),
        "builder": _BUILDER,
        "test": Field(kind=_COMMANDS, about="commands that must succeed in the finished image"),
        "mpi": Field(
            kind=Choice(of=MPIS),
            about="the MPI it is built for, which a host's own has to be able to replace",
        ),
        "allow": Field(
            kind=Map(
                key=Text(
                    pattern=rf"[A-Z][1-9][0-9]?:[^{CONTROL}]+",
                    expected="a finding and where it is, as F1:/opt/x (* stands for anything)",
                ),
                value=_line("the reason, in one line"),
                expected="a mapping from findings to reasons",
            ),
            about="findings of the portability checks that are meant, and why",
        ),
        MATRIX: Field(
            kind=MatrixKind(),
            about="axes and their values: an image for each combination, with {axis} filled in",
            passed=False,
        ),
    },
)


def _files_of(image: Image) -> Iterable[str]:
    """The files of the project in which `{axis}` stands for its value."""
    if image.pip is not None:
        yield from filter(None, (image.pip.requirements, *image.pip.constraints))
    if image.conda is not None:
        sections = (image.conda, *image.conda.environments.values())
        yield from (section.file for section in sections if section.file)


_SOURCE = source_section.section(_SOURCE_NAME, _COMMAND, VARIABLES)

_VERSION = Version(version=FORMAT)


def _project(*, platform: tuple[str, ...] = PLATFORMS[:1], **given: Any) -> Project:
    """Of several platforms this machine's own is what is made here, else the first."""
    own = native() if native() in platform else platform[0]
    others = tuple(one for one in platform if one != own)
    return Project(platform=own, others=others, **given)


PROJECT = Record(
    make=_project,
    expected="a mapping with the keys 'lading', 'name', 'bases', 'images'",
    also=lambda place: {"root": place.report.root},
    fields={
        "lading": Field(
            kind=_VERSION, about="the version of this format", required=True, passed=False
        ),
        "name": Field(
            kind=_name("the name of the project"), about="the project's name", required=True
        ),
        "platform": Field(
            kind=source_section.Some(item=Choice(of=PLATFORMS), or_one=True, unique=True),
            about="what the images run on; of several, this machine's own unless another is named",
        ),
        "maintainer": Field(kind=_line("a text in one line"), about="who looks after the images"),
        "registry": Field(
            kind=Text(
                pattern=rf"{_HOST}(?:/{_COMPONENT})*",
                longest=255,
                expected="a registry without its scheme, as registry.example.org/group",
            ),
            about="where images are pushed, as registry.example.org/group",
        ),
        "builder": _BUILDER,
        "labels": Field(kind=_LABELS, about="labels of every image"),
        "bases": Field(
            kind=Map(key=_BASE_NAME, value=_BASE, expected="a mapping of bases", defines="bases"),
            about="what images start from",
        ),
        "sources": Field(
            kind=Expanded(
                map=Map(
                    key=_SOURCE_NAME,
                    value=_SOURCE,
                    expected="a mapping of sources",
                    defines="sources",
                ),
                record=_SOURCE,
                meant=frozenset(["version"]),
            ),
            about="what is compiled from source, once for each base",
        ),
        "images": Field(
            kind=Expanded(
                map=Map(
                    key=IMAGE_NAME,
                    value=_IMAGE,
                    expected="a mapping of images",
                    defines="images",
                ),
                record=_IMAGE,
                said=lambda of, values: {"matrix": values, "variant_of": of},
                files=_files_of,
            ),
            about="the images",
        ),
        "sif": Field(kind=sif_section.SECTION, about="how SIFs are made of the archives"),
        "ci": Field(kind=ci_section.section(_COMMAND), about="what `doit ci` writes for runners"),
    },
)


def load(path: Path, today: date | None = None) -> Project:
    """The project that a file declares; `today` is for `as-of`, which is never later.

    Raises `DeclarationError` with all problems, each in a line `project.yaml:LINE: PATH: …`.
    """
    text = text_of(path)
    try:
        tree = read(text)
    except UnreadableError as problem:
        raise DeclarationError(f"{path.name}:{problem.line}: {problem.message}") from None
    if tree is None or (isinstance(tree, ScalarNode) and tree.null):
        raise DeclarationError(
            f"{path.name}:1: the file is empty",
            do=f"begin it with 'lading: {FORMAT}', 'name:', 'bases:' and 'images:'",
        )
    report = Report(root=path.parent.resolve(), today=today or date.today())
    place = Place(report, tree.line)
    project = None
    try:
        _check_newer(tree, place)
        project = PROJECT.parse(tree, place)
    except RejectedError:
        pass
    report.settle()
    for source, way in source_section.circles(project.sources) if project is not None else ():
        at = place.child("sources", source.line).child(source.name, source.line)
        at.child("needs", source.line).note(f"it needs itself: {way}")
    with_args = [image for image in project.images.values() if image.args] if project else []
    for image in {image.variant_of or image.name: image for image in with_args}.values():
        _check_args(image, place)
    if project is None or report.problems:
        raise DeclarationError(written(report.problems, path.name))
    return project


def _check_args(image: Image, place: Place) -> None:
    """Notes arguments that would be of no use."""
    name = image.variant_of or image.name
    at = place.child("images", image.line).child(name, image.line).child("args", image.line)
    for arg in image.args:
        if arg in image.env:
            at.child(arg, image.line).note("`env:` sets it, which goes before any argument")
    if not any(image.run.values()):
        at.note("nothing could use them: the image has no `run:`")


def _check_newer(tree: Node, place: Place) -> None:
    """Refuses a newer format for that alone: what else is in it can't be judged."""
    for key, value in tree.pairs if isinstance(tree, MapNode) else ():
        if isinstance(key, ScalarNode) and key.text == "lading" and _VERSION.newer(value):
            _VERSION.parse(value, place.child("lading", key.line))


def json_schema() -> Schema:
    """project.yaml as JSON schema (draft 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lading's project.yaml",
        **PROJECT.schema(),
    }


def schema_text() -> str:
    """The text of project.schema.json."""
    import json

    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
