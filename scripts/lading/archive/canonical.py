"""The canonical docker-archive: one image, one tag, and the same bytes from every engine.

What engines save has three layouts: Docker's until 24 (`ID/layer.tar`, links for layers that
repeat), Docker's from 25 on (OCI's `blobs/`) and Podman's (`DIGEST.tar`). It is written as
`layer-1.tar` and so on, each layer once, from the lowest up, then `CONFIG.json` and
`manifest.json`; every digest is checked on the way. The order is fixed by the image alone, never by
the engine. No name depends on a layer's digest: the whole is hashed while its layers still are.

`Normal` makes it the same bytes from every build, too: see lading.archive.normal. Which
layers the engine had is nothing to that: where the base's own are at hand, it is asked for the
files (`Merged`). It has them sooner, for it need not assemble and hash each layer before the first
byte.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event
from typing import Any, BinaryIO

from lading.archive.arriving import lacking, merged_tree
from lading.archive.growing import Growing
from lading.archive.normal import (
    Normal,
    Part,
    base_tree,
    is_handed_in,
    layered,
    normal_settings,
    plan,
)
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
from lading.archive.writing import Archive, Layer, Writer, writing
from lading.errors import LadingError
from lading.files import PART, canonical_json, disk_errors, sha256_of


@dataclass(frozen=True, kw_only=True)
class Merged:
    """An image as a container of it begins: `files` is a tar of all its files, in chunks of any
    size, which nobody makes before the first is taken; `settings` an OCI image configuration.
    """

    files: Iterator[bytes]
    settings: Mapping[str, Any]


def export(
    chunks: Iterable[bytes],
    out: Path,
    *,
    name: str,
    platform: str,
    advance: Callable[[int], None] = lambda _: None,
    normal: Normal | None = None,
    merged: Merged | None = None,
) -> Archive:
    """Writes what an engine saves (`chunks`, of any size) as a canonical archive.

    The image gets one tag, `name`; with `normal`, it becomes the image that every build gives.
    `advance` is told how many bytes came in. It takes, while it runs, twice the room of the image,
    and a few MB of memory; with `normal`, 2 kB more for each file. What an earlier, killed run left
    of `out` is removed.

    `merged` is the same image, and is taken in place of `chunks` where `normal` has an archive with
    its base's layers.

    Raises `LadingError` when the engine goes away, or the image is not sound, not for `platform`
    or not made from its base; `EnvironmentProblem` when the disk is full. Then there is no `out`,
    or the old one.
    """
    went = f"the engine went away while it saved {name}"
    damaged = f"what the engine saved as {name} can't be archived"
    with _explained(went, damaged), disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        with writing(out) as writer, ExitStack() as spool:
            if normal is not None and merged is not None and (base := _own(normal, spool)):
                check_platform(merged.settings, platform)
                stream = Stream(_delivered(merged.files), advance)
                file = spool.enter_context(TemporaryFile(dir=out.parent))
                return _merged(writer, stream, file, merged.settings, name, normal, base)
            stream = Stream(_delivered(chunks), advance)
            image = read_image(stream, lambda member, body: _kept(body, out.parent, spool))
            check_platform(image.settings, platform)
            if normal is None:
                return _as_it_is(writer, image, name)
            return _normalised(writer, image, name, normal)


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


def _normalised(writer: Writer, image: Image, name: str, normal: Normal) -> Archive:
    _refuse_other(image.settings, normal)
    base, above = image.layers[: len(normal.base)], image.layers[len(normal.base) :]
    _write(writer, base)
    below = base_tree(base)
    parts = plan(image.settings, normal, below, layered(below, above))
    made = _upon(writer, base, parts, image.settings, name, normal)
    for layer in image.layers:
        layer.verify()
    return made


def _merged(
    writer: Writer,
    stream: Stream,
    file: BinaryIO,
    settings: Mapping[str, Any],
    name: str,
    normal: Normal,
    base: tuple[SavedLayer, ...],
) -> Archive:
    """The base's layers are written while the engine still sends the files. Where it sends all of
    theirs, too, they need not be hashed, unless a header is extended: nothing else would tell
    that such a name or time is as it was.
    """
    _refuse_other(settings, normal)
    extended = Event()
    with ThreadPoolExecutor(1) as ahead:
        trees = ahead.submit(base_tree, base, strict=True, extends=extended.set)
        written = ahead.submit(_write, writer, base)
        stream.begin()
        with _believed(normal):
            below = trees.result()
        tree = merged_tree(stream, below, file)
        written.result()
    shown = len(base) == 1 and all(map(is_handed_in, lacking(tree, below)))
    made = _upon(writer, base, plan(settings, normal, below, tree), settings, name, normal)
    if extended.is_set() or not shown:
        with _believed(normal):
            for layer in base:
                layer.verify()
    return made


def _refuse_other(settings: Mapping[str, Any], normal: Normal) -> None:
    if tuple(settings["rootfs"]["diff_ids"][: len(normal.base)]) != normal.base:
        raise DamagedError("its lowest layers are not its base's")


def _write(writer: Writer, layers: Iterable[SavedLayer]) -> None:
    for layer in layers:
        writer.layer(layer)
    writer.sync()


def _upon(
    writer: Writer,
    base: tuple[SavedLayer, ...],
    parts: Sequence[Part],
    settings: Mapping[str, Any],
    name: str,
    normal: Normal,
) -> Archive:
    """Writes what stands upon the base's layers, which were written, and ends the archive."""
    written = [writer.part(part) for part in parts]
    writer.sync()
    layers = base + tuple(layer() for layer in written)
    diff_ids = [layer.diff_id for layer in layers]
    found = normal_settings(settings, normal, diff_ids, [part.name for part in parts])
    made = Image(config=canonical_json(found), settings=found, layers=layers)
    sha256, size = writer.close(made.config, made.id, name)
    return _archive(made, sha256=sha256, size=size)


def _own(normal: Normal, spool: ExitStack) -> tuple[SavedLayer, ...]:
    """The base's layers out of its own archive; none where that is not at hand, or another's."""
    if normal.archive is None:
        return ()
    with suppress(OSError, DamagedError):
        file = spool.enter_context(normal.archive.open("rb"))
        stream = Stream(iter(lambda: file.read(PIECE), b""), lambda _: None)
        image = read_image(stream, lambda member, body: _passed(member, body, file))
        if tuple(layer.diff_id for layer in image.layers) == normal.base:
            return image.layers
    return ()


@contextmanager
def _believed(normal: Normal) -> Iterator[None]:
    try:
        yield
    except DamagedError as error:
        raise LadingError(
            f"the base in the store is damaged: {normal.archive}",
            why=str(error),
            do="delete that file, then run it again: it is made anew",
        ) from error


def _archive(image: Image, *, sha256: str, size: int) -> Archive:
    return Archive(
        sha256=sha256,
        size=size,
        config=image.id,
        layers=tuple(Layer(diff_id=x.diff_id, size=x.content.size) for x in image.layers),
        labels=image.labels,
    )


def _kept(body: Iterator[memoryview], folder: Path, spool: ExitStack) -> Content:
    """Keeps a content in a file that has no name, so nothing stays behind however this ends."""
    file = spool.enter_context(TemporaryFile(dir=folder))  # noqa: SIM115
    digest = spool.enter_context(Growing(file))
    for piece in body:
        digest.write(piece)
    digest.complete()
    return Content(handle=file.fileno(), offset=0, size=digest.size, sha256=digest.sha256)


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
