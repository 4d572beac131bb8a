"""steps: the lesson's other Dockerfiles for pip, each against the same by declaration.

Each once, on one engine; what is by hand is built with --no-cache-dir, as the lesson does from its
second Dockerfile on.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lading.errors import LadingError
from lading.layers import pip
from tests.bench import clock
from tests.bench.figures import Figure
from tests.bench.lesson import Lesson
from tests.bench.parts.build import cold, sizes
from tests.bench.workshop import IMAGE, Workshop

SMALL = "--no-cache-dir"
VERSIONS = ("7.0.1", "7.1.0")
"""Of astropy: what the lesson's ARG says, and what is asked for by hand."""
VARIANT = "variant"
MATRIX = """
  variant:
    matrix: {astropy: [VERSIONS]}
    default: false
    base: BASE
    pip: {requirements: recipes/variant.in}
"""
ARGUMENT = f"""\
ARG ASTRO_VERSION="{VERSIONS[0]}"
LABEL maintainer="Jane Doe <jane@hpc.example>"
LABEL astropy.version=$ASTRO_VERSION
"""
MKL = "mkl"


def measure(workshop: Workshop) -> Iterator[Figure]:
    """Dockerfile 3, Dockerfile 4, and Intel's packages."""
    kind = workshop.any_engine().kind
    workshop.with_base(kind)
    yield from _frozen(workshop, kind)
    yield from _argument(workshop, kind)
    yield from _intel(workshop, kind)


def _frozen(workshop: Workshop, kind: str) -> Iterator[Figure]:
    """The versions of our own lock, as `pip freeze` would have them."""
    folder = workshop.state(workshop.source).lock_folder(workshop.image())
    if (lock := pip.read(folder)) is None:
        raise LadingError(f"{IMAGE} is not locked", do=f"doit lock:{IMAGE}")
    pins = "".join(f"{pin.name}=={pin.version}\n" for pin in lock.pins)
    lesson = Lesson(workshop, "frozen", SMALL, requirements=pins)
    yield from _compared(workshop, kind, "frozen versions", lesson, step="pip 3")


def _argument(workshop: Workshop, kind: str) -> Iterator[Figure]:
    """Another version, by an ARG or by a variant of a matrix, which is locked before."""
    project = workshop.project("steps")
    declared = project / "project.yaml"
    matrix = MATRIX.replace("VERSIONS", ", ".join(VERSIONS)).replace("BASE", workshop.base().name)
    declared.write_text(declared.read_text() + matrix)
    (project / f"recipes/{VARIANT}.in").write_text("astropy=={astropy}\n")
    name = f"{VARIANT}-{VERSIONS[1]}"
    workshop.doit(project, f"lock:{name}")
    arguments = ("--build-arg", f"ASTRO_VERSION={VERSIONS[1]}")
    words = "astropy==$ASTRO_VERSION"
    lesson = Lesson(workshop, "argument", SMALL, before=ARGUMENT, words=words, arguments=arguments)
    yield from _compared(workshop, kind, "another version", lesson, name, project, step="pip 4")


def _intel(workshop: Workshop, kind: str) -> Iterator[Figure]:
    image = workshop.declared().images[MKL]
    assert image.pip is not None
    text = (workshop.source / image.pip.requirements).read_text()
    lesson = Lesson(workshop, MKL, SMALL, requirements=text)
    yield from _compared(workshop, kind, "Intel's packages", lesson, MKL, step="mkl")


def _compared(
    workshop: Workshop,
    kind: str,
    what: str,
    lesson: Lesson,
    name: str = IMAGE,
    project: Path | None = None,
    *,
    step: str,
) -> Iterator[Figure]:
    """Time and size of both."""
    ours, theirs = clock.alternating(
        1, partial(cold, workshop, kind, name, project), partial(lesson.build, kind)
    )
    yield Figure(what=what, ours=clock.seconds(ours), theirs=clock.seconds(theirs), step=step)
    yield sizes(workshop, kind, f"{what}, image", lesson.name, name, project, step=step)
