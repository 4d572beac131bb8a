"""The `sources:` of a project: what is compiled from a tarball, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct, field

from lading.layers import apt_section
from lading.layers.apt_section import AptSection
from lading.schema.nodes import Node
from lading.schema.problems import Place, RejectedError, quoted
from lading.schema.scalars import CONTROL, ProjectPath, Reference, Text, Words
from lading.schema.shapes import Field, Kind, List, Map, Record
from lading.schema.variants import KEY as MATRIX
from lading.schema.variants import MatrixKind

T = TypeVar("T")

DEBIAN = "debian:"
"""What a URL begins with that names a path on the user's Debian mirror."""

SYSTEMS = ("configure", "cmake", "meson", "commands")


class SourceBuild(Struct, frozen=True, kw_only=True):
    """What is compiled: where its tarball is, how it is built, and what an image gets of it.

    Exactly one of `configure`, `cmake` and `meson` (options of each) and `commands` says how;
    `{version}` stands for the version in it and in `urls`. `apt` are packages to build with,
    beyond those that the build system needs, and those that what was built needs to run. `keep`
    and `drop` are glob patterns over paths in the installed tree.
    """

    name: str
    version: str
    urls: tuple[str, ...]
    sha256: str = ""
    configure: str | None = None
    cmake: str | None = None
    meson: str | None = None
    commands: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    make: str = ""
    install: str = ""
    patches: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    apt: AptSection = field(default_factory=AptSection)
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    line: int = 0

    @property
    def system(self) -> str:
        """Which of `SYSTEMS` builds it."""
        return next(
            system
            for system in SYSTEMS
            if getattr(self, system) is not None and getattr(self, system) != ()
        )

    def filled(self, text: str) -> str:
        """The text with the version in its place."""
        return text.replace("{version}", self.version)


class Pattern(Text, frozen=True, kw_only=True):
    """A glob over paths of the installed tree."""

    pattern: str = rf"/?[^/{CONTROL}][^{CONTROL}]*"
    expected: str = "a glob over installed paths, as usr/share/doc/**"

    def parse(self, node: object, place: Place) -> str:
        return super().parse(node, place).lstrip("/")  # type: ignore[arg-type]


class Url(Text, frozen=True, kw_only=True):
    """Where a tarball is: a URL that can be taken apart."""

    def parse(self, node: Node, place: Place) -> str:
        text = super().parse(node, place)
        try:
            _ = urlsplit(text).port
        except ValueError as error:
            raise place.rejected(f"{quoted(text)} is no URL: {error}") from None
        return text


# BuildKit takes no line of 64 KiB and more, and a character can become two.
_OPTIONS = Words(
    pattern=rf"[^{CONTROL}]*",
    longest=30_000,
    folded=True,
    expected='options, as a shell takes them ("" for none)',
)


class Some(List[T], frozen=True, kw_only=True):
    """A list that is not empty."""

    def parse(self, node: Node, place: Place) -> tuple[T, ...]:
        found = super().parse(node, place)
        if not found:
            raise place.rejected("the list is empty")
        return found


def _made(*, place: Place, **given: Any) -> SourceBuild:
    """Raises `RejectedError` for options of steps that it does not have."""
    useless = [key for key in ("make", "install") if key in given and "commands" in given]
    for key in useless:
        place.child(key, place.line).note("has no meaning beside 'commands', which say it all")
    if useless:
        raise RejectedError
    return SourceBuild(name=str(place.key), line=place.line, **given)


def section(name: Text, command: Kind[str], variables: Map[str]) -> Record[SourceBuild]:
    """The shape of one source; what it shares with images is given."""
    globs = List(item=Pattern(), or_one=True, unique=True)
    return Record(
        make=_made,
        expected="a mapping with the keys 'version' and 'urls', and how it is built",
        exactly_one=SYSTEMS,
        also=lambda place: {"place": place},
        fields={
            "version": Field(
                kind=Text(
                    pattern=r"[A-Za-z0-9][A-Za-z0-9._+-]*",
                    longest=64,
                    expected="a version, as 4.0.2",
                ),
                about="its version; stands for {version}",
                required=True,
            ),
            "urls": Field(
                kind=Some(
                    item=Url(
                        pattern=rf"(?:https?://|file:///|debian:pool/)[^\s{CONTROL}]+",
                        expected="a URL, or debian:pool/… for a path on a Debian mirror",
                    ),
                    or_one=True,
                    unique=True,
                ),
                about="where its tarball is, tried in order",
                required=True,
            ),
            "sha256": Field(
                kind=Text(pattern="[0-9a-f]{64}", longest=64, expected="64 hexadecimal digits"),
                about="the tarball's sha256; else it is pinned when it is locked first",
            ),
            "configure": Field(kind=_OPTIONS, about="options of ./configure (autotools)"),
            "cmake": Field(kind=_OPTIONS, about="options of cmake"),
            "meson": Field(kind=_OPTIONS, about="options of meson setup"),
            "commands": Field(
                kind=Some(item=command, or_one=True),
                about="commands that build it and install it below $DESTDIR",
            ),
            "make": Field(kind=_OPTIONS, about="options of make, or of the build step"),
            "install": Field(kind=_OPTIONS, about="options of the step that installs"),
            "then": Field(
                kind=List(item=command, or_one=True),
                about="commands behind the step that installs; they install below $DESTDIR",
            ),
            "patches": Field(
                kind=List(item=ProjectPath(), or_one=True, unique=True),
                about="patches that are applied first, as patch -p1 takes them",
            ),
            "env": Field(kind=variables, about="variables while it is built"),
            "needs": Field(
                kind=List(
                    item=Reference(section="sources", what="source", name=name),
                    or_one=True,
                    unique=True,
                ),
                about="other sources that it is built against",
            ),
            "apt": Field(
                kind=apt_section.SECTION,
                about="Debian packages: build, to compile it with; run, for images that have it",
            ),
            "keep": Field(
                kind=globs, about="what images get besides programs and shared libraries"
            ),
            "drop": Field(kind=globs, about="what images do not get"),
            MATRIX: Field(
                kind=MatrixKind(),
                about="axes and their values: a source for each combination, with {axis} filled in",
                passed=False,
            ),
        },
    )


def circles(sources: Mapping[str, SourceBuild]) -> list[tuple[SourceBuild, str]]:
    """The sources that need themselves, each with the way round: "a → b → a"."""
    found: list[tuple[SourceBuild, str]] = []
    for start in sources.values():
        way = _way(start.name, start.name, sources, [start.name], set())
        if way:
            found.append((start, " → ".join(way)))
    return found


def _way(
    goal: str, at: str, sources: Mapping[str, SourceBuild], so_far: list[str], seen: set[str]
) -> list[str] | None:
    for name in sources[at].needs if at in sources else ():
        if name == goal:
            return [*so_far, goal]
        if name not in seen:
            seen.add(name)
            way = _way(goal, name, sources, [*so_far, name], seen)
            if way:
                return way
    return None


def in_order(names: tuple[str, ...], sources: Mapping[str, SourceBuild]) -> list[SourceBuild]:
    """These sources and all that they need, each behind what it stands on."""
    found: dict[str, SourceBuild] = {}

    def add(name: str) -> None:
        if name not in found:
            for needed in sources[name].needs:
                add(needed)
            found[name] = sources[name]

    for name in names:
        add(name)
    return list(found.values())
