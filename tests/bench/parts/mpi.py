"""mpi: MPICH compiled once, and what stays behind of it; many minutes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lading.errors import LadingError
from tests.bench import clock
from tests.bench.figures import Figure, Goal, Samples
from tests.bench.lesson_mpi import MpiLesson
from tests.bench.workshop import Workshop

IMAGE = "mpi4py"
SECOND = """
  second:
    base: debian-11
    source: [mpich]
"""
OTHER = ("mpi4py==3.1.3", "mpi4py==3.1.4")
"""A change of mpi4py's version, as it is made in a recipe."""


def measure(workshop: Workshop) -> Iterator[Figure]:
    """What a second image and another mpi4py take once MPICH is there; the image's size, and the
    time of all of it, against the lesson's Dockerfile.
    """
    running = workshop.any_engine()
    engine = workshop.connected(running.kind)
    project = workshop.project("mpi")
    first = workshop.doit(project, f"build:{IMAGE}", engine=running)
    if not compiled(first.output):
        raise LadingError("MPICH was not compiled for the first image", why=first.output[-1000:])
    name = workshop.state(project).name(workshop.declared().images[IMAGE])
    ours = engine.inspect(name)
    declared = project / "project.yaml"
    declared.write_text(declared.read_text() + SECOND)
    second = workshop.doit(project, "build:second", engine=running)
    yield Figure(
        what="second image on the same MPICH, against the first",
        ours=clock.seconds([second]),
        theirs=clock.seconds([first]),
        goal=Goal(kind="share", limit=0.05),
    )
    _other_version(project / "recipes" / IMAGE / "requirements.in")
    changed = workshop.doit(project, f"build:{IMAGE}", engine=running)
    yield Figure(
        what="another mpi4py: sources compiled",
        ours=Samples(values=(float(len(compiled(changed.output))),)),
        unit="builds",
        goal=Goal(kind="within", limit=0),
        note=f"{changed.seconds:.0f} s, with its lock and mpi4py compiled anew",
    )
    lesson = MpiLesson(workshop, IMAGE)
    built = lesson.build(running.kind)
    yield Figure(
        what="the first image, against the lesson's",
        ours=clock.seconds([first]),
        theirs=clock.seconds([built]),
        step="mpi",
    )
    yield Figure(
        what="the second image, against the lesson's once more",
        ours=clock.seconds([second]),
        theirs=clock.seconds([built]),
        note="theirs is not built again: it would compile the same once more",
        step="mpi again",
    )
    sizes = [info.size / 1e6 for info in (ours, engine.inspect(lesson.name)) if info is not None]
    yield Figure(
        what="image, against the lesson's",
        ours=Samples(values=(sizes[0],)),
        theirs=Samples(values=(sizes[1],)),
        unit="MB",
        goal=Goal(kind="share", limit=0.45),
        step="mpi",
    )


def compiled(output: str) -> list[str]:
    """The sources that a run of doit says it compiled."""
    return re.findall(r"^build +source:(\S+)", output, re.MULTILINE)


def _other_version(requirements: Path) -> None:
    text = requirements.read_text()
    was, now = OTHER
    if was not in text:
        raise LadingError(f"{requirements.name} of {IMAGE} does not ask for {was}")
    requirements.write_text(text.replace(was, now))
