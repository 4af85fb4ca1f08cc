"""Places in texts that nothing would turn into coord tokens: refused, or they would be trained as plain numbers.

Those of Molmo (percents), Florence, PaliGemma and Kosmos (tokens of their own), MiniGPT-v2 (`{<12><30><50><60>}`), and
corners without commas or by name: `[10 20 300 400]`, `x1=10, y1=20, x2=300, y2=400`.
"""

from __future__ import annotations

import re

from coordcore.records.record import RecordError
from coordcore_coord_tokens.chat.named import BOXES, QUOTE, TEXT

_FIGURE = r"[-+.]?\d"
_MOLMO = re.compile(rf"""<points?\s[^<>]{{0,80}}?\b(?:[xy]\d*|coords)\s*=\s*["']?{_FIGURE}""")
_LEFT_OVER = re.compile(
    rf"""["']([xy])_?(?:1|min){QUOTE}\s*:\s*(?:{QUOTE})?{_FIGURE}"""
    rf"""[^{{}}]{{0,200}}?["'](?!\1)[xy]_?(?:1|min){QUOTE}\s*:\s*(?:{QUOTE})?{_FIGURE}"""
    rf"""|\bpyautogui\.\w+\((?:[^()"']|"[^"]{{0,80}}"|'[^']{{0,80}}'){{0,80}}?\b[xy]\s*=\s*["']?{_FIGURE}"""
    rf"""|["'](?:(?:start_|end_)?coordinate\d?|(?:start|end)_box){QUOTE}\s*:[\\"'\[(\s]*{_FIGURE}"""
    rf"""|\b(?:start|end)_box\s*=["'\[(\s]*{_FIGURE}|<point>\s*{_FIGURE}"""
)
_FOREIGN = re.compile(r"(?:<(?:loc|patch_index)_?\d{1,5}>\s{0,9}){2}|\{(?:\s{0,9}<\d{1,5}>\s{0,9},?){4}\s{0,9}\}")
"""A point of two tokens at least, a box of four numbers."""

_VALUE = r"[-+]?(?:\d{1,9}(?:\.\d{0,20})?|\.\d{1,20})"
_SHORT = r"(?!0\d)\d{1,4}(?:\.\d{1,20})?(?!\d)"
"""As in a box, and not in a telephone number."""

_BLANKS = r"(?:\s{1,9}|\s{0,9};\s{0,9})"
_NO_COMMAS = re.compile(
    rf"\[\s{{0,9}}{_VALUE}(?:{_BLANKS}{_VALUE}){{3}}\s{{0,9}}\]|\(\s{{0,9}}{_SHORT}(?:{_BLANKS}{_SHORT}){{3}}\s{{0,9}}\)"
)
_NAME = r"[xy]_?(?:[012]|min|max)(?=\s{0,9}[:=])"
_BY_NAME = re.compile(rf"(?:\b{_NAME}\s{{0,9}}[:=]\s{{0,9}}{_VALUE}(?!\w)[\s,;]{{0,9}}(?:and\s)?){{4}}", re.IGNORECASE)
_NAMES = re.compile(_NAME, re.IGNORECASE)


def check_left_over(text: str, path: str) -> None:
    """Raise RecordError for places in what is left of a text without those that are read."""
    if found := _MOLMO.search(text):
        what = "a point of Molmo, in percent of the image, which no `space` says"
        raise RecordError(path, f"{_said(text, found)} is {what}; write <point>x y</point>, or {TEXT}")
    found = _LEFT_OVER.search(text) or _FOREIGN.search(text) or _NO_COMMAS.search(text)
    if found := found or next((box for box in _BY_NAME.finditer(text) if _is_box(box[0])), None):
        cure = f"write bbox_2d or point_2d with a list of numbers, or {TEXT}"
        raise RecordError(path, f"{_said(text, found)} is no place that can be read; {cure}")


def _is_box(said: str) -> bool:
    """Whether four numbers by name are two corners."""
    names = {name.lower().replace("_", "") for name in _NAMES.findall(said)}
    return any(names == {*box} for box in BOXES)


def _said(text: str, found: re.Match[str]) -> str:
    return repr(text[found.start() : max(found.end(), found.start() + 50)])
