"""Container registries: from a reference to the digest of the manifest for a platform.

OCI distribution specification v1.1 ('Pulling manifests'), with the token authentication that
registries have in common.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from lading.errors import EnvironmentProblem, LadingError
from lading.references import DIGEST, Reference, parse

if TYPE_CHECKING:
    import requests

_LIMIT = 4 << 20  # bytes; what registries have to take, and no more
_INDEXES_DEEP = 3
_REDIRECTS = 5
_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
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
        repository = _Repository(http, found, environ)
        digest, media_type, manifest = repository.manifest(found.digest or found.tag)
        for _ in range(_INDEXES_DEEP):
            if not _is_index(media_type, manifest):
                break
            entry = _choose(found, manifest, platform)
            digest, media_type = entry["digest"], str(entry.get("mediaType", ""))
            if media_type in _MANIFEST_TYPES:
                return Resolved(digest=digest, media_type=media_type)
            digest, media_type, manifest = repository.manifest(digest)
        config = manifest.get("config")
        if media_type not in _MANIFEST_TYPES or not isinstance(config, dict):
            raise LadingError(
                f"{reference} is not a container image",
                why=f"its manifest is of the type {media_type or 'none'!r}",
            )
        has = _platform(repository.blob(str(config.get("digest"))))
        if not _fits(has, platform):
            raise _no_platform(found, platform, [has])
        return Resolved(digest=digest, media_type=media_type)


class _Repository:
    """One repository of a registry, and the permission to read it once it was asked for."""

    def __init__(
        self, http: requests.Session, reference: Reference, environ: Mapping[str, str]
    ) -> None:
        self._http = http
        self._reference = reference
        self._environ = environ
        self._permission = ""

    def manifest(self, name: str) -> tuple[str, str, Mapping[str, Any]]:
        """A manifest or index by tag or digest: its digest, its media type and itself."""
        accept = ", ".join((*_INDEX_TYPES, *_MANIFEST_TYPES))
        answer, body = self._get(f"manifests/{name}", accept)
        digest = self._verified(body, name if DIGEST.fullmatch(name) else "")
        manifest = self._object(body)
        kind = manifest.get("mediaType") or answer.headers.get("Content-Type", "")
        return digest, str(kind).partition(";")[0].strip(), manifest

    def blob(self, digest: str) -> Mapping[str, Any]:
        """A JSON blob, as an image's configuration is one."""
        if not DIGEST.fullmatch(digest):
            raise LadingError(f"the manifest of {self._reference.text} names no configuration")
        _, body = self._get(f"blobs/{digest}", "*/*")
        self._verified(body, digest)
        return self._object(body)

    def _get(self, path: str, accept: str) -> tuple[requests.Response, bytes]:
        url = f"{self._reference.url}/{path}"
        answer, body = self._ask("GET", url, self._permission, headers={"Accept": accept})
        if answer.status_code == 401 and not self._permission:
            self._permission = self._permitted(answer.headers.get("WWW-Authenticate", ""))
            if self._permission:
                headers = {"Accept": accept}
                answer, body = self._ask("GET", url, self._permission, headers=headers)
        if answer.status_code != 200:
            raise self._refused(answer.status_code, body)
        return answer, body

    def _ask(
        self, method: str, url: str, permission: str, **more: Any
    ) -> tuple[requests.Response, bytes]:
        """Follows redirects itself: requests would send .netrc's credentials to another host."""
        from urllib.parse import urljoin, urlsplit

        for _ in range(_REDIRECTS):
            answer, body = self._send(method, url, permission, **more)
            if not answer.is_redirect:
                return answer, body
            there = urljoin(url, answer.headers["Location"])
            if urlsplit(there).scheme not in ("https", urlsplit(url).scheme):
                break
            if urlsplit(there)[:2] != urlsplit(url)[:2]:
                permission = ""
            method, url, more = "GET", there, {"headers": more.get("headers")}
        raise LadingError(f"{self._reference.registry} leads astray: its redirects do not end well")

    def _send(
        self, method: str, url: str, permission: str, **more: Any
    ) -> tuple[requests.Response, bytes]:
        import requests

        from lading.net import problem

        def authorised(request: requests.PreparedRequest) -> requests.PreparedRequest:
            if permission:
                request.headers["Authorization"] = permission
            return request

        if self._reference.loopback:  # never by a proxy
            more["proxies"] = {"http": "", "https": ""}
        more |= {"auth": authorised, "stream": True, "allow_redirects": False}
        try:
            # With an `auth` of one's own, requests does not send .netrc's instead.
            with self._http.request(method, url, **more) as answer:
                return answer, self._limited(answer.iter_content(1 << 16))
        except (requests.RequestException, OSError) as error:
            raise problem(error, url, self._environ) from error

    def _limited(self, pieces: Iterator[bytes]) -> bytes:
        body = b""
        for piece in pieces:
            body += piece
            if len(body) > _LIMIT:
                raise LadingError(
                    f"{self._reference.registry} answers with more than {_LIMIT} bytes"
                )
        return body

    def _permitted(self, challenge: str) -> str:
        """What a challenge (RFC 9110, section 11.6.1) wants to see; empty if there is nothing."""
        from urllib.request import parse_http_list, parse_keqv_list

        scheme, _, rest = challenge.strip().partition(" ")
        user, password, token = _credentials(self._reference.registry, self._environ)
        if scheme.lower() == "basic":
            return _basic(user, password) if user else ""
        if scheme.lower() != "bearer":
            return ""
        try:
            wanted = parse_keqv_list(parse_http_list(rest))
        except ValueError:
            wanted = {}
        realm = wanted.get("realm", "")
        if not realm.startswith(("http://", "https://")):
            raise LadingError(f"{self._reference.registry} does not say where to log in")
        if realm.startswith("http://") and not self._reference.loopback:
            user = token = ""  # a password does not go over the network unencrypted
        asked = {
            "service": wanted.get("service", ""),
            "scope": wanted.get("scope") or f"repository:{self._reference.repository}:pull",
        }
        if token:
            form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "lading"}
            answer, body = self._ask("POST", realm, "", data=form | asked)
        else:
            permission = _basic(user, password) if user else ""
            answer, body = self._ask("GET", realm, permission, params=asked)
        if answer.status_code != 200:
            raise self._refused(answer.status_code, body)
        granted = self._object(body)
        return f"Bearer {granted.get('token') or granted.get('access_token') or ''}"

    def _refused(self, status: int, body: bytes) -> LadingError:
        name, host = self._reference.text, self._reference.registry
        why = f"{host} answers HTTP {status}{_reason(body)}"
        if status == 404:
            return LadingError(
                f"{name} is not in the registry", why=why, do="check its name and its tag"
            )
        if status in (401, 403):
            return LadingError(
                f"{name} may not be read, or there is no such image",
                why=why,
                do=f"check its name, or log in with `docker login {host}`",
            )
        if status == 429 or status >= 500:
            return EnvironmentProblem(f"{host} does not serve us now", why=why, do="try it later")
        return LadingError(f"{name} can't be had", why=why)

    def _verified(self, body: bytes, digest: str) -> str:
        found = "sha256:" + hashlib.sha256(body).hexdigest()
        if digest and found != digest:
            raise LadingError(
                f"{self._reference.registry} sends other content than it was asked for",
                why=f"asked for {digest}\ncame     {found}",
            )
        return found

    def _object(self, body: bytes) -> Mapping[str, Any]:
        try:
            found = json.loads(body.decode())
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise LadingError(f"{self._reference.registry} does not answer as a registry does")
        return found


def _is_index(media_type: str, manifest: Mapping[str, Any]) -> bool:
    return media_type in _INDEX_TYPES and isinstance(manifest.get("manifests"), list)


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


def _basic(user: str, password: str) -> str:
    from base64 import b64encode

    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def _reason(body: bytes) -> str:
    """What the registry says itself, in one line; its answer may be anything."""
    try:
        errors = json.loads(body.decode())["errors"]
        text = "; ".join(str(error.get("message") or error.get("code")) for error in errors)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return ""
    text = "".join(letter if letter.isprintable() else " " for letter in text[:200])
    return f": {text}" if text else ""


def _credentials(registry: str, environ: Mapping[str, str]) -> tuple[str, str, str]:
    """User, password and identity token that `docker login` keeps for a registry, or blanks."""
    from pathlib import Path

    import docker.auth

    folder = environ.get("DOCKER_CONFIG") or str(Path(environ.get("HOME", "~"), ".docker"))
    path = Path(folder, "config.json").expanduser()
    if not path.is_file():
        return "", "", ""
    try:
        found = docker.auth.load_config(str(path), credstore_env=dict(environ))
        entry = found.resolve_authconfig(registry) or {}
    except Exception as error:  # its parser and the helpers it runs raise whatever they like
        raise EnvironmentProblem(
            f"the credentials for {registry} can't be read",
            why=f"{path}: {error}",
            do=f"`docker login {registry}` writes them anew",
        ) from error
    known = {key.lower(): str(value or "") for key, value in entry.items()}
    return known.get("username", ""), known.get("password", ""), known.get("identitytoken", "")
