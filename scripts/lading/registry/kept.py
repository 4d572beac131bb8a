"""What lading keeps in a registry: images as they are archived, and what it compiled, by key.

An image is an OCI image manifest whose layers are the archive's, uncompressed: so its digest
follows from the archive alone, and the archive from it. A product (what a source's build left) is
one layer of an artifact. Both have their key as a tag and as an annotation, and what was checked:
a tag that holds anything else is not believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from msgspec import Struct

from lading.errors import LadingError
from lading.files import canonical_json
from lading.references import DIGEST, parse
from lading.registry.repository import Repository

KEY = "lading.key"
CHECKS = "lading.checks"
SBOM = "lading.sbom"

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_PRODUCT = "application/vnd.lading.product.v1.tar"


class Blob(Struct, frozen=True, kw_only=True):
    """A blob: its digest ("sha256:…") and its size in bytes."""

    digest: str
    size: int


class Kept(Struct, frozen=True, kw_only=True):
    """What a registry keeps: its manifest, the key it was made from, what it passed, its blobs.

    sbom: the digest ("sha256:…") of the bill of materials that refers to it, where there is one.
    """

    key: str
    config: Blob
    layers: tuple[Blob, ...]
    checks: str = ""
    product: bool = False
    sbom: str = ""

    @property
    def manifest(self) -> bytes:
        """The manifest, which follows from the rest."""
        config, layer = (EMPTY_TYPE, _PRODUCT) if self.product else (_CONFIG, _LAYER)
        annotations = {KEY: self.key} | ({CHECKS: self.checks} if self.checks else {})
        annotations |= {SBOM: self.sbom} if self.sbom else {}
        found: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described(self.config, config),
            "layers": [described(blob, layer) for blob in self.layers],
            "annotations": annotations,
        }
        if self.product:
            found["artifactType"] = _PRODUCT
        return canonical_json(found)

    @property
    def content(self) -> str:
        """What it is, whatever is said of it: the configuration's digest, which names the layers',
        or a product's.
        """
        return " ".join(one.digest for one in (self.layers if self.product else (self.config,)))

    @property
    def digest(self) -> str:
        """The manifest's, by which it is known in the registry."""
        return f"sha256:{hashlib.sha256(self.manifest).hexdigest()}"


Read = Callable[[Blob, int], Iterable[bytes]]
"""A blob's bytes from an offset on."""


@contextmanager
def repository(reference: str, environ: Mapping[str, str]) -> Iterator[Repository]:
    """Where things of this name are kept. Raises `DeclarationError` for what is no name."""
    from lading.net import session

    with session(environ) as http:
        yield Repository(http, parse(reference), environ)


def found(there: Repository, key: str, *, product: bool = False) -> Kept | None:
    """The image that is kept under a key, or the product; None where there is nothing.

    Raises `LadingError` where the tag holds something else, or its content is not what it says.
    """
    if there.head(f"manifests/{key}") is None:
        return None
    digest, media_type, manifest = there.manifest(key)
    kept = _read(manifest, key) if media_type == MANIFEST else None
    if kept is None or kept.digest != digest or kept.product != product:
        raise LadingError("the tag holds something else than what was pushed under this key")
    if not product:
        _refuse_other(kept, there.blob(kept.config.digest))
    return kept


def _read(manifest: Mapping[str, Any], key: str) -> Kept | None:
    try:
        annotations = manifest["annotations"]
        return Kept(
            key=key if annotations[KEY] == key else "",
            config=_blob(manifest["config"]),
            layers=tuple(_blob(layer) for layer in manifest["layers"]),
            checks=str(annotations.get(CHECKS, "")),
            product="artifactType" in manifest,
            sbom=str(annotations.get(SBOM, "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _refuse_other(kept: Kept, config: Mapping[str, Any]) -> None:
    """Raises `LadingError` where the configuration has another key, or other layers."""
    try:
        key = config["config"]["Labels"][KEY]
        layers = config["rootfs"]["diff_ids"]
    except (KeyError, TypeError):
        key, layers = "", []
    if key != kept.key or layers != [layer.digest for layer in kept.layers]:
        raise LadingError("the image's label names another key than its tag, or its layers differ")


def send(there: Repository, read: Read, wanted: Iterable[Blob]) -> None:
    """Sends blobs, each once; what the registry has is not sent."""
    for blob in wanted:
        there.upload(blob.digest, blob.size, partial(read, blob))


def name(there: Repository, kept: Kept, tags: Iterable[str]) -> None:
    """Puts the manifest there, by its digest and then by its names: now others can find it."""
    for tag in (kept.digest, *tags):
        there.put_manifest(tag, kept.manifest, MANIFEST)


def named(there: Repository, kept: Kept, tag: str) -> bool:
    """Whether a tag names it, by the digest that the registry says."""
    headers = there.head(f"manifests/{tag}")
    return headers is not None and headers.get("Docker-Content-Digest") == kept.digest


def product(key: str, tar: Blob) -> Kept:
    """What a source's build left, as it is kept."""
    return Kept(key=key, config=EMPTY, layers=(tar,), product=True)


EMPTY_CONTENT = b"{}"
EMPTY = Blob(digest=f"sha256:{hashlib.sha256(EMPTY_CONTENT).hexdigest()}", size=len(EMPTY_CONTENT))
"""OCI image specification, 'Guidance for an Empty Descriptor'."""


def described(blob: Blob, media_type: str) -> dict[str, Any]:
    """A blob's descriptor (OCI image specification, 'Content Descriptors')."""
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}


def _blob(found: Mapping[str, Any]) -> Blob:
    digest, size = found["digest"], found["size"]
    if not DIGEST.fullmatch(digest) or not isinstance(size, int) or size < 0:
        raise ValueError(digest)
    return Blob(digest=digest, size=size)
