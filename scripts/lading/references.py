"""The names of images, as Docker reads them (distribution's 'reference' grammar)."""

from __future__ import annotations

import ipaddress
import re

from msgspec import Struct

from lading.errors import DeclarationError

DOCKER_HUB = "docker.io"
_API_HOSTS = {DOCKER_HUB: "registry-1.docker.io"}
"""Docker Hub answers at another host than it is called by; this stands in Docker's own source."""

_HOST = re.compile(
    r"(?:localhost|\[[0-9a-fA-F:]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*)(?::[0-9]{1,5})?"
)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Reference(Struct, frozen=True, kw_only=True):
    """An image's full name; `digest` counts where there is one, `tag` only for people then."""

    text: str
    registry: str
    repository: str
    tag: str
    digest: str = ""

    @property
    def loopback(self) -> bool:
        """Whether the registry is on this machine."""
        host = re.sub(r":[0-9]+$", "", self.registry).strip("[]")
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        """Where the repository's API is; as with Docker, without TLS only on this machine."""
        host = _API_HOSTS.get(self.registry, self.registry)
        return f"{'http' if self.loopback else 'https'}://{host}/v2/{self.repository}"


def parse(text: str) -> Reference:
    """Reads a reference as Docker does: `python:3.13` is docker.io/library/python:3.13.

    Raises `DeclarationError` for what is none.
    """
    rest, at, digest = text.partition("@")
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, ""
    host, slash, path = name.partition("/")
    if not slash or not (any(mark in host for mark in ".:") or host == "localhost"):
        host, path = DOCKER_HUB, name
    if host == f"index.{DOCKER_HUB}":
        host = DOCKER_HUB
    if host == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    problem = ""
    if at and not DIGEST.fullmatch(digest):
        problem = "its digest is not sha256: and 64 hexadecimal digits"
    elif (colon and not tag and name != rest) or (tag and not _TAG.fullmatch(tag)):
        problem = f"{tag!r} can't be a tag"
    elif not _HOST.fullmatch(host):
        problem = f"{host!r} can't be a registry's host"
    elif not all(_COMPONENT.fullmatch(part) for part in path.split("/")):
        problem = f"{path!r} can't be a repository: small letters, digits, and . _ - in between"
    elif len(path) > 255 or (re.fullmatch("[0-9a-f]{64}", rest)):
        problem = "it is longer than a name may be, or an image's id"
    if problem:
        raise DeclarationError(
            f"{text!r} is not an image's name",
            why=problem,
            do="write it as [REGISTRY/]NAME[:TAG] or [REGISTRY/]NAME@sha256:DIGEST",
        )
    return Reference(text=text, registry=host, repository=path, tag=tag or "latest", digest=digest)
