"""The user's package indexes as one, for a container: as of a day, and with nothing else in it.

pip has known no dates for most of its life, and the base's own pip is whichever that is; so it is
the index that forgets what came later. It is asked for by lading, with the user's proxies, CA and
passwords, none of which a container sees; what is downloaded goes through the store. It listens
at a Unix socket, which a container reaches as a file, whatever network it has.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from html import escape
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from urllib.parse import quote, unquote, urlsplit

from msgspec import Struct

from lading import net, uv
from lading.errors import EnvironmentProblem, LadingError
from lading.files import sha256_of
from lading.net import simple
from lading.net.simple import Entry
from lading.requirements import normalised
from lading.store import Artifact, Source, Store

SOCKET = "index.sock"


class Places(Struct, frozen=True, kw_only=True):
    """Where packages come from, the first to be asked first: indexes, and places of find-links.

    merged: whether a project is looked for in all indexes, as pip does; else in the first that
    has it, as uv does.
    """

    indexes: tuple[str, ...]
    links: tuple[str, ...] = ()
    merged: bool = False


class Offered(Struct, frozen=True, kw_only=True):
    """What the index offers: as of a day, of some projects only the files with these sha256, and
    of some nothing but the one file at a path.
    """

    as_of: date | None = None
    only: Mapping[str, frozenset[str]] = {}
    instead: Mapping[str, Path] = {}


class Index:
    """The index while it is served. What went wrong in asking for it is in `problems`; `later` and
    `undated` are the projects of which the day leaves nothing: all came later, or nobody says when.
    """

    def __init__(
        self, places: Places, offered: Offered, store: Store, environ: Mapping[str, str]
    ) -> None:
        self.places, self.offered, self.store, self.environ = places, offered, store, environ
        self.secret = secrets.token_urlsafe(16)
        self.problems: list[LadingError] = []
        self.unknown: set[str] = set()
        self.later: set[str] = set()
        self.undated: set[str] = set()
        self.taken: dict[str, set[str]] = {}
        """The sha256 of the files that were downloaded, by project."""
        self._pages: dict[str, list[Entry]] = {}
        self._lock = threading.Lock()
        self._session = net.session(environ)

    def page(self, project: str) -> str:
        """The page of a project (PEP 503); empty where nothing is known of it."""
        rows = []
        for at, entry in enumerate(self._entries(project)):
            said = {"data-requires-python": entry.requires_python or None}
            said["data-yanked"] = entry.yanked
            said["data-core-metadata"] = said["data-dist-info-metadata"] = entry.metadata
            attributes = "".join(
                f' {name}="{escape(value)}"' for name, value in said.items() if value is not None
            )
            where = self._path(project, at, entry)
            rows.append(f'<a href="{where}"{attributes}>{escape(entry.name)}</a><br>\n')
        if not rows:
            return ""
        return f"<!DOCTYPE html>\n<html><body>\n{''.join(rows)}</body></html>\n"

    def releases(self, project: str, host: str) -> bytes:
        """The hashes of a project's files by version, in JSON (the form of PyPI's JSON API).

        pip-compile asks for it, and else downloads every file of a version to hash it.
        """
        found: dict[str, list[dict[str, object]]] = {}
        for at, entry in enumerate(self._entries(project)):
            if entry.sha256:
                kind = "bdist_wheel" if entry.name.endswith(".whl") else "sdist"
                found.setdefault(uv.version_in(entry.name, project), []).append(
                    {
                        "url": f"http://{host}{self._path(project, at, entry)}",
                        "digests": {"sha256": entry.sha256},
                        "packagetype": kind,
                    }
                )
        return json.dumps({"releases": found}).encode()

    def _path(self, project: str, at: int, entry: Entry) -> str:
        fragment = f"#sha256={entry.sha256}" if entry.sha256 else ""
        return f"/{self.secret}/files/{project}/{at}/{quote(entry.name)}{fragment}"

    def file(self, project: str, at: int) -> Path:
        """A file of a page, in the store. Raises `LadingError` where it can't be had."""
        entry = self._entries(project)[at]
        if project in self.offered.instead:
            return self.offered.instead[project]
        source = Source(url=entry.url, auth=net.credentials(entry.url, self.environ))
        if entry.sha256:
            artifact = Artifact(name=entry.name, sha256=entry.sha256, size=entry.size)
            self.store.fetch(
                [artifact], lambda _: {artifact.sha256: [source]}, environ=self.environ
            )
        else:
            artifact = self.store.fetch_new(entry.name, [source], environ=self.environ)
        self.taken.setdefault(project, set()).add(artifact.sha256)
        return self.store.path(artifact.sha256)

    def metadata(self, project: str, at: int) -> bytes:
        """The METADATA that lies beside a wheel (PEP 658)."""
        url = f"{self._entries(project)[at].url}.metadata"
        auth = net.credentials(url, self.environ)
        answer = net.ask(self._session, url, auth=auth, environ=self.environ)
        if not answer.ok:
            raise net.answer_problem(answer.status_code, url, self.environ)
        return answer.content

    def _entries(self, project: str) -> list[Entry]:
        with self._lock:
            if project not in self._pages:
                self._pages[project] = self._offered(project)
            return self._pages[project]

    def _offered(self, project: str) -> list[Entry]:
        given = self.offered.instead.get(project)
        if given is not None:
            return [Entry(name=given.name, url=given.as_uri(), sha256=sha256_of(given))]
        found = self._found(project)
        if not found:
            self.unknown.add(project)
        kept = found
        if self.offered.as_of is not None and found:
            kept = [entry for entry in found if entry.by(self.offered.as_of)]
            if not kept:
                (self.later if any(entry.uploaded for entry in found) else self.undated).add(
                    project
                )
        only = self.offered.only.get(project)
        return [entry for entry in kept if not only or entry.sha256 in ("", *only)]

    def _found(self, project: str) -> list[Entry]:
        found: list[Entry] = []
        for url in self.places.indexes:
            found += simple.entries(self._session, url, project, self.environ)
            if found and not self.places.merged:
                break
        for place in self.places.links:
            found += simple.linked(self._session, place, project, self.environ)
        # A file that two indexes have is one; the first of them counts.
        return list({entry.name: entry for entry in reversed(found)}.values())[::-1]


def places(options: tuple[str, ...], environ: Mapping[str, str], default: str) -> Places:
    """The indexes in force: the user's, those that the requirement files name in `options`, and
    `default`, where nobody names one. As for uv, the user's own go before a file's.
    """
    said = net.indexes(environ)
    named: dict[str, list[str]] = {"index": [], "extra": [], "links": []}
    no_index = said.no_index
    for option in options:
        found = re.match(r"(-i|-f|--[a-z-]+)[\s=]*(.*)$", option)
        if found is None:
            continue
        value = re.sub(
            r"\$\{([A-Z0-9_]+)\}", lambda name: environ.get(name[1], name[0]), found[2].strip()
        )
        if found[1] == "--no-index":
            no_index = True
        else:
            kind = {"-i": "index", "--index-url": "index", "--extra-index-url": "extra"}
            named[kind.get(found[1], "links")].append(value)
    last = [said.default] if said.default else [*named["index"][-1:]] or [default]
    strategy = environ.get("UV_INDEX_STRATEGY", "")
    return Places(
        indexes=() if no_index else (*said.extra, *named["extra"], *last),
        links=(*said.find_links, *named["links"]),
        merged=strategy.startswith("unsafe") or (not strategy and said.from_pip),
    )


@contextmanager
def served(index: Index, folder: Path) -> Iterator[None]:
    """Serves an index at a socket in this folder for as long as the block takes."""
    # A socket's path may be 107 bytes long; the folder's may be longer.
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        server = _Server(f"/proc/self/fd/{opened}/{SOCKET}", _handler(index))
    finally:
        os.close(opened)
    # In a container, who asks may be another user; the folder's own parent keeps others out.
    (folder / SOCKET).chmod(0o666)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        index._session.close()


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """pip hung up."""


def _handler(index: Index) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            try:
                self._found(parts)
            except (BrokenPipeError, ConnectionResetError):
                raise
            except LadingError as error:
                index.problems.append(error)
                self._answer(502, b"", "text/plain")
            except OSError as error:
                index.problems.append(EnvironmentProblem("a file can't be read", why=str(error)))
                self._answer(502, b"", "text/plain")

        def do_HEAD(self) -> None:
            self.do_GET()

        def _found(self, parts: list[str]) -> None:
            if parts[:1] != [index.secret]:
                self._answer(404, b"", "text/plain")
            elif len(parts) == 3 and parts[1] == "simple":
                page = index.page(normalised(parts[2])).encode()
                self._answer(200 if page else 404, page, "text/html; charset=utf-8")
            # Newer pip-tools ask for it above the index, older ones, for a Python 3.8, below it.
            elif parts[-1] == "json" and (len(parts) == 3 or parts[1:-2] == ["simple", "pypi"]):
                host = self.headers.get("Host", "")
                self._answer(200, index.releases(normalised(parts[-2]), host), "application/json")
            elif len(parts) == 5 and parts[1] == "files" and parts[4].endswith(".metadata"):
                self._answer(200, index.metadata(parts[2], int(parts[3])), "text/plain")
            elif len(parts) == 5 and parts[1] == "files":
                self._send(index.file(parts[2], int(parts[3])))
            else:
                self._answer(404, b"", "text/plain")

        def _send(self, path: Path) -> None:
            with path.open("rb") as file:
                self._head(200, os.fstat(file.fileno()).st_size, "application/octet-stream")
                if self.command == "GET":
                    shutil.copyfileobj(file, self.wfile)

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self._head(status, len(body), kind)
            if self.command == "GET":
                self.wfile.write(body)

        def _head(self, status: int, length: int, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(length))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    return Handler
