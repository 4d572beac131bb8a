"""Counts the requests that reach an engine: a socket in front of its own."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_REQUEST = re.compile(rb"^(?:GET|HEAD|POST|PUT|DELETE) (\S+) HTTP/1\.[01]\r$", re.MULTILINE)


@contextmanager
def counting(socket_of_engine: Path, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """An engine's address that stands for the real one, and the paths it was asked for.

    The list grows while the block runs. Only for clients that wait for an answer before they
    ask again, on one connection, as HTTP/1.1 clients do.
    """
    path = folder / "counted.sock"
    asked: list[str] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        accepting = threading.Thread(
            target=_accept, args=(server, socket_of_engine, asked), daemon=True
        )
        accepting.start()
        try:
            yield f"unix://{path}", asked
        finally:
            # A thread that waits in accept() is only woken by this, not by close().
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            accepting.join(5)
            path.unlink(missing_ok=True)


def _accept(server: socket.socket, engine: Path, asked: list[str]) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        upstream = socket.socket(socket.AF_UNIX)
        upstream.connect(str(engine))
        for source, target, seen in ((client, upstream, asked), (upstream, client, None)):
            threading.Thread(target=_pass, args=(source, target, seen), daemon=True).start()


def _pass(source: socket.socket, target: socket.socket, asked: list[str] | None) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            if asked is not None:
                asked += requests_in(data)
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def requests_in(data: bytes) -> list[str]:
    """The paths of the HTTP requests that begin in these bytes, without their queries."""
    return [found.split(b"?")[0].decode() for found in _REQUEST.findall(data)]
