"""The one place that runs a program."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from lading.errors import EnvironmentProblem

NO_ROOM = re.compile(r"(?i)no space left on device|disk quota exceeded")
"""What programs say when the disk is full; those written in Go in small letters."""

_running: set[subprocess.Popen[str]] = set()


def end_all() -> None:
    """Asks all programs that still run to end; for when a run is stopped with tasks in threads."""
    for process in list(_running):
        process.terminate()


class Finished(Struct, frozen=True, kw_only=True):
    """A program that ran to its end: its exit code, and what it printed."""

    code: int
    output: str
    errors: str = ""


def run(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    line: Callable[[str], None] | None = None,
    stdin: str | None = None,
) -> Finished:
    """Runs a program to its end. `env` is added to this process's environment; None takes away.

    With `line`, standard output and error are one stream, and each of its lines is passed on
    as it comes (and kept in `output`); without, they are kept apart.

    Raises `EnvironmentProblem` when the program can't be started.
    """
    changed: dict[str, str | None] = {**os.environ, **(env or {})}
    environment = {name: value for name, value in changed.items() if value is not None}
    merged = line is not None
    try:
        process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise EnvironmentProblem(f"{command[0]} can't be run", why=str(error)) from error
    _running.add(process)
    with process:
        try:
            if line is None:
                output, errors = process.communicate(stdin)
                return Finished(code=process.returncode, output=output, errors=errors)
            assert process.stdout is not None
            if stdin is not None:
                assert process.stdin is not None
                process.stdin.write(stdin)
                process.stdin.close()
            kept = []
            for text in process.stdout:
                kept.append(text)
                line(text.rstrip("\r\n"))
            return Finished(code=process.wait(), output="".join(kept))
        except BaseException:
            process.terminate()
            # It ends before this does: what it writes to is cleaned up next.
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
        finally:
            _running.discard(process)
