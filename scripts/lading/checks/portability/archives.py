"""An image's archive, opened: its configuration and its layers, and what is wrong with the archive.

A docker-archive (Docker Image Specification v1.2) as Docker, Podman and skopeo write it, or a tar
of an OCI image layout (image-spec v1.1). Nothing in it is believed that can be checked, nothing is
unpacked. Layers are read where they lie, those that are compressed pass by once.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import posixpath
import re
import shutil
import stat
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from lading.archive.saved import JSON_LIMIT, MANIFEST
from lading.archive.tarfiles import DamagedError
from lading.checks.portability.findings import Found
from lading.checks.portability.tape import PATH_MAX, FileTape, PipeTape, Slice, Spool, Tape, entries
from lading.errors import DeclarationError, EnvironmentProblem

INDEX = "index.json"
_MEMBERS = 10_000
_HOPS = 10
_LAYERS = 500
_PIECE = 1 << 20
_EXPANDS = 1 << 30
"""The compressed layers may always grow to so many bytes, all together; above, to 200 times what
they have in the archive, where one that is listed again counts once.
"""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAMED = re.compile(r"(?:^|[/:])([0-9a-f]{64})(?:\.json)?$")
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
}


class RefusedError(Exception):
    """Apptainer can't read the archive, so there is no more to check; with the one finding."""

    def __init__(self, found: Found) -> None:
        super().__init__(found.effect)
        self.found = found


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer: what it is called in messages, and its tar, which can be read once."""

    name: str
    tape: Callable[[], Tape]


@dataclass(kw_only=True)
class Opened:
    """An archive's one image: its configuration as data, and its layers from the lowest up.

    `problems` is complete once every layer was read to its end, and `verify` was called.
    """

    settings: Mapping[str, Any]
    layers: Sequence[Layer]
    problems: list[Found] = field(default_factory=list)
    waiting: list[tuple[str, str, Callable[[], str]]] = field(default_factory=list)

    def verify(self) -> None:
        """Compares the digests, each where it was announced: its place, the claim, the truth."""
        for place, claim, truth in self.waiting:
            found = f"sha256:{truth()}"
            if found != claim:
                self.problems.append(_false_digest(place, claim, found))
        self.waiting = []


def opened(path: Path, platform: str, stack: ExitStack, *, digests: bool = True) -> Opened:
    """Opens an archive until `stack` is left. Without `digests`, none is computed.

    Raises `RefusedError` for what Apptainer doesn't take for an image; `DamagedError` where tar or
    JSON breaks off; `DeclarationError` and `EnvironmentProblem` for a file that can't be read.
    """
    whole = _file(path, stack)
    magic = whole.read_at(0, 6)
    if not whole.size:
        raise DamagedError("it is empty")
    kind = _compression(magic)
    if kind:
        unpack = {"gzip": "gunzip", "zstd": "zstd -d", "xz": "unxz", "bzip2": "bunzip2"}[kind]
        raise RefusedError(
            Found(
                "A1",
                "error",
                path.name,
                f"the whole archive is compressed with {kind}: Apptainer refuses it",
                f"{unpack} {path.name}",
            )
        )
    files, links = _members(whole)
    pool = stack.enter_context(ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)))
    stack.callback(pool.shutdown, cancel_futures=True)
    hashes = _Hashes(pool)
    stack.callback(hashes.stop)
    image = _Reading(
        files=files,
        links=links,
        hashed=hashes if digests else None,
        stack=stack,
        spool=Spool(stack),
        platform=platform,
    )
    if MANIFEST in files or MANIFEST in links:
        return image.docker()
    if INDEX in files or INDEX in links:
        return image.oci()
    raise RefusedError(
        _not_one(
            MANIFEST,
            f"there is no {MANIFEST} in it: it is no archive of an image (docker export, "
            "for one, writes a plain tar of files)",
        )
    )


class _Hashes:
    """sha256 of slices, each computed once, while the rest goes on."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._known: dict[Slice, Future[str]] = {}
        self._stopped = False

    def stop(self) -> None:
        """Nobody waits for them any more: a layer of gigabytes is not hashed to its end."""
        self._stopped = True

    def of(self, content: Slice) -> Callable[[], str]:
        if content not in self._known:
            self._known[content] = self._pool.submit(self._sha256, content)
        return self._known[content].result

    def passing(self, pieces: Iterator[bytes], digest: Any) -> Iterator[bytes]:
        """The pieces, each of which is hashed while the next one comes."""
        last = None
        for piece in pieces:
            if last is not None:
                last.result()
            last = self._pool.submit(digest.update, piece)
            yield piece
        if last is not None:
            last.result()

    def _sha256(self, content: Slice) -> str:
        # One buffer for all: a new one for each piece costs as much as the reading.
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(min(_PIECE, content.size)))
        at = 0
        while at < content.size and not self._stopped:
            piece = buffer[: min(_PIECE, content.size - at)]
            count = os.preadv(content.handle, [piece], content.base + at)
            if not count:
                raise DamagedError("it became shorter while it was read")
            digest.update(piece[:count])
            at += count
        return digest.hexdigest()


@dataclass(kw_only=True)
class _Room:
    """The bytes that layers may still unpack to, of `limit`: one budget for all of an image's."""

    limit: int
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.limit

    def take(self, size: int, name: str) -> None:
        self.left -= size
        if self.left < 0:
            raise DamagedError(
                f"{name} unpacks to too much: with the layers below it, {self.limit} bytes and more"
            )


@dataclass(kw_only=True)
class _Reading:
    """What both kinds of archive need while they are read."""

    files: Mapping[str, Slice]
    links: Mapping[str, str]
    hashed: _Hashes | None
    stack: ExitStack
    spool: Spool
    platform: str
    problems: list[Found] = field(default_factory=list)
    waiting: list[tuple[str, str, Callable[[], str]]] = field(default_factory=list)

    def docker(self) -> Opened:
        found = _json(self._find(MANIFEST, MANIFEST), MANIFEST)
        if not isinstance(found, list) or len(found) != 1:
            count = len(found) if isinstance(found, list) else 0
            raise RefusedError(_not_one(MANIFEST, f"{MANIFEST} lists {count} images, not one"))
        entry = found[0]
        config = entry.get("Config") if isinstance(entry, dict) else None
        names = entry.get("Layers") if isinstance(entry, dict) else None
        if not isinstance(config, str) or not _strings(names):
            raise RefusedError(
                _not_one(MANIFEST, f"{MANIFEST} does not name a configuration and layers")
            )
        content = self._find(config, MANIFEST)
        named = _NAMED.search(config)
        if named:
            self._check(config, f"sha256:{named[1]}", content)
        return self._image(content, config, [(name, self._find(name, MANIFEST)) for name in names])

    def oci(self) -> Opened:
        manifest = self._manifest(INDEX, 0)
        config = self._blob(manifest.get("config"))
        layers = manifest.get("layers")
        if not isinstance(layers, list):
            raise RefusedError(_not_one(INDEX, "the manifest does not list its layers"))
        for layer in layers:
            kind = str(layer.get("mediaType")) if isinstance(layer, dict) else ""
            if kind.endswith("+encrypted"):
                raise RefusedError(_not_one(INDEX, "its layers are encrypted"))
        return self._image(config[1], config[0], [self._blob(layer) for layer in layers])

    def _manifest(self, name: str, depth: int) -> Mapping[str, Any]:
        """The manifest of the one image of an index, which may hold one more index."""
        found = _json(self._find(name, INDEX), name)
        listed = found.get("manifests") if isinstance(found, dict) else None
        if not isinstance(listed, list):
            if isinstance(found, dict) and depth and "config" in found:
                return found
            raise RefusedError(_not_one(name, f"{name} does not list manifests"))
        if depth > 3:
            raise RefusedError(_not_one(INDEX, "one index lists the next and the next"))
        images = [one for one in listed if isinstance(one, dict) and not _attests(one)]
        if depth and len(images) > 1:
            images = [one for one in images if self._fits(one)] or images
        if len(images) != 1:
            raise RefusedError(_not_one(name, f"{name} lists {len(images)} images, not one"))
        return self._manifest(self._blob(images[0])[0], depth + 1)

    def _fits(self, descriptor: Mapping[str, Any]) -> bool:
        given = descriptor.get("platform")
        system, _, rest = self.platform.partition("/")
        return isinstance(given, dict) and (given.get("os"), given.get("architecture")) == (
            system,
            rest.partition("/")[0],
        )

    def _blob(self, descriptor: object) -> tuple[str, Slice]:
        digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise RefusedError(_not_one(INDEX, "a descriptor has no sha256"))
        name = "blobs/" + digest.replace(":", "/")
        content = self._find(name, INDEX)
        self._check(name, digest, content)
        return name, content

    def _image(self, config: Slice, name: str, contents: Sequence[tuple[str, Slice]]) -> Opened:
        settings = _json(config, name)
        if not isinstance(settings, dict):
            raise RefusedError(_not_one(name, "its configuration is not a JSON object"))
        if len(contents) > _LAYERS:
            raise DamagedError(f"it has {len(contents)} layers")
        rootfs = settings.get("rootfs")
        claims = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if not _strings(claims) or len(claims) != len(contents):
            count = len(claims) if isinstance(claims, list) else 0
            self.problems.append(
                Found(
                    "A3",
                    "error",
                    name,
                    f"the configuration knows {count} layers, the archive has {len(contents)}",
                    "save the image again",
                )
            )
            claims = [""] * len(contents)
        stored = sum(content.size for content in {content for _, content in contents})
        room = _Room(limit=max(_EXPANDS, 200 * stored))
        layers = [
            self._layer(place, content, claim, room)
            for (place, content), claim in zip(contents, claims, strict=True)
        ]
        return Opened(
            settings=settings, layers=layers, problems=self.problems, waiting=self.waiting
        )

    def _layer(self, name: str, content: Slice, claim: str, room: _Room) -> Layer:
        kind = _compression(content.read_at(0, 6))
        if not kind:
            if claim:
                self._check(name, claim, content)
            return Layer(name=name, tape=lambda: FileTape(content))
        digest = hashlib.sha256() if self.hashed is not None and claim else None

        def tape() -> Tape:
            unpacking = _unpacked(content, kind, name)
            # A program may be at it: it ends where the reading does.
            self.stack.callback(unpacking.close)
            pieces = _counted(unpacking, name, room)
            if digest is not None and self.hashed is not None:
                pieces = self.hashed.passing(pieces, digest)
            return PipeTape(pieces, self.spool)

        if digest is not None:
            self.waiting.append((name, claim, digest.hexdigest))
        return Layer(name=name, tape=tape)

    def _check(self, place: str, claim: str, content: Slice) -> None:
        if self.hashed is not None:
            self.waiting.append((place, claim, self.hashed.of(content)))

    def _find(self, name: str, where: str) -> Slice:
        at = _inside(name)
        for _ in range(_HOPS):
            if at in self.files:
                return self.files[at]
            if at not in self.links:
                break
            at = self.links[at]
        raise RefusedError(_not_one(where, f"it names {name}, which is not in the archive"))


def _file(path: Path, stack: ExitStack) -> Slice:
    try:
        # A pipe or a device would wait, or never end.
        if stat.S_ISFIFO(path.stat().st_mode) or path.is_char_device():
            raise DeclarationError(f"{path} is not a file")
        file = stack.enter_context(path.open("rb"))
    except FileNotFoundError:
        raise DeclarationError(f"{path} is not there") from None
    except IsADirectoryError:
        raise DeclarationError(
            f"{path} is a folder",
            do="give the archive of an image: a docker-archive or oci-archive",
        ) from None
    except OSError as error:
        raise EnvironmentProblem(f"{path} can't be read", why=str(error)) from error
    return Slice(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def _members(whole: Slice) -> tuple[dict[str, Slice], dict[str, str]]:
    """Where each file of the archive lies, and where its links lead."""
    files: dict[str, Slice] = {}
    links: dict[str, str] = {}
    tape = FileTape(whole)
    for count, entry in enumerate(entries(tape)):
        if count >= _MEMBERS:
            raise DamagedError("it has more members than an archive of an image")
        if max(len(entry.name), len(entry.target)) > PATH_MAX:
            raise DamagedError("a name in it is longer than a path can be")
        name = entry.name.decode("utf-8", "surrogateescape")
        if entry.kind not in ("file", "symlink", "hardlink"):
            continue
        clean = _inside(name)
        if clean in files or clean in links:
            if clean in (MANIFEST, INDEX):
                raise RefusedError(_not_one(clean, f"{clean} is in it twice"))
            raise DamagedError(f"{name!r} is in it twice")
        target = entry.target.decode("utf-8", "surrogateescape")
        if entry.kind == "symlink":
            links[clean] = _inside(posixpath.join(posixpath.dirname(clean), target))
        elif entry.kind == "hardlink":
            links[clean] = _inside(target)
        elif entry.sparse:
            raise DamagedError(f"{name!r} is a sparse file")
        else:
            files[clean] = Slice(whole.handle, tape.at, entry.size)
    return files, links


def _inside(name: str) -> str:
    clean = posixpath.normpath(name)
    if clean == ".." or clean.startswith(("/", "../")):
        raise DamagedError(f"{name!r} leads out of the archive")
    return clean


def _json(content: Slice, name: str) -> Any:
    if content.size > JSON_LIMIT:
        raise DamagedError(f"{name} has {content.size} bytes")
    try:
        return json.loads(content.read_at(0, content.size).decode())
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{name} is not JSON ({error})") from None


def _strings(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _attests(descriptor: Mapping[str, Any]) -> bool:
    """Whether it is BuildKit's record of a build, which stands beside the image."""
    given = descriptor.get("platform")
    return isinstance(given, dict) and given.get("os") == "unknown"


def _compression(magic: bytes) -> str:
    return next((name for head, name in _COMPRESSED.items() if magic.startswith(head)), "")


_Pieces = Generator[bytes, None, None]


def _counted(pieces: _Pieces, name: str, room: _Room) -> Iterator[bytes]:
    """The pieces. Raises `DamagedError` for a bomb."""
    for piece in pieces:
        room.take(len(piece), name)
        yield piece


def _unpacked(content: Slice, kind: str, name: str) -> _Pieces:
    """What was in a compressed layer. Raises `DamagedError`."""
    if kind == "gzip":
        return _gunzipped(content, name)
    if kind != "zstd":
        raise DamagedError(f"{name} is compressed with {kind}; only gzip and zstd are")
    try:
        zstd = importlib.import_module("compression.zstd")
    except ImportError:
        return _by_program(content, name)
    return _unzstd(content, name, zstd)


def _gunzipped(content: Slice, name: str) -> _Pieces:
    engine = None
    for piece in content.pieces():
        data = piece
        while data:
            engine = engine or zlib.decompressobj(wbits=31)
            try:
                yield engine.decompress(data, _PIECE)
            except zlib.error as error:
                raise DamagedError(f"{name} is gzip that can't be read ({error})") from None
            data = engine.unconsumed_tail
            if engine.eof:
                # The next member of a file of several (pigz, eStargz), or zeros that fill it up.
                data, engine = engine.unused_data.lstrip(b"\0"), None
    if engine is not None:
        raise DamagedError(f"{name} is gzip that stops before its end")


def _by_program(content: Slice, name: str) -> _Pieces:
    """Python has zstd from 3.14 on."""
    from lading import process

    program = shutil.which("zstd")
    if program is None:
        raise EnvironmentProblem(
            f"{name} is compressed with zstd, which this Python can't read",
            do="install the program zstd (or use Python 3.14 or newer)",
        )
    ended = yield from process.piped([program, "-dcq"], content.pieces())
    if ended.code:
        raise DamagedError(f"{name} is zstd that can't be read ({ended.errors.strip()[-200:]})")


def _unzstd(content: Slice, name: str, zstd: Any) -> _Pieces:
    engine = None
    for piece in content.pieces():
        data = piece
        while data or (engine is not None and not engine.needs_input):
            engine = engine or zstd.ZstdDecompressor()
            try:
                yield engine.decompress(data, _PIECE)
            except zstd.ZstdError as error:
                raise DamagedError(f"{name} is zstd that can't be read ({error})") from None
            data = b""
            if engine.eof:
                data, engine = engine.unused_data, None
    if engine is not None:
        raise DamagedError(f"{name} is zstd that stops before its end")


def _not_one(path: str, effect: str) -> Found:
    return Found(
        "A2",
        "error",
        path,
        f"{effect}: Apptainer does not build from it",
        "save one image by name: docker save -o image.tar NAME:TAG",
    )


def _false_digest(place: str, claim: str, found: str) -> Found:
    return Found(
        "A3",
        "error",
        place,
        f"its content is {found[:19]}…, not {claim[:19]}… as it says: Apptainer does not notice, "
        "and the SIF is of something else; Docker refuses it",
        "the archive was damaged or edited: save the image again",
    )
