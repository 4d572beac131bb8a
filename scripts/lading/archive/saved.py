"""What a docker-archive says it holds: its manifest and its image's configuration, believed in
nothing that can be checked.

Docker Image Specification v1.2, 'Combined Image JSON + Filesystem Changeset Format'; OCI image
specification v1.1, 'Image Configuration'.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from lading.archive.growing import blocks
from lading.archive.tarfiles import PIECE, DamagedError, Member, Stream, members

MANIFEST = "manifest.json"
JSON_LIMIT = 4 << 20
"""Bytes that a manifest or a configuration may have; registries draw the line there too."""

_MEMBERS = 10_000
_FILES = 500
_HOPS = 10
_LEGACY = ("/json", "/VERSION")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAMED = re.compile(r"(?:^|[/:])([0-9a-f]{64})(?:\.json)?$")
_COMPRESSED = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zX": "xz", b"BZh": "bzip2"}


@dataclass(frozen=True, kw_only=True)
class Content:
    """A file's content: `size` bytes of an open file, from `offset` on.

    `sha256` waits until it is known.
    """

    handle: int
    offset: int
    size: int
    sha256: Callable[[], str]

    def blocks(self) -> Iterator[memoryview]:
        """The content in pieces, each good until the next one is asked for."""
        return blocks(self.handle, self.offset, self.size)

    def small(self, what: str) -> bytes:
        """The whole content. Raises `DamagedError` if it is longer than JSON may be."""
        if self.size > JSON_LIMIT:
            raise DamagedError(f"its {what} has {self.size} bytes")
        return b"".join(self.blocks())


@dataclass(frozen=True, kw_only=True)
class SavedLayer:
    """A layer under the digest that its image knows it by: "sha256:…", uncompressed."""

    diff_id: str
    content: Content

    def verify(self) -> None:
        """Raises `DamagedError` if the digest is not the content's."""
        found = f"sha256:{self.content.sha256()}"
        if found != self.diff_id:
            raise DamagedError(f"the layer {self.diff_id} has other content: {found}")


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image: its configuration, as bytes and as data, and its layers from the lowest up."""

    config: bytes
    settings: Mapping[str, Any]
    layers: tuple[SavedLayer, ...]

    @property
    def id(self) -> str:
        return "sha256:" + hashlib.sha256(self.config).hexdigest()

    @property
    def labels(self) -> dict[str, str]:
        inner = self.settings.get("config")
        labels = inner.get("Labels") if isinstance(inner, dict) else None
        return {k: str(v) for k, v in labels.items()} if isinstance(labels, dict) else {}


def read_image(stream: Stream, keep: Callable[[Member, Iterator[memoryview]], Content]) -> Image:
    """The one image of a docker-archive. Its layers are not verified yet.

    `keep` takes a file's content (uncompressed, if it was gzip) to where it can be read again.
    Raises `DamagedError`.
    """
    files: dict[str, Content] = {}
    links: dict[str, str] = {}
    for count, (member, body) in enumerate(members(stream)):
        name = _inside(member.name, member.name)
        if count >= _MEMBERS or len(files) >= _FILES:
            raise DamagedError("it has more members than an image can have")
        if name in files or name in links:
            raise DamagedError(f"{member.name!r} is in it twice")
        if member.kind == "symlink":
            links[name] = _inside(posixpath.join(posixpath.dirname(name), member.target), name)
        elif member.kind == "hardlink":
            links[name] = _inside(member.target, name)
        elif member.kind == "file" and not name.endswith(_LEGACY):
            files[name] = keep(member, uncompressed(body))
    return _image(files, links)


def check_platform(settings: Mapping[str, Any], platform: str) -> None:
    """Raises `DamagedError` if the image is not for `platform` ("linux/amd64")."""
    system, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    found = [str(settings.get(key) or "") for key in ("os", "architecture", "variant")]
    if found[:2] != [system, architecture] or (variant and found[2] not in ("", variant)):
        what = "/".join(filter(None, found)) or "nothing"
        raise DamagedError(f"it is for {what}, not for {platform}")


def uncompressed(body: Iterator[memoryview]) -> Iterator[memoryview]:
    """The body as it is, or what was in it if it is gzip (RFC 1952). Raises `DamagedError`."""
    first = b""
    for piece in body:
        first += piece
        if len(first) >= 4:
            break
    for magic, name in _COMPRESSED.items():
        if first.startswith(magic):
            raise DamagedError(f"a layer is compressed with {name}; only gzip is read")
    whole = chain([memoryview(first)], body)
    return _gunzip(whole) if first.startswith(b"\x1f\x8b") else whole


def _gunzip(pieces: Iterator[memoryview]) -> Iterator[memoryview]:
    engine = None
    for piece in pieces:
        data: bytes | memoryview = piece
        while data:
            engine = engine or zlib.decompressobj(wbits=31)
            try:
                yield memoryview(engine.decompress(data, PIECE))
            except zlib.error as error:
                raise DamagedError(f"a gzip layer can't be read ({error})") from None
            data = engine.unconsumed_tail
            if engine.eof:
                # The next member of a file of several (pigz, eStargz), or zeros that fill it up.
                data, engine = engine.unused_data.lstrip(b"\0"), None
    if engine is not None:
        raise DamagedError("a gzip layer stops before its end")


def _inside(path: str, name: str) -> str:
    clean = posixpath.normpath(path)
    if clean == ".." or clean.startswith(("/", "../")):
        raise DamagedError(f"{name!r} leads out of the archive")
    return clean


def _image(files: Mapping[str, Content], links: Mapping[str, str]) -> Image:
    manifest = _manifest(_find(files, links, MANIFEST).small(MANIFEST))
    name = manifest["Config"]
    config = _find(files, links, name).small("configuration")
    digest = hashlib.sha256(config).hexdigest()
    named = _NAMED.search(name)
    if named and named[1] != digest:
        raise DamagedError(f"the configuration {name!r} has other content: sha256:{digest}")
    settings = _json(config, "configuration")
    diff_ids = _diff_ids(settings)
    if len(diff_ids) != len(manifest["Layers"]):
        raise DamagedError(f"it has {len(manifest['Layers'])} layers, of {len(diff_ids)}")
    layers = []
    known: dict[int, str] = {}
    for diff_id, layer in zip(diff_ids, manifest["Layers"], strict=True):
        content = _find(files, links, layer)
        if known.setdefault(id(content), diff_id) != diff_id:
            raise DamagedError(f"{layer!r} stands for two layers")
        layers.append(SavedLayer(diff_id=diff_id, content=content))
    return Image(config=config, settings=settings, layers=tuple(layers))


def _find(files: Mapping[str, Content], links: Mapping[str, str], name: str) -> Content:
    at = _inside(name, name)
    for _ in range(_HOPS):
        if at in files:
            return files[at]
        if at not in links:
            break
        at = links[at]
    raise DamagedError(f"{name!r} is not in it")


def _manifest(data: bytes) -> Mapping[str, Any]:
    found = _json(data, MANIFEST, list)
    if len(found) != 1:
        raise DamagedError(f"it holds {len(found)} images, not one")
    entry = found[0]
    if not (
        isinstance(entry, dict)
        and isinstance(entry.get("Config"), str)
        and isinstance(entry.get("Layers"), list)
        and all(isinstance(layer, str) for layer in entry["Layers"])
    ):
        raise DamagedError(f"its {MANIFEST} does not name a configuration and layers")
    return entry


def _diff_ids(settings: Mapping[str, Any]) -> list[str]:
    rootfs = settings.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(found, list) or not all(
        isinstance(diff_id, str) and _DIGEST.fullmatch(diff_id) for diff_id in found
    ):
        raise DamagedError("its configuration does not list its layers' sha256")
    return found


def _json(data: bytes, what: str, kind: type = dict) -> Any:
    try:
        found = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"its {what} is not JSON ({error})") from None
    if not isinstance(found, kind):
        raise DamagedError(f"its {what} is not a JSON {'object' if kind is dict else 'array'}")
    return found
