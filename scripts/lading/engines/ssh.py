"""An engine behind ssh://: a socket here, each of whose connections is one of `ssh` to the engine.

As docker's own client does it: `docker system dial-stdio` on the other machine connects its
standard streams to the engine there. The SDK's own way needs another library for the same, and
none of the user's settings for ssh are lost like this.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from lading.engines.embedded import private_folder
from lading.errors import EnvironmentProblem

OPTIONS = (
    "-T",
    # Nobody can be asked: several connections begin at once, and in the middle of a run.
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=30"),
    # A machine that is switched off says nothing.
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"),
)


def command(url: str) -> list[str]:
    """The program that connects its standard streams to the engine at ssh://[USER@]HOST[:PORT],
    or at a socket there that has a path behind it. Raises `EnvironmentProblem`, also for one with
    a password: ssh takes none from there, and it would be shown.
    """
    if ":" in url.removeprefix("ssh://").partition("/")[0].rpartition("@")[0]:
        raise EnvironmentProblem(
            "an engine's address has a password in it",
            do="take it out, and give ssh a key: ssh://USER@HOST",
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise EnvironmentProblem(f"{url} is no address of an engine", why=str(error)) from error
    # urlsplit has it in small letters, and ssh's own settings may not
    host = parts.netloc.rpartition("@")[2].removesuffix(f":{port}").strip("[]")
    if not host:
        raise EnvironmentProblem(f"{url} is no address of an engine", why="it names no host")
    there = ["--host", f"unix://{parts.path}"] if parts.path.strip("/") else []
    return [
        "ssh",
        *OPTIONS,
        *(("-l", unquote(parts.username)) if parts.username else ()),
        *(("-p", str(port)) if port else ()),
        *("--", host, "docker", *there, "system", "dial-stdio"),
    ]


class Tunnel:
    """A socket that leads to an engine behind ssh, until it is ended."""

    def __init__(self, url: str, environ: Mapping[str, str]) -> None:
        self._command = command(url)
        self._environ = dict(environ)
        self._folder = private_folder(environ)
        self._log = self._folder / "log"
        self._path = self._folder / "engine.sock"
        self._running: list[subprocess.Popen[bytes]] = []
        self._ended = False
        self._lock = threading.Lock()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self._path))
        self._listening.listen(64)
        self._owner = os.getpid()
        threading.Thread(target=self._serve, daemon=True).start()
        atexit.register(self.end)

    @property
    def url(self) -> str:
        """Where the engine answers on this machine."""
        return f"unix://{self._path}"

    def said(self) -> str:
        """What ssh last had to say; empty when there was nothing to say."""
        with suppress(OSError):
            return self._log.read_text(errors="replace").strip()[-1000:]
        return ""

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection, self._lock:
                if self._ended:
                    return
                self._running = [one for one in self._running if one.poll() is None]
                try:
                    self._running.append(self._connected(connection))
                except OSError as error:  # who connected sees the end of it
                    self._log.write_text(f"ssh can't be run: {error}")

    def _connected(self, connection: socket.socket) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                env=self._environ,
                stdin=connection.fileno(),
                stdout=connection.fileno(),
                stderr=log,
                # Ctrl-C is for us: we still need it then, to clean up
                start_new_session=True,
            )

    def end(self) -> None:
        """Ends all connections. A second time, or in a fork, it does nothing."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            if self._ended:
                return
            self._ended = True
            running = self._running
        atexit.unregister(self.end)
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
