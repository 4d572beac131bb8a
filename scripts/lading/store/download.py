"""One artifact's bytes, from one of several sources, into a file that is not whole yet.

Resumed by range requests (RFC 9110, section 14), begun again where a server does not do them,
and given out only with the right sha256.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, BinaryIO

from msgspec import Struct

from lading import files, net
from lading.errors import EnvironmentProblem, LadingError

if TYPE_CHECKING:
    import requests

CHUNK = 1 << 18
"""Bytes that are read at once."""
PATIENCE = 4
"""How many cut-offs in a row that brought nothing new end the attempt."""

_NOWHERE = "no index, mirror or server that is configured offers it"


class Artifact(Struct, frozen=True, kw_only=True):
    """A file by its content: its name, sha256 (hexadecimal) and size (bytes; None: not known)."""

    name: str
    sha256: str
    size: int | None = None

    def __post_init__(self) -> None:
        if len(self.sha256) != 64 or self.sha256.strip("0123456789abcdef"):
            raise LadingError(f"{self.name}: {self.sha256!r} is no sha256 (64 hexadecimal digits)")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where an artifact can be had: an http, https or file URL; user and password for it."""

    url: str
    auth: tuple[str, str] | None = field(default=None, repr=False)


class Gone(LadingError):
    """The server answers, and has the file no more (HTTP 404 or 410, or no such local file)."""

    artifacts: tuple[Artifact, ...] = ()


class CutOff(Exception):
    """The connection ended before the file did."""


class Line:
    """What the downloads of one fetch share: session, environment, and how to end them at once."""

    def __init__(
        self, session: requests.Session, environ: Mapping[str, str] | None, stop: Event
    ) -> None:
        self.session = session
        self.environ = environ
        self.stop = stop
        self._open: set[requests.Response] = set()
        self._lock = Lock()

    def check(self) -> None:
        """Raises `Stopped` when nothing more is wanted."""
        if self.stop.is_set():
            raise net.Stopped("stopped")

    def ask(
        self, source: Source, *, method: str = "GET", headers: Mapping[str, str]
    ) -> requests.Response:
        """A request whose body comes as a stream; to be closed with `close`."""
        self.check()
        response = net.ask(
            self.session,
            source.url,
            method=method,
            headers=headers,
            auth=source.auth,
            environ=self.environ,
            stream=method != "HEAD",
        )
        with self._lock:
            self._open.add(response)
        if self.stop.is_set():  # … meanwhile, too late for `hang_up` to see this one
            self.close(response)
            self.check()
        return response

    def close(self, response: requests.Response) -> None:
        """Gives the connection back, or ends it when its body was not read to the end."""
        with self._lock:
            self._open.discard(response)
        response.close()

    def hang_up(self) -> None:
        """Ends everything under way, from another thread: a blocked read returns."""
        self.stop.set()
        with self._lock:
            for response in self._open:
                # The connection may be ending by itself at this moment, in its own thread.
                try:
                    response.raw.shutdown()
                except (OSError, ValueError, RuntimeError, AttributeError):
                    continue


class Part:
    """The partial file: what came so far, its size and its hash. `advance` gets bytes, or,
    when they are thrown away, the negative number of them."""

    def __init__(self, path: Path, advance: Callable[[int], None]) -> None:
        self.path = path
        self.size = 0
        self._advance = advance
        self._hash = hashlib.sha256()
        with files.disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = path.stat().st_mode if path.exists() else None
            # One that was about to get its final name when it was killed is read-only already.
            if mode is not None and not mode & stat.S_IWUSR:
                path.chmod(stat.S_IMODE(mode) | stat.S_IWUSR)
            self._file: BinaryIO = path.open("w+b" if mode is None else "r+b", buffering=0)
        while chunk := self._file.read(CHUNK):
            self._count(chunk)

    @property
    def sha256(self) -> str:
        """The hash of what is there now."""
        return self._hash.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Adds bytes. A full disk is an `EnvironmentProblem`, and the file is removed: it may be
        what filled the disk."""
        try:
            with files.disk_errors(self.path):
                view = memoryview(chunk)
                while view:
                    view = view[self._file.write(view) :]
        except EnvironmentProblem:
            self.path.unlink(missing_ok=True)
            raise
        self._count(chunk)

    def restart(self) -> None:
        """Throws everything away."""
        self._file.seek(0)
        self._file.truncate()
        self._advance(-self.size)
        self.size = 0
        self._hash = hashlib.sha256()

    def publish(self, path: Path) -> None:
        """Gives the file its final name and mode 0444, once its bytes are on the disk."""
        with files.disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.fchmod(self._file.fileno(), 0o444)
            os.fsync(self._file.fileno())
            self.path.replace(path)

    def close(self) -> None:
        """Closes it; what came stays, for a later run."""
        self._file.close()
        if self.size == 0 and self.path.exists():
            self.path.unlink(missing_ok=True)

    def _count(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self.size += len(chunk)
        self._advance(len(chunk))


def fill(part: Part, artifact: Artifact, sources: Sequence[Source], line: Line) -> None:
    """Makes `part` the whole artifact. Wrong content is thrown away and asked for once more,
    from the next source if there is one.

    Raises `Gone`, `EnvironmentProblem`, `Stopped`, or `LadingError` for wrong content.
    """
    if not sources:
        raise _gone(artifact, _NOWHERE)
    failures: list[LadingError] = []
    wrong = 0
    for number, source in enumerate([*sources, sources[-1]]):
        if number == len(sources) and wrong != 1:
            break  # only content that was wrong once gets a second try at the same place
        try:
            _complete(part, artifact, source, line, fresh=wrong > 0)
        except (Gone, EnvironmentProblem) as error:
            if isinstance(error, EnvironmentProblem) and not part.path.exists():
                raise  # the disk is full: another source won't help
            failures.append(error)
            continue
        if _right(part, artifact):
            return
        failures.append(_mismatch(part, artifact, source))
        wrong += 1
        part.restart()
    raise _gravest(failures)


def fill_new(part: Part, name: str, sources: Sequence[Source], line: Line) -> Artifact:
    """Makes `part` a file of which nothing but the name is known, from the first source that has
    it; what that file is called by. Raises `Gone` or `EnvironmentProblem`.
    """
    unknown = Artifact(name=name, sha256="0" * 64)
    if not sources:
        raise _gone(unknown, _NOWHERE)
    failures: list[LadingError] = []
    for source in sources:
        part.restart()
        try:
            _complete(part, unknown, source, line, fresh=False)
        except (Gone, EnvironmentProblem) as error:
            if isinstance(error, EnvironmentProblem) and not part.path.exists():
                raise  # the disk is full: another source won't help
            failures.append(error)
            continue
        return Artifact(name=name, sha256=part.sha256, size=part.size)
    raise _gravest(failures)


def _complete(part: Part, artifact: Artifact, source: Source, line: Line, *, fresh: bool) -> None:
    """Asks again, from where it was cut off, as long as that brings something new."""
    if artifact.size is not None and part.size > artifact.size:
        part.restart()
    if _right(part, artifact):
        return
    validator: list[str] = []
    best, idle = part.size, 0
    while True:
        try:
            if source.url.startswith("file:"):
                _copy(part, artifact, source, line)
            else:
                _pull(part, artifact, source, line, validator, fresh=fresh)
            return
        except CutOff as error:
            line.check()
            idle = 0 if part.size > best else idle + 1
            best = max(best, part.size)
            if idle > PATIENCE:
                raise net.problem(error.__cause__ or error, source.url, line.environ) from error
            if idle and line.stop.wait(net.BACKOFF * 2 ** (idle - 1)):
                raise net.Stopped("stopped") from error


def _pull(
    part: Part,
    artifact: Artifact,
    source: Source,
    line: Line,
    validator: list[str],
    *,
    fresh: bool,
) -> None:
    """One request for what is lacking. `validator` keeps the ETag or date from one to the next."""
    headers = {"Accept-Encoding": "identity"}
    if fresh:
        headers["Cache-Control"] = "no-cache"  # a proxy may have kept what was wrong
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        if validator:
            headers["If-Range"] = validator[0]
    response = line.ask(source, headers=headers)
    try:
        status = response.status_code
        if status in (404, 410):
            raise _gone(artifact, f"HTTP {status}: {net.redact(source.url)}")
        if status == 416 or (status == 206 and not _continues(response, part.size)):
            part.restart()
            validator.clear()
            raise CutOff(f"HTTP {status} for a range that it can't give")
        if status not in (200, 206):
            raise net.answer_problem(status, source.url, line.environ)
        if status == 200 and part.size:
            part.restart()
        validator[:] = _validator(response)
        _receive(part, artifact, response, line)
    finally:
        line.close(response)


def _receive(part: Part, artifact: Artifact, response: requests.Response, line: Line) -> None:
    from urllib3.exceptions import HTTPError

    while True:
        try:
            # As it is sent: a Content-Encoding is no part of an artifact.
            chunk = response.raw.read1(CHUNK, decode_content=False)
        except (HTTPError, OSError, ValueError, AttributeError) as error:
            line.check()
            raise CutOff(str(error)) from error
        line.check()
        if not chunk:
            break
        part.write(chunk)
        if artifact.size is not None and part.size > artifact.size:
            return
    framed = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
    if not framed and artifact.size is not None and part.size < artifact.size:
        raise CutOff("the connection was closed before the end")


def _copy(part: Part, artifact: Artifact, source: Source, line: Line) -> None:
    """The same for a file:// URL."""
    path = net.local_path(source.url)
    part.restart()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                line.check()
                part.write(chunk)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _gone(artifact, f"there is no file {path}") from error
    except OSError as error:
        raise EnvironmentProblem(f"{path} can't be read", why=str(error)) from error


def _continues(response: requests.Response, start: int) -> bool:
    """Whether a 206 begins at the byte asked for."""
    said = response.headers.get("Content-Range", "").strip().lower()
    return start > 0 and said.startswith(f"bytes {start}-")


def _validator(response: requests.Response) -> list[str]:
    """What If-Range takes: a strong ETag, else the date of the last change (RFC 9110, 13.1.5)."""
    tag = response.headers.get("ETag", "")
    if tag.startswith('"'):
        return [tag]
    changed = response.headers.get("Last-Modified", "")
    return [changed] if changed else []


def _right(part: Part, artifact: Artifact) -> bool:
    return part.sha256 == artifact.sha256 and artifact.size in (None, part.size)


def _gone(artifact: Artifact, why: str) -> Gone:
    error = Gone(
        f"{artifact.name} is no longer there",
        why=why,
        do="`doit lock` finds what is there today",
    )
    error.artifacts = (artifact,)
    return error


def _mismatch(part: Part, artifact: Artifact, source: Source) -> LadingError:
    size = "" if artifact.size is None else f", {artifact.size} bytes"
    return LadingError(
        f"{artifact.name}: what came is not what is locked; it was thrown away",
        why=f"locked: sha256 {artifact.sha256}{size}\n"
        f"came:   sha256 {part.sha256}, {part.size} bytes\n"
        f"from:   {net.redact(source.url)}",
        do="ask whoever runs that index, mirror or proxy; if the file was meant to change, "
        "lock it anew",
    )


def _gravest(failures: Sequence[LadingError]) -> LadingError:
    """Wrong content, else no answer, else gone; with what the other sources said."""
    order = sorted(
        failures, key=lambda e: 2 if isinstance(e, Gone) else isinstance(e, EnvironmentProblem)
    )
    first = order[0]
    others = [str(error) for error in order[1:] if str(error) != str(first)]
    first.why = "\n".join([first.why, *others])
    return first
