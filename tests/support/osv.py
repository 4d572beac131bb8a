"""A service on the loopback that knows vulnerabilities: OSV's API, as pip-audit asks it."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.listening import Listening


class Osv(Listening):
    """Answers POST /v1/query with what is known against a package in a version."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.asked: list[tuple[str, str]] = []
        self.status = 200
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                query = json.loads(self.rfile.read(length))
                package = query["package"]["name"], query["version"]
                assert query["package"]["ecosystem"] == "PyPI"
                service.asked.append(package)
                found = service.known.get(package)
                data = json.dumps({"vulns": found} if found else {}).encode()
                self.send_response(service.status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self.listen(Handler)
