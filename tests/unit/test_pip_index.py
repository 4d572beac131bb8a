"""The package index that a container sees: the user's indexes as one, as of a day."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from lading import net
from lading.errors import EnvironmentProblem, LadingError
from lading.layers import pip_index
from lading.layers.pip_index import Index as Served
from lading.layers.pip_index import Offered, Places, places, served
from lading.net import simple
from lading.store import Store
from tests.support.index import Index, only_loopback, wheel

DAY = date(2022, 3, 1)
BEFORE, AFTER = "2022-03-01T23:59:59.5Z", "2022-03-02T00:00:00Z"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Index]:
    only_loopback(monkeypatch, tmp_path, tmp_path)
    monkeypatch.setattr(net, "BACKOFF", 0.0)
    with Index(user="someone", password="hidden-word") as made:
        monkeypatch.setenv("UV_DEFAULT_INDEX", made.url)
        yield made


def seen(where: Places, tmp_path: Path, **offered: object) -> Served:
    return Served(where, Offered(**offered), Store(tmp_path / "store"), os.environ)  # type: ignore[arg-type]


def names(page: str) -> list[str]:
    return re.findall(r">([^<]+)</a>", page)


def test_the_day_and_the_hashes_choose(index: Index, tmp_path: Path) -> None:
    index.wheel("a", "1.0", at=BEFORE, requires_python=">=3.8")
    index.wheel("a", "1.1", at=AFTER)
    where = Places(indexes=(index.url,))
    page = seen(where, tmp_path, as_of=DAY).page("a")
    assert names(page) == ["a-1.0-py3-none-any.whl"]
    assert 'data-requires-python="&gt;=3.8"' in page
    assert "hidden-word" not in page
    assert "127.0.0.1" not in page
    assert len(names(seen(where, tmp_path).page("a"))) == 2
    only = {"a": frozenset({index.uploads["a-1.1-py3-none-any.whl"].sha256})}
    assert names(seen(where, tmp_path, only=only).page("a")) == ["a-1.1-py3-none-any.whl"]

    early = seen(where, tmp_path, as_of=date(2019, 1, 1))
    assert early.page("a") == early.page("nothing") == ""
    assert (early.later, early.unknown, early.undated) == ({"a"}, {"nothing"}, set())
    # PEP 503 alone knows no dates.
    index.plain = True
    undated = seen(where, tmp_path, as_of=DAY)
    assert undated.page("a") == ""
    assert undated.undated == {"a"}
    assert len(names(seen(where, tmp_path).page("a"))) == 2


def test_several_places(index: Index, tmp_path: Path) -> None:
    index.wheel("a", "1.0")
    links = tmp_path / "links"
    links.mkdir()
    for project in ("a", "a-b"):
        name, data = wheel(project, "3.0")
        (links / name).write_bytes(data)
    with Index() as other:
        other.wheel("a", "2.0")
        both = (other.url, index.url)
        found = names(seen(Places(indexes=both), tmp_path).page("a"))
        assert found == ["a-2.0-py3-none-any.whl"], "the first that has it, as uv does"
        found = names(seen(Places(indexes=both, merged=True), tmp_path).page("a"))
        assert found == ["a-2.0-py3-none-any.whl", "a-1.0-py3-none-any.whl"]
    # A folder tells no dates, and is the user's own choice.
    linked = Places(indexes=(index.url,), links=(str(links),))
    found = names(seen(linked, tmp_path, as_of=DAY).page("a"))
    assert found == ["a-1.0-py3-none-any.whl", "a-3.0-py3-none-any.whl"]


def test_which_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only_loopback(monkeypatch, tmp_path, tmp_path)
    options = ("--extra-index-url=https://b.example/${WHO}", "-f /links", "-i https://c.example")
    found = places(options, {**os.environ, "WHO": "me"}, "https://default.example")
    assert found == Places(
        indexes=("https://b.example/me", "https://c.example"), links=("/links",), merged=True
    )
    configured = {**os.environ, "UV_DEFAULT_INDEX": "https://mine.example"}
    found = places(options[2:], configured, "https://default.example")
    assert found == Places(indexes=("https://mine.example",)), "as for uv"
    assert places((), os.environ, "https://default.example").indexes == ("https://default.example",)
    assert places(("--no-index",), os.environ, "https://default.example").indexes == ()


class Connection(http.client.HTTPConnection):
    """HTTP at a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("index")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.path.relpath(self.path))


def got(path: Path, url: str) -> tuple[int, bytes]:
    connection = Connection(path)
    connection.request("GET", url)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_what_is_served(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = index.wheel("Some.Thing", "1.0")
    gone = index.wheel("some-thing", "2.0")
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    monkeypatch.chdir(folder)
    at = seen(Places(indexes=(index.url,)), tmp_path)
    socket_path = folder / pip_index.SOCKET
    with served(at, folder):
        assert got(socket_path, "/guessed/simple/some-thing/")[0] == 404, (
            "only who knows the secret"
        )
        status, page = got(socket_path, f"/{at.secret}/simple/Some_Thing/")
        assert status == 200
        first, second = re.findall(r'href="([^#"]+)', page.decode())
        assert got(socket_path, first) == (200, upload.data)
        assert at.taken == {"some-thing": {upload.sha256}}
        assert at.store.path(upload.sha256).read_bytes() == upload.data
        # What pip-compile asks for hashes.
        status, answer = got(socket_path, f"/{at.secret}/some-thing/json")
        for_3_8 = got(socket_path, f"/{at.secret}/simple/pypi/Some_Thing/json")
        assert for_3_8 == (status, answer)
        released = json.loads(answer)["releases"]
        assert released["1.0"][0]["digests"] == {"sha256": upload.sha256}
        assert released["1.0"][0]["url"] == f"http://index{first}#sha256={upload.sha256}"
        # What fails is told to lading, not only to pip.
        assert not at.problems
        index.drop(gone.name)
        assert got(socket_path, second)[0] == 502
    (problem,) = at.problems
    assert gone.name in problem.what
    with pytest.raises(OSError, match=r"refused|No such file"):
        got(socket_path, "/")


def test_an_index_that_does_not_answer(index: Index, tmp_path: Path) -> None:
    index.statuses["a"] = 500
    with pytest.raises(EnvironmentProblem, match="HTTP 500"):
        seen(Places(indexes=(index.url,)), tmp_path).page("a")
    index.statuses["a"] = 404
    assert seen(Places(indexes=(index.url,)), tmp_path).page("a") == ""
    with pytest.raises(LadingError):
        seen(Places(indexes=("http://127.0.0.1:9/simple",)), tmp_path).page("a")


def test_pages() -> None:
    html = f"""<!DOCTYPE html><html><head><base href="https://files.example/at/"></head><body>
    <a href="a-1.0.tar.gz#sha256={"A" * 64}" data-yanked="broken" data-requires-python="&gt;=3.9">
    <a href="../a-1.0-py3-none-any.whl#sha256={"b" * 64}" data-core-metadata="sha256=cc"></a>
    <a href="https://elsewhere.example/">home</a></body></html>"""
    first, second = simple.of_html(html, "https://index.example/simple/a/")
    assert (first.url, first.sha256) == ("https://files.example/at/a-1.0.tar.gz", "a" * 64)
    assert (first.yanked, first.requires_python, first.metadata) == ("broken", ">=3.9", None)
    assert second.url == "https://files.example/a-1.0-py3-none-any.whl"
    assert (second.yanked, second.metadata) == (None, "sha256=cc")

    page = {
        "files": [
            {
                "filename": "a-1.0.zip",
                "url": "../../files/a-1.0.zip",
                "hashes": {"sha256": "d" * 64},
                "size": 7,
                "upload-time": "2022-03-01T12:00:00.000000Z",
                "yanked": True,
                "core-metadata": {"sha256": "ee"},
            }
        ]
    }
    (only,) = simple.of_json(page, "https://index.example/simple/a/")
    assert only.url == "https://index.example/files/a-1.0.zip"
    assert (only.size, only.yanked, only.metadata) == (7, "", "sha256=ee")
    assert only.by(DAY)
    assert not only.by(date(2022, 2, 28))
