"""change: from one changed line in a requirement file to the new tarball."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench import clock
from tests.bench.figures import Figure
from tests.bench.workshop import ENGINES, IMAGE, NotMeasured, Workshop

LINE = "tqdm"
"""A small package that nothing else asks for."""


def measure(workshop: Workshop) -> Iterator[Figure]:
    """On every engine that can be started here; resolved, fetched, built, checked, exported."""
    image = workshop.image()
    assert image.pip is not None
    for kind in ENGINES:
        what = f"to tarball, {kind}"
        try:
            running = workshop.with_base(kind)
        except NotMeasured as error:
            yield Figure(what=what, missing=error.what)
            continue
        project = workshop.project(f"change-{kind}")
        workshop.doit(project, f"archive:{IMAGE}", engine=running)
        with (project / image.pip.requirements).open("a") as file:
            file.write(f"\n{LINE}\n")
        runs = [workshop.doit(project, f"archive:{IMAGE}", engine=running)]
        yield Figure(what=what, ours=clock.seconds(runs), cpu=clock.cpu(runs))
