"""The tests that an image declares, run as Apptainer would run them.

That is: as an ordinary user, on a read-only root, with an empty home and no network.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from lading.engines import Engine

USER = "1000:1000"
HOME = "/home/user"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One test: its command, its exit code (0: passed), what it printed, how many seconds."""

    command: str
    code: int
    output: str
    seconds: float


def run(engine: Engine, image: str, commands: Iterable[str]) -> list[Result]:
    """Runs every command of `test:` in a container of its own, by /bin/sh."""
    results: list[Result] = []
    for command in commands:
        start = time.monotonic()
        answer = engine.run(
            image,
            ["/bin/sh", "-c", command],
            user=USER,
            read_only=True,
            tmpfs=(HOME, "/tmp", "/var/tmp"),
            network="none",
            env={"HOME": HOME},
            workdir=HOME,
        )
        results.append(
            Result(
                command=command,
                code=answer.code,
                output=answer.output,
                seconds=time.monotonic() - start,
            )
        )
    return results
