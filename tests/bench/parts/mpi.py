"""mpi: MPICH compiled once, and what stays behind of it; some minutes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.bench import clock
from tests.bench.figures import Figure, Goal, Samples
from tests.bench.workshop import Workshop

IMAGE = "mpi4py"
SECOND = """
  second:
    base: debian-11
    source: [mpich]
"""
LESSON = """
  lesson:
    base: debian-11
    apt: {run: [build-essential, gfortran, python3-dev, python3-pip]}
    source: [mpich]
    pip: {requirements: recipes/mpi4py/requirements.in, no-binary: [mpi4py],
          build-constraints: ["setuptools<69"]}
"""
"""What the lesson's Dockerfile leaves: the compilers, pip, and all that MPICH installs."""


def measure(workshop: Workshop) -> Iterator[Figure]:
    """Time of a second image on the same MPICH, and the image's size."""
    running = workshop.any_engine()
    engine = workshop.connected(running.kind)
    project = workshop.project("mpi")
    first = workshop.doit(project, f"build:{IMAGE}", engine=running)
    declared = project / "project.yaml"
    _add(declared, SECOND)
    second = workshop.doit(project, "build:second", engine=running)
    yield Figure(
        what="second image on the same MPICH, against the first",
        ours=clock.seconds([second]),
        theirs=clock.seconds([first]),
        goal=Goal(kind="share", limit=0.05),
    )
    declared.write_text(
        declared.read_text().replace("    version: 4.0.2\n", "    version: 4.0.2\n    keep: '**'\n")
    )
    name = workshop.state(workshop.source).name(workshop.declared().images[IMAGE])
    _add(declared, LESSON)
    workshop.doit(project, "build:lesson", engine=running)
    lesson = workshop.state(project)
    wanted = (name, lesson.name(lesson.project.images["lesson"]))
    sizes = [engine.inspect(reference) for reference in wanted]
    ours, theirs = (Samples(values=(info.size / 1e6,)) for info in sizes if info is not None)
    yield Figure(
        what="image, against the lesson's",
        ours=ours,
        theirs=theirs,
        unit="MB",
        goal=Goal(kind="share", limit=0.45),
    )


def _add(declared: Path, image: str) -> None:
    declared.write_text(declared.read_text() + image)
