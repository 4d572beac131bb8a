from __future__ import annotations

import base64
import http.server
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading import net
from lading.errors import EnvironmentProblem
from lading.net import configured

Serve = Callable[..., "Server"]


class Quiet(http.server.ThreadingHTTPServer):
    """No traceback when a client hangs up."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class Server:
    """Answers each path with what `answers` says (status, headers, body); keeps what was asked."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        self.requests: list[tuple[str, str | None]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append((self.path, self.headers.get("Authorization")))
                code, headers, body = outer.answer(self.path)
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        if tls is not None:
            self.server.socket = tls.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        scripted = self.answers.get(path)
        if not scripted:
            return 200, {}, b"hello"
        return scripted.pop(0) if len(scripted) > 1 else scripted[0]


class Proxy(Server):
    """A forwarding proxy for plain HTTP; `user:pw` may be asked for."""

    def __init__(self, needs: str = "") -> None:
        super().__init__()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                proxy.requests.append((self.path, self.headers.get("Proxy-Authorization")))
                wanted = "Basic " + base64.b64encode(needs.encode()).decode()
                if needs and self.headers.get("Proxy-Authorization") != wanted:
                    self.send_error(407)
                    return
                direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                with direct.open(self.path) as response:
                    body = response.read()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server.RequestHandlerClass = Handler


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(kind: Callable[..., Server] = Server, *args: Any) -> Server:
        servers.append(kind(*args))
        return servers[-1]

    yield start
    for server in servers:
        server.server.shutdown()
        server.server.server_close()


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's configuration."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("PIP_", "UV_", "SSL_CERT")):
            monkeypatch.delenv(name)
    for name in configured.CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_DIRS", raising=False)
    monkeypatch.setattr(configured, "SYSTEM", tmp_path / "etc")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setattr(net, "BACKOFF", 0.001)


def get(url: str, **arguments: Any) -> bytes:
    with net.session() as session:
        return net.ask(session, url, **arguments).content


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# requests


def test_credentials_of_netrc(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = serve()
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password s3cret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert get(server.url + "/a") == b"hello"
    get(server.url + "/b", auth=("bob", "own"))
    assert server.requests == [("/a", basic("ann", "s3cret")), ("/b", basic("bob", "own"))]


def test_credentials_in_the_url_count_and_are_decoded(serve: Serve) -> None:
    server = serve()
    get(f"http://u%40x:p%2Fw@127.0.0.1:{server.port}/a")
    assert server.requests == [("/a", basic("u@x", "p/w"))]


def test_credentials_of_an_index_are_sent_to_its_host_only(serve: Serve) -> None:
    index, elsewhere = serve(), serve()
    index.answers["/a"] = [(302, {"Location": f"{elsewhere.url}/stored"}, b"")]
    index.answers["/b"] = [(302, {"Location": "/c"}, b"")]
    environ = {"PIP_INDEX_URL": f"http://u:pw@127.0.0.1:{index.port}/simple"}
    auth = net.credentials(f"{index.url}/a", environ)
    assert auth == ("u", "pw")
    assert net.credentials(f"{elsewhere.url}/stored", environ) is None
    get(f"{index.url}/a", auth=auth)
    get(f"{index.url}/b", auth=auth)
    assert [sent for _, sent in index.requests] == [basic("u", "pw")] * 3
    assert elsewhere.requests == [("/stored", None)]


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_passing_failures_are_tried_again(serve: Serve, code: int) -> None:
    server = serve()
    server.answers["/a"] = [(code, {"Retry-After": "0"}, b""), (code, {}, b""), (200, {}, b"ok")]
    assert get(server.url + "/a") == b"ok"
    assert len(server.requests) == 3


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_an_answer_that_stays_is_an_answer(serve: Serve, code: int) -> None:
    server = serve()
    server.answers["/a"] = [(code, {}, b"no")]
    assert get(server.url + "/a") == b"no"
    assert len(server.requests) == 1


def test_retry_after_is_honoured_up_to_a_bound(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net, "RETRY_AFTER_LIMIT", 0.4)
    server = serve()
    server.answers["/a"] = [(429, {"Retry-After": "3600"}, b""), (200, {}, b"ok")]
    began = time.monotonic()
    assert get(server.url + "/a") == b"ok"
    assert 0.4 <= time.monotonic() - began < 5


def test_waiting_can_be_stopped(serve: Serve) -> None:
    server = serve()
    server.answers["/a"] = [(503, {"Retry-After": "20"}, b"")]
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    with net.session(stop=stop) as session, pytest.raises(net.Stopped):
        net.ask(session, server.url + "/a")
    assert time.monotonic() - began < 5


def test_a_closed_port_in_plain_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://ann:s3cret@index.example/simple")
    port = closed_port()
    with pytest.raises(EnvironmentProblem) as error:
        get(f"http://u:pw@127.0.0.1:{port}/a")
    text = str(error.value)
    assert error.value.what == (
        f"127.0.0.1:{port} can't be reached: nothing listens there (connection refused)"
    )
    assert "https://***@index.example/simple" in text
    assert "s3cret" not in text
    assert "pw" not in text


def test_a_name_that_is_not_known() -> None:
    with pytest.raises(EnvironmentProblem, match=r"lading\.invalid can't be reached.*DNS"):
        get("http://lading.invalid/a")


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "READ_TIMEOUT", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(EnvironmentProblem, match="no byte came"),
    ):
        get(f"http://127.0.0.1:{silent.getsockname()[1]}/a")


@pytest.mark.parametrize("url", ["ftp://x/y", "http://", "http://[::1", "http://x:port/"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(EnvironmentProblem):
        get(url)


@pytest.mark.parametrize("code", [401, 403, 407, 429, 500, 599])
def test_an_answer_in_plain_words(code: int) -> None:
    text = str(net.answer_problem(code, "https://u:pw@h.example/x?token=abc", {}))
    assert f"h.example answered HTTP {code}" in text
    assert "pw" not in text
    assert "abc" not in text


# proxies


def test_a_proxy_and_its_exceptions(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, proxy = serve(), serve(Proxy, "me:pw")
    monkeypatch.setenv("http_proxy", f"http://me:pw@127.0.0.1:{proxy.port}")
    assert get(server.url + "/a") == b"hello"
    assert proxy.requests == [(server.url + "/a", basic("me", "pw"))]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert get(server.url + "/b") == b"hello"
    assert len(proxy.requests) == 1
    assert len(server.requests) == 2


def test_a_proxy_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:pw@127.0.0.1:{closed_port()}")
    with pytest.raises(EnvironmentProblem, match="the proxy: ") as error:
        get("http://index.example/a")
    assert "proxy: http://***@127.0.0.1" in str(error.value)
    assert "pw" not in str(error.value)


# TLS


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A site's own CA: its certificate, and a server with one that it signed."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
        "-subj", "/CN=A Site", "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (tmp_path / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(
        "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
        "-CAcreateserial", "-out", "server.pem", "-days", "2", "-extfile", "san",
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    return tmp_path / "ca.pem", context


@pytest.mark.parametrize("name", configured.CA_VARIABLES)
def test_a_private_ca(
    serve: Serve,
    authority: tuple[Path, ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    server = serve(Server, authority[1])
    monkeypatch.setenv(name, str(authority[0]))
    assert get(server.url + "/a") == b"hello"


def test_a_private_ca_of_pip_conf(
    serve: Serve, authority: tuple[Path, ssl.SSLContext], tmp_path: Path
) -> None:
    server = serve(Server, authority[1])
    write(tmp_path / ".config/pip/pip.conf", f"[global]\ncert = {authority[0]}\n")
    assert get(server.url + "/a") == b"hello"


def test_a_ca_that_is_not_trusted(
    serve: Serve, authority: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net, "BACKOFF", 5.0)  # to try again would be of no use
    server = serve(Server, authority[1])
    began = time.monotonic()
    with pytest.raises(EnvironmentProblem, match="TLS certificate is not trusted") as error:
        get(server.url + "/a")
    assert "CA certificates: the default" in str(error.value)
    assert time.monotonic() - began < 5
    assert server.requests == []


def test_a_ca_that_is_not_there() -> None:
    with pytest.raises(EnvironmentProblem, match=r"SSL_CERT_FILE names .*/nowhere"):
        net.session({"SSL_CERT_FILE": "/nowhere"})


# indexes


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_no_configuration_at_all(tmp_path: Path) -> None:
    assert net.indexes({"HOME": str(tmp_path)}) == net.Indexes(from_pip=True)
    added = net.uv_environment({"HOME": str(tmp_path)})
    assert added == {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}


def test_pip_configuration_files_in_their_order(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    write(
        tmp_path / "etc/pip.conf",
        "[global]\nindex-url = https://a/simple\nfind-links = /w\nno-index = no\n"
        "extra-index-url =\n    https://b/simple\n    https://c/simple\n",
    )
    found = net.indexes(environ)
    assert found == net.Indexes(
        default="https://a/simple",
        extra=("https://b/simple", "https://c/simple"),
        find_links=("/w",),
        from_pip=True,
    )
    user = write(tmp_path / ".config/pip/pip.conf", "[global]\nindex_url = https://user/simple\n")
    assert net.indexes(environ).default == "https://user/simple"
    assert net.indexes(environ).extra == found.extra
    write(tmp_path / "venv/pip.conf", "[global]\nindex-url = https://site/simple\n")
    assert net.indexes(environ).default == "https://site/simple"
    user.write_text("[install]\nindex-url = https://install/simple\n")
    assert net.indexes(environ).default == "https://install/simple"
    environ["PIP_INDEX_URL"] = "https://env/simple"
    assert net.indexes(environ).default == "https://env/simple"
    chosen = write(tmp_path / "chosen.conf", "[global]\nno-index = true\n")
    environ = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(chosen)}
    assert net.indexes(environ).no_index
    assert net.indexes(environ).default == "https://site/simple", "the user's file is not read"
    environ["PIP_CONFIG_FILE"] = os.devnull
    assert net.indexes(environ) == net.Indexes(from_pip=True)


@pytest.mark.parametrize("text", ["no section\n", "[global]\n\0", "[global\n", "[a]\nx=1\nx=2\n"])
def test_a_broken_pip_conf_is_not_our_concern(tmp_path: Path, text: str) -> None:
    write(tmp_path / "etc/pip.conf", text)
    assert net.indexes({"HOME": str(tmp_path)}).default is None


def test_uv_variables_go_before_pip(tmp_path: Path) -> None:
    environ = {
        "HOME": str(tmp_path),
        "UV_DEFAULT_INDEX": "main=https://uv/simple",
        "UV_INDEX": "in-house=https://h/simple https://i/simple",
        "UV_INDEX_IN_HOUSE_USERNAME": "ann",
        "UV_INDEX_IN_HOUSE_PASSWORD": "p@w",
        "PIP_INDEX_URL": "https://pip/simple",
    }
    found = net.indexes(environ)
    assert found.default == "https://uv/simple"
    assert found.extra == ("https://ann:p%40w@h/simple", "https://i/simple")
    assert not found.from_pip
    assert "UV_DEFAULT_INDEX" not in net.uv_environment(environ)
    assert net.credentials("https://h/files/x.whl", environ) == ("ann", "p@w")


def test_uv_toml_goes_before_pip(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "PIP_INDEX_URL": "https://pip/simple"}
    path = write(tmp_path / ".config/uv/uv.toml", "offline = false\n")
    assert net.indexes(environ).default == "https://pip/simple"
    path.write_text(
        '[[index]]\nname = "x"\nurl = "https://x/simple"\n'
        '[[index]]\nurl = "https://y/simple"\ndefault = true\n'
    )
    found = net.indexes(environ)
    assert (found.default, found.extra) == ("https://y/simple", ("https://x/simple",))
    assert net.uv_environment(environ)["UV_INDEX"] == "https://x/simple"
    assert "UV_INDEX_STRATEGY" not in net.uv_environment(environ)
    path.write_text('[pip]\nindex-url = "https://z/simple"\nfind-links = ["wheels"]\n')
    assert net.indexes(environ).default == "https://z/simple"
    assert net.indexes(environ).find_links == (str(path.parent / "wheels"),)


@pytest.mark.parametrize(
    "text", ['index = ["https://x"]', "index = 3", "extra-index-url = 3", "pip = 3", "index ="]
)
def test_a_uv_toml_that_uv_refuses_is_as_none(tmp_path: Path, text: str) -> None:
    write(tmp_path / ".config/uv/uv.toml", f'index-url = "https://z/simple"\n{text}\n')
    assert net.indexes({"HOME": str(tmp_path)}) == net.Indexes(from_pip=True)


def test_uv_gets_what_pip_has(tmp_path: Path) -> None:
    environ = {
        "HOME": str(tmp_path),
        "PIP_INDEX_URL": "https://u:pw@a/simple",
        "PIP_EXTRA_INDEX_URL": "https://b/simple file:///c/simple",
        "PIP_FIND_LINKS": f"{tmp_path} /not/there https://d/links",
        "PIP_CERT": "/ca.pem",
    }
    assert net.uv_environment(environ) == {
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "UV_DEFAULT_INDEX": "https://u:pw@a/simple",
        "UV_INDEX": "https://b/simple file:///c/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": f"{tmp_path},https://d/links",
        "SSL_CERT_FILE": "/ca.pem",
    }
    del environ["PIP_EXTRA_INDEX_URL"]
    assert "UV_INDEX_STRATEGY" not in net.uv_environment(environ)
    assert "SSL_CERT_FILE" not in net.uv_environment({**environ, "SSL_CERT_FILE": "/own.pem"})
    environ["PIP_CERT"] = str(tmp_path)
    assert net.uv_environment(environ)["SSL_CERT_DIR"] == str(tmp_path)
    environ["PIP_NO_INDEX"] = "1"
    added = net.uv_environment(environ)
    assert added["UV_NO_INDEX"] == "1"
    assert not added.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX"}
    assert added["UV_FIND_LINKS"] == f"{tmp_path},https://d/links"
    assert "package indexes: none, by pip's `no-index`;" in net.settings_hint(
        environ={"PIP_NO_INDEX": "1", "HOME": str(tmp_path)}
    )


@pytest.mark.parametrize(
    ("name", "text", "uvs", "whole"),
    [
        ("PIP_FIND_LINKS", "wheels", "UV_FIND_LINKS", "{here}/wheels"),
        ("UV_FIND_LINKS", "wheels,https://h/x=1", "UV_FIND_LINKS", "{here}/wheels,https://h/x=1"),
        ("UV_DEFAULT_INDEX", "./simple", "UV_DEFAULT_INDEX", "{here}/simple"),
        ("UV_INDEX", "https://h a=./b", "UV_INDEX", "https://h a={here}/b"),
        ("PIP_CERT", "ca.pem", "SSL_CERT_FILE", "{here}/ca.pem"),
        ("REQUESTS_CA_BUNDLE", "ca.pem", "SSL_CERT_FILE", "{here}/ca.pem"),
        ("SSL_CERT_FILE", "ca.pem", "SSL_CERT_FILE", "{here}/ca.pem"),
        ("SSL_CERT_DIR", "/etc:ca", "SSL_CERT_DIR", "/etc:{here}/ca"),
    ],
)
def test_what_is_relative_is_so_to_where_lading_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, uvs: str, whole: str
) -> None:
    (tmp_path / "wheels").mkdir()
    monkeypatch.chdir(tmp_path)
    environ = {"HOME": str(tmp_path), name: text}
    assert net.uv_environment(environ) == {
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        uvs: whole.format(here=tmp_path),
    }
    if uvs == "UV_FIND_LINKS" and name == uvs:
        assert net.indexes(environ).find_links == tuple(whole.format(here=tmp_path).split(","))


def test_uv_itself_takes_it(serve: Serve, tmp_path: Path) -> None:
    """A real uv asks pip's index with pip's credentials, and skips an index that lacks it."""
    from uv import find_uv_bin

    server = serve()
    page = b'<a href="thing-1.0-py3-none-any.whl" data-core-metadata="true">thing</a>'
    metadata = b"Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n"
    server.answers["/simple/thing/"] = [(200, {"Content-Type": "text/html"}, page)]
    server.answers["/simple/thing/thing-1.0-py3-none-any.whl.metadata"] = [(200, {}, metadata)]
    (tmp_path / "local").mkdir()
    environ = {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "PIP_INDEX_URL": f"http://ann:pw@127.0.0.1:{server.port}/simple",
        "PIP_EXTRA_INDEX_URL": f"file://{tmp_path}/local file://{tmp_path}/missing",
        "PIP_FIND_LINKS": str(tmp_path / "missing"),
    }
    write(tmp_path / "one.in", "thing\n")
    finished = subprocess.run(
        [find_uv_bin(), "pip", "compile", "--no-cache", "--python", sys.executable, "one.in"],
        cwd=tmp_path,
        env={**environ, **net.uv_environment(environ)},
        capture_output=True,
        text=True,
    )
    assert "thing==1.0" in finished.stdout, finished.stderr
    assert ("/simple/thing/", basic("ann", "pw")) in server.requests


# credentials and redaction


@pytest.mark.parametrize(
    ("url", "host"),
    [("https://u:p@h:1/x@y", "h:1"), ("https://u:p/w@h/x", "h"), ("file:///a", "file:///a")],
)
def test_host_of(url: str, host: str) -> None:
    assert net.host_of(url) == host


def test_credentials_of_the_nearest_index_on_the_same_origin() -> None:
    environ = {
        "UV_INDEX": "https://a:1@h/team-a/simple https://b:2@h/team-b/simple https://h/none",
        "UV_DEFAULT_INDEX": "https://tok@h:444/simple",
    }
    assert net.credentials("https://h/team-b/files/x", environ) == ("b", "2")
    assert net.credentials("https://h/team-a/files/x", environ) == ("a", "1")
    assert net.credentials("https://h:443/team-b/x", environ) == ("b", "2")
    assert net.credentials("https://h:444/x", environ) == ("tok", "")
    assert net.credentials("http://h/team-b/x", environ) is None
    assert net.credentials("https://evil-h/team-b/x", environ) is None
    assert net.credentials("https://h.evil/team-b/x", environ) is None
    assert net.credentials("not a url", environ) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no URL, but a mail@example.org", "no URL, but a mail@example.org"),
        ("at https://u:pw@h/x.", "at https://***@h/x."),
        ("at 'https://u:p@w@h/x'", "at 'https://***@h/x'"),
        ("https://token@h https://v:w@i", "https://***@h https://***@i"),
        ("https://u:p/w@h/x", "https://***@h/x"),
        ("https://h:8080/@scope/x", "https://h:8080/@scope/x"),
        ("https://h/@scope/x@1", "https://h/@scope/x@1"),
        ("git+ssh://git:pw@h/x", "git+ssh://***@h/x"),
        ("https://h/x?a=1&X-Amz-Signature=abc&b=2", "https://h/x?a=1&X-Amz-Signature=***&b=2"),
    ],
)
def test_redact(text: str, shown: str) -> None:
    assert net.redact(text) == shown
    assert net.redact(shown) == shown


@given(
    user=st.text("abc%~.-_", min_size=1),
    password=st.text("xyzXYZ0189!$&*+,;=:@~%.-_", min_size=4),
    before=st.sampled_from(["", "error: <", "url='", "(", "a\n"]),
)
def test_redact_leaves_no_password(user: str, password: str, before: str) -> None:
    text = f"{before}https://{user}:Q{password}Q@host.example/simple' and more"
    shown = net.redact(text)
    assert f"Q{password}Q" not in shown
    assert "host.example/simple" in shown


def test_the_module_is_quick_to_import() -> None:
    """A run that has nothing to do must not pay for an HTTP library."""
    code = "import sys, lading.net, lading.store; print([m for m in ('requests', 'ssl', 'urllib3',"
    code += " 'http', 'email', 'configparser', 'tomllib') if m in sys.modules])"
    finished = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(net.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.strip() == "[]"


@pytest.mark.parametrize("said", ["certificate is not yet valid", "certificate has expired"])
def test_a_clock_that_is_wrong(said: str) -> None:
    """Of this machine, or of the other one: nothing is wrong with the network."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = said
    found = net.problem(error, "https://registry.example.org/v2/", {})
    assert said in found.what
    assert "check the clock of this machine and of that one" in found.do
