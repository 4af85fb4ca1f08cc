"""Places in the words of chat rows, as agents and models of other formats write them.

In more forms than `[data.chat_jsonl]` reads: in a record's text they would be trained as plain numbers.
"""

from __future__ import annotations

import re

from coordcore.records.answers import answered

_FIGURE = r"""[\s\\"'\[(]{0,8}[-+.]?\d"""
_NAMED = re.compile(
    rf"""<points?\b[^<>]{{0,80}}?\d|<point>[^<>]{{0,9}}\d|\b(?:start|end)_box\s*=\s*{_FIGURE}"""
    rf"""|["'](?:\w{{1,9}}_)?(?:coord(?:inate)?s?\d?|point(?:_2d)?|position|box)\\{{0,3}}["']\s*[:=]{_FIGURE}"""
    rf"""|["']x_?(?:[01]|min)\\{{0,3}}["']\s*:[^{{}}]{{0,200}}?["']y_?(?:[01]|min)\\{{0,3}}["']\s*:{_FIGURE}"""
    rf"""|["'](?:\w{{1,9}}_)?(?:click|tap|press|drag|scroll|swipe|hover)\\{{0,3}}["'][^}}]{{0,120}}?["']x\\{{0,3}}["']\s*:"""
    rf"""|(?:click|tap|press|[a-z_](?:To|_to)|swipe)\({_FIGURE}|\bpyautogui\.\w+\([^()"']{{0,80}}?\b[xy]\s*=\s*\d""",
    re.IGNORECASE,
)
"""What an agent or a key of JSON tells."""

_VALUE = r"[-+]?(?:\d{1,9}(?:\.\d{0,20})?|\.\d{1,20})"
_SHORT = r"(?!0\d)\d{1,4}(?:\.\d{1,20})?(?!\d)"
"""As in a box, and not in a telephone number."""

_COMMA, _BLANKS = r"\s{0,9},\s{0,9}", r"(?:\s{1,9}|\s{0,9};\s{0,9})"
_FOUR = _COMMA.join([_VALUE] * 4)
_CORNERS = r"[\s,;]{1,9}(?:and\s)?".join(
    rf"\b{letter}_?(?:{which})\s{{0,9}}[:=]\s{{0,9}}{_VALUE}"
    for letter, which in (("x", "[01]|min"), ("y", "[01]|min"), ("x", "[12]|max"), ("y", "[12]|max"))
)
_OTHERS = re.compile(
    r"(?:<(?:loc|patch_index)_?\d{1,5}>\s{0,9}){2}|\{(?:\s{0,9}<\d{1,5}>\s{0,9},?){4}\s{0,9}\}"
    rf"|[\[(]\s{{0,9}}{_FOUR}\s{{0,9}};\s{{0,9}}{_FOUR}"
    rf"|\[\s{{0,9}}{_VALUE}(?:{_BLANKS}{_VALUE}){{3}}\s{{0,9}}\]"
    rf"|\(\s{{0,9}}{_SHORT}(?:{_BLANKS}{_SHORT}){{3}}\s{{0,9}}\)"
    rf"|{_CORNERS}",
    re.IGNORECASE,
)
"""Tokens of Florence and Kosmos, `{<12><30><50><60>}` of MiniGPT-v2, several boxes in one bracket (Shikra, CogVLM), and
corners without commas or by name."""

_PAIR = rf"{_VALUE}{_COMMA}{_VALUE}\s*"
_POINT = re.compile(rf"\s*(?:<answer>\s*)?[\[(]*(?:\[\s*{_PAIR}\]|\(\s*{_PAIR}\))[\])]*\s*(?:</answer>\s*)?")
"""An answer that is a pair of numbers alone: where a model of SeeClick's or ShowUI's form clicks. "[0, 5)" is none."""


def tells_places(question: str, answer: str) -> bool:
    """Whether either says where something is, in numbers."""
    told = (form.search(text) for form in (_NAMED, _OTHERS) for text in (question, answer))
    return any(told) or _POINT.fullmatch(answer, *answered(answer)) is not None
