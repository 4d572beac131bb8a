"""The store: artifacts by their sha256, downloaded once, shared by all projects of a user.

sha256/ab/abcd…       artifacts, mode 0444; what has its name here is whole and was checked
derived/KEY/NAME      what lading itself made of artifacts, under its key
partial/              downloads and derivations under way, and the locks on them
projects/             who put what here (claims.py)
"""

from __future__ import annotations

import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from lading import claims, files, net
from lading.errors import EnvironmentProblem, LadingError
from lading.store.download import Artifact, Gone, Line, Part, Source, fill, fill_new

__all__ = ["Artifact", "Gone", "Source", "Store", "available"]

WORKERS = 8
"""Downloads at once."""
GRACE = 0.5
"""Seconds that others get, after a first failure, to end by themselves (or to fail too)."""
KEPT = 30 * 24 * 3600.0
"""Seconds after which a download that nobody went on with is thrown away."""

T = TypeVar("T")
Ask = Callable[[Sequence[Artifact]], Mapping[str, Sequence[Source]]]


def _unheard(_bytes: int) -> None:
    """No progress is wanted."""


def _at_home(path: str, setting: str = "") -> Path:
    """A path that may begin with ~ or ~NAME."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise EnvironmentProblem(
            f"{setting}{path}: there is no such home folder",
            why=str(error),
            do="set LADING_CACHE to the absolute path of a folder for what is downloaded",
        ) from error


class Store(Struct, frozen=True):
    """A folder of artifacts. With all that is asked for in it, it may be read-only.

    project: whose it is what is put there; without one it is nobody's.
    """

    root: Path
    project: Path | None = None

    @classmethod
    def default(cls, environ: Mapping[str, str], project: Path | None = None) -> Store:
        """$LADING_CACHE, else $XDG_CACHE_HOME/lading, else ~/.cache/lading. Raises
        `EnvironmentProblem` where nobody knows whose home is meant.
        """
        if environ.get("LADING_CACHE"):
            return cls(_at_home(environ["LADING_CACHE"], "LADING_CACHE=").absolute(), project)
        cache = environ.get("XDG_CACHE_HOME", "")
        if Path(cache).is_absolute():  # the XDG specification: a relative path is to be ignored
            return cls(Path(cache) / "lading", project)
        home = Path(environ["HOME"]) if environ.get("HOME") else _at_home("~")
        return cls(home / ".cache" / "lading", project)

    def claim(self, kind: str, things: Iterable[tuple[str, str]]) -> None:
        """Writes down that its project makes these: key and name of each."""
        if self.project is not None:
            claims.add(self.root, self.project, ((kind, key, name) for key, name in things))

    def path(self, sha256: str) -> Path:
        """Where the artifact with this sha256 is, or would be."""
        return self.root / "sha256" / sha256[:2] / sha256

    def has(self, artifact: Artifact) -> bool:
        """Whether it is there, and of that size: one stat."""
        sha256 = artifact.sha256
        try:
            found = os.stat(f"{self.root}/sha256/{sha256[:2]}/{sha256}")  # noqa: PTH116 - 4x faster
        except OSError:
            return False
        return artifact.size is None or found.st_size == artifact.size

    def lacking(self, artifacts: Iterable[Artifact]) -> list[Artifact]:
        """Those that are not there, each content once."""
        unique = {artifact.sha256: artifact for artifact in artifacts}
        return [artifact for artifact in unique.values() if not self.has(artifact)]

    def verify(self, artifact: Artifact) -> bool:
        """Whether it is there with the right content; hashes it, and removes it when wrong."""
        path = self.path(artifact.sha256)
        with files.disk_errors(path):
            try:
                if self.has(artifact) and files.sha256_of(path) == artifact.sha256:
                    return True
                path.unlink()
            except FileNotFoundError:
                pass
        return False

    def refuse_damaged(self, artifacts: Iterable[Artifact], failed: LadingError) -> None:
        """Raises `LadingError` if something was made, and failed, of artifacts that are no longer
        what was taken in: these are thrown away.
        """
        if damaged := [one.name for one in artifacts if not self.verify(one)]:
            raise LadingError(
                f"damaged on this machine's disk since the download: {', '.join(damaged)}",
                why=failed.what,
                do="it was thrown away: run it again, and it is fetched anew",
            ) from failed

    def fetch(
        self,
        artifacts: Iterable[Artifact],
        urls: Ask,
        advance: Callable[[int], None] = _unheard,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Downloads what is lacking, in parallel, largest first; checked before it has its name.

        `urls` is asked once, only for what is lacking: by sha256, the sources to try in turn.
        `advance` gets the bytes as they come, from threads; a negative number when they had to be
        thrown away. It adds up to the size of what was lacking.

        The first failure ends the others; those that fail together are one error: `Gone` when the
        servers have them no more, `EnvironmentProblem` for network and disk, else `LadingError`.
        """
        lacking = sorted(self.lacking(artifacts), key=lambda artifact: -(artifact.size or 0))
        if not lacking:
            return
        sources = urls(lacking)
        self.claim(claims.ARTIFACT, ((one.sha256, one.name) for one in lacking))
        self.sweep()
        stop = threading.Event()
        with net.session(environ, stop=stop) as session:
            line = Line(session, environ, stop)

            def one(artifact: Artifact) -> None:
                self._fetch_one(artifact, sources.get(artifact.sha256, ()), line, advance)

            failures = _each(lacking, one, line, WORKERS)
        if failures:
            raise _together(failures)

    def _fetch_one(
        self,
        artifact: Artifact,
        sources: Sequence[Source],
        line: Line,
        advance: Callable[[int], None],
    ) -> None:
        partial = self.root / "partial"
        lock = partial / f"{artifact.sha256}.lock"
        with files.locked(lock, _holder(artifact.name), remove=True):
            line.check()
            if self.has(artifact):  # another process fetched it while this one waited
                size = self.path(artifact.sha256).stat().st_size
                advance(size)
                return
            part = Part(partial / f"{artifact.sha256}{files.PART}", advance)
            try:
                fill(part, artifact, sources, line)
                part.publish(self.path(artifact.sha256))
            finally:
                part.close()

    def fetch_new(
        self,
        name: str,
        sources: Sequence[Source],
        advance: Callable[[int], None] = _unheard,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> Artifact:
        """Downloads a file that nobody knows the sha256 of yet, and says what it is.

        The first source that has it counts. Raises as `fetch` does.
        """
        partial = self.root / "partial"
        mine = partial / f"new-{os.getpid()}-{threading.get_ident()}{files.PART}"
        self.sweep()
        stop = threading.Event()
        with (
            files.locked(mine.with_suffix(".lock"), _holder(name), remove=True),
            net.session(environ, stop=stop) as session,
        ):
            part = Part(mine, advance)
            try:
                artifact = fill_new(part, name, sources, Line(session, environ, stop))
                self.claim(claims.ARTIFACT, [(artifact.sha256, name)])
                part.publish(self.path(artifact.sha256))
            finally:
                part.close()
                mine.unlink(missing_ok=True)
        return artifact

    def derived(self, key: str, name: str, make: Callable[[Path], None]) -> Path:
        """The file or folder NAME that follows from KEY; `make` writes it to the path it is given.

        Made once, by one process; another one waits for it. It has its name when it is whole.
        """
        final = self.made(key, name)
        if final.exists():
            return final
        if not all(part and "/" not in part and part not in (".", "..") for part in (key, name)):
            raise LadingError(f"{key!r} and {name!r} can't be names in the store")
        making = self.root / "partial" / f"{key}.{name}{files.PART}"
        with files.locked(making.with_suffix(".lock"), _holder(name), remove=True):
            if final.exists():
                return final
            self.claim(claims.DERIVED, [(key, name)])
            self.sweep()
            try:
                with files.disk_errors(final):
                    _remove(making)  # a process that was killed left it
                    making.mkdir(parents=True)
                    make(making / name)
                    _publish(making / name, final)
            finally:
                _remove(making)
        return final

    def made(self, key: str, name: str) -> Path:
        """Where what was made as NAME from KEY is, or would be."""
        return self.root / "derived" / key / name

    def has_derived(self, key: str, name: str) -> bool:
        """Whether NAME has been made from KEY already."""
        return self.made(key, name).exists()

    def sweep(self, kept: float = KEPT) -> None:
        """Removes what dead processes left: derivations, locks, downloads that nobody went on with
        for `kept` seconds.
        """
        for path in self._partial():
            with (
                suppress(OSError, EnvironmentProblem),
                files.locked(path.with_suffix(".lock"), "clean-up", wait=False, remove=True),
            ):
                if _left(path, kept):
                    _remove(path)

    def leftovers(self, kept: float) -> list[Path]:
        """What `sweep` would remove."""
        found = []
        for path in self._partial():
            with (
                suppress(OSError, EnvironmentProblem),
                files.locked(path.with_suffix(".lock"), "clean-up", wait=False, remove=True),
            ):
                if path.suffix == files.PART and _left(path, kept):
                    found.append(path)
        return found

    def _partial(self) -> list[Path]:
        try:
            inside = sorted((self.root / "partial").iterdir())
        except OSError:
            return []
        return [path for path in inside if path.suffix in (files.PART, ".lock")]


def _left(path: Path, kept: float) -> bool:
    return path.is_dir() or time.time() - path.stat().st_mtime > kept


def available(
    sources: Mapping[str, Sequence[Source]], environ: Mapping[str, str] | None = None
) -> set[str]:
    """The sha256 of those that are *gone*: every source says 404 or 410.

    An artifact without a source is gone; one whose server can't be asked is not. Asked in
    parallel, by HEAD, and without patience: a host that once did not answer is not asked again.
    """
    gone: set[str] = set()
    silent: set[str] = set()
    stop = threading.Event()
    with net.session(environ, stop=stop, retries=0) as session:
        line = Line(session, environ, stop)

        def one(sha256: str) -> None:
            if all(_is_gone(source, line, silent) for source in sources[sha256]):
                gone.add(sha256)

        failures = _each(list(sources), one, line, net.POOL)
    if failures:
        raise failures[0][1]
    return gone


def _is_gone(source: Source, line: Line, silent: set[str]) -> bool:
    if source.url.startswith("file:"):
        return not net.local_path(source.url).exists()
    host = net.host_of(source.url)
    if host in silent:
        return False
    try:
        status = _status(source, "HEAD", line)
        if status in (401, 403, 405, 501):  # signed URLs and some proxies know no HEAD
            status = _status(source, "GET", line)
    except EnvironmentProblem:
        silent.add(host)
        return False
    return status in (404, 410)


def _status(source: Source, method: str, line: Line) -> int:
    headers = {"Accept-Encoding": "identity"}
    if method == "GET":
        headers["Range"] = "bytes=0-0"
    response = line.ask(source, method=method, headers=headers)
    line.close(response)
    return response.status_code


def _each(
    items: Sequence[T], do: Callable[[T], None], line: Line, workers: int
) -> list[tuple[T, Exception]]:
    """Does all in threads; the failures, `Stopped` ones left out. The first failure ends the rest.

    The threads are daemons, for Python's own pools keep a process that is told to end waiting
    until the last read has timed out.
    """
    todo: queue.SimpleQueue[T] = queue.SimpleQueue()
    for item in items:
        todo.put(item)
    ended: queue.SimpleQueue[tuple[T, Exception] | None] = queue.SimpleQueue()
    halt = threading.Event()

    def work() -> None:
        with suppress(queue.Empty):
            while not halt.is_set():
                item = todo.get_nowait()
                try:
                    do(item)
                except Exception as error:
                    halt.set()
                    ended.put((item, error))
        ended.put(None)

    running = min(workers, len(items))
    for _ in range(running):
        threading.Thread(target=work, daemon=True).start()
    failures: list[tuple[T, Exception]] = []
    deadline: float | None = None
    try:
        while running:
            try:
                end = ended.get(timeout=deadline and max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                if line.stop.is_set():
                    break  # a thread that still waits for a connection ends by itself, later
                line.hang_up()
                deadline = time.monotonic() + GRACE
                continue
            if end is None:
                running -= 1
                continue
            if not isinstance(end[1], net.Stopped):
                failures.append(end)
            deadline = deadline or time.monotonic() + GRACE
    finally:
        halt.set()
        line.hang_up()
    return failures


def _together(failures: Sequence[tuple[Artifact, Exception]]) -> Exception:
    """One error for all: the names of those that failed for the same reason, and that reason."""
    for _, error in failures:
        if not isinstance(error, LadingError):
            return error
    reasons: dict[str, list[str]] = {}
    errors = [error for _, error in failures if isinstance(error, LadingError)]
    for (artifact, _), error in zip(failures, errors, strict=True):
        reasons.setdefault(str(error), []).append(artifact.name)
    if len(errors) == 1 and errors[0].what.startswith(failures[0][0].name):
        return errors[0]
    names = [artifact.name for artifact, _ in failures]
    return _one_error(names, reasons, errors)


def _one_error(
    names: Sequence[str], reasons: Mapping[str, Sequence[str]], errors: Sequence[LadingError]
) -> LadingError:
    several = f"{len(names)} files" if len(names) > 1 else names[0]
    what = f"{several} could not be fetched"
    if len(reasons) == 1:
        listed = ", ".join(names) + "\n" if len(names) > 1 else ""
        why, do = f"{listed}{errors[0].what}\n{errors[0].why}", errors[0].do
    else:
        why, do = "\n".join(f"{', '.join(names)}: {why}" for why, names in reasons.items()), ""
    gone = [error for error in errors if isinstance(error, Gone)]
    if len(gone) == len(errors):
        together = Gone(what, why=why, do=do)
        together.artifacts = tuple(artifact for error in gone for artifact in error.artifacts)
        return together
    grave = any(isinstance(error, EnvironmentProblem) for error in errors)
    return (EnvironmentProblem if grave else LadingError)(what, why=why, do=do)


def _publish(made: Path, final: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    if made.is_file():
        with made.open("rb") as file:
            os.fchmod(file.fileno(), 0o555 if made.stat().st_mode & 0o100 else 0o444)
            os.fsync(file.fileno())
    made.replace(final)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _holder(name: str) -> str:
    return f"{name}: process {os.getpid()}"
