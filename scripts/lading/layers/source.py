"""The lock of a source: the tarball by its name, size and sha256."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from lading import debian, locks
from lading.debian.packages import on_mirror
from lading.errors import EnvironmentProblem, LadingError
from lading.files import digest_of
from lading.layers.source_section import DEBIAN, SourceBuild
from lading.locks import Header
from lading.moved import Pinned
from lading.store import Artifact, Source

FILE = "source.yaml"


class SourceLock(Struct, frozen=True, kw_only=True):
    """A source's lock as read."""

    header: Header
    artifact: Artifact
    version: str
    text: str


def pinned(source: SourceBuild, lock: SourceLock) -> tuple[Pinned, ...]:
    """What a source's lock pins: its tarball."""
    file = lock.artifact
    forms = (lock.version, file.name)
    return (
        Pinned(what="source", name=source.name, forms=forms, sha256=file.sha256, size=file.size),
    )


def inputs(source: SourceBuild) -> str:
    """The digest of what the lock is made from: how it is built moves no pin."""
    return digest_of([source.name, source.version, list(source.urls), source.sha256])


def folder(root: Path, name: str, platform: str) -> Path:
    """Where a source's locks lie."""
    return locks.folder(root, "sources", name, platform)


def file_of(source: SourceBuild) -> str:
    """The name of the tarball, out of its first URL."""
    url = source.filled(source.urls[0])
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+~-]*", name):
        raise LadingError(
            f"sources.{source.name}: {url} does not end in the name of a file",
            do="give a URL that does, as …/NAME-VERSION.tar.gz",
        )
    return name


def text_of(source: SourceBuild, artifact: Artifact, old: SourceLock | None) -> str:
    """The text of a source's lock."""
    body = (
        f"version: {source.version}\nfile: {artifact.name}\n"
        f"size: {artifact.size}\nsha256: {artifact.sha256}\n"
    )
    before = (old.header, locks.split(old.text, "")[1]) if old is not None else None
    header = locks.renewed(before, inputs(source), body, f"doit lock:source:{source.name}")
    return locks.text_of(header, body, f"The source of {source.name}.")


_BEGINS: Mapping[bytes, str] = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\0": "lzma",
    # What tar reads besides; Python does not.
    b"\x28\xb5\x2f\xfd": "",  # zstd
    b"LZIP": "",
    b"\x5d\x00\x00": "",  # lzma
    b"\x1f\x9d": "",  # compress
}
"""How the kinds of tarballs begin, and the module that reads them."""


def check_tarball(source: SourceBuild, path: Path, name: str) -> None:
    """Raises `LadingError` for a file that is no tarball, as the page of an error is none, or
    not a whole one: nobody has said what it should be.
    """
    with path.open("rb") as file:
        start = file.read(512)
    for begins, module in _BEGINS.items():
        if start.startswith(begins):
            wrong = _damage(path, module)
            break
    else:
        wrong = "" if start[257:262] == b"ustar" else "no tar archive of any kind"
        wrong = "a zip archive" if start.startswith(b"PK\3\4") else wrong
        wrong = "a web page" if start.lstrip()[:1] == b"<" else wrong
    if wrong:
        raise LadingError(
            f"{name} is {wrong}",
            why=f"sources.{source.name} is compiled from a tarball",
            do="give the URL of one, as …/NAME-VERSION.tar.gz; with its sha256, where one is known",
        )


def _damage(path: Path, module: str) -> str:
    """What is wrong with a compressed file; nothing for what can't be read here."""
    import importlib
    import zlib
    from lzma import LZMAError

    if not module:
        return ""
    try:
        with importlib.import_module(module).open(path) as file:
            while file.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error, LZMAError) as error:
        return f"cut off or damaged ({error})"
    return ""


BODY = re.compile(
    r"\s*version: (?P<version>\S+)\nfile: (?P<file>\S+)\n"
    r"size: (?P<size>\d{1,18})\nsha256: (?P<sha256>[0-9a-f]{64})\s*"
)


def read(path: Path) -> SourceLock | None:
    """The lock at this path; None if there is none. Raises `LadingError` if it is damaged."""
    text = locks.read(path)
    return None if text is None else parse(text, path)


def parse(text: str, path: Path) -> SourceLock:
    """A source's lock from its text. Raises `LadingError` for any other text."""
    header, body = locks.split(text, str(path))
    found = BODY.fullmatch(body)
    if found is None:
        raise LadingError(
            f"{path}: not a lock of a source",
            do="undo the edit, or delete the file and lock again",
        )
    artifact = Artifact(name=found["file"], sha256=found["sha256"], size=int(found["size"]))
    return SourceLock(header=header, artifact=artifact, version=found["version"], text=text)


def places(
    source: SourceBuild,
    environ: Mapping[str, str],
    credentials: Callable[[str], tuple[str, str] | None],
) -> list[Source]:
    """Where the tarball can be had today, in the order the user gave.

    Raises `EnvironmentProblem` where only a Debian mirror would have it, and none is known.
    """
    found: list[Source] = []
    unknown: EnvironmentProblem | None = None
    for url in map(source.filled, source.urls):
        if not url.startswith(DEBIAN):
            found.append(Source(url=url, auth=credentials(url)))
            continue
        try:
            mirror = debian.mirrors(environ)["debian"]
        except EnvironmentProblem as error:
            unknown = error
        else:
            found.append(on_mirror(mirror, url.removeprefix(DEBIAN)))
    if unknown is not None and not found:
        raise unknown
    return found
