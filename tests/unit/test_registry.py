"""Registries: names as Docker reads them, and the digest of the right platform, or plain words."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading import net, registry
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from lading.references import parse
from lading.registry import asking

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
HEX = "0123456789abcdef" * 4

Answer = tuple[int, dict[str, str], bytes]


@pytest.mark.parametrize(
    "text, host, repository, tag, digest",
    [
        ("python", "docker.io", "library/python", "latest", ""),
        ("python:3.13-slim", "docker.io", "library/python", "3.13-slim", ""),
        ("docker.io/python", "docker.io", "library/python", "latest", ""),
        ("index.docker.io/library/python:3", "docker.io", "library/python", "3", ""),
        ("group/python", "docker.io", "group/python", "latest", ""),
        ("localhost/x", "localhost", "x", "latest", ""),
        ("localhost:5000/x", "localhost:5000", "x", "latest", ""),
        ("myhost:5000/a/b__c:V1", "myhost:5000", "a/b__c", "V1", ""),
        ("registry.example.org/a/b-c", "registry.example.org", "a/b-c", "latest", ""),
        (f"python@sha256:{HEX}", "docker.io", "library/python", "latest", f"sha256:{HEX}"),
        (f"a.b/c:1@sha256:{HEX}", "a.b", "c", "1", f"sha256:{HEX}"),
        ("[::1]:5000/x", "[::1]:5000", "x", "latest", ""),
    ],
)
def test_names(text: str, host: str, repository: str, tag: str, digest: str) -> None:
    found = parse(text)
    assert (found.registry, found.repository, found.tag, found.digest) == (
        host,
        repository,
        tag,
        digest,
    )


@pytest.mark.parametrize(
    "text, url",
    [
        ("python", "https://registry-1.docker.io/v2/library/python"),
        ("registry.example.org:5000/x", "https://registry.example.org:5000/v2/x"),
        ("localhost:5000/x", "http://localhost:5000/v2/x"),
        ("127.0.0.9/x", "http://127.0.0.9/v2/x"),
        ("[::1]:5000/x", "http://[::1]:5000/v2/x"),
        ("128.0.0.1:5000/x", "https://128.0.0.1:5000/v2/x"),
        ("localhost.example.org/x", "https://localhost.example.org/v2/x"),
    ],
)
def test_only_this_machine_is_spoken_to_without_tls(text: str, url: str) -> None:
    assert parse(text).url == url


@pytest.mark.parametrize(
    "text",
    [
        "", "/", ":", "@", "x:", "x:-a", "x: a", "Upper", "a//b", "a/../b", "../b", "x@sha256:12",
        f"x@md5:{HEX}", HEX, "https://a.b/c", "a.b/c?d=e", "a b", "x:ä", "user@host/x", "a" * 256,
        "a.b:99999999/c", "-a.b/c", "x\n", "x:1\n",
    ],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(DeclarationError, match="is not an image's name"):
        parse(text)


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_an_error(text: str) -> None:
    try:
        found = parse(text)
    except DeclarationError:
        return
    assert urlsplit(found.url).hostname
    assert ".." not in found.repository.split("/")


# -- a registry -------------------------------------------------------------------------------


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


class Stub:
    """A registry on loopback: manifests by name, blobs by digest, and who may read them."""

    def __init__(self) -> None:
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.auth = ""
        self.asked: list[tuple[str, str, str]] = []
        self.instead: Callable[[str], Answer | None] = lambda path: None
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.serve(self)

            do_HEAD = do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length).decode()
        authorization = request.headers.get("Authorization", "")
        self.asked.append((f"{request.command} {request.path}", authorization, body))
        status, headers, data = self.answer(request.path, authorization, request.headers)
        request.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data)

    def answer(self, path: str, authorization: str, headers: Any) -> Answer:
        special = self.instead(path)
        if special is not None:
            return special
        if path.startswith("/token"):
            return 200, {}, as_json({"token": "given"})
        challenge = {
            "bearer": f'Bearer realm="http://{self.host}/token",service="s,t",scope="repository:a/b:pull"',
            "basic": 'Basic realm="x"',
        }.get(self.auth, "")
        wanted = {"bearer": "Bearer given", "basic": basic("me", "pass:word")}.get(self.auth, "")
        if authorization != wanted:
            return 401, {"WWW-Authenticate": challenge}, b"{}"
        _, _, kind, name = path.removeprefix("/v2/").split("/")
        if kind == "blobs" and name in self.blobs:
            return 200, {"Content-Type": "application/octet-stream"}, self.blobs[name]
        if kind == "manifests" and name in self.manifests:
            media_type, data = self.manifests[name]
            assert media_type.partition(";")[0] in headers["Accept"] or "v1+pretty" in media_type
            return 200, {"Content-Type": media_type}, data
        error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest \x1b[31munknown"}]}
        return 404, {}, as_json(error)

    def push(self, tag: str, value: Any, media_type: str) -> str:
        data = value if isinstance(value, bytes) else as_json(value)
        self.manifests[tag] = self.manifests[digest(data)] = (media_type, data)
        return digest(data)

    def push_image(self, tag: str, media_type: str = OCI_MANIFEST, **config: Any) -> str:
        data = as_json({"architecture": "amd64", "os": "linux", **config})
        self.blobs[digest(data)] = data
        return self.push(tag, {"schemaVersion": 2, "config": {"digest": digest(data)}}, media_type)

    def push_index(self, tag: str, platforms: Mapping[str, str], media_type: str) -> str:
        entries: list[Any] = [None, {"digest": "sha256:x"}]
        for name, found in platforms.items():
            system, architecture, variant = [*name.split("/"), ""][:3]
            platform = {"os": system, "architecture": architecture}
            platform |= {"variant": variant} if variant else {}
            kind = OCI_MANIFEST if media_type == OCI_INDEX else DOCKER_MANIFEST
            entries.append({"mediaType": kind, "digest": found, "platform": platform})
        return self.push(tag, {"schemaVersion": 2, "manifests": entries}, media_type)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    yield made
    made.stop()


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A home of its own; a proxy that nothing listens at, and a .netrc that must not be used."""
    monkeypatch.setattr(net, "BACKOFF", 0.0)
    netrc = tmp_path / "netrc"
    netrc.write_text("default login other password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return {"HOME": str(tmp_path)}


def logged_in(home: Path, host: str, **entry: str) -> None:
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text(json.dumps({"auths": {host: entry}}))


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
@pytest.mark.parametrize(
    "platform, wanted",
    [("linux/amd64", 1), ("linux/arm64", 2), ("linux/arm64/v8", 2), ("linux/arm/v6", 3)],
)
def test_an_index(
    stub: Stub, environ: dict[str, str], media_type: str, platform: str, wanted: int
) -> None:
    there = {
        "linux/amd64/v3": "sha256:" + "0" * 64,
        "linux/amd64": "sha256:" + "1" * 64,
        "linux/arm64/v8": "sha256:" + "2" * 64,
        "linux/arm/v6": "sha256:" + "3" * 64,
        "unknown/unknown": "sha256:" + "4" * 64,
    }
    by_digest = stub.push_index("1", there, media_type)
    for name in ("a/b:1", f"a/b@{by_digest}", f"a/b:other@{by_digest}"):
        found = registry.resolve(f"{stub.host}/{name}", platform, environ=environ)
        assert found.digest == "sha256:" + str(wanted) * 64
        assert found.media_type in (OCI_MANIFEST, DOCKER_MANIFEST)
    with pytest.raises(LadingError, match="is not there for linux/s390x") as error:
        registry.resolve(f"{stub.host}/a/b:1", "linux/s390x", environ=environ)
    error.match("there is: linux/amd64, linux/amd64/v3, linux/arm/v6, linux/arm64/v8\n")
    assert "unknown" not in str(error.value)


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_a_single_manifest(stub: Stub, environ: dict[str, str], media_type: str) -> None:
    pushed = stub.push_image("latest", media_type)
    found = registry.resolve(f"{stub.host}/a/b", "linux/amd64", environ=environ)
    assert found == registry.Resolved(digest=pushed, media_type=media_type)
    with pytest.raises(LadingError, match="not there for linux/arm64") as error:
        registry.resolve(f"{stub.host}/a/b", "linux/arm64", environ=environ)
    error.match("there is: linux/amd64")
    assert all(not authorization for _, authorization, _ in stub.asked)


def test_an_index_in_an_index(stub: Stub, environ: dict[str, str]) -> None:
    inner = stub.push_index("inner", {"linux/amd64": "sha256:" + "7" * 64}, OCI_INDEX)
    entry = {"mediaType": OCI_INDEX, "digest": inner}
    platform = {"platform": {"os": "linux", "architecture": "amd64"}}
    stub.push("1", {"manifests": [entry | platform]}, OCI_INDEX)
    found = registry.resolve(f"{stub.host}/a/b:1", "linux/amd64", environ=environ)
    assert found.digest == "sha256:" + "7" * 64


def test_a_token_for_anyone(stub: Stub, environ: dict[str, str]) -> None:
    stub.auth = "bearer"
    pushed = stub.push_image("1")
    assert registry.resolve(f"{stub.host}/a/b:1", "linux/amd64", environ=environ).digest == pushed
    (token,) = [asked for asked in stub.asked if "/token" in asked[0]]
    assert parse_qs(urlsplit(token[0].split()[1]).query) == {
        "service": ["s,t"],
        "scope": ["repository:a/b:pull"],
    }
    assert token[1] == ""  # not .netrc's


@pytest.mark.parametrize("token", ["SECRET\n", "SECRET\x00", "SÉCRET", ["SECRET", 1]])
def test_a_token_that_is_none_is_not_shown(
    stub: Stub, environ: dict[str, str], token: object
) -> None:
    stub.auth = "bearer"
    stub.instead = lambda path: (
        (200, {}, as_json({"token": token})) if path.startswith("/token") else None
    )
    with pytest.raises(LadingError, match="gives a token that is none") as error:
        registry.resolve(f"{stub.host}/a/b:1", "linux/amd64", environ=environ)
    assert "CRET" not in "".join(traceback.format_exception(error.value))


def test_a_token_for_who_logged_in(stub: Stub, environ: dict[str, str], tmp_path: Path) -> None:
    stub.auth = "bearer"
    pushed = stub.push_image("1")
    logged_in(tmp_path, stub.host, auth=base64.b64encode(b"me:pass:word").decode())
    assert registry.resolve(f"{stub.host}/a/b:1", "linux/amd64", environ=environ).digest == pushed
    sent = {asked.split("?")[0]: authorization for asked, authorization, _ in stub.asked}
    assert sent["GET /token"] == basic("me", "pass:word")
    assert sent["GET /v2/a/b/manifests/1"] == "Bearer given"


def test_an_identity_token(stub: Stub, environ: dict[str, str], tmp_path: Path) -> None:
    stub.auth = "bearer"
    pushed = stub.push_image("1")
    logged_in(tmp_path, stub.host, identitytoken="long")
    assert registry.resolve(f"{stub.host}/a/b:1", "linux/amd64", environ=environ).digest == pushed
    (token,) = [asked for asked in stub.asked if asked[0] == "POST /token"]
    assert parse_qs(token[2])["refresh_token"] == ["long"]


def test_basic_authentication(stub: Stub, environ: dict[str, str], tmp_path: Path) -> None:
    stub.auth = "basic"
    pushed = stub.push_image("1")
    with pytest.raises(LadingError, match="may not be read") as error:
        registry.resolve(f"{stub.host}/a/b:1", "linux/amd64", environ=environ)
    error.match(f"docker login {stub.host}")
    logged_in(tmp_path, stub.host, auth=base64.b64encode(b"me:pass:word").decode())
    assert registry.resolve(f"{stub.host}/a/b:1", "linux/amd64", environ=environ).digest == pushed
    other = {"HOME": "/nonexistent", "DOCKER_CONFIG": str(tmp_path / ".docker")}
    assert registry.resolve(f"{stub.host}/a/b:1", "linux/amd64", environ=other).digest == pushed


def test_a_password_is_for_all_of_a_registry(
    stub: Stub, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it wants to see is asked once, not for each repository."""
    stub.auth = "basic"
    logged_in(tmp_path, stub.host, auth=base64.b64encode(b"me:pass:word").decode())
    monkeypatch.setattr(asking, "AT_ONCE", 1)
    wanted = {
        name: asking.Wanted(repository=f"{stub.host}/a/{name}", key="0" * 64) for name in "bcd"
    }
    assert asking.ask(wanted, environ, pytest.fail) == {}
    assert [authorization for _, authorization, _ in stub.asked] == [
        "",
        *[basic("me", "pass:word")] * 3,
    ]


def test_a_credential_helper(
    stub: Stub, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.auth = "basic"
    pushed = stub.push_image("1")
    helper = tmp_path / "docker-credential-mine"
    secret = json.dumps({"Username": "me", "Secret": "pass:word"})
    helper.write_text(f"#!/bin/sh\nread host\n[ $host = {stub.host} ] && echo '{secret}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / ".docker").mkdir()
    config = tmp_path / ".docker" / "config.json"
    config.write_text(json.dumps({"credHelpers": {stub.host: "mine"}}))
    assert registry.resolve(f"{stub.host}/a/b:1", "linux/amd64", environ=environ).digest == pushed
    helper.write_text("#!/bin/sh\necho broken; exit 1\n")
    with pytest.raises(EnvironmentProblem, match=r"credentials for .* can't be read"):
        registry.resolve(f"{stub.host}/a/b:1", "linux/amd64", environ=environ)


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"x": {"auth": "%%"}}}', '{"auths": 1}'])
def test_a_broken_configuration_of_docker(
    stub: Stub, environ: dict[str, str], tmp_path: Path, text: str
) -> None:
    stub.auth = "basic"
    stub.push_image("1")
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text(text)
    with pytest.raises(LadingError):
        registry.resolve(f"{stub.host}/a/b:1", "linux/amd64", environ=environ)


def test_what_is_not_there(stub: Stub, environ: dict[str, str]) -> None:
    stub.push_image("1")
    with pytest.raises(LadingError, match="a/b:2 is not in the registry") as error:
        registry.resolve(f"{stub.host}/a/b:2", "linux/amd64", environ=environ)
    assert error.value.exit_code == 1
    assert "HTTP 404: manifest  [31munknown" in error.value.why


def test_nobody_there(environ: dict[str, str]) -> None:
    stub = Stub()
    stub.stop()
    with pytest.raises(EnvironmentProblem, match=f"{stub.host} can't be reached"):
        registry.resolve(f"{stub.host}/a/b:2", "linux/amd64", environ=environ)


def index_of(found: str) -> bytes:
    platform = {"os": "linux", "architecture": "amd64"}
    return as_json({"manifests": [{"digest": found, "platform": platform}]})


@pytest.mark.parametrize(
    "answer, kind, words",
    [
        ((200, {"Content-Type": OCI_MANIFEST}, b"<html>"), LadingError, "does not answer as a"),
        ((200, {"Content-Type": OCI_MANIFEST}, b"[" * 99_999), LadingError, "does not answer"),
        ((200, {"Content-Type": OCI_MANIFEST}, b"[]"), LadingError, "does not answer as a"),
        ((200, {"Content-Type": OCI_MANIFEST}, b"{}"), LadingError, "not a container image"),
        ((200, {}, b'{"config": {}}'), LadingError, "not a container image"),
        ((200, {"Content-Type": OCI_MANIFEST}, b'{"config": {}}'), LadingError, "no configuration"),
        ((200, {"Content-Type": "x/v1+prettyjws"}, b"{}"), LadingError, "type 'x/v1.prettyjws'"),
        ((200, {"Content-Type": OCI_INDEX}, index_of("../x")), LadingError, "no sha256"),
        ((200, {"Content-Type": OCI_INDEX}, b'{"manifests": []}'), LadingError, "is: nothing"),
        ((200, {}, b" " * (5 << 20)), LadingError, "more than 4194304 bytes"),
        ((200, {"Content-Length": "999"}, b"{"), EnvironmentProblem, "cut off"),
        ((401, {"WWW-Authenticate": "Negotiate x"}, b""), LadingError, "may not be read"),
        ((401, {"WWW-Authenticate": "Bearer x"}, b""), LadingError, "where to log in"),
        ((401, {"WWW-Authenticate": 'Bearer realm="file:///x"'}, b""), LadingError, "where to log"),
        ((401, {"WWW-Authenticate": 'Bearer realm="http://[x/"'}, b""), EnvironmentProblem, "x"),
        ((401, {}, b""), LadingError, "may not be read"),
        ((403, {}, b'{"errors": [{"code": "DENIED"}]}'), LadingError, "HTTP 403: DENIED"),
        ((418, {}, b'{"errors": 7}'), LadingError, "can't be had"),
        ((429, {"Retry-After": "0"}, b""), EnvironmentProblem, "HTTP 429"),
        ((503, {}, b"\xff"), EnvironmentProblem, "does not serve us now"),
    ],
)
def test_strange_answers(
    stub: Stub, environ: dict[str, str], answer: Answer, kind: type[LadingError], words: str
) -> None:
    stub.instead = lambda path: answer
    with pytest.raises(kind) as error:
        registry.resolve(f"{stub.host}/a/b:1", "linux/amd64", environ=environ)
    error.match(words)
    assert error.value.exit_code == kind.exit_code


def test_other_content_than_its_digest(stub: Stub, environ: dict[str, str]) -> None:
    pushed = stub.push_image("1")
    stub.manifests[pushed] = (OCI_MANIFEST, stub.manifests[pushed][1] + b" ")
    with pytest.raises(LadingError, match="other content") as error:
        registry.resolve(f"{stub.host}/a/b@{pushed}", "linux/amd64", environ=environ)
    error.match(pushed)
    (config,) = stub.blobs
    stub.blobs[config] = b"{}"
    with pytest.raises(LadingError, match="other content"):
        registry.resolve(f"{stub.host}/a/b:1", "linux/amd64", environ=environ)


def test_a_redirect_gets_no_credentials(
    stub: Stub, environ: dict[str, str], tmp_path: Path
) -> None:
    """Neither the registry's nor .netrc's: storage refuses a request that has two."""
    stub.auth = "basic"
    pushed = stub.push_image("1")
    logged_in(tmp_path, stub.host, auth=base64.b64encode(b"me:pass:word").decode())
    storage = Stub()
    try:
        storage.blobs = dict(stub.blobs)

        def instead(path: str) -> Answer | None:
            if "/blobs/" not in path:
                return None
            return 307, {"Location": f"http://localhost:{storage.server.server_port}{path}"}, b""

        stub.instead = instead
        found = registry.resolve(f"{stub.host}/a/b:1", "linux/amd64", environ=environ)
        assert found.digest == pushed
        assert [authorization for _, authorization, _ in storage.asked] == [""]
    finally:
        storage.stop()


@pytest.mark.parametrize(
    "where", ["/v2/a/b/manifests/1", "file:///etc/passwd", "ftp://x/", "http://[bad/x"]
)
def test_redirects_that_lead_nowhere(stub: Stub, environ: dict[str, str], where: str) -> None:
    stub.instead = lambda path: (302, {"Location": where}, b"")
    with pytest.raises(LadingError, match="leads astray"):
        registry.resolve(f"{stub.host}/a/b:1", "linux/amd64", environ=environ)


def test_an_identity_token_is_not_sent_after_a_redirect(
    stub: Stub, environ: dict[str, str], tmp_path: Path
) -> None:
    """To another host, not even by a redirect that a request's body is to go along with."""
    stub.auth = "bearer"
    logged_in(tmp_path, stub.host, identitytoken="secret")
    there = Stub()
    try:
        stub.instead = lambda path: (
            (307, {"Location": f"http://{there.host}/token"}, b"")
            if path.startswith("/token")
            else None
        )
        stub.push_image("1")
        registry.resolve(f"{stub.host}/a/b:1", "linux/amd64", environ=environ)
        assert [(line, body) for line, _, body in there.asked] == [("POST /token", "")]
    finally:
        there.stop()
