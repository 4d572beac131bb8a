"""A real registry that is not easy to have: behind a site's own CA, a password, and on a full disk.

The engine is one in memory: what goes over the wire is the same.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import needs
from tests.support import disks, engines
from tests.support.projects import YAML, Trial

HTPASSWD = "me:$2y$05$abcdefghijklmnopqrstuuDIEddBSuRWBBEY6g5zv60IAP5bSSfki"
"""The password is pass:word; bcrypt, the one form that docker-registry takes."""


def project(root: Path, address: str, **environ: str) -> Trial:
    """A project that keeps its images in this registry, and is archived."""
    yaml = YAML.replace("name: trial", f"name: trial\nregistry: {address}/group")
    trial = Trial.make(root / "project", yaml, HOME=str(root), **environ)
    assert trial.doit("archive") == 0
    return trial


def cloned(trial: Trial, **environ: str) -> Trial:
    """The same on a machine that has nothing."""
    root = trial.root.with_name("fresh")
    away = shutil.ignore_patterns("build", "dist", ".doit.db", ".lading*")
    shutil.copytree(trial.root, root, ignore=away)
    return Trial(root, {**trial.environ, "LADING_CACHE": f"{root}.cache", "CI": "1", **environ})


@contextmanager
def with_tls(folder: Path, auth: str = "") -> Iterator[tuple[str, Path]]:
    """A registry with a certificate that a CA of its own has signed: its address, and the CA."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
        "-subj", "/CN=A site", "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(
        "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
        "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "server.pem",
    )  # fmt: skip
    tls = f"tls: {{certificate: {folder}/server.pem, key: {folder}/server.key}}"
    with engines.registry(tls, auth) as address:
        yield address, folder / "ca.pem"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_sites_own_ca_and_a_password(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    needs("registry")
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "htpasswd").write_text(f"{HTPASSWD}\n")
    auth = f"htpasswd: {{realm: trial, path: {tmp_path}/htpasswd}}"
    with with_tls(tmp_path, auth) as (address, ca):
        trial = project(tmp_path, address)
        said = capsys.readouterr().out
        assert said.count("its TLS certificate is not trusted") == 1, "a warning, and it is built"
        assert trial.doit("push:one") == 2
        assert "CA certificates: " in capsys.readouterr().out
        trial.environ[variable] = str(ca)

        # Nobody has logged in; then somebody with another password.
        for password in ("", "wrong", "pass:word"):
            if password:
                (tmp_path / ".docker").mkdir(exist_ok=True)
                login = base64.b64encode(f"me:{password}".encode()).decode()
                config = json.dumps({"auths": {address: {"auth": login}}})
                (tmp_path / ".docker/config.json").write_text(config)
            code = trial.doit("push:one")
            said = capsys.readouterr().out
            if password == "pass:word":
                assert code == 0, said
                continue
            assert code == 2
            assert f"{address}/group/one may not be pushed" in said
            assert f"docker login {address}" in said
            assert "HTTP 401: authentication required" in said
            assert login not in said if password else True
        fresh = cloned(trial)
        assert fresh.doit("archive:one") == 0
        assert fresh.engine.asked == [], capsys.readouterr().out
        tars = [(one.root / "dist/one.tar").read_bytes() for one in (trial, fresh)]
        assert tars[0] == tars[1]


class Tokens:
    """A service that gives out tokens for a registry, as docker-registry's documentation has it
    ("Token Authentication Specification"): JSON Web Tokens, signed with a key of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.wrong = 0
        """How many seconds its clock is ahead."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = service.answer(self.path, self.headers.get("Authorization", ""))
                self.send_response(200 if body else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        subject = ("-subj", "/CN=tokens", "-days", "2", "-nodes", "-newkey", "rsa:2048")
        files = ("-keyout", "token.key", "-out", "token.pem")
        subprocess.run(
            ["openssl", "req", "-x509", *subject, *files],
            cwd=folder, check=True, capture_output=True,
        )  # fmt: skip

    @property
    def auth(self) -> str:
        """What the registry is told of it."""
        realm = f"http://127.0.0.1:{self.server.server_port}/token"
        return (
            f"token: {{realm: '{realm}', service: trial, issuer: us, "
            f"rootcertbundle: {self.folder}/token.pem}}"
        )

    def answer(self, path: str, authorization: str) -> bytes:
        """A token for what was asked for: anyone may read, and `me` may write."""
        self.asked.append(path)
        me = f"Basic {base64.b64encode(b'me:pass:word').decode()}"
        access = []
        for scope in parse_qs(urlsplit(path).query).get("scope", []):
            kind, name, actions = scope.split(":")
            allowed = [one for one in actions.split(",") if one == "pull" or authorization == me]
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time()) + self.wrong
        certificate = (self.folder / "token.pem").read_text().split("-----")[2].replace("\n", "")
        head = {"typ": "JWT", "alg": "RS256", "x5c": [certificate]}
        said: dict[str, Any] = {
            "iss": "us",
            "sub": "me",
            "aud": "trial",
            "jti": "1",
            "access": access,
        }
        said |= {"exp": now + 300, "nbf": now, "iat": now}
        text = b".".join(_base64url(json.dumps(part).encode()) for part in (head, said))
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", "token.key"],
            cwd=self.folder, input=text, check=True, capture_output=True,
        ).stdout  # fmt: skip
        return json.dumps({"token": (text + b"." + _base64url(signed)).decode()}).encode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def test_tokens_and_clocks_that_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Anyone may read, one user may write; and a token that is not valid yet, by its own clock."""
    needs("registry")
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    tokens = Tokens(tmp_path)
    thread = threading.Thread(target=tokens.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with engines.registry(auth=tokens.auth) as address:
            trial = project(tmp_path, address)
            assert "what it may have is made here" not in capsys.readouterr().out
            assert trial.doit("push:one") == 2
            assert f"log in with `docker login {address}`" in capsys.readouterr().out
            (tmp_path / ".docker").mkdir()
            login = base64.b64encode(b"me:pass:word").decode()
            config = json.dumps({"auths": {address: {"auth": login}}})
            (tmp_path / ".docker/config.json").write_text(config)
            tokens.wrong = 600
            assert trial.doit("push:one") == 2
            said = capsys.readouterr().out
            assert "does not believe the token that its own service has just given" in said
            tokens.wrong = 0
            assert trial.doit("push:one") == 0
            (tmp_path / ".docker/config.json").unlink()
            fresh = cloned(trial)
            tokens.wrong = -1000
            fresh_store = {"LADING_CACHE": trial.environ["LADING_CACHE"]}
            behind = Trial(fresh.root, {**fresh.environ, **fresh_store})
            assert behind.doit("archive:two") == 0, "it can't be asked, so it is built"
            assert "their clocks differ?" in capsys.readouterr().out
            tokens.wrong = 0
            assert fresh.doit("archive:one") == 0
            assert "out of the registry" in capsys.readouterr().out
    finally:
        tokens.server.shutdown()
        thread.join()
        tokens.server.server_close()


def test_its_disk_is_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is found of what did not fit; when there is room, what was sent is not sent again."""
    needs("registry")
    with (
        disks.small(tmp_path / "small", 1) as data,
        engines.registry(data=data) as address,
    ):
        trial = project(tmp_path, address)
        with (data / "filler").open("wb", buffering=0) as filler:
            with pytest.raises(OSError, match="No space"):
                while True:
                    filler.write(b"x" * 4096)
            filler.truncate(filler.tell() // 4096 * 4096 - 5 * 4096)
        assert trial.doit("push:one") == 2
        said = capsys.readouterr().out
        assert f"{address} does not take {address}/group/one now" in said
        assert "when it does again, run it again" in said
        fresh = cloned(trial, LADING_CACHE=trial.environ["LADING_CACHE"])
        assert fresh.doit("archive:one") == 0
        assert fresh.engine.asked.count("build") == 1
        (data / "filler").unlink()
        assert trial.doit("push:one") == 0
        assert trial.doit("push:one") == 0
        assert "nothing to do" in capsys.readouterr().out
