"""conda: against the lesson's ways, from the same channel; and the solver on a large channel."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from lading.layers import base as bases
from tests.bench import clock, condas, lesson
from tests.bench.clock import Timed
from tests.bench.figures import Figure, Goal, Samples
from tests.bench.workshop import Workshop
from tests.support import miniconda
from tests.support.channels import Channel

RUNS = 2
RECORDS = 360_000
"""As many as the largest public channel has for a platform."""


def measure(workshop: Workshop) -> Iterator[Figure]:
    """Lock and build time and size of the images, then the solver alone."""
    running = workshop.any_engine()
    engine = workshop.connected(running.kind)
    with Channel(workshop.folder / "channel") as channel:
        besides = condas.everything(workshop, channel)
        project = workshop.project("conda")
        condas.declared(project)
        env = {"CONDA_CHANNEL_ALIAS": channel.alias}
        for one in ("bare", "like-miniconda"):
            workshop.doit(project, f"build:base:{one}", engine=running, env=env)
        locks = project / "locks" / "images" / "conda"

        def lock() -> Timed:
            shutil.rmtree(locks, ignore_errors=True)
            shutil.rmtree(workshop.folder / "cache" / "repodata", ignore_errors=True)
            return workshop.doit(project, "lock:conda", engine=running, env=env)

        locked = clock.seconds([lock() for _ in range(RUNS)])
        yield Figure(
            what="lock, nothing asked before",
            ours=locked,
            note="the first run fetches the packages and looks into them",
        )
        (text,) = locks.rglob("explicit.txt")
        tars = miniconda.prefix(channel, workshop.store, workshop.folder, besides)
        state = workshop.state(project)
        declared = state.project.bases["like-miniconda"]
        base = state.base_lock(declared)
        assert base is not None
        condas.base(engine, bases.reference(declared, base), tars, workshop.folder / "base")
        condas.lesson(text.read_text(), channel, workshop.folder / "lesson")

        def ours() -> Timed:
            for made in [project / "build" / "conda", *_prefixes(workshop.folder / "cache")]:
                shutil.rmtree(made, ignore_errors=True)
            name = workshop.state(project)
            engine.remove(name.name(name.project.images["conda"]))
            return workshop.doit(project, "build:conda", engine=running, env=env)

        def theirs() -> Timed:
            start = time.monotonic()
            engine.build(
                workshop.folder / "lesson",
                condas.LESSON,
                platform="linux/amd64",
                log=lambda _: None,
                cache=False,
            )
            return Timed(seconds=time.monotonic() - start, cpu=0.0, output="")

        found, compared = clock.alternating(RUNS, ours, theirs)
        yield Figure(
            what="build, from the locked packages",
            ours=clock.seconds(found),
            theirs=clock.seconds(compared),
            note="theirs: conda 4.3.16 installs the same packages, without their Python, which its "
            "base has; ours stages the prefix anew",
            step="conda 4",
        )
        state = workshop.state(project)
        wanted = (state.name(state.project.images["conda"]), condas.LESSON, condas.BASE)
        sizes = [info.size / 1e6 for info in map(engine.inspect, wanted) if info is not None]
        yield Figure(
            what="image, bases included",
            ours=Samples(values=(sizes[0],)),
            theirs=Samples(values=(sizes[1],)),
            unit="MB",
            goal=Goal(kind="share", limit=0.55),
            note="ours: on a Debian without Python; theirs: on a base of "
            f"{sizes[2]:.0f} MB with the Debian packages of miniconda3:4.10.3, Python, conda "
            "4.3.16 and what the package index has of the rest; the real one is not to be had "
            "here, and has more",
            step="conda 4",
        )
        for step, name in condas.by_hand(channel, workshop.folder / "by-hand").items():
            built = lesson.built(running, name, workshop.folder / "by-hand" / step, {})
            yield Figure(
                what=step,
                ours=clock.seconds(found),
                theirs=clock.seconds([built]),
                note="ours: as from the locked packages",
                step=step,
            )
            info = engine.inspect(name)
            assert info is not None
            yield Figure(
                what=f"{step}, image",
                ours=Samples(values=(sizes[0],)),
                theirs=Samples(values=(info.size / 1e6,)),
                unit="MB",
                step=step,
            )
            if step == "conda 1":
                start = time.monotonic()
                engine.run(name, ["/opt/conda/bin/conda", "list", "--explicit"])
                frozen = built.seconds + time.monotonic() - start
                yield Figure(
                    what="conda install, list --explicit",
                    ours=Samples(values=locked.values[:1]),
                    theirs=Samples(values=(frozen,)),
                    note="ours: the lock, of the first run",
                    step="conda freeze",
                )
    yield from _solver(workshop)


def _prefixes(cache: Path) -> list[Path]:
    return [path.parent for path in cache.rglob("prefix.tar")]


def _solver(workshop: Workshop) -> Iterator[Figure]:
    folder, cache = workshop.folder / "large", workshop.folder / "large-cache"
    spec = condas.synthetic(folder, RECORDS)
    first = workshop.python("solve", folder, spec, cache)
    count, seconds, held = first.output.split()[-3:]
    yield Figure(
        what=f"solve of {RECORDS // 1000},000 records",
        ours=Samples(values=(float(seconds),)),
        cpu=first.cpu,
        note=f"{count} packages of a synthetic channel in a folder",
    )
    yield Figure(what="its memory", ours=Samples(values=(float(held) / 1e6,)), unit="MB")
