"""Coordinates that stand by names: under keys of JSON of their own (x1, y1, x2, y2), and what clicks are written as.

As agents write them: `{"action": "left_click", "coordinate": [10, 20]}` (Qwen), `pyautogui.click(x=10, y=20)` (Aguvis),
`click(start_box='(10,20)')` (UI-TARS).
"""

from __future__ import annotations

import re

from coordcore.coords import CoordFormat
from coordcore.records.record import RecordError

_CORNERS = r"[xy]_?(?:[012]|min|max)|left|top|right|bottom"
BOXES = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("x0", "y0", "x1", "y1"))
_NO_BOXES = (
    {"left", "top", "right", "bottom"},
    {"x", "y", "w", "h"},
    {"x", "y", "width", "height"},
    {"left", "top", "width", "height"},
)
QUOTE = r"""\\{0,3}["']"""
"""With what JSON within a text of JSON has before it, as in arguments of a call of OpenAI's."""

_NAMES = re.compile(rf"""["'](\w+){QUOTE}\s*:|\b([xy])\s*=""")

_PAIR = (
    r"(?:from_|to_|(?:start|end)_?|click_|target_)?(?:coord(?:inate)?s?\d?|point(?:_2d)?|position)|(?:start|end)_box"
)
_CLICK = (
    r"(?:(?:left|right|middle|double|triple|long)[_ ]?)*(?:click|tap|press)|(?:mouse_?)?(?:move|drag)_?to|hover"
    r"|mouse_?(?:down|up)"
)
_PAIR_KEY = re.compile(rf"""(?:["'](?i:{_PAIR}){QUOTE}\s*:|[(,]\s*(?:{_PAIR})\s*=)\s*(?:{QUOTE})?[\[(\s]*$""")
_CALL = re.compile(rf"\b(?i:{_CLICK})(?:\(\s*\[?\s*)?$")
_IN_CALL = re.compile(rf"\b(?:pyautogui\.\w+|(?i:{_CLICK}|scroll|swipe|touch))\([^()]*$")
_ACTION = rf"""["'](?i:(?:\w+_)?(?:{_CLICK}|(?:mouse_?)?(?:move|drag)|scroll|swipe|touch)(?:_\w+)?){QUOTE}"""
"""What an agent does, as a whole text: no impressions, and no blood pressure."""

_OTHER = rf"""{QUOTE}\w+{QUOTE}\s*:\s*(?:{QUOTE}[^"'{{}}\\]{{0,30}}{QUOTE}|[-+.\w]{{1,30}})"""
_IN_OBJECT = re.compile(
    rf"""(?:["'](?i:{_PAIR}){QUOTE}\s*:\s*\{{\s*"""
    rf"""|{_ACTION}\s*,\s*(?:{_OTHER}\s*,\s*){{0,2}}"""
    rf"""(?:{QUOTE}(?:arguments|args|params|parameters|action_inputs?){QUOTE}\s*:\s*(?:{QUOTE})?\{{\s*)?)\\{{0,3}}$"""
)
_DRAG = r"(?:\w{1,20}_)?(?:drag|swipe)(?:_?[a-z]{1,10})?"
_DRAGGED = re.compile(rf"""\b(?i:{_DRAG})\s*\(?$|["'](?i:{_DRAG}){QUOTE}\s*,\s*(?:{_OTHER}\s*,\s*){{0,2}}\\{{0,3}}$""")
_BEHIND = re.compile(rf"""\s*,\s*(?:{_OTHER}\s*,\s*){{0,2}}{QUOTE}\w+{QUOTE}\s*:\s*\\{{0,3}}{_ACTION}""")
_BEFORE = 120
"""Letters before coordinates in which what they belong to is looked for."""

TEXT = 'set `space = "text"` where they are no places'
"""The cure of numbers in a text that mean nothing."""


def grammar(some: str) -> str:
    """What finds coordinates with a name for each, and the first two arguments of a call. some: finds a coordinate."""

    def keyed(*keys: str) -> str:
        each = (rf"[\"'](?:{key}){QUOTE}\s*:\s*(?:{QUOTE})?{some}(?:{QUOTE})?" for key in keys)
        return r"\s*,\s*\\{0,3}".join(each)

    by_name = (
        f"(?i:{keyed(*[_CORNERS] * 4)})",
        keyed("x|left|top", "y|left|top", *["w|width|h|height"] * 2),
        keyed("x", "y"),
        keyed("y", "x"),
        rf"x\s*=\s*{some}\s*,\s*y\s*=\s*{some}",
    )
    called = rf"\(\s*{some}\s*,\s*{some}\s*(?=,\s*(?:{some}\s*,\s*)?[A-Za-z_{{])"
    return rf"(?P<named>{'|'.join(by_name)})|(?P<arguments>{called})"


def named_kind(match: re.Match[str], path: str, coords: CoordFormat) -> str | None:
    """The kind of what `grammar` found by names; None where it need not be a place. Raises RecordError."""
    names = [(key or argument).lower().replace("_", "") for key, argument in _NAMES.findall(match[0])]
    said = match[0][:60]
    if {*names} in _NO_BOXES:
        raise RecordError(path, f"{said!r}: {', '.join(names)} are no x1, y1, x2, y2; write bbox_2d, or {TEXT}")
    kind = "bbox_2d"
    order: tuple[str, ...] = next((box for box in BOXES if {*box} == {*names}), ())
    if {*names} == {"x", "y"} and _is_clicked(match):
        kind, order = "point", ("x", "y")
    if not order:
        return None
    wanted = [*coords.arranged(order)]
    if names != wanted:  # tokens stand in one order everywhere, and a name keeps its own
        raise RecordError(
            path, f"{said!r}: {', '.join(names)}, where coord tokens stand as {', '.join(wanted)}; reorder"
        )
    return kind


def _is_clicked(match: re.Match[str]) -> bool:
    """Whether x and y are arguments of a click, or stand in an object beside what is done there."""
    if match[0][0] == "x":
        return _before(_IN_CALL, match)
    return _before(_IN_OBJECT, match) or _BEHIND.match(match.string, match.end()) is not None


def is_pair(match: re.Match[str]) -> bool:
    """Whether two numbers in brackets are the place of a click by the key or the argument that they stand under."""
    return _before(_PAIR_KEY, match)


def is_drag(match: re.Match[str]) -> bool:
    """Whether four numbers are from where to where something is dragged: two points, and in any order."""
    return _before(_DRAGGED, match)


def is_called(match: re.Match[str]) -> bool:
    """Whether arguments in brackets are those of a click: its place first."""
    return _before(_CALL, match)


def _before(pattern: re.Pattern[str], match: re.Match[str]) -> bool:
    return pattern.search(match.string, max(0, match.start() - _BEFORE), match.start()) is not None
