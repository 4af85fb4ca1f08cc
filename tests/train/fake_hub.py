"""A hub of a few lines, for tests: the part of its HTTP interface that a push of small files needs."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs


@attrs.define(kw_only=True)
class Hub:
    """failing: codes that it answers commits with, before one goes through. public: a repository that was there.

    repositories: what was made. branches: by name. files: by name, of the last commit, over those that were there.
    commits: how often one was asked for. tokens: that came along.
    """

    failing: list[int] = attrs.field(factory=list)
    public: bool = True
    url: str = ""
    repositories: list[Any] = attrs.field(factory=list)
    branches: list[str] = attrs.field(factory=list)
    files: dict[str, bytes] = attrs.field(factory=dict)
    commits: int = 0
    tokens: set[str | None] = attrs.field(factory=set)


@contextmanager
def serving(**settings: Any) -> Iterator[Hub]:
    """A hub on a free port of this machine."""
    hub = Hub(**settings)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "/tree/" in self.path:
                listed = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in hub.files]
                self._send(200, listed)
            else:
                self._send(200, {"id": "alice/rings", "private": not hub.public, "siblings": []})

        def do_POST(self) -> None:
            body = self._body()
            hub.tokens.add(self.headers["Authorization"])
            if self.path == "/api/repos/create":
                hub.repositories.append(json.loads(body))
                self._send(200, {"url": f"{hub.url}/alice/rings"})
            elif self.path == "/api/validate-yaml":
                self._send(200, {"errors": [], "warnings": []})
            elif "/branch/" in self.path:
                hub.branches.append(self.path.rpartition("/")[2])
                self._send(200, {})
            elif "/preupload/" in self.path:
                asked = json.loads(body)["files"]
                ways = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in asked]
                self._send(200, {"files": ways})
            elif "/commit/" in self.path:
                hub.commits += 1
                if hub.failing:
                    self._send(hub.failing.pop(0), {"error": "not now"})
                    return
                for line in map(json.loads, body.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        hub.files[value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "deletedFile":
                        del hub.files[value["path"]]
                self._send(200, {"commitUrl": f"{hub.url}/alice/rings/commit/1", "commitOid": "1" * 40})
            else:
                self._send(404, {"error": self.path})

        def _body(self) -> bytes:
            if self.headers["Transfer-Encoding"] != "chunked":
                return self.rfile.read(int(self.headers["Content-Length"] or 0))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _send(self, code: int, said: Any) -> None:
            data = json.dumps(said).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
