"""Files written whole, hashed in one way, and locks between processes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from lading.errors import DeclarationError, EnvironmentProblem

PART = ".part"
"""How the names of files end that are not whole yet; a later run may delete them."""


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no white space and no escapes: the same bytes for the same data."""
    return _CANONICAL.encode(value).encode()


def digest_of(value: Any) -> str:
    """The sha256 of the canonical JSON of plain data, in hexadecimal."""
    # The same bytes in a tenth of the time. Not above: what reads archives gets by without it.
    from msgspec.json import encode

    return hashlib.sha256(encode(value, order="sorted")).hexdigest()


def content_of(path: Path | str) -> bytes:
    """What is in a small file. Each run reads some for each image; pathlib takes twice as long."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.read()


def resolved(root: str, path: str) -> str:
    """`os.path.realpath` of a path below a folder that is resolved already.

    Only what is below is looked at: for the files of a thousand images that is half the time.
    """
    at = root = root.rstrip("/")
    try:
        for part in path.split("/"):
            at = f"{at}/{part}"
            if part in ("", ".", "..") or stat.S_ISLNK(os.lstat(at).st_mode):
                return os.path.realpath(f"{root}/{path}")
    except OSError:
        return os.path.realpath(f"{root}/{path}")
    return at


FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


def of_the_disk(error: OSError) -> EnvironmentProblem | None:
    """What to say of a disk that is full, or does not let itself be read or written, where it is
    not known what for; None for an error of another kind.
    """
    if error.errno in FULL:
        return EnvironmentProblem("no room left on the disk", why=str(error), do=MAKE_ROOM)
    if error.errno in REFUSED:
        return EnvironmentProblem("the disk does not let it be done", why=str(error))
    return None


MAKE_ROOM = "free some room (the store of downloads is $LADING_CACHE), then run it again"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full or read-only disk below `path`, or what is in its way, into an error."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise EnvironmentProblem(
                f"no room left on the disk while writing {path}",
                why=str(error),
                do=MAKE_ROOM,
            ) from error
        in_the_way = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG)
        if error.errno in (*REFUSED, *in_the_way):
            raise EnvironmentProblem(f"{path} can't be written", why=str(error)) from error
        raise


@contextmanager
def written_whole(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A file to write to that gets its name, atomically, when all is written; else nothing stays.

    Raises `EnvironmentProblem` when the disk is full.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        try:
            with os.fdopen(handle, "w+b") as file:
                yield file
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole, as UTF-8; one that holds this text already is left as it is."""
    data = text.encode()
    try:
        if path.read_bytes() == data:
            return
    except OSError:
        pass
    with written_whole(path) as file:
        file.write(data)


@contextmanager
def locked(
    path: Path,
    holder: str,
    waiting: Callable[[str], None] | None = None,
    *,
    wait: bool = True,
    remove: bool = False,
) -> Iterator[None]:
    """Holds `path` as a lock between processes; it ends with the process, however that ends.

    `holder` is written into the file, for who has to wait: `waiting` is called once with the
    text that the present holder wrote. Without `wait`, raises BlockingIOError when it is held.
    With `remove`, the file goes away with the lock (for locks on many things).
    """
    file = _lock_file(path)
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                file.close()
                raise
            if waiting is not None:
                file.seek(0)
                waiting(file.read().strip() or "another process")
                waiting = None
            fcntl.flock(file, fcntl.LOCK_EX)
        if _still_named(file.fileno(), path):
            break
        # Who held it removed it meanwhile: a lock on a file without a name keeps nobody out.
        file.close()
        file = _lock_file(path)
    with file:
        file.seek(0)
        file.truncate()
        file.write(holder)
        file.flush()
        try:
            yield
        finally:
            if remove:
                path.unlink(missing_ok=True)


def _lock_file(path: Path) -> TextIO:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # What was called is written there, and that need not be text.
        return path.open("a+", encoding="utf-8", errors="backslashreplace")


def _still_named(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def at_home(path: str) -> Path:
    """A path that may begin with ~ or ~NAME; as it stands where nobody knows that home."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's own raises there


def tree(path: Path, root: Path) -> dict[str, Path]:
    """The files at or below `path`, sorted, each by its name inside it ("" for a file itself).

    Links to files are followed. Raises `DeclarationError` for one that leads out of `root`, or to
    a folder: what it would bring in can't be seen from the project.
    """
    if not path.is_dir():
        return {"": path}
    found: dict[str, Path] = {}
    for below in sorted(path.rglob("*")):
        if below.is_symlink() and not (
            below.is_file() and below.resolve().is_relative_to(root.resolve())
        ):
            raise DeclarationError(
                f"{below.relative_to(root)}: a link out of the project, or to a folder",
                do="put what it leads to in its place",
            )
        if below.is_file():
            found[str(below.relative_to(path))] = below
    return found
