"""Reading package indexes: what files they have of a project.

PEP 503 (HTML), PEP 691 (JSON), PEP 700 (sizes, and when a file was uploaded), PEP 658 and 714
(metadata beside a wheel), PEP 592 (yanked files); find-links as pip has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import requests
from msgspec import Struct

from lading import net
from lading.errors import EnvironmentProblem

ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.2"
_PACKAGE = re.compile(r"\.(?:whl|zip|tar\.gz|tgz|tar\.bz2|tar\.xz)$")


class Entry(Struct, frozen=True, kw_only=True):
    """A file of an index: its name, URL, sha256 ("": not told) and size in bytes.

    uploaded: when, as RFC 3339 has it; "" where that is not told. yanked: why; None if it is not.
    metadata: what the index says of the wheel's METADATA beside it, as "sha256=…"; None: none is.
    linked: whether it is from a place of find-links, which tells no dates.
    """

    name: str
    url: str
    sha256: str = ""
    size: int | None = None
    uploaded: str = ""
    requires_python: str = ""
    yanked: str | None = None
    metadata: str | None = None
    linked: bool = False

    def by(self, day: date) -> bool:
        """Whether it was there at the end of that day (UTC)."""
        if self.linked:
            return True
        try:
            when = datetime.fromisoformat(self.uploaded)
        except ValueError:
            return False
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        end = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
        return when < end


def entries(
    session: requests.Session, index: str, project: str, environ: Mapping[str, str]
) -> list[Entry]:
    """What an index, by its URL, has of a project; nothing where it does not know it.

    Raises `EnvironmentProblem` for one that does not answer, or not with an index's page.
    """
    url = f"{index.rstrip('/')}/{project}/"
    if urlsplit(url).scheme == "file":
        return _local(net.local_path(url) / "index.html")
    return _asked(session, url, environ)


def linked(
    session: requests.Session, place: str, project: str, environ: Mapping[str, str]
) -> list[Entry]:
    """What a place of find-links has of a project: a folder, or a page of links."""
    from lading.requirements import normalised

    path = net.local_path(place) if urlsplit(place).scheme in ("", "file") else None
    if path is None:
        found = _asked(session, place, environ)
    elif path.is_dir():
        # A symbolic link in it may lead anywhere; its own name is what the file is called.
        files = sorted(one for one in path.iterdir() if _PACKAGE.search(one.name))
        found = [Entry(name=one.name, url=one.absolute().as_uri()) for one in files]
    else:
        found = _local(path)
    return [
        Entry(
            **{**{name: getattr(entry, name) for name in Entry.__struct_fields__}, "linked": True}
        )
        for entry in found
        if normalised(_project(entry.name, project)) == project
    ]


def _project(file: str, wanted: str) -> str:
    """The project that a file's name says it is of (PEP 427; of an sdist it is not certain)."""
    if file.endswith(".whl"):
        return file.partition("-")[0]
    length = len(wanted)
    return file[:length] if file[length : length + 1] == "-" else ""


def _local(page: Path) -> list[Entry]:
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    return of_html(text, page.absolute().as_uri())


def _asked(session: requests.Session, url: str, environ: Mapping[str, str]) -> list[Entry]:
    answer = net.ask(session, url, headers={"Accept": ACCEPT}, environ=environ)
    # As for uv and pip, an index that lets nobody see what it has not got has nothing.
    if answer.status_code in (403, 404, 410):
        return []
    if not answer.ok:
        raise net.answer_problem(answer.status_code, url, environ)
    try:
        if "json" in answer.headers.get("Content-Type", ""):
            return of_json(json.loads(answer.content), answer.url)
        return of_html(answer.content.decode(), answer.url)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EnvironmentProblem(
            f"{net.host_of(url)} answered with what is no page of an index",
            why=f"{net.redact(url)}: {error}",
            do="check the indexes that are configured",
        ) from error


def of_json(page: Mapping[str, Any], url: str) -> list[Entry]:
    """The files of a page as PEP 691 has it, which is at this URL."""
    found = []
    for file in page["files"]:
        core = file.get("core-metadata", file.get("dist-info-metadata", False))
        found.append(
            Entry(
                name=file["filename"],
                url=urljoin(url, file["url"]),
                sha256=(file.get("hashes") or {}).get("sha256", "").lower(),
                size=file.get("size"),
                uploaded=file.get("upload-time") or "",
                requires_python=file.get("requires-python") or "",
                yanked=_yanked(file.get("yanked", False)),
                metadata=_metadata(core),
            )
        )
    return found


def _yanked(said: Any) -> str | None:
    return said if isinstance(said, str) else "" if said else None


def _metadata(said: Any) -> str | None:
    if isinstance(said, Mapping):
        return f"sha256={said['sha256']}" if "sha256" in said else "true"
    return "true" if said else None


class _Links(HTMLParser):
    """The links of a page: their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.base = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "base":
            self.base = values.get("href") or self.base
        elif tag == "a" and values.get("href"):
            self.found.append(values)


def of_html(text: str, url: str) -> list[Entry]:
    """The files of a page as PEP 503 has it, which is at this URL."""
    return list(_of_html(text, url))


def _of_html(text: str, url: str) -> Iterator[Entry]:
    links = _Links()
    links.feed(text)
    base = urljoin(url, links.base)
    for link in links.found:
        target, fragment = urldefrag(urljoin(base, link["href"] or ""))
        name = unquote(urlsplit(target).path.rpartition("/")[2])
        if not _PACKAGE.search(name):
            continue
        hashed = re.search(r"(?:^|&)sha256=([0-9A-Fa-f]{64})(?:&|$)", fragment)
        core = link.get("data-core-metadata", link.get("data-dist-info-metadata"))
        yield Entry(
            name=name,
            url=target,
            sha256=hashed[1].lower() if hashed else "",
            requires_python=link.get("data-requires-python") or "",
            yanked=(link["data-yanked"] or "") if "data-yanked" in link else None,
            metadata=core if core != "false" else None,
        )
