"""Where an engine may answer: what the environment and docker's own configuration name.

The context store is laid out as docker's CLI does it: `contexts/meta/SHA256/meta.json` and
`contexts/tls/SHA256/docker/*.pem` below $DOCKER_CONFIG, SHA256 being that of the name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from lading.errors import EnvironmentProblem

DOCKER_SOCKET = "/var/run/docker.sock"
PODMAN_SOCKET = "/run/podman/podman.sock"


class Endpoint(Struct, frozen=True, kw_only=True):
    """One place where an engine may answer.

    `named`: the user asked for it in so many words, so it must answer. `client` is what a
    docker client needs in its environment to reach the same engine (None takes away), and
    `builder` what buildx calls the builder that belongs to it.
    """

    url: str
    where: str
    named: bool = False
    tls: Path | None = None
    tls_verify: bool = True
    builder: str = "default"
    client: Mapping[str, str | None] = field(default_factory=dict)


def endpoints(environ: Mapping[str, str]) -> Iterator[Endpoint]:
    """The places to try, best first. Raises `EnvironmentProblem` for a context that isn't there."""
    named = _named(environ)
    if named is not None:
        yield named
    for path in _docker_sockets(environ):
        yield _socket(path, "Docker's socket")
    container_host = environ.get("CONTAINER_HOST", "")
    if container_host:
        yield _container_host(container_host)
    for path in _podman_sockets(environ):
        yield _socket(path, "a Podman socket")


def _named(environ: Mapping[str, str]) -> Endpoint | None:
    host = environ.get("DOCKER_HOST", "")
    if host:
        tls = environ.get("DOCKER_CERT_PATH") if environ.get("DOCKER_TLS_VERIFY") else None
        return Endpoint(
            url=host,
            where=f"DOCKER_HOST={host}",
            named=True,
            tls=Path(tls) if tls else None,
            client={"DOCKER_HOST": host, "DOCKER_CONTEXT": None},
        )
    folder = docker_config(environ)
    name = environ.get("DOCKER_CONTEXT", "")
    if name:
        return None if name == "default" else _context(folder, name, named=True)
    name = _read(folder / "config.json").get("currentContext", "")
    if not isinstance(name, str) or name in ("", "default"):
        return None
    return _context(folder, name, named=False)


def place(name: str, environ: Mapping[str, str]) -> Endpoint | None:
    """Where the engine is that is called so: an address as DOCKER_HOST has them, or a context of
    docker's; None when it is neither.
    """
    if "://" in name:
        return Endpoint(
            url=name,
            where=name,
            named=True,
            client={"DOCKER_HOST": name, "DOCKER_CONTEXT": None},
        )
    folder = docker_config(environ)
    digest = hashlib.sha256(name.encode()).hexdigest()
    if not (folder / "contexts" / "meta" / digest / "meta.json").is_file():
        return None
    return _context(folder, name, named=True)


def docker_config(environ: Mapping[str, str]) -> Path:
    """The folder of docker's own configuration."""
    given = environ.get("DOCKER_CONFIG")
    return Path(given) if given else Path(environ.get("HOME") or "/") / ".docker"


def _context(folder: Path, name: str, *, named: bool) -> Endpoint:
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = _read(folder / "contexts" / "meta" / digest / "meta.json")
    docker = _inside(_inside(meta, "Endpoints"), "docker")
    host = docker.get("Host")
    if not host or not isinstance(host, str):
        raise EnvironmentProblem(
            f"docker's context '{name}' has no Docker endpoint",
            why=f"looked in {folder / 'contexts'}",
            do="`docker context ls` lists them, `docker context use default` leaves it",
        )
    tls = folder / "contexts" / "tls" / digest / "docker"
    return Endpoint(
        url=host,
        where=f"docker's context '{name}' ({host})",
        named=named,
        tls=tls if tls.is_dir() else None,
        tls_verify=not docker.get("SkipTLSVerify", False),
        builder=name,
        client={"DOCKER_HOST": None, "DOCKER_CONTEXT": name},
    )


def _read(path: Path) -> dict[str, Any]:
    """A JSON object from a file of docker's; empty when there is none that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _inside(meta: dict[str, Any], name: str) -> dict[str, Any]:
    value = meta.get(name)
    return value if isinstance(value, dict) else {}


def _docker_sockets(environ: Mapping[str, str]) -> Iterator[str]:
    runtime = environ.get("XDG_RUNTIME_DIR")
    yield DOCKER_SOCKET
    if runtime:  # where a rootless Docker answers
        yield f"{runtime}/docker.sock"


def _podman_sockets(environ: Mapping[str, str]) -> Iterator[str]:
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime:
        yield f"{runtime}/podman/podman.sock"
    yield PODMAN_SOCKET


def _socket(path: str, kind: str) -> Endpoint:
    url = f"unix://{path}"
    return Endpoint(
        url=url,
        where=f"{kind} {path}",
        client={"DOCKER_HOST": url, "DOCKER_CONTEXT": None},
    )


def _container_host(url: str) -> Endpoint:
    if not url.startswith(("unix:", "tcp:", "http:")):
        raise EnvironmentProblem(
            f"CONTAINER_HOST={url} can't be used",
            why="only unix:// and tcp:// addresses can",
            do="forward the socket (ssh -L /tmp/podman.sock:/run/podman/podman.sock HOST) and name"
            " it in CONTAINER_HOST, or unset CONTAINER_HOST",
        )
    # `unix:/path` is how podman itself likes to write it
    full = url if "://" in url else url.replace(":", "://", 1)
    return Endpoint(
        url=full,
        where=f"CONTAINER_HOST={url}",
        named=True,
        client={"DOCKER_HOST": full, "DOCKER_CONTEXT": None},
    )
