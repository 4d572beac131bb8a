"""py-rattler in a process of its own: asked in JSON, answered in JSON.

It says in lines what it is doing; they are shown only when it takes long.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lading import net, process
from lading.errors import EnvironmentProblem, LadingError

QUICK = 2.0
"""Seconds after which one who waits is told what for."""
AGAIN = 10.0
"""Seconds between two such lines."""


class Refused(Exception):
    """What was asked for can't be: `kind` says which way, `found` holds what else is known."""

    def __init__(self, kind: str, text: str, found: Mapping[str, Any]) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.found = found


def ask(
    task: str,
    question: Mapping[str, Any],
    *,
    environ: Mapping[str, str] | None = None,
    note: Callable[[str], None] | None = None,
) -> Any:
    """What `inside` answers. Raises `Refused`, or `LadingError` where it did not end well."""
    with tempfile.TemporaryDirectory(prefix="lading-conda-") as folder:
        answer = Path(folder) / "answer.json"
        asked = json.dumps({"task": task, "answer": str(answer), **question})
        with _Waiting(note) as waiting:
            finished = process.run(
                [sys.executable, "-P", "-m", "lading.conda.inside"],
                env=environ,
                stdin=asked,
                line=waiting.line,
            )
        if not answer.exists():
            raise _broken(task, finished)
        found = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in found:
        raise Refused(found["error"], net.redact(found.get("text", "")), found)
    return found["found"]


def _broken(task: str, finished: process.Finished) -> LadingError:
    if "No module named 'rattler'" in finished.output:
        return EnvironmentProblem(
            "py-rattler is not installed, which conda layers need",
            do="pip install 'lading[conda]'; ./scripts/doit does it by itself",
        )
    last = finished.output.strip().splitlines()[-20:]
    return LadingError(
        f"py-rattler ended with code {finished.code} ({task})", why=net.redact("\n".join(last))
    )


class _Waiting:
    """Tells, once it takes long, what the other process last said it was doing."""

    def __init__(self, note: Callable[[str], None] | None) -> None:
        self._note = note
        self._last = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> _Waiting:
        if self._note is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def line(self, text: str) -> None:
        if text.startswith(PHASE):
            self._last = text.removeprefix(PHASE)

    def _tell(self) -> None:
        assert self._note is not None
        begun = time.monotonic()
        wait = QUICK
        while not self._ended.wait(wait):
            self._note(f"  {self._last or 'starting'} ({time.monotonic() - begun:.0f} s)")
            wait = AGAIN


PHASE = "phase: "


@cache
def default_alias() -> str:
    """The URL that py-rattler itself puts a channel's name behind."""
    found = ask("alias", {})
    assert isinstance(found, str)
    return found
