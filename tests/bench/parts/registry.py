"""registry: what a run asks a registry on this machine about a hundred images."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lading.errors import LadingError
from lading.registry import asking, kept
from lading.registry.asking import Wanted
from lading.registry.kept import Blob, Kept
from lading.state import State
from lading.verbs import check
from tests.bench import clock, generated
from tests.bench.clock import Timed
from tests.bench.figures import Figure, Goal, Samples
from tests.bench.workshop import IMAGE, Workshop
from tests.support import engines

COUNT = 100
RUNS = 3
WITHIN = 3.0
"""Seconds that a run may take for it."""


def measure(workshop: Workshop) -> Iterator[Figure]:
    """The questions alone, against one after another by docker's own client; then whole runs of
    fresh runners, which have no engine: all is there, and nothing is to do.
    """
    whats = [f"{COUNT} keys, half there", f"{COUNT} images, all there"]
    goal = Goal(kind="within", limit=WITHIN)
    why = engines.missing("registry")
    if why:
        yield from (Figure(what=what, goal=goal, missing=why) for what in whats)
        return
    with engines.registry() as address:
        folder = _project(workshop, address)
        state = workshop.state(folder)
        wanted = _wanted(state)
        names = sorted(wanted)
        _push(state, names[::2])
        yield _asked(workshop, whats[0], goal, wanted, len(names[::2]))
        _push(state, names[1::2])
        yield _run(workshop, whats[1], goal, folder)


def _project(workshop: Workshop, address: str) -> Path:
    folder = generated.write(
        workshop.source, workshop.folder / "images-registry", workshop.base(), IMAGE, COUNT
    )
    yaml = folder / "project.yaml"
    text = yaml.read_text()
    yaml.write_text(text.replace("name: generated", f"name: generated\nregistry: {address}/group"))
    generated.lock_again(workshop.state(folder))
    return folder


def _wanted(state: State) -> dict[str, Wanted]:
    """What a run asks for, by the images' names."""
    found: dict[str, Wanted] = {}
    for image in state.project.images.values():
        key = state.key(image)
        assert key is not None
        found[image.name] = Wanted(repository=state.pushed_as(image)[0], key=key)
    return found


def _push(state: State, names: Sequence[str]) -> None:
    """Puts images there as a push leaves them, each with a layer of a few bytes."""

    def one(name: str) -> None:
        image = state.project.images[name]
        key = state.key(image)
        assert key is not None
        where, version = state.pushed_as(image)
        layer = name.encode()
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Labels": {kept.KEY: key}},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            }
        ).encode()
        contents = {_digest(data): data for data in (layer, config)}
        blobs = [Blob(digest=digest, size=len(data)) for digest, data in contents.items()]
        made = Kept(key=key, layers=(blobs[0],), config=blobs[1], checks=check.checks(image))
        with kept.repository(where, state.environ) as repository:
            kept.send(repository, lambda blob, at: [contents[blob.digest][at:]], blobs)
            kept.name(repository, made, [key, version])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, names))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _asked(
    workshop: Workshop, what: str, goal: Goal, wanted: dict[str, Wanted], there: int
) -> Figure:
    def ours() -> Timed:
        said: list[str] = []
        start, cpu = time.monotonic(), time.process_time()
        found = asking.ask(wanted, workshop.environ(), said.append)
        spent = time.monotonic() - start, time.process_time() - cpu
        if said or len(found) != there:
            raise LadingError(f"{len(found)} of {there} were found", why="\n".join(said))
        return Timed(seconds=spent[0], cpu=spent[1], output="")

    names = [f"{one.repository}:{one.key}" for one in wanted.values()]
    program = shutil.which("docker", path=engines.SEARCHED)
    if program is not None:
        command = f"{program} manifest inspect --insecure"
        by = "theirs: docker manifest inspect, one after the other"
    else:
        found = [ours() for _ in range(RUNS)]
        return Figure(what=what, ours=clock.seconds(found), cpu=clock.cpu(found), goal=goal)
    # What is not there ends with 1.
    script = "\n".join(f"{command} {shlex.quote(name)} >/dev/null 2>&1" for name in names)
    theirs_env = workshop.environ() | {
        "DOCKER_CLI_EXPERIMENTAL": "enabled",
        "DOCKER_CONFIG": str(workshop.folder / "docker-config"),
    }

    def theirs() -> Timed:
        # It keeps what it has asked once.
        shutil.rmtree(workshop.folder / "docker-config", ignore_errors=True)
        return clock.timed(["sh", "-c", f"{script}\ntrue"], env=theirs_env)

    our_runs, their_runs = clock.alternating(RUNS, ours, theirs)
    return Figure(
        what=what,
        ours=clock.seconds(our_runs),
        cpu=clock.cpu(our_runs),
        theirs=clock.seconds(their_runs),
        goal=goal,
        note=by,
    )


def _run(workshop: Workshop, what: str, goal: Goal, folder: Path) -> Figure:
    """`doit check` of a runner with nothing: no engine, no check.json, no archive."""
    env = {"CI": "1"}
    workshop.doit(folder, "check", env=env)  # compiles the modules
    seconds: list[float] = []
    cpus: list[float] = []
    for _ in range(RUNS):
        for left in folder.glob(".doit.db*"):
            left.unlink()
        found = workshop.doit(folder, "check", env=env)
        if "nothing to do" not in found.output:
            raise LadingError("doit found something to do", why=found.output[-1000:])
        seconds.append(found.seconds)
        cpus.append(found.cpu)
    return Figure(
        what=what, ours=Samples(values=tuple(seconds)), cpu=sorted(cpus)[len(cpus) // 2], goal=goal
    )
