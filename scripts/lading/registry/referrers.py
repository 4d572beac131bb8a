"""What refers to an image in a registry, as its bill of materials does.

OCI image specification v1.1, 'Image Manifest' (`subject`); OCI distribution specification v1.1,
'Pushing Manifests with Subject' and 'Referrers Tag Schema'.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from msgspec import Struct

from lading.errors import LadingError
from lading.files import canonical_json
from lading.registry.kept import (
    EMPTY,
    EMPTY_CONTENT,
    EMPTY_TYPE,
    MANIFEST,
    Blob,
    Kept,
    described,
)
from lading.registry.repository import Repository

INDEX = "application/vnd.oci.image.index.v1+json"


class Document(Struct, frozen=True, kw_only=True):
    """A file about an image: its media type, the name it has when it is pulled, and what is said of
    it in the manifest.
    """

    content: bytes
    media_type: str
    title: str
    annotations: Mapping[str, str] = {}

    @property
    def blob(self) -> Blob:
        digest = hashlib.sha256(self.content).hexdigest()
        return Blob(digest=f"sha256:{digest}", size=len(self.content))

    def manifest(self, subject: Kept) -> bytes:
        """The manifest by which it refers to the image."""
        return canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": self.media_type,
                "config": described(EMPTY, EMPTY_TYPE),
                "layers": [
                    described(self.blob, self.media_type)
                    | {"annotations": {"org.opencontainers.image.title": self.title}}
                ],
                "subject": _of(subject.manifest, MANIFEST),
                "annotations": dict(self.annotations),
            }
        )


def attach(there: Repository, subject: Kept, document: Document) -> int:
    """Sends a document that refers to an image, and lists it where the registry does not do that
    itself; how many bytes of it were sent. The image need not be there yet.

    Raises `LadingError` where something else is in the place of the list.
    """
    sent = 0

    def read(content: bytes, offset: int) -> Iterable[bytes]:
        nonlocal sent
        sent += len(content) - offset
        yield content[offset:]

    for blob, content in ((EMPTY, EMPTY_CONTENT), (document.blob, document.content)):
        there.upload(blob.digest, blob.size, partial(read, content))
    manifest = document.manifest(subject)
    entry = _of(manifest, MANIFEST) | {
        "artifactType": document.media_type,
        "annotations": dict(document.annotations),
    }
    answer = there.put_manifest(entry["digest"], manifest, MANIFEST)
    if "OCI-Subject" not in answer:
        _list(there, fallback(subject.digest), entry)
    return sent


def fallback(digest: str) -> str:
    """The tag of the list of what refers to a manifest, where a registry keeps none itself."""
    return digest.replace(":", "-", 1)


def _list(there: Repository, tag: str, entry: Mapping[str, Any]) -> None:
    """Adds an entry to that list, in which others may have some (signatures, say)."""
    found: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    if there.head(f"manifests/{tag}") is not None:
        _, media_type, index = there.manifest(tag)
        if media_type != INDEX or not isinstance(index.get("manifests"), list):
            raise LadingError(
                f"the tag {tag[:19]}… holds something else than a list of what refers to the image",
                why=f"it is of the type {media_type or 'none'!r}",
                do="delete that tag in the registry, and push again",
            )
        found = dict(index)
    listed = [one for one in found["manifests"] if isinstance(one, dict)]
    if entry["digest"] in (one.get("digest") for one in listed):
        return
    index = found | {"manifests": [*found["manifests"], entry]}
    there.put_manifest(tag, canonical_json(index), INDEX)


def _of(manifest: bytes, media_type: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    return described(Blob(digest=digest, size=len(manifest)), media_type)
