"""One OpenAI-compatible server: what it is asked, how often it is asked again, and what it says. Torch-free."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import attrs

from coordcore.errors import InputError, RunError
from coordcore_detection.predict.answer_files import whole

KEY = "OPENAI_API_KEY"
"""The environment variable that holds the key of a server that asks for one."""

ATTEMPTS = 7
"""Of one request. They are 1, 2, 4 ... seconds apart, or as far as the server says: a minute in all."""

_LATE = "it took too long"
_MOST_LATE = 2
"""Requests that ran into the timeout, which is long."""

_AGAIN = (408, 409, 425, 429)
_REFUSALS = (400, 413, 415, 422)
_LONGEST_WAIT = 60.0
_SHOWN = 300
_PIECE = 1 << 16

_BROKEN_OFF = ("abort", "error")
"""Reasons for an end that are none of the model's: vLLM and SGLang say the first when they are stopped."""

_FILTERED = "content_filter"

REFUSES = " refuses it: "
"""What stands in a reason between who gave it and what was said."""

Said = TypeVar("Said")


class Answering(Protocol):
    """What answers, as messages call it: where it is, and under which name it has the model."""

    @property
    def url(self) -> str: ...

    @property
    def model(self) -> str: ...


class RefusedError(Exception):
    """The server does not take this request, and would not take it again: an image too large, a question too long."""


class _UnansweredError(Exception):
    """What the server sent is no answer, and may be one another time."""


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: urllib would send the key there, too, and the question nowhere."""

    def redirect_request(self, *_args: Any) -> None:
        return None


@attrs.frozen(kw_only=True)
class Token:
    """A token of an answer. text: its bytes. log_probability: over the whole vocabulary. top: of the most likely
    tokens in its place, by their text, itself among them."""

    text: bytes
    log_probability: float
    top: Mapping[str, float]


@attrs.frozen(kw_only=True)
class Reply:
    """An answer. is_cut: ended by a limit of tokens. tokens: of which it was made, none where the server says none."""

    text: str
    is_cut: bool
    tokens: Sequence[Token] = ()


@attrs.frozen(kw_only=True)
class Server:
    """url: ends in /v1. model: the name that it serves the model under. timeout: seconds of one request."""

    url: str
    model: str
    key: str | None = attrs.field(default=None, repr=False)
    timeout: float = 600.0

    def ask(self, request: Mapping[str, Any], attempts: int = ATTEMPTS) -> Reply:
        """The answer to a request, whose model is filled in.

        Raises RefusedError where the server refuses just this one, InputError where it would refuse any, and RunError
        when it gives no answer, however often it is asked.
        """
        return self._asked("/chat/completions", {**request, "model": self.model}, attempts, _reply)

    def call(self, path: str, body: Mapping[str, Any] | None = None, attempts: int = ATTEMPTS) -> Any:
        """The JSON that the server answers: to a POST of `body`, or to a GET. Raises as `ask`."""
        return self._asked(path, body, attempts, lambda said, _url: said)

    def _asked(
        self, path: str, body: Mapping[str, Any] | None, attempts: int, read: Callable[[Any, str], Said]
    ) -> Said:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        reason, late = "", 0
        for attempt in range(attempts):
            wait = 2.0**attempt
            try:
                request = urllib.request.Request(f"{self.url}{path}", data=data, headers=headers)
                return read(_json(self._body(request), f"{self.url}{path}"), self.url)
            except _UnansweredError as error:
                reason = str(error)
            except urllib.error.HTTPError as error:
                reason = self._refusal(error, path)
                wait = _told_to_wait(error.headers.get("Retry-After"), wait)
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                reason = _reason(error)
                late += reason == _LATE
            if attempt + 1 == attempts or late == _MOST_LATE:
                break
            pause(min(wait, _LONGEST_WAIT))
        raise RunError(
            f"{self.url}{path}: no answer in {attempt + 1} tries, at last: {reason}{_proxy(self.url)}; what was "
            "answered is kept: give the same command again when the server is there"
        )

    def _body(self, request: urllib.request.Request) -> bytes:
        """Raises TimeoutError behind `timeout`, which is of the whole: urllib's is of each piece that arrives."""
        end = time.monotonic() + self.timeout
        with urllib.request.build_opener(_StayHere).open(request, timeout=self.timeout) as response:
            pieces, size = [], response.length  # None where its end is the connection's, or a chunk says it
            while piece := response.read1(_PIECE if size is None else min(size, _PIECE)):
                pieces.append(piece)
                size = None if size is None else size - len(piece)
                if time.monotonic() > end:
                    raise TimeoutError
        if size:
            raise http.client.IncompleteRead(b"")
        return b"".join(pieces)

    def _refusal(self, error: urllib.error.HTTPError, path: str) -> str:
        """Why the server may do better another time. Raises RefusedError or InputError where it will not."""
        said = f"{error.code} {_message(error)}"
        if error.code in _AGAIN or error.code >= 500:
            return said
        if 300 <= error.code < 400:
            there = error.headers.get("Location") or "somewhere else"
            raise InputError(
                f"{self.url}{path}: {error.code}, which leads to {there} and is not followed, with a key or without; "
                "name the address where the server is"
            ) from error
        if error.code in (401, 403):
            raise InputError(f"{self.url}: {said}; put the key of the server into {KEY}") from error
        if error.code in _REFUSALS:
            raise RefusedError(said) from error
        if error.code in (404, 405):
            cure = f"it may serve another model than {self.model!r}, and its address should end in /v1"
            raise InputError(f"{self.url}{path}: {said}; {cure}") from error
        raise InputError(f"{self.url}{path}: {said}; is this the address of an OpenAI-compatible server?") from error


@attrs.frozen(kw_only=True)
class ServedModel:
    """What a server says of a model that it has. root: the folder that it has it from, empty where it says none.

    room: tokens of image, question and answer together (vLLM's `max_model_len`), None where it does not say.
    """

    root: str = ""
    room: int | None = None


def served_models(server: Server) -> dict[str, ServedModel]:
    """The models that a server says it has, by name; none where it says nothing of them.

    Raises InputError where nothing listens there: this is the first that it is asked, and is not asked again.
    """
    try:
        listed = server.call("/models", attempts=1)
    except RunError as error:
        why = str(error).partition("at last: ")[2].partition("; what was answered")[0]
        raise InputError(f"{server.url}: no server answers there ({why}); start it, or name where it is") from error
    except RefusedError:
        return {}
    except InputError as error:
        if ": 404 " in str(error) or ": 405 " in str(error):
            return {}
        raise
    data = listed.get("data") if isinstance(listed, dict) else None
    entries = [entry for entry in data if isinstance(entry, dict) and "id" in entry] if isinstance(data, list) else []
    return {str(entry["id"]): _served_model(entry) for entry in entries}


def _served_model(entry: Mapping[str, Any]) -> ServedModel:
    root, room = entry.get("root"), entry.get("max_model_len")
    return ServedModel(
        root=root if isinstance(root, str) else "", room=room if type(room) is int and room > 0 else None
    )


def pause(seconds: float) -> None:
    """Wait before a request is made again."""
    time.sleep(seconds)


def _told_to_wait(given: str | None, otherwise: float) -> float:
    """Seconds, as `Retry-After` has them. At once is no wait: a server that is busy would have it all in a moment."""
    return float(given) if given is not None and given.strip().isdecimal() and int(given) else otherwise


def _proxy(url: str) -> str:
    """Through what a server is asked, where the environment says so: that may be what does not answer."""
    parts = urlsplit(url)
    proxy, host = urllib.request.getproxies().get(parts.scheme), parts.hostname or ""
    if proxy is None or urllib.request.proxy_bypass(host):
        return ""
    shown = proxy.rpartition("@")[2]  # a password may stand before it
    return f", asked through the proxy {shown} of {parts.scheme}_proxy: {host} in no_proxy asks it directly"


def _reason(error: Exception) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, TimeoutError):
        return _LATE
    if isinstance(inner, http.client.IncompleteRead):
        return "it ended in the middle of an answer"
    said = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return " ".join(said.lower().split())[:_SHOWN]


def _message(error: urllib.error.HTTPError) -> str:
    """What the server says of an error."""
    try:
        text = error.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return str(error.reason)
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = text
    return _told(said) or str(error.reason)


def _told(said: Any) -> str:
    """The words of an error: OpenAI's form, FastAPI's, or the text as it is."""
    for key in ("error", "message", "detail"):
        if isinstance(said, dict) and key in said:
            said = said[key]
    return " ".join(str(said).split())[:_SHOWN]


def _json(data: bytes, url: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{url}: answers no JSON, but {data[:60]!r}; is this the address of an OpenAI-compatible server?"
        ) from error


def _reply(said: Any, url: str) -> Reply:
    """Raises InputError for what is no chat completion, and as `_require_ended`."""
    if isinstance(said, dict) and said.get("error") and not said.get("choices"):  # gateways' 200
        raise _UnansweredError(_told(said))
    try:
        choice = said["choices"][0]
        content = choice["message"].get("content")
        if isinstance(content, list):  # parts, some of which are thoughts
            content = "".join(part["text"] for part in content if part.get("type", "text") == "text")
        if content is not None and not isinstance(content, str):
            raise TypeError
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        shown = json.dumps(said)[:_SHOWN]
        raise InputError(
            f"{url}: answers no chat completion, but {shown}; is it an OpenAI-compatible server?"
        ) from error
    _require_ended(choice.get("finish_reason"))
    return Reply(text=whole(content or ""), is_cut=choice.get("finish_reason") == "length", tokens=_tokens(choice))


def _require_ended(reason: Any) -> None:
    """Raise _UnansweredError where the server broke the answer off, and RefusedError where it does not show it."""
    if reason in _BROKEN_OFF:
        raise _UnansweredError(f"it broke the answer off (finish_reason {reason!r})")
    if reason == _FILTERED:
        raise RefusedError(f"its answer is filtered (finish_reason {reason!r})")


def _tokens(choice: Mapping[str, Any]) -> list[Token]:
    """The tokens of an answer, none where the server does not say them, or in a form of its own."""
    try:
        return [_token(part) for part in choice["logprobs"]["content"]]
    except (LookupError, TypeError, AttributeError, ValueError):
        return []


def _token(given: Mapping[str, Any]) -> Token:
    spelled = given.get("bytes")
    text = bytes(spelled) if spelled else given["token"].encode("utf-8", "surrogatepass")
    log = _log(given["logprob"])
    top = {other["token"]: _log(other["logprob"]) for other in given.get("top_logprobs") or ()}
    return Token(text=text, log_probability=log, top={given["token"]: log, **top})


def _log(given: Any) -> float:
    """Raises ValueError for what is no logarithm of a probability; one that rounding put above 0 is 0."""
    log = float(given)
    if not log <= 0.01:
        raise ValueError(f"{log} is no logarithm of a probability")
    return min(log, 0.0)
