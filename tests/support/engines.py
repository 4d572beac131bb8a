"""Private engines and registries: own storage, own socket, ended by their own process id."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lading.engines.embedded import Service

SEARCHED = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
NEEDED = {
    "docker": ("dockerd", "containerd", "runc", "docker"),
    "podman": ("podman", "conmon"),
    "registry": ("docker-registry",),
}
FOREIGN = ("DOCKER_HOST", "DOCKER_CONTEXT", "CONTAINER_HOST", "CONTAINERS_CONF", "STORAGE_DRIVER")


@dataclass(frozen=True, kw_only=True)
class Running:
    """A private engine that answers: its address, and the process to end to take it away."""

    kind: str
    url: str
    pid: int

    @property
    def environ(self) -> dict[str, str]:
        """This process's environment, but naming this engine and no other."""
        return {**own_environ(), "DOCKER_HOST": self.url}

    def kill(self) -> None:
        """Lets the engine go away at once, as if the machine had run out of memory."""
        os.kill(self.pid, signal.SIGKILL)


def own_environ() -> dict[str, str]:
    """This process's environment without what names an engine."""
    return {name: value for name, value in os.environ.items() if name not in FOREIGN}


def missing(kind: str) -> str:
    """Why an engine of this kind can't be started here; "" when it can."""
    lacking = [name for name in NEEDED[kind] if not shutil.which(name, path=SEARCHED)]
    if lacking:
        return f"{kind}: {', '.join(lacking)} not installed"
    if kind == "docker" and os.geteuid() != 0:
        return "docker: dockerd needs root"
    return ""


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder with a path short enough for sockets; unmounted and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="lading-test-"))
    try:
        yield folder
    finally:
        for _ in range(3):
            for mounted in sorted(_mounts_below(folder), reverse=True):
                subprocess.run(["umount", "-l", mounted], check=False, capture_output=True)
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.2)


def _mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [point for line in lines if (point := line.split()[4]).startswith(f"{folder}/")]


@contextmanager
def private_engine(kind: str) -> Iterator[Running]:
    """A Docker Engine or a Podman of one's own for as long as the block takes."""
    with private_folder() as folder:
        started = docker_engine(folder) if kind == "docker" else podman_engine(folder)
        with started as running:
            yield running


@contextmanager
def docker_engine(folder: Path) -> Iterator[Running]:
    """A dockerd with all it has below `folder`, touching neither bridges nor iptables."""
    program = shutil.which("dockerd", path=SEARCHED)
    assert program is not None
    url = f"unix://{folder / 'docker.sock'}"
    command = [
        program,
        *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
        *("--pidfile", str(folder / "pid"), "--host", url),
        *("--iptables=false", "--ip6tables=false", "--ip-masq=false", "--bridge=none"),
    ]
    with _process(command, folder / "dockerd.log", {"PATH": SEARCHED}) as process:
        _wait_for(folder / "docker.sock", process, folder / "dockerd.log")
        yield Running(kind="docker", url=url, pid=process.pid)


@contextmanager
def podman_engine(folder: Path) -> Iterator[Running]:
    """A Podman service with its own storage, which may ask registries on the loopback by http."""
    service = Service.started("podman", podman_environ(folder))
    try:
        yield Running(kind="podman", url=service.endpoint.url, pid=service.pid)
    finally:
        service.end()


def podman_environ(folder: Path) -> dict[str, str]:
    """An environment in which Podman keeps all it has below `folder`."""
    storage, registries = folder / "storage.conf", folder / "registries.conf"
    storage.write_text(
        f'[storage]\ndriver = "overlay"\n'
        f'graphroot = "{folder / "storage"}"\nrunroot = "{folder / "run"}"\n'
    )
    registries.write_text('[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n')
    return {
        **own_environ(),
        "CONTAINERS_STORAGE_CONF": str(storage),
        "CONTAINERS_REGISTRIES_CONF": str(registries),
    }


@contextmanager
def registry(http: str = "", auth: str = "", data: Path | None = None) -> Iterator[str]:
    """An empty registry on the loopback: "127.0.0.1:PORT". Its data can be kept elsewhere; `http`
    and `auth` are more of its configuration, as YAML within braces.
    """
    program = shutil.which("docker-registry", path=SEARCHED)
    assert program is not None
    with private_folder() as folder:
        address = f"127.0.0.1:{free_port()}"
        config = folder / "config.yml"
        config.write_text(
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {data or folder / 'data'}}}}}\n"
            f"http: {{addr: {address}{http and f', {http}'}}}\n"
            f"{auth and f'auth: {{{auth}}}'}\n"
        )
        log = folder / "registry.log"
        with _process([program, "serve", str(config)], log, {}) as process:
            _wait_for(address, process, log)
            yield address


def free_port() -> int:
    """A port of the loopback that nobody listens on just now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    assert isinstance(port, int)
    return port


def _end_with_parent() -> None:
    """A server does not outlive the tests that started it, however these end (prctl(2))."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


@contextmanager
def _process(
    command: list[str], log: Path, env: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**own_environ(), **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(address: Path | str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until a server takes connections; fails with its log when it ends or takes too long."""
    until = time.monotonic() + 60
    while not _answers(address):
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{process.args!r} does not answer:\n{log.read_text()[-4000:]}")
        time.sleep(0.05)


def _answers(address: Path | str) -> bool:
    try:
        if isinstance(address, Path):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(address))
        else:
            host, _, port = address.partition(":")
            socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True
