"""Asking a server to let nothing but answers of a format be written, and whether it does. Torch-free.

Servers differ in how they are asked, and one that does not know a way says nothing and answers as it likes. So each way
is tried first with a pattern that allows one text only, which no model says by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from coordcore.coords import CoordFormat
from coordcore.errors import InputError, RunError
from coordcore_detection.decode.pattern import literal
from coordcore_detection.predict.server import RefusedError, Reply, Server

WAYS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "vLLM": lambda pattern: {"structured_outputs": {"regex": pattern}},
    "vLLM before 0.12": lambda pattern: {"guided_regex": pattern},
    "SGLang": lambda pattern: {"regex": pattern},
    "LMDeploy": lambda pattern: {"response_format": {"type": "regex_schema", "regex_schema": pattern}},
    "swift deploy": lambda pattern: {"structured_outputs_regex": pattern},
}
"""By the server that has it, what a request says of the pattern of its answer."""

TRIED = "coordcore 7"
"""What an answer is held to when a way is tried."""

_SHOWN = 80


@attrs.frozen(kw_only=True)
class Kept:
    """What a server keeps to. pattern: of a whole answer. asked: what a request says of it."""

    pattern: str
    asked: Mapping[str, Any]

    def require(self, image: str, reply: Reply, coords: CoordFormat, server: Server) -> None:
        """Raise RunError for an answer that the server was not to let be written."""
        if not reply.is_cut and not re.fullmatch(self.pattern, reply.text):
            raise RunError(
                f"{server.url}: {image}: is answered {reply.text[:_SHOWN]!r}, which is not of the format, though the "
                "server was asked to allow nothing else; what was answered is kept: give the same command again, or "
                "ask without --constrained into another file"
            )
        written = [token.text.decode("utf-8", "replace") for token in reply.tokens]
        coord = re.search(coords.pattern(), reply.text)
        if coord and reply.text in "".join(written) and not coords.bin_of.keys() & written:
            raise RunError(
                f"{server.url}: {image}: {coord[0]} is written letter by letter: what keeps its answers to the format "
                "knows no added tokens, as vLLM's guidance backend does not; serve with xgrammar, or leave out "
                "--constrained"
            )


def kept(server: Server, pattern: str, body: Mapping[str, Any]) -> Kept:
    """How the server keeps to a pattern. body: what every request to it says.

    Raises InputError where it cannot, or does not take this one.
    """
    found = []
    for name, asked in WAYS.items():
        try:
            said = server.ask({**_short(24), **body, **asked(literal(TRIED))}, attempts=2).text
        except (RefusedError, RunError) as error:
            found.append(f"{name}: {error}")
            continue
        if said == TRIED:
            return _taken(server, Kept(pattern=pattern, asked=asked(pattern)), name, body)
        found.append(f"{name}: passed over, it answers {said[:_SHOWN]!r}")
    raise InputError(
        f"--constrained: {server.url} keeps its answers to no format, asked as one asks ({'; '.join(found)}); leave "
        "--constrained out"
    )


def _taken(server: Server, found: Kept, name: str, body: Mapping[str, Any]) -> Kept:
    try:
        server.ask({**_short(1), **body, **found.asked}, attempts=2)
    except (RefusedError, RunError) as error:
        raise InputError(
            f"--constrained: {server.url} keeps to patterns as {name} does, but not to that of the answers: {error}; "
            "leave --constrained out"
        ) from error
    return found


def _short(tokens: int) -> dict[str, Any]:
    """A request without a picture."""
    return {"messages": [{"role": "user", "content": "?"}], "temperature": 0.0, "max_tokens": tokens}
