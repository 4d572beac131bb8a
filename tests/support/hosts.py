"""Build hosts on this machine: an engine behind a real sshd, and a BuildKit that buildx calls
remote. What Debian has of it is unpacked beside the tests; nothing is installed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lading import debian
from lading.debian import Deb
from lading.errors import LadingError
from lading.store import Artifact, Store
from tests.support.engines import SEARCHED, _process, _wait_for, free_port, private_folder

# Debian 13's: the newest that a stable release has.
DEBS = {
    "d/docker-buildx/docker-buildx_0.13.1+ds1-3_amd64.deb": (
        13_239_200,
        "fcf8c48204d1603c8f209451d7827eb91bf30759578baf7704e9e1a87e5f1d7f",
    ),
    "d/docker.io/docker.io_26.1.5+dfsg1-9+deb13u1_amd64.deb": (
        23_037_844,
        "142fe32f839a20720b2e6074b8d28d883b01bc45345f7315586b0c2d348dae87",
    ),
}


class NotToBeHad(Exception):
    """It can't be had here; the text says why."""


def unpacked(target: Path, store: Store) -> Path:
    """docker-buildx and a dockerd whose BuildKit can give images back. Raises `NotToBeHad`."""
    debs = [
        Deb(
            name=path.rpartition("/")[2].partition("_")[0],
            version=path.split("_")[1],
            architecture="amd64",
            path=f"debian:pool/main/{path}",
            size=size,
            sha256=sha256,
        )
        for path, (size, sha256) in DEBS.items()
    ]
    try:
        sources = debian.locate(debs, debian.mirrors(os.environ))
        wanted = [Artifact(name=deb.name, sha256=deb.sha256, size=deb.size) for deb in debs]
        store.fetch(wanted, lambda _: sources)
    except LadingError as error:
        raise NotToBeHad(f"its packages can't be had: {error}") from error
    for deb in debs:
        _run("dpkg-deb", "-x", store.path(deb.sha256), target)
    plugins = target / "docker" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-buildx").symlink_to(target / "usr/libexec/docker/cli-plugins/docker-buildx")
    return target


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A builder of docker buildx whose driver is `remote`, and the environment that knows it."""

    name: str
    environ: Mapping[str, str]


@contextmanager
def remote_buildkit(unpacked: Path) -> Iterator[Remote]:
    """A BuildKit that speaks its own API at a socket, as `buildkitd` does.

    It is the one in a dockerd that keeps its images in containerd, so that it has all exporters;
    it listens behind an HTTP upgrade, and what takes connections here asks for that.
    """
    with private_folder() as folder:
        (folder / "daemon.json").write_text('{"features": {"containerd-snapshotter": true}}')
        engine, buildkit = folder / "docker.sock", folder / "buildkit.sock"
        command = [
            str(unpacked / "usr/sbin/dockerd"),
            *("--config-file", str(folder / "daemon.json")),
            *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
            *("--pidfile", str(folder / "pid"), "--host", f"unix://{engine}"),
            *("--iptables=false", "--ip6tables=false", "--ip-masq=false", "--bridge=none"),
        ]
        log = folder / "dockerd.log"
        with _process(command, log, {"PATH": SEARCHED}) as process:
            _wait_for(engine, process, log)
            environ = {"DOCKER_CONFIG": str(unpacked / "docker")}
            with _upgraded(buildkit, engine):
                name = f"far-{folder.name[-6:].replace('_', 'x')}"
                create = ("create", "--name", name, "--driver", "remote", f"unix://{buildkit}")
                _run("docker", "buildx", *create, environ=environ)
                yield Remote(name=name, environ=environ)
            process.kill()  # what it would put in order is thrown away


@contextmanager
def _upgraded(listen: Path, engine: Path) -> Iterator[None]:
    """A socket of which each connection is one to the BuildKit in an engine."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listen))
        server.listen(64)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(
                        target=_bridged, args=(connection, engine), daemon=True
                    ).start()

        threading.Thread(target=serve, daemon=True).start()
        yield
        server.shutdown(socket.SHUT_RDWR)


def _bridged(connection: socket.socket, engine: Path) -> None:
    with connection, socket.socket(socket.AF_UNIX) as other, contextlib.suppress(OSError):
        other.connect(str(engine))
        other.sendall(
            b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = other.recv(1)
            if not piece:
                return
            head += piece
        back = threading.Thread(target=_passed, args=(other, connection), daemon=True)
        back.start()
        _passed(connection, other)
        back.join()


def _passed(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


# -- ssh --------------------------------------------------------------------------------------


def sshd_missing() -> str:
    """Why no sshd can be had here; "" when it can."""
    lacking = [name for name in ("ssh", "ssh-keygen", "unshare") if not shutil.which(name)]
    if lacking:
        return f"ssh: {', '.join(lacking)} not installed"
    if os.geteuid() != 0:
        return "ssh: sshd needs root here"
    return ""


@contextmanager
def behind_ssh(folder: Path, engine: str) -> Iterator[tuple[str, str]]:
    """An sshd on the loopback, on a machine of which the engine at this address is the own one:
    the engine's address, and a folder with an `ssh` that has the key.

    sshd wants a user of its own: it sees one in a /etc/passwd that nobody else sees.
    """
    program, libraries = _sshd(folder)
    for key in ("key", "host"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key)
    port = free_port()
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder / 'host'}\n"
        f"AuthorizedKeysFile {folder / 'key.pub'}\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nPermitRootLogin yes\nSetEnv DOCKER_HOST={engine}\n"
    )
    (folder / "passwd").write_text(
        f"{Path('/etc/passwd').read_text()}sshd:x:974:65534::/run/sshd:/usr/sbin/nologin\n"
    )
    (folder / "config").write_text(
        f"Host 127.0.0.1\n  IdentityFile {folder / 'key'}\n  StrictHostKeyChecking accept-new\n"
        f"  UserKnownHostsFile {folder / 'known'}\n"
    )
    programs = folder / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(
        f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder / "config"} "$@"\n'
    )
    (programs / "ssh").chmod(0o755)
    start = (
        f"mount --bind {folder / 'passwd'} /etc/passwd && mkdir -p /run/sshd && "
        f"exec {program} -D -e -f {folder / 'sshd_config'}"
    )
    log = folder / "sshd.log"
    command = ["unshare", "--mount", "sh", "-c", start]
    with _process(command, log, {"LD_LIBRARY_PATH": libraries}) as process:
        _wait_for(f"127.0.0.1:{port}", process, log)
        yield f"ssh://root@127.0.0.1:{port}", str(programs)


def _sshd(folder: Path) -> tuple[str, str]:
    """The program, and where its libraries are besides; apt's mirror has it, if nobody else."""
    if found := shutil.which("sshd", path=SEARCHED):
        return found, ""
    try:
        _run("apt-get", "download", "openssh-server", "libwrap0", cwd=folder)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotToBeHad(f"there is no sshd, and apt-get does not bring one: {error}") from error
    for deb in folder.glob("*.deb"):
        _run("dpkg-deb", "-x", deb, folder / "unpacked")
    libraries = (path.parent for path in (folder / "unpacked").rglob("*.so.*"))
    return str(folder / "unpacked/usr/sbin/sshd"), os.pathsep.join(map(str, set(libraries)))


def _run(
    *command: str | Path, cwd: Path | None = None, environ: Mapping[str, str] | None = None
) -> None:
    subprocess.run(
        [str(part) for part in command],
        check=True,
        capture_output=True,
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        timeout=120,
    )
