"""A person in a container: the streams of this process, or its terminal, tied to a container's.

Over the engine's own API, so that no client is needed: one connection both ways, which is raw on
a terminal and else carries frames of output and errors (the Docker API's "attach to a container").
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lading.errors import EnvironmentProblem

IN, OUT, ERR = 0, 1, 2
"""This process's own streams: what a shell reads from, and writes to."""
_PIECE = 1 << 16
_HEADER = struct.Struct(">BxxxL")


class Frames:
    """Pieces of a stream, cut anywhere, to what each frame holds."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """Takes a piece; the frames that are whole now: 1 for output, 2 for errors, and bytes."""
        self._rest += piece
        while len(self._rest) >= _HEADER.size:
            stream, length = _HEADER.unpack_from(self._rest)
            end = _HEADER.size + length
            if len(self._rest) < end:
                return
            found, self._rest = self._rest[_HEADER.size : end], self._rest[end:]
            yield stream, found


def is_one() -> bool:
    """Whether a person sits at this process's input and output."""
    return os.isatty(IN) and os.isatty(OUT)


def connected(attached: Any) -> socket.socket:
    """The socket under what the SDK answers. Raises `EnvironmentProblem` where it has none."""
    found = attached if isinstance(attached, socket.socket) else getattr(attached, "_sock", None)
    if not isinstance(found, socket.socket):
        raise EnvironmentProblem(
            "no shell can be opened over this connection to the engine",
            do="name the engine by its socket or by tcp:// in DOCKER_HOST",
        )
    found.settimeout(None)
    return found


def talk(connection: socket.socket, *, terminal: bool) -> bool:
    """Passes everything on, both ways, until the container ends; False when nobody reads any more.

    The end of the input is passed on too; what the container still writes then comes all the same.
    """
    frames = Frames()
    sources: list[int | socket.socket] = [connection, IN]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if IN in ready and not _passed(os.read(IN, _PIECE), connection):
            sources.remove(IN)
        if connection in ready:
            try:
                piece = connection.recv(_PIECE)
            except ConnectionError:
                piece = b""
            if not piece:
                return True
            try:
                for stream, text in [(OUT, piece)] if terminal else frames.feed(piece):
                    _written(ERR if stream == ERR else OUT, text)
            except BrokenPipeError:
                return False


def _passed(piece: bytes, connection: socket.socket) -> bool:
    """Passes input on; False when it was the last, or the container takes no more."""
    try:
        if piece:
            connection.sendall(piece)
        else:
            connection.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    return bool(piece)


def _written(handle: int, text: bytes) -> None:
    while text:
        text = text[os.write(handle, text) :]


@contextmanager
def raw(resize: Callable[[int, int], None]) -> Iterator[None]:
    """This terminal, every key passed on as it is; `resize` gets rows and columns when they change.

    However it ends, the terminal is left as it was; one that is closed ends it as Ctrl-C would.
    """
    import termios
    import tty

    def changed(*_: object) -> None:
        size = shutil.get_terminal_size()
        with suppress(Exception):  # the container may just have ended
            resize(size.lines, size.columns)

    def closed(*_: object) -> None:
        raise KeyboardInterrupt

    settings = termios.tcgetattr(IN)
    handlers = {signal.SIGWINCH: changed, signal.SIGHUP: closed}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        tty.setraw(IN)
        changed()
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        with suppress(termios.error):  # it may be closed
            termios.tcsetattr(IN, termios.TCSADRAIN, settings)
