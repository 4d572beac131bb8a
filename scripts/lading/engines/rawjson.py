"""What `docker buildx build --progress=rawjson` prints, as the lines of `--progress=plain`.

BuildKit's SolveStatus, one JSON object after the other (buildx 0.13 folds them over many lines):
`vertexes` are steps by digest, `logs` what they print (base64), `statuses` transfers. By the step
that each of them names, the output of several steps at once never mixes within a line, and what
failed is known and not guessed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from lading.engines.wire import Lines

_DECODER = json.JSONDecoder()


class Progress:
    """Takes the lines of rawjson; `line` gets those of a log. What is none is passed on."""

    def __init__(self, line: Callable[[str], None]) -> None:
        self._line = line
        self._rest = ""
        self._numbers: dict[str, int] = {}
        self._said: set[tuple[str, str]] = set()
        self._output: dict[str, Lines] = {}
        self._started: dict[str, datetime] = {}
        self._after: dict[str, float] = {}

    def feed(self, text: str) -> None:
        """One line of what buildx prints."""
        if not self._rest and not text.startswith("{"):
            self._line(text)
            return
        self._rest += f"{text}\n"
        if not text.startswith("}") and not text.endswith("}"):
            return
        try:
            found, end = _DECODER.raw_decode(self._rest)
        except ValueError:
            return  # a folded object: its end is still to come
        whole, rest, self._rest = self._rest[:end], self._rest[end:].strip(), ""
        try:
            self._status(found)
        except (AttributeError, TypeError, ValueError):  # JSON, but not BuildKit's
            for other in whole.splitlines():
                self._line(other)
        if rest:
            self.feed(rest)

    def end(self) -> None:
        """What is left goes out as it is: the program was stopped in the middle of it."""
        for output in self._output.values():
            output.end()
        for text in self._rest.splitlines():
            self._line(text)
        self._rest = ""

    def _status(self, status: dict[str, Any]) -> None:
        for vertex in status.get("vertexes") or ():
            self._vertex(vertex)
        for log in status.get("logs") or ():
            digest = str(log.get("vertex", ""))
            since, now = self._started.get(digest), _time(str(log.get("timestamp", "")))
            self._after[digest] = (now - since).total_seconds() if since and now else 0.0
            self._of(digest).feed(base64.b64decode(log.get("data") or ""))
        # Transfers and the packing of layers are no step that a person waits for by name.

    def _vertex(self, vertex: dict[str, Any]) -> None:
        digest, number = str(vertex.get("digest", "")), self._number(vertex)
        if started := _time(str(vertex.get("started", ""))):
            self._started.setdefault(digest, started)
            self._once(digest, "name", f"#{number} {vertex.get('name', '')}")
        if vertex.get("cached"):
            self._once(digest, "end", f"#{number} CACHED")
        if error := str(vertex.get("error") or ""):
            self._of(digest).end()
            self._once(digest, "end", f"#{number} ERROR: {error}")
        elif vertex.get("completed"):
            self._of(digest).end()
            ended, started = _time(str(vertex["completed"])), self._started.get(digest)
            seconds = (ended - started).total_seconds() if ended and started else 0.0
            self._once(digest, "end", f"#{number} DONE {seconds:.1f}s")

    def _number(self, vertex: dict[str, Any]) -> int:
        return self._numbers.setdefault(str(vertex.get("digest", "")), len(self._numbers) + 1)

    def _of(self, digest: str) -> Lines:
        if digest not in self._output:
            number = self._number({"digest": digest})
            self._output[digest] = Lines(
                lambda text: self._line(f"#{number} {self._after.get(digest, 0.0):.3f} {text}")
            )
        return self._output[digest]

    def _once(self, digest: str, what: str, text: str) -> None:
        """Steps are told again and again; a line of the log says each thing of them once."""
        if (digest, what) not in self._said:
            self._said.add((digest, what))
            self._line(text)


def _time(text: str) -> datetime | None:
    """RFC 3339 with nanoseconds, of which Python reads six digits."""
    whole, _, rest = text.partition(".")
    digits = rest.rstrip("Z")[:6]
    try:
        return datetime.fromisoformat(f"{whole.rstrip('Z')}.{digits or '0':0<6}+00:00")
    except ValueError:
        return None
