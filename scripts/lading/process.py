"""The one place that runs a program."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from lading.errors import EnvironmentProblem

NO_ROOM = re.compile(r"(?i)no space left on device|disk quota exceeded")
"""What programs say when the disk is full; those written in Go in small letters."""

_PIECE = 1 << 18
_running: set[subprocess.Popen[Any]] = set()


def end_all() -> None:
    """Asks all programs that still run to end; for when a run is stopped with tasks in threads."""
    for process in list(_running):
        process.terminate()


class Finished(NamedTuple):
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


def piped(command: Sequence[str], pieces: Iterable[bytes]) -> Generator[bytes, None, Finished]:
    """Gives a program what to read, and yields what it writes, as it comes; then how it ended.

    Where the generator is closed before, the program is ended. Raises `EnvironmentProblem` when
    it can't be started, and what `pieces` raises.
    """
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise EnvironmentProblem(f"{command[0]} can't be run", why=str(error)) from error
    _running.add(process)
    failed: list[Exception] = []
    said: list[bytes] = []

    def feed() -> None:
        assert process.stdin is not None
        try:
            with process.stdin as stdin:
                for piece in pieces:
                    stdin.write(piece)
        except BrokenPipeError:  # it has ended, and says why
            pass
        except Exception as error:
            failed.append(error)

    def listen() -> None:
        assert process.stderr is not None
        said.append(process.stderr.read())

    threads = [Thread(target=feed, daemon=True), Thread(target=listen, daemon=True)]
    try:
        for thread in threads:
            thread.start()
        assert process.stdout is not None
        while piece := os.read(process.stdout.fileno(), _PIECE):
            yield piece
        process.wait()
    finally:
        if process.poll() is None:
            process.kill()
        for thread in threads:
            thread.join()
        with process:
            _running.discard(process)
    if failed:
        raise failed[0]
    errors = b"".join(said).decode(errors="replace")
    return Finished(code=process.returncode, output="", errors=errors)
