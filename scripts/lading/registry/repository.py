"""One repository of a registry: what is read from it and written to it, and who may do so.

OCI distribution specification v1.1 ('Pulling', 'Pushing a blob in chunks'), with the token
authentication that registries have in common.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

from lading import files
from lading.errors import EnvironmentProblem, LadingError
from lading.references import DIGEST, Reference

if TYPE_CHECKING:
    import requests

_LIMIT = 4 << 20  # bytes; what registries have to take, and no more
_REDIRECTS = 5
_KEPT = (307, 308)
"""Redirects that the same request is sent after, with its body (RFC 9110, section 15.4)."""
_OCTETS = {"Content-Type": "application/octet-stream"}
_PIECE = 1 << 17
"""Bytes that are read at once, and lost where the connection ends in the middle of them."""
_TRIES = 5
"""How often a blob is gone on with, without a byte in between, before it is given up."""
_PAUSE = 1.0
"""Seconds until it is tried again; longer with each try."""
_TOKEN = re.compile(r"[!-~]*")
"""What can stand in a header: a token that can't is never shown either."""
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


class Refused(LadingError):
    """The registry does not let this user read; many say so of what is not there, too."""


class Unwell(EnvironmentProblem):
    """The registry answers that it can't, just now."""


class _Encrypted(Exception):
    """A registry on this machine answers by TLS alone."""


class Known:
    """What repositories of one registry have in common, so that it is found out once."""

    def __init__(self) -> None:
        self.encrypted = False
        """Whether it wants TLS, although it is on this machine."""
        self.basic = ""
        """What it takes as a password, which is not for one repository alone."""


class Repository:
    """One repository of a registry, and the permission to use it once it was asked for."""

    def __init__(
        self,
        http: requests.Session,
        reference: Reference,
        environ: Mapping[str, str],
        known: Known | None = None,
    ) -> None:
        self._http = http
        self._reference = reference
        self._environ = environ
        self._known = known or Known()
        self._permission = self._known.basic
        self._doubted = False

    @property
    def _url(self) -> str:
        url = self._reference.url
        return f"https{url.removeprefix('http')}" if self._known.encrypted else url

    def manifest(self, name: str) -> tuple[str, str, Mapping[str, Any]]:
        """A manifest or index by tag or digest: its digest, its media type and itself."""
        accept = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))
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

    def head(self, path: str) -> Mapping[str, str] | None:
        """The headers of a manifest or blob; None where the registry has none."""
        accept = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES)) if path.startswith("manif") else "*/*"
        answer, body = self._request("HEAD", path, headers={"Accept": accept})
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise self._refused(answer.status_code, body)
        return answer.headers

    def pieces(self, digest: str, size: int) -> Iterator[bytes]:
        """A blob of that size, as it comes; gone on with where the connection was cut off.

        Raises `LadingError` when it is longer, and at its end when it is not what its digest says.
        """
        content = hashlib.sha256()
        came = tries = 0
        while came < size:
            before = came
            try:
                for piece in self._from(f"blobs/{digest}", came):
                    came += len(piece)
                    if came > size:  # it may have no end
                        break
                    content.update(piece)
                    yield piece
                if came < size:
                    raise EnvironmentProblem(f"{self._reference.registry} ended in the middle")
            except EnvironmentProblem:
                tries = 0 if came > before else tries + 1
                if tries >= _TRIES:
                    raise
                time.sleep(_PAUSE * tries)
        if came != size or f"sha256:{content.hexdigest()}" != digest:
            raise LadingError(
                f"{self._reference.registry} sends other content than it was asked for",
                why=f"asked for {digest} of {size} bytes\ncame     {_bytes(came, size)}",
            )

    def upload(self, digest: str, size: int, read: Callable[[int], Iterable[bytes]]) -> None:
        """Sends a blob, unless the registry has it; goes on with what was cut off.

        `read` gives the blob's bytes from an offset on.
        """
        # Whoever may write need not be let see what is not there; what is wrong, POST is told.
        with suppress(Refused):
            if self.head(f"blobs/{digest}") is not None:
                return
        answer = self._expect("POST", "blobs/uploads/", (202,), what=digest)
        place = self._location(answer)
        came = furthest = tries = 0
        while came < size:
            try:
                if tries:
                    place, came = self._resumed(place, digest)
                    tries = tries if came <= furthest else 0
                    furthest = max(furthest, came)
                answer = self._expect(
                    "PATCH", place, (202,), what=digest,
                    headers=_OCTETS | ({"Content-Range": f"{came}-{size - 1}"} if came else {}),
                    body=partial(_Body, read, came, size),
                )  # fmt: skip
                place, came = self._location(answer), size
            except EnvironmentProblem:
                tries += 1
                if tries >= _TRIES:
                    raise
                time.sleep(_PAUSE * tries)
        place += ("&" if "?" in place else "?") + f"digest={quote(digest, safe='')}"
        self._expect("PUT", place, (201,), what=digest, headers={"Content-Length": "0"})

    def put_manifest(self, name: str, manifest: bytes, media_type: str) -> Mapping[str, str]:
        """Gives a manifest a name: a tag, or its digest. The headers of the answer."""
        answer = self._expect(
            "PUT", f"manifests/{name}", (201,), what=name,
            headers={"Content-Type": media_type}, body=lambda: manifest,
        )  # fmt: skip
        return answer.headers

    def _resumed(self, place: str, digest: str) -> tuple[str, int]:
        """Where an upload that was cut off goes on; at its start where nobody knows it any more."""
        found, _ = self._request("GET", place)
        if found.status_code == 204 and "Location" in found.headers:
            last = found.headers.get("Range", "").rpartition("-")[2]
            # "0-0" may be one byte, or none.
            if last.isdecimal() and last != "0":
                return self._location(found), int(last) + 1
        begun = self._expect("POST", "blobs/uploads/", (202,), what=digest)
        return self._location(begun), 0

    def _location(self, answer: requests.Response) -> str:
        where = _leads(answer.url, answer.headers.get("Location", ""))
        if not where:
            raise LadingError(f"{self._reference.registry} does not say where to upload to")
        return where

    def _expect(
        self, method: str, path: str, good: tuple[int, ...], *, what: str, **more: Any
    ) -> requests.Response:
        answer, body = self._request(method, path, **more)
        if answer.status_code not in good:
            raise self._not_taken(answer.status_code, body, what)
        return answer

    def _get(self, path: str, accept: str) -> tuple[requests.Response, bytes]:
        answer, body = self._request("GET", path, headers={"Accept": accept})
        if answer.status_code != 200:
            raise self._refused(answer.status_code, body)
        return answer, body

    def _request(self, method: str, path: str, **more: Any) -> tuple[requests.Response, bytes]:
        """Asks with the permission there is; where that is not enough, for another one, once."""
        try:
            return self._asked(method, path, **more)
        except _Encrypted:
            self._known.encrypted = True
            return self._asked(method, path, **more)

    def _asked(self, method: str, path: str, **more: Any) -> tuple[requests.Response, bytes]:
        url = path if "://" in path else f"{self._url}/{path}"
        answer, body = self._ask(method, url, self._allowed(url), **more)
        if answer.status_code == 401:
            asked = answer.headers.get("WWW-Authenticate", "")
            permission = self._permitted(asked) if urlsplit(url)[:2] == self._host else ""
            if permission:
                self._permission = permission
                answer, body = self._ask(method, url, permission, **more)
                said = answer.headers.get("WWW-Authenticate", "")
                # RFC 6750, section 3.1: expired, not valid yet, signed by somebody else.
                self._doubted = answer.status_code == 401 and "invalid_token" in said
        return answer, body

    @property
    def _host(self) -> tuple[str, str]:
        return urlsplit(self._url)[:2]

    def _allowed(self, url: str) -> str:
        """The permission, to be shown to the registry itself alone."""
        return self._permission if urlsplit(url)[:2] == self._host else ""

    def _ask(
        self, method: str, url: str, permission: str, **more: Any
    ) -> tuple[requests.Response, bytes]:
        with self._answered(method, url, permission, **more) as answer:
            return answer, self._limited(answer.iter_content(1 << 16))

    def _from(self, path: str, offset: int) -> Iterator[bytes]:
        """A blob's bytes from an offset on."""
        try:
            yield from self._sent_from(f"{self._url}/{path}", offset)
        except _Encrypted:
            self._known.encrypted = True
            yield from self._sent_from(f"{self._url}/{path}", offset)

    def _sent_from(self, url: str, offset: int) -> Iterator[bytes]:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={offset}-"} if offset else {}
        for last in (False, True):
            with self._answered("GET", url, self._permission, headers=headers) as answer:
                if answer.status_code == 401 and not last:
                    self._permission = self._permitted(answer.headers.get("WWW-Authenticate", ""))
                    continue
                if answer.status_code not in (200, 206):
                    raise self._refused(answer.status_code, self._limited(answer.iter_content()))
                left = offset if answer.status_code == 200 else 0
                for piece in answer.iter_content(_PIECE):
                    if left < len(piece):
                        yield piece[left:]
                    left = max(0, left - len(piece))
                return

    @contextmanager
    def _answered(
        self, method: str, url: str, permission: str, **more: Any
    ) -> Iterator[requests.Response]:
        """Follows redirects itself: requests would send .netrc's credentials to another host."""
        for _ in range(_REDIRECTS):
            with self._sent(method, url, permission, **more) as answer:
                if not answer.is_redirect:
                    yield answer
                    return
                there, kept = _leads(url, answer.headers["Location"]), answer.status_code in _KEPT
            if urlsplit(there).scheme not in ("https", urlsplit(url).scheme):
                break
            if not kept:
                method = "HEAD" if method == "HEAD" else "GET"
                more = {"headers": more.get("headers")}
            more.pop("params", None)  # they are in where it leads to
            if urlsplit(there)[:2] != urlsplit(url)[:2]:
                permission = ""
                more.pop("data", None)  # an identity token
            url = there
        raise LadingError(f"{self._reference.registry} leads astray: its redirects do not end well")

    @contextmanager
    def _sent(
        self,
        method: str,
        url: str,
        permission: str,
        body: Callable[[], Any] | None = None,
        **more: Any,
    ) -> Iterator[requests.Response]:
        import requests

        from lading.net import host_of, problem

        def authorised(request: requests.PreparedRequest) -> requests.PreparedRequest:
            if permission:
                request.headers["Authorization"] = permission
            return request

        if self._reference.loopback:  # never by a proxy
            more["proxies"] = {"http": "", "https": ""}
        if body is not None:
            more["data"] = body()
        more |= {"auth": authorised, "stream": True, "allow_redirects": False}
        try:
            # With an `auth` of one's own, requests does not send .netrc's instead.
            with self._http.request(method, url, **more) as answer:
                if answer.status_code == 400 and url.startswith(f"{self._url}/"):
                    self._refuse_plain(url, answer)
                yield answer
        except (requests.RequestException, OSError) as error:
            raise problem(error, url, self._environ) from error
        except ValueError:  # which may have said what must not be shown
            raise LadingError(f"{host_of(url)} leads astray: what it names is no address") from None

    def _refuse_plain(self, url: str, answer: requests.Response) -> None:
        """Raises `_Encrypted` where a server of TLS says that it was not spoken to so."""
        # Go's server answers HEAD with no header at all, nginx with a page; no registry does.
        page = answer.headers.get("Content-Type", "").startswith("text/html")
        if url.startswith("http:") and (page or not answer.headers):
            raise _Encrypted

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
            self._known.basic = _basic(user, password) if user else ""
            return self._known.basic
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
        given = str(granted.get("token") or granted.get("access_token") or "")
        if not _TOKEN.fullmatch(given):
            raise LadingError(f"{self._reference.registry} gives a token that is none")
        return f"Bearer {given}"

    def _refused(self, status: int, body: bytes) -> LadingError:
        name, host = self._reference.text, self._reference.registry
        why = f"{host} answers HTTP {status}{_reason(body)}{self._doubt}"
        if status == 404:
            return LadingError(
                f"{name} is not in the registry", why=why, do="check its name and its tag"
            )
        if status in (401, 403):
            return Refused(
                f"{name} may not be read, or there is no such image",
                why=why,
                do=f"check its name, or log in with `docker login {host}`",
            )
        if status == 429 or status >= 500:
            return Unwell(f"{host} does not serve us now", why=why, do="try it later")
        return LadingError(f"{name} can't be had", why=why)

    def _not_taken(self, status: int, body: bytes, what: str) -> LadingError:
        """Why the registry does not take what is pushed."""
        name, host = self._reference.text, self._reference.registry
        why = f"{host} answers HTTP {status}{_reason(body)} to {what[:19]}{self._doubt}"
        if status in (401, 403):
            return EnvironmentProblem(
                f"{name} may not be pushed", why=why, do=f"log in with `docker login {host}`"
            )
        if status in (413, 429) or status >= 500:
            return EnvironmentProblem(
                f"{host} does not take {name} now",
                why=why,
                do="when it does again, run it again: what it has is not sent twice",
            )
        return LadingError(f"{host} does not take {name}", why=why)

    @property
    def _doubt(self) -> str:
        """What is strange about a 401, as a line more."""
        if not self._doubted:
            return ""
        said = "it does not believe the token that its own service has just given"
        return f"\n{said}: their clocks differ?"

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


def _leads(url: str, where: str) -> str:
    """Where a Location leads to; empty for what is none (RFC 9110, section 10.2.2)."""
    try:
        found = urljoin(url, where) if where else ""
        urlsplit(found)
    except ValueError:
        return ""
    return found


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
    path = files.at_home(f"{folder}/config.json")
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


def _bytes(came: int, size: int) -> str:
    return f"more than {size} bytes" if came > size else f"{came} bytes"


class _Body:
    """A blob's bytes from an offset on, as requests sends a file: with its length."""

    def __init__(self, read: Callable[[int], Iterable[bytes]], offset: int, size: int) -> None:
        self._pieces = iter(read(offset))
        self._left = size - offset

    def __len__(self) -> int:
        return self._left

    def read(self, _size: int = -1) -> bytes:
        """The next piece, whatever its size; empty at the end."""
        return next(self._pieces, b"")
