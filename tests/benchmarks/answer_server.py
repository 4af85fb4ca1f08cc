"""A server that answers every chat completion with the same two boxes at once: prints its address, then serves."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOP = 20


def pieces() -> list[str]:
    """The tokens of the answer: its format in words, each coordinate a coord token."""
    found = ['{"', "objects", '":', " [{"]
    for label, first in (("red", 100), ("blue", 600)):
        corners = [f"<|coord_{first + step}|>" for step in (0, 20, 200, 240)]
        found += ['"', "desc", '":', ' "', label, '",', ' "', "bbox_2d", '":', " ["]
        found += [item for corner in corners for item in (corner, ", ")][:-1]
        found += ["]},", " {"] if label == "red" else ["]}", "]}"]
    return found


def said(token: str) -> dict[str, Any]:
    """What a server says of a token: itself and the next likely ones."""
    return {"token": token, "logprob": -0.1, "bytes": list(token.encode())}


def completion() -> bytes:
    words = pieces()
    others = [said(f"<|coord_{number}|>") | {"logprob": -4.0} for number in range(TOP - 1)]
    content = [said(word) | {"top_logprobs": [said(word), *others]} for word in words]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(words)},
        "finish_reason": "stop",
        "logprobs": {"content": content},
    }
    return json.dumps({"object": "chat.completion", "choices": [choice]}).encode()


ANSWER = completion()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_args: Any) -> None:
        """Nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    server.serve_forever()
