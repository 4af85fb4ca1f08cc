"""An OpenAI-compatible server of a few lines, for tests: what it answers is a function of the request."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
from PIL import Image

Answer = Callable[[Mapping[str, Any]], Any]
"""The body of a chat completion -> what `completion` makes, an `Error`, or bytes that are sent as they are."""


@attrs.frozen(kw_only=True)
class Error:
    """An answer that is none. code: 0 cuts the connection."""

    code: int
    said: Any = "no"
    headers: Mapping[str, str] = attrs.field(factory=dict)


@attrs.define(kw_only=True)
class Fake:
    """url: of the server. asked: the bodies it got, in the order they came. models: that it says it has."""

    answer: Answer
    models: Any
    url: str = ""
    asked: list[Any] = attrs.field(factory=list)
    keys: set[str | None] = attrs.field(factory=set)

    def sizes(self) -> list[tuple[int, int]]:
        """Of the images that it got."""
        return [image_in(body).size for body in self.asked]


def image_in(body: Mapping[str, Any]) -> Image.Image:
    """The picture in a request."""
    parts = [part for message in body["messages"] for part in message["content"] if not isinstance(part, str)]
    (url,) = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    kind, _, data = url.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def completion(text: Any, *, reason: str = "stop", tokens: Any = None) -> dict[str, Any]:
    """What a server answers. tokens: of its log-probabilities, as OpenAI writes them."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return {"object": "chat.completion", "choices": [choice | ({"logprobs": {"content": tokens}} if tokens else {})]}


def token(text: str, probability_log: float, **top: float) -> dict[str, Any]:
    """A token with its log-probability. top: others in its place."""
    listed = [{"token": item, "logprob": log, "bytes": list(item.encode())} for item, log in top.items()]
    return {"token": text, "logprob": probability_log, "bytes": list(text.encode()), "top_logprobs": listed}


@contextmanager
def serving(answer: Answer, models: Any = ("tiny",)) -> Iterator[Fake]:
    """A server on a free port of this machine. models: names, or what is answered to a question for them."""
    fake = Fake(answer=answer, models=models)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listed = fake.models
            if isinstance(listed, tuple):
                listed = {"data": [{"id": name} for name in listed]}
            self._send(listed if self.path == "/v1/models" else Error(code=404))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fake.asked.append(body)
            fake.keys.add(self.headers["Authorization"])
            self._send(fake.answer(body) if self.path == "/v1/chat/completions" else Error(code=404))

        def _send(self, said: Any) -> None:
            code, headers = 200, {}
            if isinstance(said, Error):
                code, headers, said = said.code, said.headers, said.said
            if not code:
                self.close_connection = True
                return
            data = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
