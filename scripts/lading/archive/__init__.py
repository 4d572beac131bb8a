"""The canonical docker-archive: one image, one tag, and the same bytes from every engine.

What engines save has three layouts: Docker's until 24 (`ID/layer.tar`, links for layers that
repeat), Docker's from 25 on (OCI's `blobs/`) and Podman's (`DIGEST.tar`). It is written as
`CONFIG.json`, then `DIFF_ID.tar` for each layer, once, from the lowest up, then `manifest.json`;
every digest is checked on the way. The order is fixed by the image alone, never by the engine.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from lading.archive.growing import Growing
from lading.archive.saved import MANIFEST, Content, Image, SavedLayer, check_platform, read_image
from lading.archive.tarfiles import (
    BLOCK,
    END,
    PIECE,
    DamagedError,
    EndedError,
    Member,
    Stream,
    header,
    is_header,
    padding,
)
from lading.errors import LadingError
from lading.files import PART, canonical_json, disk_errors, sha256_of, write_text, written_whole


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer: the sha256 of its tar ("sha256:…") and its size in bytes, both uncompressed."""

    diff_id: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive that was written or read to its end, and verified.

    `sha256` (in hexadecimal) and `size` are the file's; `config` ("sha256:…") is the digest of
    the configuration, which is the image's id in Docker and Podman.
    """

    sha256: str
    size: int
    config: str
    layers: tuple[Layer, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


def export(
    chunks: Iterable[bytes],
    out: Path,
    *,
    name: str,
    platform: str,
    advance: Callable[[int], None] = lambda _: None,
) -> Archive:
    """Writes what an engine saves (`chunks`, of any size) as a canonical archive.

    The image gets one tag, `name`. `advance` is told how many bytes came in. It takes, while it
    runs, twice the room of the image, and a few MB of memory. What an earlier, killed run left
    of `out` is removed.

    Raises `LadingError` when the engine goes away, or the image is not sound or not for
    `platform`; `EnvironmentProblem` when the disk is full. Then there is no `out`, or the old one.
    """
    stream = Stream(_delivered(chunks), advance)
    went = f"the engine went away while it saved {name}"
    damaged = f"what the engine saved as {name} can't be archived"
    with _explained(went, damaged), disk_errors(out), ExitStack() as spool:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        image = read_image(stream, lambda _, body: _spooled(body, out.parent, spool))
        check_platform(image, platform)
        # The place of whatever changes an image on its way, from Image to Image, is here; it
        # has to verify the layers first, which _pack does only while it copies them.
        return _pack(image, out, name)


def write(out: Path, config: Mapping[str, Any], layers: Sequence[Path], name: str) -> Archive:
    """Writes a canonical archive of uncompressed layer tars, from the lowest up.

    `config` is an OCI image configuration (architecture, os, config, created …); its `rootfs`
    is computed, and a `history` added where there is none: BuildKit counts layers by it. Its
    bytes are canonical JSON, so the image has one id on all engines.

    Raises `LadingError` for a layer that can't be read, `EnvironmentProblem` for a full disk.
    """
    with ExitStack() as stack:
        opened = tuple(_opened(path, stack) for path in layers)
        rootfs = {"type": "layers", "diff_ids": [layer.diff_id for layer in opened]}
        step = {"created_by": "lading"} | {k: config[k] for k in ("created",) if k in config}
        settings = {"history": [step] * len(opened), **config, "rootfs": rootfs}
        image = Image(config=canonical_json(settings), settings=settings, layers=opened)
        return _pack(image, out, name)


def read(path: Path) -> Archive:
    """Reads any docker-archive to its end and verifies it; writes nothing.

    Raises `LadingError` when it is not a sound archive of one image.
    """
    what = f"{path} is not a sound archive of one image"
    with _explained(what, what), _reading(path) as file, Growing(file) as whole:
        stream = Stream(iter(lambda: file.read(PIECE), b""), whole.grew)
        image = read_image(stream, lambda member, body: _looked_at(member, body, file.fileno()))
        for layer in image.layers:
            layer.verify()
        whole.complete()
        return _archive(image, sha256=whole.sha256(), size=whole.size)


def record(path: Path, archive: Archive, *, key: str, name: str) -> None:
    """Writes what is known of an archive as JSON, beside it; `key` is the image's."""
    found = {
        "key": key,
        "name": name,
        "sha256": archive.sha256,
        "size": archive.size,
        "config": archive.config,
        "layers": [{"diff_id": layer.diff_id, "size": layer.size} for layer in archive.layers],
    }
    write_text(path, json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def current(tar: Path, record: Path, key: str) -> bool:
    """Whether the record names this key and the archive has the record's size: one stat."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        size = tar.stat().st_size
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("key") == key and found.get("size") == size


def config_of(record: Path) -> str:
    """The ID of the archived image: the digest of its configuration; empty without a record."""
    try:
        return str(json.loads(record.read_text())["config"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _pack(image: Image, out: Path, name: str) -> Archive:
    """Writes the archive of an image, and verifies its layers on the way."""
    config = image.id.removeprefix("sha256:")
    layers = {layer.diff_id: layer for layer in image.layers}
    names = {diff_id: f"{diff_id.removeprefix('sha256:')}.tar" for diff_id in layers}
    manifest = {
        "Config": f"{config}.json",
        "RepoTags": [name],
        "Layers": [names[layer.diff_id] for layer in image.layers],
    }
    with written_whole(out) as file, Growing(file) as whole:
        _entry(whole, f"{config}.json", len(image.config), [image.config])
        for diff_id, layer in layers.items():
            _entry(whole, names[diff_id], layer.content.size, layer.content.blocks())
            layer.content.close()
        listed = canonical_json([manifest])
        _entry(whole, MANIFEST, len(listed), [listed])
        whole.write(END)
        whole.complete()
        os.fsync(file.fileno())  # here it goes on beside the hashing
        for layer in image.layers:  # all: two files may have come under one digest
            layer.verify()
        return _archive(image, sha256=whole.sha256(), size=whole.size)


def _entry(file: Growing, name: str, size: int, content: Iterable[bytes | memoryview]) -> None:
    file.write(header(name, size))
    for block in content:
        file.write(block)
    file.write(padding(size))


def _archive(image: Image, *, sha256: str, size: int) -> Archive:
    return Archive(
        sha256=sha256,
        size=size,
        config=image.id,
        layers=tuple(Layer(diff_id=x.diff_id, size=x.content.size) for x in image.layers),
        labels=image.labels,
    )


def _spooled(body: Iterator[memoryview], folder: Path, spool: ExitStack) -> Content:
    """Keeps a content in a file that has no name, so nothing stays behind however this ends."""
    file = spool.enter_context(TemporaryFile(dir=folder))  # noqa: SIM115
    growing = spool.enter_context(Growing(file))
    for piece in body:
        growing.write(piece)
    growing.complete()

    def close() -> None:
        growing.sha256()  # its thread reads the file to the end
        file.close()

    return Content(
        handle=file.fileno(), offset=0, size=growing.size, sha256=growing.sha256, close=close
    )


def _looked_at(member: Member, body: Iterator[memoryview], handle: int) -> Content:
    digest = hashlib.sha256()
    size = 0
    for piece in body:
        digest.update(piece)
        size += len(piece)
    sha256 = digest.hexdigest()
    return Content(
        handle=handle,
        offset=member.offset,
        size=size,
        sha256=lambda: sha256,
        close=lambda: None,
    )


def _opened(path: Path, stack: ExitStack) -> SavedLayer:
    """A layer in a file of its own, hashed."""
    try:
        file = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise LadingError(f"the layer {path} can't be read", why=str(error)) from error
    size = os.fstat(file.fileno()).st_size
    first = file.read(BLOCK)
    if len(first) < BLOCK or (first != bytes(BLOCK) and not is_header(first)):
        raise LadingError(f"{path} is not an uncompressed tar")
    sha256 = sha256_of(path)
    content = Content(
        handle=file.fileno(),
        offset=0,
        size=size,
        sha256=lambda: sha256,
        close=file.close,
    )
    return SavedLayer(diff_id=f"sha256:{sha256}", content=content)


def _delivered(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The engine's chunks. Whatever goes wrong there means that no more of them come."""
    try:
        yield from chunks
    except LadingError:
        raise
    except Exception as error:
        raise EndedError(str(error) or type(error).__name__) from error


@contextmanager
def _explained(ended: str, damaged: str) -> Iterator[None]:
    try:
        yield
    except EndedError as error:
        raise LadingError(ended, why=str(error)) from error
    except DamagedError as error:
        raise LadingError(damaged, why=str(error)) from error


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise LadingError(f"{path} can't be read", why=str(error)) from error


def _sweep(out: Path) -> None:
    for left in out.parent.glob(glob.escape(f".{out.name}.") + "*" + PART):
        left.unlink(missing_ok=True)
