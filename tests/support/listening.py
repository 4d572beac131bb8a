"""A server on the loopback that runs until it is stopped: package indexes and channels are such."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


class Listening:
    """Listens from the moment it is made; leaving it as a context manager stops it."""

    def listen(self, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        """Begins, on a port of the system's choice; `handler` is made for each request."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def origin(self) -> str:
        """Scheme, host and port, without credentials."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        """Goes down: nothing listens there any more. A second time does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
