"""Whole processes, timed from outside."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from lading.errors import LadingError
from tests.bench.figures import Samples

PATIENCE = 45.0
"""Seconds after which a comparison is not repeated any more."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A process that ended well: elapsed and processor seconds (its children's too), output."""

    seconds: float
    cpu: float
    output: str


def timed(
    command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Timed:
    """Runs a process to its end. Raises `LadingError` with its last lines when it fails."""
    with TemporaryFile() as output:
        start = time.monotonic()
        process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env=dict(env) if env is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read().decode(errors="replace")
    if process.returncode:
        raise LadingError(
            f"{shlex.join(map(str, command))} failed with exit code {process.returncode}",
            why="\n".join(said.splitlines()[-15:]),
        )
    return Timed(seconds=seconds, cpu=usage.ru_utime + usage.ru_stime, output=said)


def alternating(
    runs: int, *contestants: Callable[[], Timed], limit: float = PATIENCE
) -> list[list[Timed]]:
    """Each contestant's runs, in turns, so that a machine that slows down slows all of them.

    After `limit` seconds there is no further turn; there is always one.
    """
    results: list[list[Timed]] = [[] for _ in contestants]
    start = time.monotonic()
    for turn in range(runs):
        if turn and time.monotonic() - start > limit:
            break
        for found, contestant in zip(results, contestants, strict=True):
            found.append(contestant())
    return results


def seconds(runs: Sequence[Timed]) -> Samples:
    """The elapsed seconds of some runs."""
    return Samples(values=tuple(run.seconds for run in runs))


def cpu(runs: Sequence[Timed]) -> float:
    """The median of the runs' processor seconds."""
    return statistics.median(run.cpu for run in runs)
