"""build: cold, against the lesson's `pip install` on the same base and the same builder; size."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

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
        step = f"pip 1 {kind}"
        yield Figure(
            what=what,
            ours=clock.seconds(ours),
            theirs=clock.seconds(theirs),
            goal=goal,
            note="theirs: pip install, which keeps of its downloads what the index lets it cache",
            step=step,
        )
        yield sizes(workshop, kind, f"image on {kind}", lesson.name, step=step)


def cold(workshop: Workshop, kind: str, name: str = IMAGE, project: Path | None = None) -> Timed:
    """`doit build:NAME` with lock and store warm, but neither context, image nor cache there."""
    running = workshop.with_base(kind)
    project = project or workshop.source
    workshop.doit(project, f"fetch:{name}", engine=running)
    shutil.rmtree(project / "build" / name, ignore_errors=True)
    forget(workshop, kind, name, project)
    result = workshop.doit(project, f"build:{name}", engine=running)
    log = (project / "build" / name / "build.log").read_text()
    if was_cached(log):
        raise LadingError(f"the build on {kind} was not cold", why=log[-1000:])
    return result


def called(workshop: Workshop, name: str = IMAGE, project: Path | None = None) -> str:
    """What the engine has one of our images by."""
    state = workshop.state(project or workshop.source)
    return state.name(state.project.images[name])


def sizes(
    workshop: Workshop,
    kind: str,
    what: str,
    lesson: str,
    name: str = IMAGE,
    project: Path | None = None,
    *,
    step: str,
    goal: Goal | None = None,
) -> Figure:
    """Our image against the lesson's, both with the base they share."""
    engine = workshop.connected(kind)
    found = [engine.inspect(ref) for ref in (called(workshop, name, project), lesson)]
    ours, theirs = (Samples(values=(info.size / 1e6,)) for info in found if info is not None)
    return Figure(what=what, ours=ours, theirs=theirs, unit="MB", goal=goal, step=step)


def was_cached(log: str) -> bool:
    """Whether a RUN step came out of a cache, by BuildKit's or Podman's log."""
    steps = set(re.findall(r"^#(\d+) \[[^]]*\] RUN", log, re.MULTILINE))
    cached = set(re.findall(r"^#(\d+) CACHED$", log, re.MULTILINE))
    return bool(steps & cached) or "Using cache" in log


def forget(workshop: Workshop, kind: str, name: str, project: Path) -> None:
    """Takes the image and everything cached of its build out of an engine."""
    engine, url = workshop.connected(kind), workshop.engine(kind).url
    engine.remove(called(workshop, name, project))
    program = builder(kind, url)[0]
    prune = ["--url", url, "image", "prune"] if kind == "podman" else ["builder", "prune", "--all"]
    clock.timed([program, *prune, "--force"], env=workshop.engine(kind).environ)


def measure_size(workshop: Workshop) -> Iterator[Figure]:
    """The image against the lesson's with --no-cache-dir."""
    kind = workshop.any_engine().kind
    lesson = Lesson(workshop, "small", "--no-cache-dir")
    ours, theirs = clock.alternating(1, partial(cold, workshop, kind), partial(lesson.build, kind))
    yield Figure(
        what="its build", ours=clock.seconds(ours), theirs=clock.seconds(theirs), step="pip 2"
    )
    goal = Goal(kind="share", limit=1.0)
    yield sizes(workshop, kind, "image", lesson.name, step="pip 2", goal=goal)
