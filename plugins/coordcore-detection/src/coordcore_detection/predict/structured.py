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
from coordcore_detection.decode.pattern import literal, quoted
from coordcore_detection.predict.server import Answering, RefusedError, Reply, Server


@attrs.frozen(kw_only=True)
class Rule:
    """What texts are allowed: a grammar with tokens, as xgrammar reads it, and a regular expression for the same."""

    grammar: str
    pattern: str


WAYS: Mapping[str, Callable[[Rule], dict[str, Any]]] = {
    "vLLM": lambda rule: {"structured_outputs": {"grammar": rule.grammar}},
    "SGLang": lambda rule: {"ebnf": rule.grammar},
    "vLLM, by letters": lambda rule: {"structured_outputs": {"regex": rule.pattern}},
    "SGLang, by letters": lambda rule: {"regex": rule.pattern},
    "vLLM before 0.12": lambda rule: {"guided_regex": rule.pattern},
    "LMDeploy": lambda rule: {"response_format": {"type": "regex_schema", "regex_schema": rule.pattern}},
    "swift deploy": lambda rule: {"structured_outputs_regex": rule.pattern},
}
"""By the server that has it, what a request says of its answer. Where tokens can be named, they are."""

TRIED = "coordcore 7"
"""What an answer is held to when a way is tried."""

_SHOWN = 80


@attrs.frozen(kw_only=True)
class Kept:
    """What a server keeps to. pattern: of a whole answer. asked: what a request says of it."""

    pattern: str
    asked: Mapping[str, Any]

    def require(self, image: str, reply: Reply, coords: CoordFormat, server: Answering) -> None:
        """Raise RunError for an answer that the server was not to let be written."""
        if not reply.is_cut and not re.fullmatch(self.pattern, reply.text):
            raise RunError(
                f"{server.url}: {image}: is answered {reply.text[:_SHOWN]!r}, which is not of the format, though the "
                "server was asked to allow nothing else; what was answered is kept: give the same command again, or "
                "ask without --constrained into another file"
            )
        written = [token.text.decode("utf-8", "replace") for token in reply.tokens]
        spelled = re.findall(coords.pattern(), reply.text)
        if reply.text in "".join(written) and sum(text in coords.bin_of for text in written) < len(spelled):
            raise RunError(
                f"{server.url}: {image}: coordinates are written letter by letter, as {spelled[0]}: what keeps the "
                "answers to the format sees no tokens; serve with vLLM or SGLang and their xgrammar, or leave out "
                "--constrained"
            )


def kept(server: Server, rule: Rule, body: Mapping[str, Any]) -> Kept:
    """How the server keeps to a rule. body: what every request to it says.

    Raises InputError where it cannot, or does not take this one.
    """
    tried = Rule(grammar=f"root ::= {quoted(TRIED)}\n", pattern=literal(TRIED))
    found: dict[str, list[str]] = {}
    for name, way in WAYS.items():
        try:
            said = server.ask({**_short(24), **body, **way(tried)}, attempts=2).text
            if said == TRIED:
                server.ask({**_short(1), **body, **way(rule)}, attempts=2)
                return Kept(pattern=rule.pattern, asked=way(rule))
            finding = f"passed over, it answers {said[:_SHOWN]!r}"
        except (RefusedError, RunError) as error:
            finding = str(error)
        found.setdefault(finding, []).append(name)
    listed = "; ".join(f"{' / '.join(names)}: {finding}" for finding, names in found.items())
    raise InputError(
        f"--constrained: {server.url} keeps its answers to no format, asked as one asks ({listed}); leave "
        "--constrained out"
    )


def _short(tokens: int) -> dict[str, Any]:
    """A request without a picture."""
    return {"messages": [{"role": "user", "content": "?"}], "temperature": 0.0, "max_tokens": tokens}
