"""The embedded default: Podman's API service, started for the length of a run.

It listens on a socket in a private folder, needs no daemon and no root, and ends with the run;
by itself, when the run is killed: it has an idle timeout, and a thread of ours asks it now and
then whether it is still there.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lading.engines.contexts import Endpoint
from lading.errors import EnvironmentProblem

IDLE = 60
"""Seconds after which a service ends that nobody talks to."""
START = 60
"""Seconds until it must answer; the first start on a machine makes its storage."""
_LONGEST_SOCKET = 100  # bytes; the kernel takes 107
_CAP_SYS_RESOURCE = 1 << 24


class Service:
    """A running `podman system service`."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, idle: int) -> None:
        self._process = process
        self._folder = folder
        self._owner = os.getpid()
        self._stop = threading.Event()
        url = f"unix://{folder / 'podman.sock'}"
        self.endpoint = Endpoint(url=url, where="Podman, started for this run", named=True)
        self._keeper = threading.Thread(target=self._keep, args=(idle / 4,), daemon=True)
        atexit.register(self.end)

    @property
    def pid(self) -> int:
        """The process id of the service."""
        return self._process.pid

    @classmethod
    def started(
        cls,
        program: str,
        environ: Mapping[str, str],
        note: Callable[[str], None] = lambda text: None,
        idle: int = IDLE,
    ) -> Service:
        """Starts the service and waits until it answers. Raises `EnvironmentProblem`."""
        options = machine_options(environ)
        try:
            return cls._start(program, options, environ, idle)
        except EnvironmentProblem as problem:
            if "overlay" not in problem.why or _own_storage(environ):
                raise
            # Podman has noted 'overlay' in its database by now: another driver takes another place
            root = _data_home(environ) / "lading" / "podman"
            note(f"no overlay for Podman's storage here: images go to {root} with vfs, slowly")
            options += ["--root", str(root), "--runroot", str(root / "run")]
            return cls._start(program, [*options, "--storage-driver", "vfs"], environ, idle)

    @classmethod
    def _start(
        cls, program: str, options: Sequence[str], environ: Mapping[str, str], idle: int
    ) -> Service:
        folder = private_folder(environ)
        log = folder / "log"
        command = [program, *options, "system", "service", f"--time={idle}"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, f"unix://{folder / 'podman.sock'}"],
                env={**environ, **machine_settings(environ, folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for us: we still need it then, to clean up
                start_new_session=True,
            )
        service = cls(process, folder, idle)
        try:
            service._wait(log)
        except BaseException:
            service.end()
            raise
        service._keeper.start()
        return service

    def _wait(self, log: Path) -> None:
        until = time.monotonic() + START
        while not self._answers():
            code = self._process.poll()
            if code is not None or time.monotonic() > until:
                ended = "does not answer" if code is None else f"ended with exit code {code}"
                raise EnvironmentProblem(
                    f"`podman system service` {ended}",
                    why=log.read_text(errors="replace")[-2000:],
                    do=_advice(),
                )
            time.sleep(0.02)

    def _answers(self) -> bool:
        """Whether it takes a connection and says a word, which also counts as talking to it."""
        import socket

        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(str(self._folder / "podman.sock"))
                connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: podman\r\n\r\n")
                return connection.recv(16).startswith(b"HTTP/")
        except OSError:
            return False

    def _keep(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            self._answers()

    def end(self) -> None:
        """Ends the service, by its own process id. A second time, or in a fork, does nothing."""
        if os.getpid() != self._owner or self._stop.is_set():
            return
        self._stop.set()
        atexit.unregister(self.end)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def private_folder(environ: Mapping[str, str]) -> Path:
    """A new folder only we can enter, with a path short enough for a socket."""
    for parent in (environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
        if parent and len(parent) < _LONGEST_SOCKET - 32 and os.access(parent, os.W_OK):
            return Path(tempfile.mkdtemp(prefix="lading-", dir=parent))
    raise EnvironmentProblem("there is no folder for temporary files", do="set TMPDIR to one")


def machine_options(environ: Mapping[str, str]) -> list[str]:
    """What Podman has to be told on a machine without systemd, or with the old cgroups.

    As options, for these leave the site's containers.conf in force. crun refuses a machine that
    has both versions of cgroups mounted; runc does not. Raises `EnvironmentProblem` where it
    would take runc, and there is none.
    """
    if "CONTAINERS_CONF" in environ:
        return []
    options = []
    if not Path("/run/systemd/system").is_dir():
        options += ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]
    runc = shutil.which("runc", path=environ.get("PATH"))
    if runc and not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        options += ["--runtime", runc]
    elif not runc and _both_cgroups():
        raise EnvironmentProblem(
            "Podman can't run a container here",
            why="both versions of cgroups are mounted, which its usual runtime, crun, refuses",
            do="install the other one: apt-get install runc",
        )
    return options


def _both_cgroups() -> bool:
    return Path("/sys/fs/cgroup/unified").is_dir()


def machine_settings(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """CONTAINERS_CONF, where containers could not start without one of ours.

    As root, Podman raises the limits of containers above those of this process, which takes a
    capability that root in a container or a small virtual machine may lack.
    """
    if "CONTAINERS_CONF" in environ or os.geteuid() != 0 or _may_raise_limits():
        return {}
    import resource

    limits = []
    for name, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        _, hard = resource.getrlimit(kind)
        # Podman itself lowers its limits to these before it starts anything
        ceiling = {"nofile": 1048576, "nproc": 32768}[name]
        value = ceiling if hard == resource.RLIM_INFINITY else min(hard, ceiling)
        limits.append(f'"{name}={value}:{value}"')
    path = folder / "containers.conf"
    path.write_text(f"[containers]\ndefault_ulimits = [{', '.join(limits)}]\n")
    return {"CONTAINERS_CONF": str(path)}


def _may_raise_limits() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) & _CAP_SYS_RESOURCE)


def _own_storage(environ: Mapping[str, str]) -> bool:
    """Whether the user has said how and where Podman stores."""
    return "CONTAINERS_STORAGE_CONF" in environ or "STORAGE_DRIVER" in environ


def _data_home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_DATA_HOME") or Path(environ.get("HOME") or "/") / ".local/share")


def _advice() -> str:
    if os.geteuid() == 0:
        return "run `podman info` to see what it lacks"
    return (
        "run `podman info` to see what it lacks; without root it needs the package uidmap, and"
        " this user in /etc/subuid and /etc/subgid"
    )
