"""verify: built twice on Docker and once on Podman, each time as on another machine: one sha256.

Everything is made three times, also what is compiled. `LADING_BENCH_VERIFY` names another image
than the one that takes longest.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

from lading.errors import LadingError
from tests.bench import clock
from tests.bench.figures import Figure
from tests.bench.workshop import NotMeasured, Workshop
from tests.support import machines

IMAGE = "mpi4py"


def measure(workshop: Workshop) -> Iterator[Figure]:
    """The time of each, and the sha256 of what came out. Raises where one is another."""
    image = os.environ.get("LADING_BENCH_VERIFY") or IMAGE
    if why := machines.missing():
        yield Figure(what=image, missing=why)
        return
    project = workshop.project("verify")
    for number, (kind, machine, verb) in enumerate(
        (
            ("docker", machines.HERE, "archive"),
            ("docker", machines.THERE, "verify"),
            ("podman", machines.ELSEWHERE, "verify"),
        ),
        1,
    ):
        what = f"{image} on {kind}"
        try:
            running = workshop.engine(kind)
        except NotMeasured as error:
            yield Figure(what=what, missing=error.what)
            if number == 1:
                return
            continue
        home = workshop.folder / f"home-{number}"
        run = workshop.doit(
            project, f"{verb}:{image}", engine=running, env=machine.environ(home), machine=machine
        )
        record = json.loads((project / "dist" / f"{image}.json").read_text())
        found = record["sha256"]
        if verb == "verify":
            said = re.search(r"sha256 ([0-9a-f]{64})", run.output)
            found = said[1] if said else ""
        if found != record["sha256"]:
            raise LadingError(f"{what} is another one", why=run.output[-2000:])
        yield Figure(what=f"{what}, {verb}", ours=clock.seconds([run]), note=f"sha256 {found}")
