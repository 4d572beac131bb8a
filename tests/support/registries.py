"""A registry in memory that takes what is pushed, and that things go wrong with on demand."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from urllib.parse import parse_qs, urlsplit

from lading.project import Image
from lading.registry import kept
from lading.registry.kept import Blob, Kept
from lading.state import State
from lading.verbs import check

CUT = -1
"""An answer that is none: the connection ends."""
INDEX = "application/vnd.oci.image.index.v1+json"


class Registry:
    """Blobs by digest, and manifests by repository and name.

    `asked` has every request, as "HEAD /v2/…"; `instead` may answer one with a status of its own,
    or with one and a Location.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.shown: set[str] = set()
        """The permissions that it was shown."""
        self.instead: Callable[[str], int | tuple[int, str] | None] = lambda request: None
        self.takes: int | None = None
        """How many bytes of a blob it takes until it cuts the connection off, once."""
        self.sends: int | None = None
        """Likewise, how many it sends."""
        self.token = ""
        """What has to be shown, after it was asked for with a challenge."""
        self.lists_referrers = False
        """Whether it knows what refers to an image, as the distribution specification v1.1 has it;
        Debian's docker-registry does not.
        """
        self.lasts: int | None = None
        """For how many requests it takes a token; then another one has to be asked for."""
        self.years = 0
        """By how much its clock is wrong."""
        self._uses = 0
        self._given = "given"
        self._numbers = count()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.serve(self)

            do_HEAD = do_POST = do_PATCH = do_PUT = do_GET  # noqa: N815

            def date_time_string(self, timestamp: float | None = None) -> str:
                year = 365 * 24 * 3600.0
                return super().date_time_string((timestamp or time.time()) + registry.years * year)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        line = f"{request.command} {request.path}"
        self.asked.append(line)
        self.shown |= {request.headers["Authorization"]} - {None}
        status = self.instead(line)
        if status == CUT:
            request.close_connection = True
            return
        headers: dict[str, str] = {}
        body = b""
        if isinstance(status, tuple):
            status, headers["Location"] = status
        if status is None and request.path.startswith("/token"):
            status, body = 200, self._new_token()
        elif status is None and self.token and not self._allowed(request):
            status = 401
            realm = f'Bearer realm="http://{self.host}/token",service="s",scope="{self.token}"'
            headers["WWW-Authenticate"] = realm
        if status is None:
            found = self._answer(request)
            if found is None:
                request.close_connection = True
                return
            status, headers, body = found
        else:
            request.rfile.read(int(request.headers.get("Content-Length") or 0))
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        if self.sends is not None and len(body) > self.sends:
            request.wfile.write(body[: self.sends])
            self.sends, request.close_connection = None, True
            return
        request.wfile.write(body)

    def _new_token(self) -> bytes:
        """One that is not valid yet, or not any more, by a clock that is right."""
        self._uses, self._given = 0, f"given-{next(self._numbers)}"
        issued = f"{2026 + self.years}-01-01T00:00:00Z"
        return json.dumps({"token": self._given, "issued_at": issued, "expires_in": 60}).encode()

    def _allowed(self, request: BaseHTTPRequestHandler) -> bool:
        self._uses += 1
        right = request.headers.get("Authorization") == f"Bearer {self._given}"
        return right and (self.lasts is None or self._uses <= self.lasts)

    def _answer(self, request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes] | None:
        url = urlsplit(request.path)
        name, _, what = url.path.removeprefix("/v2/").rpartition("/")
        repository, _, kind = name.rpartition("/")
        length = int(request.headers.get("Content-Length") or 0)
        if request.command == "POST":
            upload = str(next(self._numbers))
            self.uploads[upload] = b""
            return 202, {"Location": f"/v2/x/uploads/{upload}?_state=s"}, b""
        if kind == "uploads":
            here = self.uploads.get(what, b"")
            if request.command == "GET":
                state = {"Range": f"0-{max(0, len(here) - 1)}", "Location": request.path}
                return 204, state, b""
            first = int(request.headers.get("Content-Range", "0-").partition("-")[0])
            if request.command == "PATCH" and first != len(here):
                return 416, {}, b""
            taken = length if self.takes is None else min(self.takes, length)
            self.uploads[what] = here + request.rfile.read(taken)
            if taken < length:
                self.takes = None
                return None
            if request.command == "PATCH":
                return 202, {"Location": request.path}, b""
            (digest,) = parse_qs(url.query)["digest"]
            if digest != f"sha256:{hashlib.sha256(self.uploads[what]).hexdigest()}":
                return 400, {}, b'{"errors": [{"code": "DIGEST_INVALID"}]}'
            self.blobs[digest] = self.uploads.pop(what)
            return 201, {}, b""
        body = request.rfile.read(length)
        if kind == "blobs" and what in self.blobs:
            start = int(request.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
            return (206 if start else 200), {}, self.blobs[what][start:]
        if kind == "manifests" and request.command == "PUT":
            media_type = request.headers["Content-Type"]
            self.manifests[repository, what] = media_type, body
            subject = json.loads(body).get("subject") if self.lists_referrers else None
            return 201, {"OCI-Subject": subject["digest"]} if subject else {}, b""
        if kind == "referrers" and self.lists_referrers:
            return 200, {"Content-Type": INDEX}, self._referrers(repository, what)
        if kind == "manifests" and (repository, what) in self.manifests:
            media_type, body = self.manifests[repository, what]
            digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
            return 200, {"Content-Type": media_type, "Docker-Content-Digest": digest}, body
        return 404, {}, b""

    def _referrers(self, repository: str, digest: str) -> bytes:
        """The index of the manifests that refer to one."""
        found = {}
        for (name, _), (media_type, body) in self.manifests.items():
            manifest = json.loads(body)
            if name == repository and manifest.get("subject", {}).get("digest") == digest:
                own = f"sha256:{hashlib.sha256(body).hexdigest()}"
                found[own] = {
                    "mediaType": media_type,
                    "digest": own,
                    "size": len(body),
                    "artifactType": manifest["artifactType"],
                    "annotations": manifest["annotations"],
                }
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(found.values())}
        return json.dumps(index).encode()


@contextmanager
def registry() -> Iterator[Registry]:
    """A registry on the loopback, for as long as the block takes."""
    made = Registry()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join()
        made.server.server_close()


LAYER = bytes(1024)
"""An empty tar."""


def pretend_pushed(state: State, names: Sequence[str] = ()) -> None:
    """Puts something under the keys of these images, or all default ones, as if it were they: a
    registry that is asked what it has answers as if they had been pushed.
    """
    images = [state.project.images[name] for name in names]
    images = images or [image for image in state.project.images.values() if image.default]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda image: _pretend(state, image), images))


def _pretend(state: State, image: Image) -> None:
    where, tag = state.pushed_as(image)
    key = state.key(image)
    assert key is not None
    layer = Blob(digest=f"sha256:{hashlib.sha256(LAYER).hexdigest()}", size=len(LAYER))
    config = {
        "config": {"Labels": {kept.KEY: key}},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    }
    data = json.dumps(config).encode()
    blob = Blob(digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size=len(data))
    content = {layer.digest: LAYER, blob.digest: data}
    made = Kept(key=key, config=blob, layers=(layer,), checks=check.checks(image))
    with kept.repository(where, state.environ) as there:
        kept.send(there, lambda one, at: [content[one.digest][at:]], [layer, blob])
        kept.name(there, made, [key, tag])
