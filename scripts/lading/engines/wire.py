"""Talking to an engine: its errors turned into ours, its streams of JSON, its text in lines."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lading.errors import EnvironmentProblem, LadingError

if TYPE_CHECKING:
    import docker
    import requests


class WentAway(EnvironmentProblem):
    """An engine answered before and did not any more; by now it may again."""


def went_away(where: str, doing: str, why: str = "") -> WentAway:
    """The error for an engine that answered before and does not any more."""
    return WentAway(
        f"the engine went away while {doing} ({where})",
        why=why,
        do="see whether it still runs and has room on its disk, then run it again",
    )


@contextmanager
def engine_errors(where: str, doing: str) -> Iterator[None]:
    """Turns what the SDK raises into `LadingError` (refused) or `EnvironmentProblem` (gone)."""
    import docker.errors
    import requests
    import urllib3
    from docker.utils.socket import SocketError

    try:
        yield
    except docker.errors.APIError as error:
        raise LadingError(f"{doing} failed", why=str(error.explanation or error)) from error
    except (
        docker.errors.DockerException,
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        SocketError,
        ConnectionError,
        TimeoutError,
    ) as error:
        raise went_away(where, doing, str(error)) from error


def request(
    api: docker.APIClient,
    method: str,
    path: str,
    *,
    params: Mapping[str, str] | None = None,
    data: Any = None,
    headers: Mapping[str, str] | None = None,
) -> requests.Response:
    """One request whose answer is a stream and may be silent for as long as it likes.

    For what the SDK has no parameters for: a read timeout of its own, Podman's own options.
    Raises `docker.errors.APIError`.
    """
    import docker.errors

    response = api.request(
        method,
        f"{api.base_url}/v{api.api_version}{path}",
        params=params,
        data=data,
        headers=headers,
        stream=True,
        timeout=None,
    )
    if response.status_code >= 400:
        with response:
            status = f"{response.status_code} {response.reason}"
            raise docker.errors.APIError(status, response, _explanation(response))
    return response


def _explanation(response: requests.Response) -> str:
    text = response.text.strip()
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text


def messages(response: requests.Response) -> Iterator[dict[str, Any]]:
    """The JSON objects of a streamed answer, one a line, as they come."""
    with response:
        for line in response.iter_lines():
            if line.strip():
                yield json.loads(line)


def error_in(message: Mapping[str, Any]) -> str:
    """The error that a message of a stream reports, which has no HTTP status any more."""
    detail = message.get("errorDetail") or {}
    return str(detail.get("message") or message.get("error") or "").strip()


class Lines:
    """Pieces of output, cut anywhere, to whole lines; what is not UTF-8 is replaced."""

    def __init__(self, line: Callable[[str], None]) -> None:
        self._line = line
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest: list[str] = []  # joined at the line's end: one may have many megabytes

    def feed(self, piece: bytes | str) -> str:
        """Takes a piece; the lines that are whole now go out, and are returned as they came."""
        text = self._decoder.decode(piece) if isinstance(piece, bytes) else piece
        head, newline, tail = text.rpartition("\n")
        if not newline:
            self._rest.append(tail)
            return ""
        whole = "".join([*self._rest, head])
        self._rest = [tail]
        for line in whole.split("\n"):
            self._line(line.rstrip("\r"))
        return whole + newline

    def end(self) -> str:
        """What is left goes out as a last line, and is returned."""
        last = "".join([*self._rest, self._decoder.decode(b"", final=True)])
        self._rest.clear()
        if last:
            self._line(last.rstrip("\r"))
        return last


def all_lines(
    pieces: Iterable[tuple[bytes | None, bytes | None]], line: Callable[[str], None]
) -> str:
    """Passes two streams (a piece of the one, or of the other) on line by line, and returns all of
    it as text. No line has something of both; which of two came first, nobody knows.
    """
    streams = Lines(line), Lines(line)
    found = [
        stream.feed(piece)
        for both in pieces
        for stream, piece in zip(streams, both, strict=True)
        if piece
    ]
    return "".join([*found, "\n".join(filter(None, [stream.end() for stream in streams]))])
