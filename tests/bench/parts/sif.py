"""sif: the SIF with our compression and in our way, against what `apptainer build` does by itself.

Both from the same archive to a SIF, without running its tests, with nothing cached.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace

from tests.bench import clock
from tests.bench.clock import Timed
from tests.bench.figures import Figure, Goal, Samples
from tests.bench.workshop import IMAGE, Workshop
from tests.support.apptainer import NotToBeHad, installed

RUNS = 3


def measure(workshop: Workshop) -> Iterator[Figure]:
    """Time and size, with a real Apptainer; nothing where its packages can't be had."""
    try:
        apptainer = installed(workshop.folder / "apptainer", workshop.store)
    except NotToBeHad as reason:
        yield Figure(what="apptainer build", missing=str(reason))
        return
    running = workshop.with_base(workshop.any_engine().kind)
    project = workshop.project("sif")
    workshop.doit(project, f"archive:{IMAGE}", engine=running)
    archive = project / "dist" / f"{IMAGE}.tar"
    our_sif, their_sif = workshop.folder / "ours.sif", workshop.folder / "theirs.sif"
    cache = workshop.folder / "apptainer-cache"
    environ = {**apptainer.environ, "APPTAINER_CACHEDIR": str(cache)}
    environ["TMPDIR"] = environ["APPTAINER_TMPDIR"] = str(workshop.folder)

    def ours() -> Timed:
        result = workshop.python("sif", apptainer.program, IMAGE, archive, our_sif)
        return replace(result, seconds=float(result.output.split()[-3]))

    def theirs() -> Timed:
        their_sif.unlink(missing_ok=True)
        shutil.rmtree(cache, ignore_errors=True)
        build = ["build", str(their_sif), f"docker-archive:{archive}"]
        return clock.timed([apptainer.program, *build], env=environ)

    found, compared = clock.alternating(RUNS, ours, theirs)
    sizes = [path.stat().st_size / 1e6 for path in (our_sif, their_sif)]
    held = max(float(run.output.split()[-1]) for run in found) / 1e6
    yield Figure(
        what="apptainer build",
        ours=clock.seconds(found),
        theirs=clock.seconds(compared),
        cpu=clock.cpu(found),
        goal=Goal(kind="faster", limit=2),
        note=f"theirs had the CPU for {clock.cpu(compared):.1f} s; the largest of our programs "
        f"held {held:.0f} MB",
    )
    yield Figure(
        what="its size",
        ours=Samples(values=(sizes[0],)),
        theirs=Samples(values=(sizes[1],)),
        unit="MB",
        goal=Goal(kind="share", limit=1.1),
    )
    for path in (our_sif, their_sif, archive):
        path.unlink()
