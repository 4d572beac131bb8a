from __future__ import annotations

import hashlib
import http.server
import multiprocessing
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lading import files, net
from lading.errors import EnvironmentProblem, LadingError
from lading.net.configured import CA_VARIABLES
from lading.store import Artifact, Gone, Source, Store, available, download

Answer = Callable[["Handler", bytes], None]
NO_HEADERS: Mapping[str, str] = {}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `site.files`; a request takes the next of the path's scripted answers, if any."""

    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        with self.site.lock:
            self.site.requests.append((self.command, self.path, dict(self.headers)))
            scripted = self.site.script.get(self.path, [])
            answer = scripted.pop(0) if scripted else serve
        content = self.site.files.get(self.path)
        if content is None and answer is serve:
            status(404)(self, b"")
        else:
            answer(self, content or b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def start(self, code: int, length: int | None, headers: Mapping[str, str] = NO_HEADERS) -> None:
        self.send_response(code)
        if length is None:
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def body(self, content: bytes) -> None:
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Quiet(http.server.ThreadingHTTPServer):
    """No traceback when a client hangs up."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class Site:
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.script: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.lock = threading.Lock()
        handler = type("Bound", (Handler,), {"site": self})
        self.server = Quiet(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def add(self, path: str, content: bytes, *script: Answer, size: bool = True) -> Artifact:
        self.files[path] = content
        self.script[path] = list(script)
        digest = hashlib.sha256(content).hexdigest()
        return Artifact(name=path[1:], sha256=digest, size=len(content) if size else None)

    def urls(self, artifacts: Sequence[Artifact]) -> dict[str, list[Source]]:
        return {a.sha256: [Source(url=f"{self.url}/{a.name}")] for a in artifacts}

    def asked(self, header: str) -> list[str | None]:
        return [headers.get(header) for _, _, headers in self.requests]


def serve(handler: Handler, content: bytes) -> None:
    tag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
    wanted = handler.headers.get("Range")
    if wanted and handler.headers.get("If-Range", tag) == tag:
        start = int(wanted.removeprefix("bytes=").partition("-")[0])
        if start >= len(content):
            return status(416)(handler, b"")
        rest = content[start:]
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.start(206, len(rest), {"Content-Range": span, "ETag": tag})
        return handler.body(rest)
    handler.start(200, len(content), {"ETag": tag})
    return handler.body(content)


def without_ranges(handler: Handler, content: bytes) -> None:
    handler.start(200, len(content))
    handler.body(content)


def status(code: int, headers: Mapping[str, str] | None = None) -> Answer:
    def answer(handler: Handler, content: bytes) -> None:
        handler.start(code, 0, headers or {})

    return answer


def content(wrong: bytes) -> Answer:
    return lambda handler, _: without_ranges(handler, wrong)


def cut(after: int, *, how: str = "close", ranges: bool = True) -> Answer:
    """Promises all that was asked for, then ends after so many bytes."""

    def answer(handler: Handler, content: bytes) -> None:
        wanted = handler.headers.get("Range") if ranges else None
        start = int(wanted.removeprefix("bytes=")[:-1]) if wanted else 0
        rest = content[start:]
        if wanted:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            handler.start(206, len(rest), {"Content-Range": span})
        elif how == "unframed":
            handler.start(200, None)
        else:
            handler.start(200, len(rest))
        handler.body(rest[:after])
        handler.wfile.flush()
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.close_connection = True

    return answer


def chunked(handler: Handler, content: bytes) -> None:
    handler.start(200, None, {"Transfer-Encoding": "chunked"})
    for at in range(0, len(content), 1000):
        piece = content[at : at + 1000]
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    handler.wfile.write(b"0\r\n\r\n")


def hanging(after: int) -> Answer:
    def answer(handler: Handler, content: bytes) -> None:
        handler.start(200, len(content))
        handler.body(content[:after])
        handler.wfile.flush()
        time.sleep(30)

    return answer


@contextmanager
def served() -> Iterator[Site]:
    made = Site()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    with served() as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy, no netrc, no CA of this machine; no long waits."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in CA_VARIABLES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(net, "BACKOFF", 0.001)


def some(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def left(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / "partial").glob("*"))


def fetched(store: Store, site: Site, artifact: Artifact) -> bytes:
    store.fetch([artifact], site.urls)
    return store.path(artifact.sha256).read_bytes()


# fetch


def test_fetch_puts_a_read_only_file_under_its_sha256(store: Store, site: Site) -> None:
    artifact = site.add("/a.whl", some(100_000))
    came: list[int] = []
    store.fetch([artifact], site.urls, came.append)
    path = store.root / "sha256" / artifact.sha256[:2] / artifact.sha256
    assert path == store.path(artifact.sha256)
    assert path.read_bytes() == some(100_000)
    assert path.stat().st_mode & 0o777 == 0o444
    assert sum(came) == 100_000
    assert store.has(artifact)
    assert left(store) == []
    assert site.asked("User-Agent") == ["lading"]


def test_what_is_there_is_not_asked_for(store: Store, site: Site) -> None:
    there, new = site.add("/a", some(10)), site.add("/b", some(10, 1))
    store.fetch([there], site.urls)
    asked: list[Sequence[Artifact]] = []

    def urls(artifacts: Sequence[Artifact]) -> dict[str, list[Source]]:
        asked.append(artifacts)
        return site.urls(artifacts)

    store.fetch([there, new, new], urls)
    store.fetch([there, new], urls)
    assert asked == [[new]]
    assert [path for _, path, _ in site.requests] == ["/a", "/b"]


def test_a_file_of_another_size_is_fetched_again(store: Store, site: Site) -> None:
    artifact = site.add("/a", some(10))
    store.path(artifact.sha256).parent.mkdir(parents=True)
    store.path(artifact.sha256).write_bytes(b"cut")
    assert store.lacking([artifact]) == [artifact]
    assert fetched(store, site, artifact) == some(10)


def test_the_largest_comes_first(store: Store, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lading.store.WORKERS", 1)
    sizes = [10, 3000, 200]
    artifacts = [site.add(f"/{size}", some(size)) for size in sizes]
    store.fetch(artifacts, site.urls)
    assert [path for _, path, _ in site.requests] == ["/3000", "/200", "/10"]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_cut_off_download_goes_on_where_it_ended(store: Store, site: Site, how: str) -> None:
    artifact = site.add("/a", some(2_000_000), cut(700_000, how=how), cut(600_000, how=how))
    came: list[int] = []
    store.fetch([artifact], site.urls, came.append)
    assert store.path(artifact.sha256).read_bytes() == some(2_000_000)
    assert sum(came) == 2_000_000
    assert all(count > 0 for count in came)
    ranges = site.asked("Range")
    assert len(ranges) == 3
    assert None not in ranges[1:]
    if how == "close":
        assert ranges[1:] == ["bytes=700000-", "bytes=1300000-"]


def test_a_server_that_ignores_ranges_starts_over(store: Store, site: Site) -> None:
    artifact = site.add("/a", some(9000), cut(5000, ranges=False), without_ranges)
    came: list[int] = []
    store.fetch([artifact], site.urls, came.append)
    assert store.path(artifact.sha256).read_bytes() == some(9000)
    assert sum(came) == 9000
    assert -5000 in came


def test_a_close_without_a_length_is_a_cut_off(store: Store, site: Site) -> None:
    artifact = site.add("/a", some(9000), cut(5000, how="unframed"))
    assert fetched(store, site, artifact) == some(9000)
    assert site.asked("Range") == [None, "bytes=5000-"]


@pytest.mark.parametrize("answer", [chunked, without_ranges, cut(10**9, how="unframed")])
@pytest.mark.parametrize("size", [True, False])
def test_every_framing(store: Store, site: Site, answer: Answer, size: bool) -> None:
    artifact = site.add("/a", some(5500), answer, size=size)
    assert fetched(store, site, artifact) == some(5500)
    assert len(site.requests) == 1


def test_a_content_encoding_is_left_alone(store: Store, site: Site) -> None:
    def labelled(handler: Handler, content: bytes) -> None:
        handler.start(200, len(content), {"Content-Encoding": "gzip"})
        handler.body(content)

    artifact = site.add("/a.tar.gz", b"\x1f\x8b not really", labelled)
    assert fetched(store, site, artifact) == b"\x1f\x8b not really"
    assert site.asked("Accept-Encoding") == ["identity"]


def test_an_unsatisfiable_range_starts_over(store: Store, site: Site) -> None:
    artifact = site.add("/a", some(9000), status(416))
    partial = store.root / "partial" / f"{artifact.sha256}.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 100)
    assert fetched(store, site, artifact) == some(9000)
    assert site.asked("Range") == ["bytes=100-", None]


def test_a_range_from_elsewhere_starts_over(store: Store, site: Site) -> None:
    def shifted(handler: Handler, content: bytes) -> None:
        handler.start(206, 9000, {"Content-Range": "bytes 0-8999/9000"})
        handler.body(content)

    artifact = site.add("/a", some(9000), cut(100), shifted)
    assert fetched(store, site, artifact) == some(9000)
    assert site.asked("Range") == [None, "bytes=100-", None]
    assert "no-cache" not in site.asked("Cache-Control"), "it was never taken for the content"


def test_content_without_an_end_does_not_fill_the_disk(store: Store, site: Site) -> None:
    artifact = site.add("/a", some(9000), content(b"y" * 20 * download.CHUNK))
    came: list[int] = []
    store.fetch([artifact], site.urls, came.append)
    assert max(came) <= download.CHUNK
    assert sum(count for count in came if count > 0) <= 2 * download.CHUNK


def test_if_range_notices_a_file_that_changed_meanwhile(store: Store, site: Site) -> None:
    def first(handler: Handler, content: bytes) -> None:
        handler.start(200, 9000, {"ETag": '"old"'})
        handler.body(b"x" * 4000)
        handler.close_connection = True

    artifact = site.add("/a", some(9000), first)
    assert fetched(store, site, artifact) == some(9000)
    assert site.asked("If-Range") == [None, '"old"']
    assert len(site.requests) == 2


def test_a_leftover_of_another_run_is_gone_on_with(store: Store, site: Site) -> None:
    artifact = site.add("/a", some(9000))
    partial = store.root / "partial" / f"{artifact.sha256}.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(some(9000)[:4000])
    came: list[int] = []
    store.fetch([artifact], site.urls, came.append)
    assert site.asked("Range") == ["bytes=4000-"]
    assert sum(came) == 9000
    assert store.path(artifact.sha256).read_bytes() == some(9000)


@pytest.mark.parametrize(("size", "mode"), [(True, 0o644), (False, 0o644), (True, 0o444)])
def test_a_leftover_that_is_whole_asks_for_nothing(
    store: Store, site: Site, size: bool, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = site.add("/a", some(9000), size=size)
    partial = store.root / "partial" / f"{artifact.sha256}.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(some(9000))
    partial.chmod(mode)
    # What keeps everybody out but root, who may run this.
    real = Path.open

    def opened(path: Path, *how: Any, **options: Any) -> Any:
        if path == partial and not path.stat().st_mode & 0o200:
            raise PermissionError(13, "Permission denied")
        return real(path, *how, **options)

    monkeypatch.setattr(Path, "open", opened)
    assert fetched(store, site, artifact) == some(9000)
    assert site.requests == []


@pytest.mark.parametrize("junk", [b"x" * 4000, b"x" * 20_000])
def test_a_leftover_that_is_wrong_is_thrown_away(store: Store, site: Site, junk: bytes) -> None:
    artifact = site.add("/a", some(9000))
    partial = store.root / "partial" / f"{artifact.sha256}.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(junk)
    assert fetched(store, site, artifact) == some(9000)


@pytest.mark.parametrize("wrong", [b"y" * 9000, b"short", b"y" * 50_000])
def test_wrong_content_is_asked_for_once_more(store: Store, site: Site, wrong: bytes) -> None:
    artifact = site.add("/a", some(9000), content(wrong))
    came: list[int] = []
    store.fetch([artifact], site.urls, came.append)
    assert store.path(artifact.sha256).read_bytes() == some(9000)
    assert sum(came) == 9000
    assert site.asked("Cache-Control") == [None, "no-cache"]
    assert site.asked("Range") == [None, None]


def test_content_that_stays_wrong_names_both_hashes(store: Store, site: Site) -> None:
    wrong = b"y" * 9000
    artifact = site.add("/a.whl", some(9000), content(wrong), content(wrong))
    with pytest.raises(LadingError) as error:
        store.fetch([artifact], site.urls)
    assert error.value.exit_code == 1
    text = str(error.value)
    assert "a.whl" in text
    assert artifact.sha256 in text
    assert hashlib.sha256(wrong).hexdigest() in text
    assert len(site.requests) == 2
    assert not store.has(artifact)
    assert left(store) == []


def test_wrong_content_is_asked_for_from_the_next_source(store: Store, site: Site) -> None:
    artifact = site.add("/a", some(9000))
    site.files["/bad"] = b"y" * 9000
    sources = [Source(url=f"{site.url}/bad"), Source(url=f"{site.url}/a")]
    store.fetch([artifact], lambda _: {artifact.sha256: sources})
    assert [path for _, path, _ in site.requests] == ["/bad", "/a"]


@pytest.mark.parametrize("code", [404, 410])
def test_gone(store: Store, site: Site, code: int) -> None:
    artifact = site.add("/old.deb", some(10), status(code))
    with pytest.raises(Gone, match=r"old\.deb") as error:
        store.fetch([artifact], site.urls)
    assert error.value.artifacts == (artifact,)
    assert str(code) in str(error.value)
    assert len(site.requests) == 1


def test_gone_from_one_source_but_not_from_the_next(store: Store, site: Site) -> None:
    artifact = site.add("/a", some(10))
    sources = [Source(url=f"{site.url}/nowhere"), Source(url=f"{site.url}/a")]
    store.fetch([artifact], lambda _: {artifact.sha256: sources})
    assert store.has(artifact)


def test_an_artifact_that_nobody_offers(store: Store) -> None:
    artifact = Artifact(name="a.whl", sha256="0" * 64)
    with pytest.raises(Gone, match="no index"):
        store.fetch([artifact], lambda _: {})


def test_several_that_are_gone_are_one_error(store: Store, site: Site) -> None:
    together = threading.Barrier(5, timeout=10)

    def answer(handler: Handler, content: bytes) -> None:
        together.wait()
        status(404)(handler, content)

    artifacts = [site.add(f"/{i}.deb", some(10, i), answer) for i in range(5)]
    with pytest.raises(Gone) as error:
        store.fetch(artifacts, site.urls)
    named = {artifact.name for artifact in error.value.artifacts}
    assert named == {artifact.name for artifact in artifacts}
    assert all(name in str(error.value) for name in named)


def test_a_passing_failure_of_the_server(store: Store, site: Site) -> None:
    later = status(429, {"Retry-After": "0"})
    artifact = site.add("/a", some(10), status(500), status(503), later)
    assert fetched(store, site, artifact) == some(10)


def test_a_server_that_keeps_failing(store: Store, site: Site) -> None:
    artifact = site.add("/a", some(10), *[status(503)] * 9)
    with pytest.raises(EnvironmentProblem, match="503"):
        store.fetch([artifact], site.urls)
    assert len(site.requests) == 1 + net.RETRIES


def test_a_server_that_never_gets_anywhere(store: Store, site: Site) -> None:
    artifact = site.add("/a", some(9000), *[cut(50, ranges=False)] * 30)
    with pytest.raises(EnvironmentProblem, match="cut off"):
        store.fetch([artifact], site.urls)
    assert len(site.requests) <= 2 + download.PATIENCE


def test_an_index_that_is_down(store: Store, site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    artifacts = [Artifact(name=f"{i}.whl", sha256=f"{i:064x}", size=1) for i in range(3)]
    urls = {a.sha256: [Source(url=f"http://u:pw@127.0.0.1:{port}/x")] for a in artifacts}
    with pytest.raises(EnvironmentProblem) as error:
        store.fetch(artifacts, lambda _: urls)
    text = str(error.value)
    assert f"127.0.0.1:{port}" in text
    assert "connection refused" in text
    assert "proxy: none" in text
    assert "pw" not in text
    assert error.value.exit_code == 2


def test_a_failure_ends_the_others_quickly(store: Store, site: Site) -> None:
    together = threading.Barrier(8, timeout=10)

    def waits(answer: Answer) -> Answer:
        def late(handler: Handler, content: bytes) -> None:
            together.wait()
            answer(handler, content)

        return late

    slow = [site.add(f"/slow{i}", some(1000, i), waits(hanging(10))) for i in range(7)]
    queued = [site.add(f"/queued{i}", some(10, i)) for i in range(20)]
    bad = site.add("/bad", some(2000), waits(status(404)))
    began = time.monotonic()
    with pytest.raises(Gone, match="bad"):
        store.fetch([*slow, *queued, bad], site.urls)
    assert time.monotonic() - began < 5
    assert not any(path.startswith("/queued") for _, path, _ in site.requests)
    while any(name.endswith(".lock") for name in left(store)):
        assert time.monotonic() - began < 10, "a read that nobody wants is not waited for"
        time.sleep(0.01)


@pytest.mark.parametrize("size", [True, False])
def test_file_urls(store: Store, tmp_path: Path, size: bool) -> None:
    (tmp_path / "a b.whl").write_bytes(some(600_000))
    digest = hashlib.sha256(some(600_000)).hexdigest()
    artifact = Artifact(name="a b.whl", sha256=digest, size=600_000 if size else None)
    urls = {digest: [Source(url=f"file://{tmp_path}/a%20b.whl")]}
    store.fetch([artifact], lambda _: urls)
    assert store.verify(artifact)
    other = Artifact(name="gone.whl", sha256="1" * 64)
    with pytest.raises(Gone, match=r"gone\.whl"):
        store.fetch([other], lambda _: {"1" * 64: [Source(url=f"file://{tmp_path}/gone.whl")]})


def test_credentials_go_to_the_source_and_no_further(store: Store, site: Site) -> None:
    with served() as elsewhere:
        artifact = elsewhere.add("/stored", some(10))
        site.script["/a"] = [status(302, {"Location": f"{elsewhere.url}/stored"})]
        site.files["/a"] = b""
        source = Source(url=f"{site.url}/a", auth=("ann", "pw"))
        store.fetch([artifact], lambda _: {artifact.sha256: [source]})
        assert site.asked("Authorization") == ["Basic YW5uOnB3"]
        assert elsewhere.asked("Authorization") == [None]
    assert "pw" not in repr(source)


def test_a_read_only_store_with_everything_in_it_is_enough(store: Store, site: Site) -> None:
    artifact = site.add("/a", some(10))
    store.fetch([artifact], site.urls)
    made = store.derived("k", "n", lambda path: path.touch())
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    before[store.root] = store.root.stat().st_mtime_ns
    store.fetch([artifact], lambda _: pytest.fail("asked"))
    assert store.derived("k", "n", lambda _: pytest.fail("made")) == made
    assert store.verify(artifact)
    after = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    after[store.root] = store.root.stat().st_mtime_ns
    assert after == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte; where it can't be mounted, the test says so."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "lading-test", str(where)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


def test_a_full_disk(small_disk: Path, site: Site) -> None:
    store = Store(small_disk)
    artifact = site.add("/a", some(3_000_000))
    with pytest.raises(EnvironmentProblem, match="no room left") as error:
        store.fetch([artifact], site.urls)
    assert error.value.exit_code == 2
    assert left(store) == []
    small = site.add("/b", some(500_000))
    store.fetch([small], site.urls)


def test_a_full_disk_without_a_mount(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = download.Part.__init__

    def onto_a_full_device(self: download.Part, *args: Any) -> None:
        real(self, *args)
        self._file = open("/dev/full", "wb", buffering=0)  # noqa: PTH123, SIM115

    monkeypatch.setattr(download.Part, "__init__", onto_a_full_device)
    artifact = site.add("/a", some(10))
    with pytest.raises(EnvironmentProblem, match="no room left"):
        store.fetch([artifact], site.urls)
    assert left(store) == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(0, 700_000),
    cuts=st.lists(st.tuples(st.integers(1, 300_000), st.sampled_from(["close", "reset"]))),
    known=st.booleans(),
    ranges=st.booleans(),
)
def test_any_sequence_of_cut_offs_ends_with_the_right_file(
    tmp_path_factory: pytest.TempPathFactory,
    size: int,
    cuts: list[tuple[int, str]],
    known: bool,
    ranges: bool,
) -> None:
    with served() as site:
        store = Store(tmp_path_factory.mktemp("store"))
        # Without ranges every try starts over, so only a few of them can be of no avail.
        script = [cut(n, how=how, ranges=ranges) for n, how in cuts][: None if ranges else 4]
        artifact = site.add("/a", some(size), *script, size=known)
        came: list[int] = []
        store.fetch([artifact], site.urls, came.append)
        assert store.path(artifact.sha256).read_bytes() == some(size)
        assert sum(came) == size


# several processes


def fetch_in_a_process(root: Path, url: str, artifact: Artifact) -> None:
    urls = {artifact.sha256: [Source(url=url)]}
    Store(root).fetch([artifact], lambda _: urls)


def slowly(handler: Handler, content: bytes) -> None:
    handler.start(200, len(content))
    for at in range(0, len(content), len(content) // 10):
        handler.body(content[at : at + len(content) // 10])
        handler.wfile.flush()
        time.sleep(0.05)


def test_two_processes_download_once(store: Store, site: Site) -> None:
    artifact = site.add("/a", some(500_000), slowly, slowly)
    processes = [
        multiprocessing.get_context("spawn").Process(
            target=fetch_in_a_process, args=(store.root, f"{site.url}/a", artifact)
        )
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(site.requests) == 1
    assert store.verify(artifact)
    assert left(store) == []


SCRIPT = """
import sys
from pathlib import Path
from lading.store import Artifact, Source, Store
root, url, sha256, size = sys.argv[1:]
artifact = Artifact(name="a", sha256=sha256, size=int(size))
Store(Path(root)).fetch([artifact], lambda _: {sha256: [Source(url=url)]})
"""


def started(store: Store, site: Site, artifact: Artifact, after: int) -> subprocess.Popen[str]:
    """A process that has received `after` bytes, and waits for more."""
    command = [sys.executable, "-c", SCRIPT]
    process = subprocess.Popen(
        [*command, str(store.root), f"{site.url}/a", artifact.sha256, str(artifact.size)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(net.__file__).parents[1])},
    )
    partial = store.root / "partial" / f"{artifact.sha256}.part"
    deadline = time.monotonic() + 20
    while not (partial.exists() and partial.stat().st_size == after):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def test_a_killed_download_is_gone_on_with(store: Store, site: Site) -> None:
    artifact = site.add("/a", some(900_000), hanging(600_000))
    process = started(store, site, artifact, 600_000)
    process.kill()
    process.communicate()
    assert not store.path(artifact.sha256).exists()
    assert fetched(store, site, artifact) == some(900_000)
    assert site.asked("Range") == [None, "bytes=600000-"]
    assert left(store) == []


def test_an_interrupt_ends_it_at_once_and_keeps_what_came(store: Store, site: Site) -> None:
    artifact = site.add("/a", some(900_000), hanging(600_000))
    process = started(store, site, artifact, 600_000)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - began < 3
    assert "KeyboardInterrupt" in errors
    assert f"{artifact.sha256}.part" in left(store)
    assert fetched(store, site, artifact) == some(900_000)


# available


def test_what_is_no_url_is_no_traceback(store: Store) -> None:
    artifact = Artifact(name="a", sha256="0" * 64)
    sources = {artifact.sha256: [Source(url="http://[::1/x")]}
    with pytest.raises(EnvironmentProblem):
        store.fetch([artifact], lambda _: sources)
    assert available(sources) == set()


def test_available_counts_only_404_and_410(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    site.files["/there"] = b"x"
    site.script = {
        "/410": [status(410)],
        "/500": [status(500)],
        "/no-head": [status(405), serve],
        "/no-head-and-gone": [status(403), status(404)],
        "/forbidden": [status(403), status(403)],
    }
    site.files["/no-head"] = b"x"
    sources = {name: [Source(url=f"{site.url}/{name}")] for name in ("there", "404", "410", "500")}
    for name in ("no-head", "no-head-and-gone", "forbidden"):
        sources[name] = [Source(url=f"{site.url}/{name}")]
    sources["down"] = [Source(url=f"http://127.0.0.1:{port}/x")]
    sources["second"] = [Source(url=f"{site.url}/404"), Source(url=f"{site.url}/there")]
    sources["both"] = [Source(url=f"{site.url}/404"), Source(url=f"{site.url}/nor-here")]
    sources["nobody"] = []
    gone = available(sources)
    assert gone == {"404", "410", "no-head-and-gone", "both", "nobody"}
    assert ("GET", "/no-head") in [(method, path) for method, path, _ in site.requests]


def test_a_silent_host_is_asked_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lading.store.net.POOL", 1)
    monkeypatch.setattr(net, "CONNECT_TIMEOUT", 0.3)
    monkeypatch.setattr(net, "READ_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert available({str(i): [Source(url=f"{url}/{i}")] for i in range(50)}) == set()
    assert time.monotonic() - began < 3


def test_available_of_files(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    sources = {name: [Source(url=f"file://{tmp_path}/{name}")] for name in "ab"}
    assert available(sources) == {"b"}


# derived, verify, default


def test_derived_is_made_once(store: Store) -> None:
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_text("whole")

    assert not store.has_derived("key", "rootfs.tar")
    first = store.derived("key", "rootfs.tar", make)
    assert store.has_derived("key", "rootfs.tar")
    assert first == store.derived("key", "rootfs.tar", make)
    assert first == store.root / "derived" / "key" / "rootfs.tar"
    assert first.read_text() == "whole"
    assert first.stat().st_mode & 0o777 == 0o444
    assert len(made) == 1
    assert made[0].name == "rootfs.tar"
    assert left(store) == []


def test_derived_can_be_a_folder(store: Store) -> None:
    def make(path: Path) -> None:
        path.mkdir()
        (path / "inside").touch()

    assert (store.derived("key", "folder", make) / "inside").exists()


def test_a_failed_derivation_leaves_nothing(store: Store) -> None:
    def make(path: Path) -> None:
        path.write_text("half")
        raise LadingError("no")

    with pytest.raises(LadingError, match="no"):
        store.derived("key", "name", make)
    assert left(store) == []
    assert not (store.root / "derived" / "key" / "name").exists()
    assert store.derived("key", "name", lambda path: path.touch()).exists()


def test_a_leftover_of_the_same_derivation_is_removed_first(store: Store) -> None:
    leftover = store.root / "partial" / "key.name.part" / "name"
    leftover.mkdir(parents=True)
    assert store.derived("key", "name", lambda path: path.touch()).is_file()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".."])
def test_derived_stays_inside(store: Store, name: str) -> None:
    with pytest.raises(LadingError, match="names in the store"):
        store.derived("key" if name else "..", name or "new", lambda path: path.touch())


def derive_slowly(root: Path, count: Path) -> None:
    def make(path: Path) -> None:
        with count.open("a") as file:
            file.write("x")
        path.write_text("half")
        time.sleep(1.0)
        path.write_text("whole")

    assert Store(root).derived("key", "name", make).read_text() == "whole"


def derive_and_hang(root: Path) -> None:
    def make(path: Path) -> None:
        path.write_text("half")
        time.sleep(60)

    Store(root).derived("dead", "name", make)


def test_two_processes_derive_once(store: Store, tmp_path: Path) -> None:
    count = tmp_path / "count"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=derive_slowly, args=(store.root, count)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert count.read_text() == "x"


def test_what_a_killed_derivation_left_is_removed_by_the_next_one(store: Store) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=derive_and_hang, args=(store.root,)
    )
    process.start()
    half = store.root / "partial" / "dead.name.part" / "name"
    deadline = time.monotonic() + 20
    while not half.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    store.derived("other", "name", lambda path: path.touch())
    assert half.exists(), "what a living process makes is none of our business"
    process.kill()
    process.join()
    assert not (store.root / "derived" / "dead" / "name").exists()
    store.derived("another", "name", lambda path: path.touch())
    assert left(store) == []


def test_old_downloads_are_cleaned_up_and_new_ones_are_not(store: Store, site: Site) -> None:
    partial = store.root / "partial"
    partial.mkdir(parents=True)
    old, new = partial / ("0" * 64 + ".part"), partial / ("1" * 64 + ".part")
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    os.utime(old, (1, 1))
    fetched(store, site, site.add("/a", some(10)))
    assert left(store) == [new.name]


def test_verify_removes_what_is_wrong(store: Store, site: Site) -> None:
    artifact = site.add("/a", some(10))
    assert not store.verify(artifact)
    fetched(store, site, artifact)
    assert store.verify(artifact)
    path = store.path(artifact.sha256)
    path.chmod(0o644)
    path.write_bytes(b"y" * 10)
    assert store.has(artifact)
    assert not store.verify(artifact)
    assert not path.exists()


def test_default_place() -> None:
    home = {"HOME": "/home/u"}
    assert Store.default(home).root == Path("/home/u/.cache/lading")
    assert Store.default({**home, "XDG_CACHE_HOME": "/c"}).root == Path("/c/lading")
    assert Store.default({**home, "XDG_CACHE_HOME": "rel"}).root == Path("/home/u/.cache/lading")
    assert Store.default({"XDG_CACHE_HOME": "/c", "LADING_CACHE": "/l"}).root == Path("/l")
    with pytest.raises(EnvironmentProblem, match="LADING_CACHE=~nobody-here/x: there is no such"):
        Store.default({"LADING_CACHE": "~nobody-here/x"})


def test_what_nobody_offers_is_gone(store: Store) -> None:
    with pytest.raises(Gone, match="no longer there"):
        store.fetch_new("a.whl", [])


@pytest.mark.parametrize("sha256", ["", "../../x", "A" * 64, "0" * 63])
def test_an_artifact_has_a_real_sha256(sha256: str) -> None:
    with pytest.raises(LadingError, match="sha256"):
        Artifact(name="a", sha256=sha256)


def test_has_is_quick(store: Store) -> None:
    artifacts = [Artifact(name=f"{i}", sha256=f"{i:064x}", size=0) for i in range(6000)]
    for artifact in artifacts[:3000]:
        path = store.path(artifact.sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    times = []
    for _ in range(5):
        began = time.process_time()  # not the time that other processes take
        assert len(store.lacking(artifacts)) == 3000
        times.append(time.process_time() - began)
    assert min(times) < 0.06


def test_a_lock_that_goes_away_still_keeps_others_out(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    inside, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with files.locked(path, "me", remove=True):
                with lock:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.0002)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert not path.exists()
    with (
        files.locked(path, "me"),
        pytest.raises(BlockingIOError),
        files.locked(path, "you", wait=False),
    ):
        pytest.fail("two hold it")
