"""What differs between two archives of an image, said file by file."""

from __future__ import annotations

import difflib
import hashlib
import json
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SHOWN = 20
"""Files that are named; the rest is counted."""
TEXT = 1 << 20
"""Bytes up to which a file's lines are compared."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing in a layer: everything of it that can differ."""

    kind: str
    mode: int
    owner: tuple[int, int]
    mtime: float
    size: int
    target: str
    sha256: str


def differences(first: Path, second: Path) -> list[str]:
    """What differs, a line each, the first `SHOWN`; nothing where the archives agree in all
    layers. Text files are compared by lines, others by where they begin to differ.

    Two archives of images, or two plain tars.
    """
    before, after = dict(_entries(first)), dict(_entries(second))
    lines: list[str] = []
    paths = [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
    for path in paths[:SHOWN]:
        lines += _difference(path, before.get(path), after.get(path), first, second)
    if len(paths) > SHOWN:
        lines.append(f"and {len(paths) - SHOWN} more")
    return lines


def _difference(
    path: str, was: Entry | None, now: Entry | None, first: Path, second: Path
) -> list[str]:
    if was is None or now is None:
        return [f"{path}: only in the {'second' if was is None else 'first'}"]
    what = [
        f"{name} {getattr(was, name)} → {getattr(now, name)}"
        for name in ("kind", "mode", "owner", "mtime", "target", "size")
        if getattr(was, name) != getattr(now, name)
    ]
    lines = [f"{path}: {', '.join(what) or 'content'}"]
    if was.sha256 != now.sha256 and max(was.size, now.size) <= TEXT:
        lines += [f"    {line}" for line in _inside(_content(first, path), _content(second, path))]
    return lines


def _inside(one: bytes, other: bytes) -> list[str]:
    try:
        before, after = one.decode().splitlines(), other.decode().splitlines()
    except UnicodeDecodeError:
        at = next(
            (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
            min(len(one), len(other)),
        )
        here = slice(max(at - 16, 0), at + 16)
        return [f"from byte {at} on:", f"- {one[here]!r}", f"+ {other[here]!r}"]
    found = difflib.unified_diff(before, after, lineterm="", n=0)
    return [line[:100] for line in list(found)[2:10]]


def _entries(archive: Path) -> Iterator[tuple[str, Entry]]:
    """Everything in the layers, under LAYER:PATH."""
    for layer, inner in _layers(archive):
        with closing(inner):
            for info in inner:
                file = inner.extractfile(info) if info.isreg() else None
                yield (
                    f"{layer}:/{info.name}",
                    Entry(
                        kind=info.type.decode(),
                        mode=info.mode,
                        owner=(info.uid, info.gid),
                        mtime=info.mtime,
                        size=info.size,
                        target=info.linkname,
                        sha256=_sha256(file) if file is not None else "",
                    ),
                )


def _content(archive: Path, path: str) -> bytes:
    wanted, _, name = path.partition(":/")
    for layer, inner in _layers(archive):
        with closing(inner):
            if layer == wanted:
                file = inner.extractfile(name)
                return file.read() if file is not None else b""
    return b""


def _layers(archive: Path) -> Iterator[tuple[str, tarfile.TarFile]]:
    """Each layer by its place, "layer 1" the lowest; of a plain tar, itself."""
    with tarfile.open(archive) as whole:
        try:
            listed = whole.extractfile("manifest.json")
        except KeyError:
            yield "", tarfile.open(archive)  # noqa: SIM115 - closed by whom it is given to
            return
        assert listed is not None
        for number, name in enumerate(json.load(listed)[0]["Layers"], 1):
            yield (
                f"layer {number}",
                tarfile.open(  # noqa: SIM115
                    fileobj=whole.extractfile(name)
                ),
            )


def _sha256(file: IO[bytes]) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
