"""A package index of one's own on the loopback (PEP 503, PEP 691, PEP 700), and what it serves.

Wheels and sdists are made in a few lines, with the tags and requirements that a test wants; the
index can forget a file, want a password, keep sizes and hashes to itself, or answer with errors.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from html import escape
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from lading.requirements import normalised
from tests.support.listening import Listening

JSON = "application/vnd.pypi.simple.v1+json"
LONG_AGO = "2020-01-01T00:00:00Z"


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file of the index, when it came (RFC 3339), and for which Pythons it says it is."""

    project: str
    name: str
    data: bytes
    at: str
    requires_python: str = ""
    yanked: str | bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


class Index(Listening):
    """An index that runs until it is stopped; `url` is its root, credentials included."""

    def __init__(self, *, user: str = "", password: str = "") -> None:
        self.user, self.password = user, password
        self.sizes = self.hashes = True
        self.plain = False
        """Whether it speaks HTML only, as PEP 503 has it: then it tells no size either."""
        self.uploads: dict[str, Upload] = {}
        self.statuses: dict[str, int] = {}
        """What is answered instead, by the last part of a path: a project or a file."""
        self.requests: list[str] = []
        self.listen(_handler(self))

    @property
    def url(self) -> str:
        who = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@" if self.user else ""
        return f"http://{who}127.0.0.1:{self._server.server_port}/simple/"

    def file_url(self, name: str) -> str:
        """Where one file is, without credentials."""
        return f"{self.origin}/files/{quote(name)}"

    def add(
        self, project: str, name: str, data: bytes, *, at: str = LONG_AGO, requires_python: str = ""
    ) -> Upload:
        """Takes a file up, or puts another in its place."""
        upload = Upload(
            project=normalised(project),
            name=name,
            data=data,
            at=at,
            requires_python=requires_python,
        )
        self.uploads[name] = upload
        return upload

    def wheel(
        self,
        project: str,
        version: str,
        *,
        requires: Iterable[str] = (),
        extras: Mapping[str, Iterable[str]] | None = None,
        tags: str = "py3-none-any",
        files: Mapping[str, bytes] | None = None,
        at: str = LONG_AGO,
        requires_python: str = "",
    ) -> Upload:
        """Takes up a wheel with these requirements, extras and tags."""
        name, data = wheel(
            project, version, requires=requires, extras=extras or {}, tags=tags, files=files or {}
        )
        return self.add(project, name, data, at=at, requires_python=requires_python)

    def sdist(
        self,
        project: str,
        version: str,
        files: Mapping[str, str],
        *,
        at: str = LONG_AGO,
        metadata: str = "2.1",
    ) -> Upload:
        """Takes up an sdist with these files in it (and PKG-INFO, unless they have one)."""
        name, data = sdist(project, version, files, metadata=metadata)
        return self.add(project, name, data, at=at)

    def drop(self, name: str) -> None:
        """Forgets a file."""
        del self.uploads[name]

    def yank(self, name: str, reason: str = "") -> None:
        """Marks a file as one that should not be taken (PEP 592)."""
        self.uploads[name] = replace(self.uploads[name], yanked=reason or True)

    def page(self, project: str) -> bytes | None:
        """The index's page of a project, in HTML or JSON."""
        uploads = [upload for upload in self.uploads.values() if upload.project == project]
        if not uploads:
            return None
        return self._html(uploads) if self.plain else self._json(project, uploads)

    def _html(self, uploads: Iterable[Upload]) -> bytes:
        rows = (
            f'<a href="/files/{quote(upload.name)}'
            + (f"#sha256={upload.sha256}" if self.hashes else "")
            + f'" data-requires-python="{escape(upload.requires_python)}">{upload.name}</a><br>'
            for upload in uploads
        )
        return f"<!DOCTYPE html><html><body>{''.join(rows)}</body></html>".encode()

    def _json(self, project: str, uploads: Iterable[Upload]) -> bytes:
        files = []
        for upload in uploads:
            file: dict[str, object] = {
                "filename": upload.name,
                "url": f"/files/{quote(upload.name)}",
                "hashes": {"sha256": upload.sha256} if self.hashes else {},
                "upload-time": upload.at,
            }
            if self.sizes:
                file["size"] = len(upload.data)
            if upload.yanked:
                file["yanked"] = upload.yanked
            if upload.requires_python:
                file["requires-python"] = upload.requires_python
            files.append(file)
        page = {"meta": {"api-version": "1.1"}, "name": project, "files": files}
        return json.dumps(page).encode()


def only_loopback(monkeypatch: pytest.MonkeyPatch, home: Path, cache: Path) -> None:
    """Takes away what this machine says about indexes and uv, so that a test says it all."""
    for name in list(os.environ):
        ours = ("UV_", "PIP_", "LADING_", "SSL_CERT_", "REQUESTS_CA_", "CURL_CA_")
        if name.startswith(ours) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in {
        "HOME": home,
        "XDG_CONFIG_HOME": home / "config",
        "XDG_CACHE_HOME": home / "cache",
        "PIP_CONFIG_FILE": os.devnull,
        "UV_CACHE_DIR": cache,
        "UV_HTTP_RETRIES": 0,
    }.items():
        monkeypatch.setenv(name, str(value))


def _handler(index: Index) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].rstrip("/")
            index.requests.append(path)
            name = unquote(path.rpartition("/")[2])
            status = index.statuses.get(name, 200)
            if index.user and self.headers.get("Authorization") != _basic(index):
                self._answer(401, b"", "text/plain")
            elif status != 200:
                self._answer(status, b"", "text/plain")
            elif path.startswith("/simple/"):
                kind = "text/html" if index.plain else JSON
                self._answer_with(index.page(name), kind)
            else:
                upload = index.uploads.get(name) if path.startswith("/files/") else None
                self._answer_with(upload.data if upload else None, "application/octet-stream")

        def do_HEAD(self) -> None:
            self.do_GET()

        def _answer_with(self, body: bytes | None, kind: str) -> None:
            if body is None:
                self._answer(404, b"", "text/plain")
            else:
                self._answer(200, body, kind)

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="index"')
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    return Handler


def _basic(index: Index) -> str:
    return "Basic " + base64.b64encode(f"{index.user}:{index.password}".encode()).decode()


def wheel(
    project: str,
    version: str,
    *,
    requires: Iterable[str] = (),
    extras: Mapping[str, Iterable[str]] | None = None,
    tags: str = "py3-none-any",
    files: Mapping[str, bytes] | None = None,
) -> tuple[str, bytes]:
    """The name and the bytes of a wheel; `files` is what it holds beside its metadata."""
    distribution = normalised(project).replace("-", "_")
    info = f"{distribution}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {project}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    for extra, wanted in (extras or {}).items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f'Requires-Dist: {one}; extra == "{extra}"' for one in wanted]
    tagged = "".join(f"Tag: {tag}\n" for tag in tags.split())
    content = {
        **(files or {f"{distribution}.py": b""}),
        f"{info}/METADATA": ("\n".join(lines) + "\n").encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n{tagged}".encode(),
    }
    content[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in content).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return f"{distribution}-{version}-{tags}.whl", buffer.getvalue()


def sdist(
    project: str, version: str, files: Mapping[str, str], *, metadata: str = "2.1"
) -> tuple[str, bytes]:
    """The name and the bytes of an sdist, below its one folder as PEP 517 wants it."""
    top = f"{normalised(project).replace('-', '_')}-{version}"
    about = f"Metadata-Version: {metadata}\nName: {project}\nVersion: {version}\n"
    content = {
        f"{top}/{name}": text.encode() for name, text in {"PKG-INFO": about, **files}.items()
    }
    return f"{top}.tar.gz", tar(content)


def tar(content: Mapping[str, bytes]) -> bytes:
    """A tar.gz of these files, under exactly these names."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
