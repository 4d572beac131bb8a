"""From a reference to the digest of the manifest for a platform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from lading.errors import LadingError
from lading.references import DIGEST, Reference, parse
from lading.registry.repository import INDEX_TYPES, MANIFEST_TYPES, Repository

_INDEXES_DEEP = 3
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7", "amd64": "v1"}


class Resolved(Struct, frozen=True, kw_only=True):
    """The manifest of one platform: its digest ("sha256:…") and its media type."""

    digest: str
    media_type: str


def resolve(reference: str, platform: str, *, environ: Mapping[str, str]) -> Resolved:
    """Asks the registry which manifest a name stands for on `platform` ("linux/amd64").

    Credentials are those of `docker login`. Raises `DeclarationError` for what is no name,
    `LadingError` when the registry does not have it, not for this platform or not for this
    user, and `EnvironmentProblem` when it can't be asked.
    """
    from lading.net import session

    found = parse(reference)
    with session(environ) as http:
        repository = Repository(http, found, environ)
        digest, media_type, manifest = repository.manifest(found.digest or found.tag)
        for _ in range(_INDEXES_DEEP):
            if not _is_index(media_type, manifest):
                break
            entry = _choose(found, manifest, platform)
            digest, media_type = entry["digest"], str(entry.get("mediaType", ""))
            if media_type in MANIFEST_TYPES:
                return Resolved(digest=digest, media_type=media_type)
            digest, media_type, manifest = repository.manifest(digest)
        config = manifest.get("config")
        if media_type not in MANIFEST_TYPES or not isinstance(config, dict):
            raise LadingError(
                f"{reference} is not a container image",
                why=f"its manifest is of the type {media_type or 'none'!r}",
            )
        has = _platform(repository.blob(str(config.get("digest"))))
        if not _fits(has, platform):
            raise _no_platform(found, platform, [has])
        return Resolved(digest=digest, media_type=media_type)


def _is_index(media_type: str, manifest: Mapping[str, Any]) -> bool:
    return media_type in INDEX_TYPES and isinstance(manifest.get("manifests"), list)


def _choose(reference: Reference, index: Mapping[str, Any], platform: str) -> Mapping[str, Any]:
    """The first entry of an index for the platform, as Docker chooses."""
    there = []
    for entry in index["manifests"]:
        if not isinstance(entry, dict) or not isinstance(entry.get("platform"), dict):
            continue
        has = _platform(entry["platform"])
        if _fits(has, platform):
            if not DIGEST.fullmatch(str(entry.get("digest"))):
                raise LadingError(f"the index of {reference.text} has an entry with no sha256")
            return entry
        there.append(has)
    raise _no_platform(reference, platform, there)


def _no_platform(reference: Reference, platform: str, there: list[str]) -> LadingError:
    # Attestations of BuildKit stand in an index as images for unknown/unknown.
    known = sorted({has for has in there if has.strip("/") and "unknown" not in has})
    return LadingError(
        f"{reference.text} is not there for {platform}",
        why=f"there is: {', '.join(known) or 'nothing'}",
        do="choose another image, or another `platform:`",
    )


def _platform(found: Mapping[str, Any]) -> str:
    parts = [str(found.get(key) or "") for key in ("os", "architecture", "variant")]
    return "/".join(parts).rstrip("/")


def _fits(has: str, platform: str) -> bool:
    def full(text: str) -> list[str]:
        system, architecture, variant = [*text.split("/"), "", ""][:3]
        return [system, architecture, variant or _DEFAULT_VARIANTS.get(architecture, "")]

    return full(has) == full(platform)
