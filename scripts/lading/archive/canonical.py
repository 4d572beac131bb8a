"""The canonical docker-archive: one image, one tag, and the same bytes from every engine.

What engines save has three layouts: Docker's until 24 (`ID/layer.tar`, links for layers that
repeat), Docker's from 25 on (OCI's `blobs/`) and Podman's (`DIGEST.tar`). It is written as
`layer-1.tar` and so on, each layer once, from the lowest up, then `CONFIG.json` and
`manifest.json`; every digest is checked on the way. The order is fixed by the image alone, never by
the engine. No name depends on a layer's digest: the whole is hashed while its layers still are.

`Normal` makes it the same bytes from every build, too: see lading.archive.normal.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from lading.archive.growing import Growing, blocks, equal
from lading.archive.normal import Normal, base_tree, plan
from lading.archive.normal import settings as settings_of
from lading.archive.saved import Content, Image, SavedLayer, check_platform, read_image
from lading.archive.tarfiles import (
    BLOCK,
    PIECE,
    DamagedError,
    EndedError,
    Member,
    Stream,
    is_header,
)
from lading.archive.trees import Tree
from lading.archive.writing import Archive, Layer, Writer, writing
from lading.errors import LadingError
from lading.files import PART, canonical_json, disk_errors, sha256_of


def export(
    chunks: Iterable[bytes],
    out: Path,
    *,
    name: str,
    platform: str,
    advance: Callable[[int], None] = lambda _: None,
    normal: Normal | None = None,
) -> Archive:
    """Writes what an engine saves (`chunks`, of any size) as a canonical archive.

    The image gets one tag, `name`; with `normal`, it becomes the image that every build gives.
    `advance` is told how many bytes came in. It takes, while it runs, twice the room of the image,
    and a few MB of memory; with `normal`, 2 kB more for each file. What an earlier, killed run left
    of `out` is removed.

    Raises `LadingError` when the engine goes away, or the image is not sound, not for `platform`
    or not made from its base; `EnvironmentProblem` when the disk is full. Then there is no `out`,
    or the old one.
    """
    stream = Stream(_delivered(chunks), advance)
    went = f"the engine went away while it saved {name}"
    damaged = f"what the engine saved as {name} can't be archived"
    with _explained(went, damaged), disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        with writing(out) as writer, ExitStack() as spool:
            base = _base_ahead(writer, normal, spool)
            image = read_image(
                stream, lambda member, body: _kept(member, body, out.parent, spool, base)
            )
            check_platform(image, platform)
            if normal is None:
                return _as_it_is(writer, image, name)
            if tuple(layer.diff_id for layer in image.layers[: len(normal.base)]) != normal.base:
                raise DamagedError("its lowest layers are not its base's")
            return _normalised(writer, image, name, normal, base.result())


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
        with writing(out) as writer:
            return _as_it_is(writer, image, name)


def received(
    out: Path,
    config: bytes,
    layers: Sequence[Layer],
    pieces: Callable[[Layer], Iterable[bytes]],
    name: str,
) -> Archive:
    """Writes the canonical archive of an image whose layers come from elsewhere, from the lowest
    up; `pieces` verifies them.

    Raises what `pieces` does, and `EnvironmentProblem` for a full disk. Then there is no `out`, or
    the old one.
    """
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        with writing(out) as writer:
            for layer in layers:
                writer.received(layer.diff_id, layer.size, pieces(layer))
            sha256, size = writer.close(config, digest, name)
    return Archive(sha256=sha256, size=size, config=digest, layers=tuple(layers))


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


def _as_it_is(writer: Writer, image: Image, name: str) -> Archive:
    for layer in image.layers:
        writer.layer(layer)
    sha256, size = writer.close(image.config, image.id, name)
    for layer in image.layers:  # all: two files may have come under one digest
        layer.verify()
    return _archive(image, sha256=sha256, size=size)


def _normalised(
    writer: Writer, image: Image, name: str, normal: Normal, ahead: _Base | None
) -> Archive:
    base = ahead or _written(writer, image.layers[: len(normal.base)])
    image = replace(image, layers=base.layers + image.layers[len(base.layers) :])
    parts = plan(image, normal, base.tree)
    written = [writer.part(part) for part in parts]
    writer.sync()
    layers = base.layers + tuple(layer() for layer in written)
    diff_ids = [layer.diff_id for layer in layers]
    settings = settings_of(image, normal, diff_ids, [part.name for part in parts])
    made = Image(config=canonical_json(settings), settings=settings, layers=layers)
    sha256, size = writer.close(made.config, made.id, name)
    if ahead is not None:
        _verify_ahead(ahead, normal.archive)
    for layer in image.layers:
        if layer.diff_id not in base.delivered:
            layer.verify()
    return _archive(made, sha256=sha256, size=size)


@dataclass(frozen=True, kw_only=True)
class _Base:
    """The base's layers, which are in the archive by now, and the files in them.

    `delivered`: the diff_ids of those that the engine has delivered, byte for byte. It has verified
    them when it took them in; they are hashed only where it delivers something else.
    """

    layers: tuple[SavedLayer, ...]
    tree: Tree
    delivered: set[str]


def _verify_ahead(base: _Base, archive: Path | None) -> None:
    """Raises `LadingError` where the base's own archive is not what it was made as."""
    with _believed(archive):
        for layer in base.layers:
            if layer.diff_id not in base.delivered:
                layer.verify()
    base.delivered.update(layer.diff_id for layer in base.layers)


@contextmanager
def _believed(archive: Path | None) -> Iterator[None]:
    try:
        yield
    except DamagedError as error:
        raise LadingError(
            f"the base in the store is damaged: {archive}",
            why=str(error),
            do="delete that file, then run it again: it is made anew, or the engine has it",
        ) from error


def _written(writer: Writer, layers: tuple[SavedLayer, ...]) -> _Base:
    for layer in layers:
        writer.layer(layer)
    writer.sync()
    return _Base(layers=layers, tree=base_tree(layers), delivered=set())


def _base_ahead(writer: Writer, normal: Normal | None, spool: ExitStack) -> Future[_Base | None]:
    """Writes the base's layers out of its own archive, if there is one.

    That is done while the engine still collects the image: Docker takes seconds before it
    delivers the first byte, and does not say which layer is the lowest until all are delivered.
    """
    file = None
    if normal is not None and normal.archive is not None:
        with suppress(OSError):
            file = spool.enter_context(normal.archive.open("rb"))
    if normal is None or file is None:
        nothing: Future[_Base | None] = Future()
        nothing.set_result(None)
        return nothing
    return spool.enter_context(ThreadPoolExecutor(1)).submit(_base, writer, normal, file)


def _base(writer: Writer, normal: Normal, file: BinaryIO) -> _Base | None:
    try:
        stream = Stream(iter(lambda: file.read(PIECE), b""), lambda _: None)
        image = read_image(stream, lambda member, body: _passed(member, body, file))
    except (OSError, DamagedError):
        return None  # the engine has them, too
    if tuple(layer.diff_id for layer in image.layers) != normal.base:
        return None
    with _believed(normal.archive):
        return _written(writer, image.layers)


def _archive(image: Image, *, sha256: str, size: int) -> Archive:
    return Archive(
        sha256=sha256,
        size=size,
        config=image.id,
        layers=tuple(Layer(diff_id=x.diff_id, size=x.content.size) for x in image.layers),
        labels=image.labels,
    )


def _kept(
    member: Member,
    body: Iterator[memoryview],
    folder: Path,
    spool: ExitStack,
    ahead: Future[_Base | None],
) -> Content:
    """Keeps a content in a file that has no name, so nothing stays behind however this ends.

    What is, byte for byte, a layer that the base's own archive has is not kept once more.
    """
    base = ahead.result() if ahead.done() else None
    twin = next((x for x in base.layers if x.content.size == member.size), None) if base else None
    known, rest = _in_common(twin.content, body) if twin is not None else (0, body)
    if base is not None and twin is not None and known == member.size:
        last = next(rest, None)
        if last is None:
            base.delivered.add(twin.diff_id)
            return twin.content
        rest = chain([last], rest)
    file = spool.enter_context(TemporaryFile(dir=folder))  # noqa: SIM115
    digest = spool.enter_context(Growing(file))
    if twin is not None and known:
        rest = chain(blocks(twin.content.handle, twin.content.offset, known), rest)
    for piece in rest:
        digest.write(piece)
    digest.complete()
    return Content(handle=file.fileno(), offset=0, size=digest.size, sha256=digest.sha256)


def _in_common(twin: Content, body: Iterator[memoryview]) -> tuple[int, Iterator[memoryview]]:
    """How many bytes a body begins with that the twin does, too, in whole pieces; and the rest."""
    buffer = memoryview(bytearray(PIECE))
    known = 0
    for piece in body:
        there = min(len(piece), PIECE, twin.size - known)
        read = os.preadv(twin.handle, [buffer[:there]], twin.offset + known) if there else 0
        if not equal(piece, buffer[:read]):
            return known, chain([piece], body)
        known += len(piece)
    return known, body


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
    )


def _passed(member: Member, body: Iterator[memoryview], file: BinaryIO) -> Content:
    """A content of the base's archive, hashed when somebody asks for it."""
    size = sum(map(len, body))

    def sha256() -> str:
        with Growing(file, member.offset) as digest:
            digest.grew(size)
            digest.complete()
            return digest.sha256()

    return Content(handle=file.fileno(), offset=member.offset, size=size, sha256=sha256)


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
