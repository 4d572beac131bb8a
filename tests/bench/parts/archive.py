"""archive: doit's export, normalised, against `docker save`; its memory with a large image."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lading import archive as archives
from lading.verbs.base import ARCHIVE
from tests.bench import clock
from tests.bench.clock import Timed
from tests.bench.figures import Figure, Goal, Samples
from tests.bench.lesson import builder
from tests.bench.workshop import IMAGE, Workshop
from tests.support import images
from tests.support.engines import Running

RUNS = 3
LARGE = 2 * 10**9
"""The size in bytes of the image whose export is watched for memory."""
PIECE = 100 * 10**6
"""The size in bytes of each of its files."""


def measure(workshop: Workshop) -> Iterator[Figure]:
    """On Docker, else on Podman."""
    running = workshop.with_base(workshop.any_engine().kind)
    project = workshop.project("archive")
    workshop.doit(project, f"check:{IMAGE}", engine=running)
    name = workshop.state(project).name(workshop.image())
    platform = workshop.declared().platform
    saved = workshop.folder / "saved.tar"
    save = [builder(running.kind, running.url)[0]]
    save += ["--url", running.url] if running.kind == "podman" else []

    def exported() -> Timed:
        out = project / "dist" / "alone.tar"
        result = workshop.python("export", name, platform, out, project, IMAGE, engine=running)
        out.unlink()
        return replace(result, seconds=float(result.output.split()[-3]))

    def ours() -> Timed:
        for path in (*(project / "dist").glob("*"), *(project / "build" / IMAGE).glob("cand*")):
            path.unlink()
        return workshop.doit(project, f"archive:{IMAGE}", engine=running)

    def theirs() -> Timed:
        saved.unlink(missing_ok=True)
        return clock.timed([*save, "save", "--output", saved, name], env=running.environ)

    alone, found, compared = clock.alternating(RUNS, exported, ours, theirs)
    saved.unlink()
    shutil.rmtree(project / "dist")
    yield Figure(
        what=f"{running.kind} save",
        ours=clock.seconds(alone),
        theirs=clock.seconds(compared),
        cpu=clock.cpu(alone),
        goal=Goal(kind="share", limit=1.3),
    )
    yield Figure(what="the whole process", ours=clock.seconds(found), cpu=clock.cpu(found))
    yield _memory(workshop, project, running)


def _memory(workshop: Workshop, project: Path, running: Running) -> Figure:
    """What an export as doit does it holds at most, above the interpreter it runs in."""
    name = "localhost/lading/large:1"
    made = _large(workshop, name)
    workshop.connected(running.kind).load(made)
    made.unlink()
    out = workshop.folder / "large-out.tar"
    platform = workshop.declared().platform
    result = workshop.python("export", name, platform, out, project, IMAGE, engine=running)
    size = out.stat().st_size
    out.unlink()
    workshop.connected(running.kind).remove(name)
    seconds, before, most = map(float, result.output.split()[-3:])
    return Figure(
        what=f"memory, {size / 1e9:.1f} GB",
        ours=Samples(values=((most - before) / 1e6,)),
        unit="MB",
        goal=Goal(kind="within", limit=100),
        note=f"exported in {seconds:.1f} s; our process had the CPU for {result.cpu:.1f} s",
    )


def _large(workshop: Workshop, name: str) -> Path:
    """An image of the base and of `LARGE` bytes more, in files full of zeros."""
    import tarfile

    folder = workshop.folder
    base, layer, out = folder / "base-layer.tar", folder / "large-layer.tar", folder / "large.tar"
    with tarfile.open(workshop.store.made(workshop.base_lock().key, ARCHIVE)) as archived:
        lowest = archived.extractfile("layer-1.tar")
        assert lowest is not None
        with base.open("wb") as file:
            shutil.copyfileobj(lowest, file)
    with layer.open("wb") as file:
        for number in range(LARGE // PIECE):
            info = tarfile.TarInfo(f"data/{number}")
            info.size = PIECE
            file.write(info.tobuf(tarfile.USTAR_FORMAT))
            file.seek(PIECE + -PIECE % tarfile.BLOCKSIZE, 1)
        file.write(bytes(2 * tarfile.BLOCKSIZE))
    config = json.loads(images.tiny_image().config)
    del config["history"]
    try:
        archives.write(out, config, [base, layer], name)
    finally:
        base.unlink()
        layer.unlink()
    return out
