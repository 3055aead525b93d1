"""A Docker engine for tests of what talks to one: it answers as it is told, on a socket of the test's own."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from urllib.parse import parse_qsl

from testbed.exec_stream import FRAME

API_VERSION = "1.41"


class FakeEngine(ThreadingMixIn, UnixStreamServer):
    """Answers as a Docker engine does: ``answers`` are (status, JSON or bytes) by method and path; ``asked`` is what came,
    ``queries`` with which parameters."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.answers: dict[str, tuple[int, Any]] = {"GET /_ping": (200, b"OK")}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.queries: dict[str, dict[str, str]] = {}
        self.is_docker = True

    def writes(self, container: str, *said: tuple[int, bytes]) -> None:
        """Let a container have written this: (1 for output and 2 for error output, bytes)."""
        self.answers[f"GET /containers/{container}/logs"] = (200, b"".join(FRAME.pack(kind, len(data)) + data for kind, data in said))

    def was_asked(self, what: str) -> int:
        """How often."""
        return len([one for one, _ in self.asked if one == what])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        assert isinstance(self.server, FakeEngine)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.removeprefix(f"/v{API_VERSION}").partition("?")
        self.server.queries[f"{self.command} {path}"] = dict(parse_qsl(query))
        self.server.asked.append((f"{self.command} {path}", json.loads(body) if body else {}))
        status, content = self.server.answers.get(f"{self.command} {path}", (404, {"message": "page not found"}))
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if path == "/_ping" and self.server.is_docker:
            self.send_header("Api-Version", API_VERSION)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = answer  # noqa: N815  # http.server calls them so

    def address_string(self) -> str:
        return "a unix socket"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server calls it so
        """Nothing on the test's output."""
