"""Coordinates that stand by names: under keys of JSON of their own (x1, y1, x2, y2), and what clicks are written as.

As agents write them: `{"action": "left_click", "coordinate": [10, 20]}` (Qwen), `pyautogui.click(x=10, y=20)` (Aguvis),
`click(start_box='(10,20)')` (UI-TARS).
"""

from __future__ import annotations

import re

from coordcore.coords import CoordFormat
from coordcore.records.record import RecordError

_CORNERS = r"[xy]_?(?:[012]|min|max)|left|top|right|bottom"
_BOXES = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("x0", "y0", "x1", "y1"))
_NO_BOXES = ({"left", "top", "right", "bottom"}, {"x", "y", "w", "h"}, {"x", "y", "width", "height"})
_NAMES = re.compile(r"""["'](\w+)["']\s*:|\b([xy])\s*=""")

_PAIR = (
    r"(?:from_|to_|(?:start|end)_?|click_|target_)?(?:coord(?:inate)?s?\d?|point(?:_2d)?|position)|(?:start|end)_box"
)
_CLICK = r"(?:left_?|right_?|middle_?|double_?|triple_?|long_?)*(?:click|tap|press)|(?:mouse_?)?(?:move|drag)_?to|hover"
_PAIR_KEY = re.compile(rf"""(?:["'](?:{_PAIR})["']\s*:|\b(?:{_PAIR})\s*=)\s*["']?[\[(\s]*$""")
_CALL = re.compile(rf"\b(?i:{_CLICK})$")
_IN_CALL = re.compile(rf"\b(?:pyautogui\.\w+|(?i:{_CLICK}|scroll|swipe|touch))\([^()]*$")
_IN_OBJECT = re.compile(
    rf"""["'](?:{_PAIR})["']\s*:\s*\{{\s*$"""
    rf"""|["'](?i:[\w ]*(?:click|tap|press|move|drag|hover|scroll|swipe|touch)[\w ]*)["']\s*,\s*"""
    r"""(?:["'](?:arguments|args|params|parameters|action_inputs?)["']\s*:\s*\{\s*)?$"""
)
_BEFORE = 80
"""Letters before coordinates in which what they belong to is looked for."""

_FIGURE = r"[-+.]?\d"
_MOLMO = re.compile(rf"""<points?\s[^<>]{{0,80}}?\b[xy]\d*\s*=\s*["']?{_FIGURE}""")
_LEFT_OVER = re.compile(
    rf"""["']([xy])_?(?:1|min)["']\s*:\s*["']?{_FIGURE}[^{{}}]{{0,200}}?["'](?!\1)[xy]_?(?:1|min)["']\s*:\s*["']?{_FIGURE}"""
    rf"""|\bpyautogui\.\w+\([^()]{{0,80}}?\b[xy]\s*=\s*["']?{_FIGURE}"""
    rf"""|["'](?:(?:start_|end_)?coordinate\d?|(?:start|end)_box)["']\s*:["'\[(\s]*{_FIGURE}"""
    rf"""|\b(?:start|end)_box\s*=["'\[(\s]*{_FIGURE}|<point>\s*{_FIGURE}"""
)
_TEXT = 'set `space = "text"` where they are no places'


def grammar(some: str) -> str:
    """What finds coordinates with a name for each, and the first two arguments of a call. some: finds a coordinate."""

    def keyed(*keys: str) -> str:
        return r"\s*,\s*".join(rf"[\"'](?:{key})[\"']\s*:\s*[\"']?{some}[\"']?" for key in keys)

    by_name = (
        f"(?i:{keyed(*[_CORNERS] * 4)})",
        keyed("x", "y", "w|width", "h|height"),
        keyed("x", "y"),
        rf"x\s*=\s*{some}\s*,\s*y\s*=\s*{some}",
    )
    return rf"(?P<named>{'|'.join(by_name)})|(?P<arguments>\(\s*{some}\s*,\s*{some}\s*(?=,\s*[A-Za-z_]\w*\s*=))"


def named_kind(match: re.Match[str], path: str, coords: CoordFormat) -> str | None:
    """The kind of what `grammar` found by names; None where it need not be a place. Raises RecordError."""
    names = [(key or argument).lower().replace("_", "") for key, argument in _NAMES.findall(match[0])]
    said = match[0][:60]
    if {*names} in _NO_BOXES:
        raise RecordError(path, f"{said!r}: {', '.join(names)} are no x1, y1, x2, y2; write bbox_2d, or {_TEXT}")
    kind = "bbox_2d"
    order: tuple[str, ...] = next((box for box in _BOXES if {*box} == {*names}), ())
    if names == ["x", "y"] and _before(_IN_CALL if match[0][0] == "x" else _IN_OBJECT, match):
        kind, order = "point", ("x", "y")
    if not order:
        return None
    wanted = [*coords.arranged(order)]
    if names != wanted:  # tokens stand in one order everywhere, and a name keeps its own
        raise RecordError(
            path, f"{said!r}: {', '.join(names)}, where coord tokens stand as {', '.join(wanted)}; reorder"
        )
    return kind


def is_pair(match: re.Match[str]) -> bool:
    """Whether two numbers in brackets are the place of a click by the key or the argument that they stand under."""
    return _before(_PAIR_KEY, match)


def is_called(match: re.Match[str]) -> bool:
    """Whether arguments in brackets are those of a click: its place first."""
    return _before(_CALL, match)


def _before(pattern: re.Pattern[str], match: re.Match[str]) -> bool:
    return pattern.search(match.string, max(0, match.start() - _BEFORE), match.start()) is not None


def check_left_over(text: str, path: str) -> None:
    """Raise RecordError for places by name in what is left of a text: nothing would turn them into coord tokens."""
    if found := _MOLMO.search(text):
        what = "a point of Molmo, in percent of the image, which no `space` says"
        raise RecordError(path, f"{_said(text, found)} is {what}; write <point>x y</point>, or {_TEXT}")
    if found := _LEFT_OVER.search(text):
        cure = f"write bbox_2d or point_2d with a list of numbers, or {_TEXT}"
        raise RecordError(path, f"{_said(text, found)} is no place that can be read; {cure}")


def _said(text: str, found: re.Match[str]) -> str:
    return repr(text[found.start() : max(found.end(), found.start() + 50)])
