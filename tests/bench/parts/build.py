"""build: cold, against the lesson's `pip install` on the same base and the same builder; size."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from functools import partial

from lading.errors import LadingError
from tests.bench import clock
from tests.bench.clock import Timed
from tests.bench.figures import Figure, Goal, Samples
from tests.bench.lesson import Lesson, builder
from tests.bench.workshop import ENGINES, IMAGE, NotMeasured, Workshop

RUNS = 3


def measure(workshop: Workshop) -> Iterator[Figure]:
    """On every engine that can be started here."""
    lesson = Lesson(workshop, "plain")
    for kind in ENGINES:
        what, goal = f"build on {kind}", Goal(kind="share", limit=0.55)
        try:
            workshop.with_base(kind)
        except NotMeasured as error:
            yield Figure(what=what, goal=goal, missing=error.what)
            continue
        ours, theirs = clock.alternating(
            RUNS, partial(cold, workshop, kind), partial(lesson.build, kind)
        )
        yield Figure(what=what, ours=clock.seconds(ours), theirs=clock.seconds(theirs), goal=goal)


def cold(workshop: Workshop, kind: str) -> Timed:
    """`doit build:IMAGE` with lock and store warm, but neither context, image nor cache there."""
    running = workshop.with_base(kind)
    project = workshop.folder / "source"
    workshop.doit(project, f"fetch:{IMAGE}", engine=running)
    shutil.rmtree(project / "build" / IMAGE, ignore_errors=True)
    forget(workshop, kind)
    result = workshop.doit(project, f"build:{IMAGE}", engine=running)
    log = (project / "build" / IMAGE / "build.log").read_text()
    if was_cached(log):
        raise LadingError(f"the build on {kind} was not cold", why=log[-1000:])
    return result


def was_cached(log: str) -> bool:
    """Whether a RUN step came out of a cache, by BuildKit's or Podman's log."""
    steps = set(re.findall(r"^#(\d+) \[[^]]*\] RUN", log, re.MULTILINE))
    cached = set(re.findall(r"^#(\d+) CACHED$", log, re.MULTILINE))
    return bool(steps & cached) or "Using cache" in log


def forget(workshop: Workshop, kind: str) -> None:
    """Takes the image and everything cached of its build out of an engine."""
    engine, url = workshop.connected(kind), workshop.engine(kind).url
    engine.remove(workshop.state(workshop.source).name(workshop.image()))
    program = builder(kind, url)[0]
    prune = ["--url", url, "image", "prune"] if kind == "podman" else ["builder", "prune", "--all"]
    clock.timed([program, *prune, "--force"], env=workshop.engine(kind).environ)


def measure_size(workshop: Workshop) -> Iterator[Figure]:
    """The image against the lesson's with --no-cache-dir; both with the base they share."""
    kind = workshop.any_engine().kind
    running = workshop.with_base(kind)
    engine = workshop.connected(kind)
    lesson = Lesson(workshop, "small", "--no-cache-dir")
    lesson.build(kind)
    workshop.doit(workshop.source, f"build:{IMAGE}", engine=running)
    name = workshop.state(workshop.source).name(workshop.image())
    sizes = [engine.inspect(ref) for ref in (name, lesson.name)]
    ours, theirs = (Samples(values=(info.size / 1e6,)) for info in sizes if info is not None)
    yield Figure(
        what="image", ours=ours, theirs=theirs, unit="MB", goal=Goal(kind="share", limit=1.0)
    )
