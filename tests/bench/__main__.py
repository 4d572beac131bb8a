"""`python -m tests.bench [PART …]`: measures, and prints the table as the figures come."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from lading.errors import LadingError
from tests.bench import costs, figures, workshop
from tests.bench.figures import Figure
from tests.bench.parts import (
    archive,
    build,
    change,
    checks,
    ci,
    conda,
    lock,
    mpi,
    noop,
    registry,
    sif,
    steps,
    verify,
)
from tests.bench.workshop import Workshop

Part = Callable[[Workshop], Iterator[Figure]]
PARTS: dict[str, tuple[str, Part]] = {
    "lock": ("resolving, clean containers, against", lock.measure),
    "build": ("cold, against the lesson's pip install", build.measure),
    "size": ("against the lesson's with --no-cache-dir", build.measure_size),
    "steps": ("the lesson's other Dockerfiles for pip; some minutes", steps.measure),
    "noop": ("nothing to do", noop.measure),
    "change": ("one changed line in requirements.in", change.measure),
    "ci": ("as fresh runners run what doit ci writes", ci.measure),
    "checks": ("the portability checks, by themselves", checks.measure),
    "archive": ("the export of doit archive, against", archive.measure),
    "sif": ("from the archive, against", sif.measure),
    "registry": ("what another machine has pushed, against", registry.measure),
    "conda": ("against the lesson's, from one channel; some minutes", conda.measure),
    "mpi": ("MPICH compiled once; many minutes", mpi.measure),
    "ci-mpi": ("fresh runners, and an option of MPICH changed; many minutes", ci.measure_mpi),
    "verify": ("all of it built three times, one sha256; many minutes", verify.measure),
}
LONG = ("steps", "conda", "mpi", "ci-mpi", "verify")
"""Parts that take many minutes."""
LESSON = ("lock", "build", "size", "steps", "conda", "mpi")
"""Parts that set a step of the lesson against the same by declaration."""


def arguments(words: Sequence[str]) -> list[str]:
    """The parts asked for, in the table's order; without a word all but the longest."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures lading on this machine against what one would do otherwise.",
    )
    parser.add_argument("part", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--full", action="store_true", help=f"also {', '.join(LONG)}")
    parser.add_argument(
        "--lesson",
        action="store_true",
        help=f"{', '.join(LESSON)}, and in the end the table of recipes/README.md",
    )
    given = parser.parse_args(words)
    every = LESSON if given.lesson else [part for part in PARTS if given.full or part not in LONG]
    asked = given.part or every
    if unknown := [part for part in asked if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return [part for part in PARTS if part in asked]


def machine() -> str:
    """Which machine this is, in a line."""
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{os.cpu_count()} CPUs, {memory:.0f} GB, load {os.getloadavg()[0]:.1f}, "
        f"{system}, Python {platform.python_version()}"
    )


def main(words: Sequence[str]) -> int:
    """0 when every target that was measured is reached, 1 when one is missed or a part failed."""
    parts = arguments(words)
    say = sys.stdout.write
    start, load = time.monotonic(), os.getloadavg()[0]
    say(f"{machine()}\nseconds: median (least–most) of alternating runs\n\n")
    say(f"{figures.heading()}\n")
    found: list[Figure] = []
    failed = False
    with workshop.opened(Path(__file__).resolve().parents[2]) as place:
        for name in parts:
            about, measure = PARTS[name]
            say(f"{name}: {about}\n")
            try:
                for figure in measure(place):
                    found.append(figure)
                    say(f"{figures.line(figure)}\n")
                    sys.stdout.flush()
            except LadingError as error:
                failed = True
                say(f"  failed: {error}\n")
    say(f"\n{figures.conclusion(found)}\n")
    say(f"measured in {time.monotonic() - start:.0f} s\n")
    if "--lesson" in words:
        say(f"\n{costs.table(found)}\n")
    say(figures.busy(load, os.cpu_count() or 1))
    return 1 if failed or any(figure.reached is False for figure in found) else 0


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("stopped")
    except LadingError as error:
        sys.stderr.write(f"ERROR: {error}\n")
        sys.exit(error.exit_code)
