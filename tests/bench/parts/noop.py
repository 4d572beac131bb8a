"""noop: doit where nothing is to do: this project, 100 and 1,000 images; make, bake; the engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from lading import archive
from lading.engines import buildkit, connect
from lading.errors import LadingError
from lading.layers import base as bases
from lading.plan import KEY_LABEL
from lading.state import State
from tests.bench import clock, generated, tools
from tests.bench.clock import Timed
from tests.bench.figures import Figure, Goal
from tests.bench.lesson import DEFAULT_PATHS
from tests.bench.wire import counting
from tests.bench.workshop import IMAGE, NotMeasured, Workshop
from tests.support import engines, images
from tests.support.engines import Running

COUNTS = ((100, 0.5, 5), (1000, 2.5, 3))
"""How many images, the target in seconds, and how often it is run."""
MAKE_COUNT = 100
BUILDX_SUITE = "trixie"
"""The Debian suite that has docker-buildx; this machine's own may not."""


def measure(workshop: Workshop) -> Iterator[Figure]:
    """All of them; the engine's address leads nowhere, so that asking it would fail."""
    project = workshop.project("noop")
    generated.pretend_made(workshop.state(project))
    yield _idle(workshop, project, "this project", 0.35, 7)
    yield _wrapper(workshop)
    for count, limit, runs in COUNTS:
        folder = generated.write(
            workshop.source, workshop.folder / f"images-{count}", workshop.base(), IMAGE, count
        )
        generated.lock_again(workshop.state(folder))
        generated.pretend_made(workshop.state(folder))
        yield _idle(workshop, folder, f"{count:,} images", limit, runs)
    yield from _variants(workshop)
    hundred = workshop.folder / f"images-{MAKE_COUNT}"
    yield _make(workshop, hundred)
    yield _bake(workshop, hundred)
    yield from _build(workshop, project)


def _variants(workshop: Workshop) -> Iterator[Figure]:
    """One image with a matrix of 1,000 variants: nothing to do, and `doit list`."""
    folder = generated.write(
        workshop.source, workshop.folder / "images-matrix", workshop.base(), IMAGE, 0
    )
    generated.lock_again(workshop.state(folder))
    generated.pretend_made(workshop.state(folder))
    yield _idle(workshop, folder, "1,000 variants", 3, 3)
    found = [workshop.doit(folder, "list") for _ in range(3)]
    yield Figure(
        what="1,000 variants, list",
        ours=clock.seconds(found),
        cpu=clock.cpu(found),
        goal=Goal(kind="within", limit=1.5),
    )


def _idle(workshop: Workshop, project: Path, what: str, limit: float, runs: int) -> Figure:
    workshop.doit(project)  # compiles the modules and writes .doit.db
    found = [workshop.doit(project) for _ in range(runs)]
    for run in found:
        if "nothing to do" not in run.output:
            raise LadingError(f"{what}: doit found something to do", why=run.output[-1000:])
    return Figure(
        what=what,
        ours=clock.seconds(found),
        cpu=clock.cpu(found),
        goal=Goal(kind="within", limit=limit),
    )


def _wrapper(workshop: Workshop) -> Figure:
    """What scripts/doit adds: itself, in a made-up checkout that is set up, with a doit that ends.

    There is no scripts/setup in it: if this is not what it takes for set up, it fails.
    """
    root = workshop.folder / "wrapper"
    scripts, venv = root / "scripts", root / ".venv"
    for folder in (scripts, venv / "bin"):
        folder.mkdir(parents=True)
    for name in ("doit", "requirements.txt"):
        shutil.copy(workshop.source / "scripts" / name, scripts / name)
    shutil.copy(workshop.source / "pyproject.toml", root / "pyproject.toml")
    shutil.copy(scripts / "requirements.txt", venv / ".set-up")
    shutil.copy(root / "pyproject.toml", venv / ".installed")
    (venv / ".set-up-at").write_text(f"{root.resolve()}\n/bin/true\n")
    for name in ("python", "doit"):
        (venv / "bin" / name).symlink_to("/bin/true")
    try:
        found = [clock.timed([scripts / "doit"], cwd=root) for _ in range(7)]
    except LadingError as error:
        return Figure(what="the wrapper adds", missing=error.what)
    return Figure(
        what="the wrapper adds",
        ours=clock.seconds(found),
        cpu=clock.cpu(found),
        goal=Goal(kind="within", limit=0.05),
    )


def _make(workshop: Workshop, project: Path) -> Figure:
    what = f"{MAKE_COUNT} images, make"
    program = shutil.which("make")
    if program is None:
        return Figure(what=what, missing="make is not installed")
    (project / "Makefile").write_text(generated.makefile(MAKE_COUNT))
    clock.timed([program], cwd=project)
    ours, theirs = clock.alternating(
        3, lambda: workshop.doit(project), lambda: clock.timed([program], cwd=project)
    )
    return Figure(what=what, ours=clock.seconds(ours), theirs=clock.seconds(theirs))


# -- docker buildx bake ---------------------------------------------------------------------


def _bake(workshop: Workshop, project: Path) -> Figure:
    what = f"{MAKE_COUNT} images, bake"
    try:
        running = workshop.engine("docker")
        program, config = _buildx(workshop)
    except (LadingError, StopIteration) as error:
        return Figure(what=what, missing=str(error) or "there is no docker client")
    _load_tiny(workshop)
    file, dockerfile = generated.bake(MAKE_COUNT, images.BASE)
    (project / "docker-bake.json").write_text(file)
    names = generated.names(MAKE_COUNT)
    for name in names:
        (project / "recipes" / name / "Dockerfile").write_text(dockerfile)
    env = {**running.environ, **config}

    def bake(*targets: str) -> Timed:
        command = [program, "buildx", "bake", "--file", "docker-bake.json", *targets]
        return _baked(command, project, env)

    try:
        for first in range(0, MAKE_COUNT, 10):
            bake(*names[first : first + 10])
        ours, theirs = clock.alternating(1, lambda: workshop.doit(project), bake)
    except NotMeasured as error:
        return Figure(what=what, missing=error.what)
    return Figure(what=what, ours=clock.seconds(ours), theirs=clock.seconds(theirs))


def _baked(command: list[str], project: Path, env: dict[str, str]) -> Timed:
    """Docker 20.10 drops some of many builds at once ('no such job'): then once more."""
    for _ in range(3):
        try:
            return clock.timed(command, cwd=project, env=env)
        except LadingError as error:
            if "no such job" not in error.why:
                raise
    raise NotMeasured("Docker drops some of the builds each time ('no such job')")


def _buildx(workshop: Workshop) -> tuple[str, dict[str, str]]:
    """A docker client with buildx, and what its environment needs for it."""
    clients = buildkit.clients(DEFAULT_PATHS)
    for client in clients:
        if client.build[:1] == ("buildx",):
            return str(client.path), {}
    config = {"DOCKER_CONFIG": str(tools.buildx(workshop, BUILDX_SUITE, workshop.folder / "cli"))}
    for client in clients:
        try:
            clock.timed([client.path, "buildx", "version"], env=workshop.environ() | config)
        except LadingError:
            continue
        return str(client.path), config
    raise NotMeasured("no docker client here takes the plugin buildx")


def _load_tiny(workshop: Workshop) -> None:
    path = workshop.folder / "tiny.tar"
    images.write_archive(images.tiny_image(), path)
    workshop.connected("docker").load(path)


# -- doit build -----------------------------------------------------------------------------


def _build(workshop: Workshop, project: Path) -> Iterator[Figure]:
    """`doit build` where the engine has all images: tiny ones with the right names and keys.

    In an engine of its own: no other part must take them for the real ones.
    """
    what, goal = "doit build, Docker", Goal(kind="within", limit=0.7)
    why = engines.missing("docker")
    if why:
        yield Figure(what=what, goal=goal, missing=why)
        return
    with engines.private_engine("docker") as running:
        yield _build_in(workshop, project, running, what, goal)


def _build_in(workshop: Workshop, project: Path, running: Running, what: str, goal: Goal) -> Figure:
    _pretend_built(workshop, workshop.state(project), running)
    workshop.doit(project, "build", engine=running)
    found = [workshop.doit(project, "build", engine=running) for _ in range(5)]
    asked = _asked(workshop, project, running)
    listed = ", ".join(f"{path} ×{asked.count(path)}" for path in dict.fromkeys(asked))
    return Figure(
        what=what,
        ours=clock.seconds(found),
        cpu=clock.cpu(found),
        goal=goal,
        note=f"the engine is asked {len(asked)} times: {listed}",
    )


def _asked(workshop: Workshop, project: Path, running: Running) -> list[str]:
    """What `doit build` asks of the engine."""
    engine = Path(running.url.removeprefix("unix://"))
    with counting(engine, workshop.folder) as (url, asked):
        result = workshop.doit(project, "build", env={"DOCKER_HOST": url})
    if "nothing to do" not in result.output:
        raise LadingError("doit build found something to do", why=result.output[-1000:])
    return asked


def _pretend_built(workshop: Workshop, state: State, running: Running) -> None:
    """Gives Docker an image for each base and each default image, as a build would."""
    tiny = images.tiny_image()
    layer = workshop.folder / "layer.tar"
    layer.write_bytes(tiny.layer)
    config = json.loads(tiny.config)
    wanted = {image.base for image in state.project.images.values() if image.default}
    named: list[tuple[str, dict[str, str]]] = []
    for name in sorted(wanted):
        lock = state.base_lock(state.project.bases[name])
        assert lock is not None
        named.append((bases.reference(state.project.bases[name], lock), {}))
    for image in state.project.images.values():
        key = state.key(image) if image.default else None
        if key is not None:
            named.append((state.name(image), {KEY_LABEL: key}))
    out = workshop.folder / "pretended.tar"
    with closing(connect(running.environ)) as engine:
        for reference, labels in named:
            settings = {**config["config"], "Labels": {"for": reference, **labels}}
            archive.write(out, {**config, "config": settings}, [layer], reference)
            engine.load(out)
            out.unlink()
