"""Reads lists of objects in JSON as boxes, and says of every box that it could not read why.

The format is CoordJSON, `{"objects": [{"desc": "red circle", "bbox_2d": [<|coord_12|>, ...]}]}`. Qwen's own list,
`[{"bbox_2d": [...], "label": "..."}]`, a single object, and a list within prose or a code fence are read as well.
"""

from __future__ import annotations

import json
import re

import attrs
import msgspec

from coordcore.coords import is_coord_token, token_to_int
from coordcore.records.answers.format import COORDJSON, DESC
from coordcore.records.geometry import misordered

Span = tuple[int, int]

_LABELS = (DESC, "label")  # CoordJSON's, and Qwen's own
_GEOMETRIES = tuple(COORDJSON.places)
_OBJECT = re.compile(rf'\{{\s*"(?:{"|".join(_LABELS + _GEOMETRIES)})"\s*:')
_LIST = re.compile(r'\{\s*"objects"\s*:\s*\[|\[\s*(?=\{|\]\s*(?:```\s*)?$)')
_TAIL = re.compile(r"[\s\]}]*(?:```\s*)?")
_FENCE = re.compile(r"```(?:json)?\s*")
_LEXEME = re.compile(
    r"""\s*(?:
      (?P<mark>[\[\]{}:,])
    | (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<coord><\|coord_[^|<>]*\|>)
    | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
    | (?P<word>[^\s\[\]{}:,"]+|\S)
    )""",
    re.VERBOSE | re.DOTALL,
)


class Unread(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A part of an answer that is no box. at: "objects[2].bbox_2d", "" for the whole answer. reason: in words."""

    at: str
    reason: str


@attrs.frozen(kw_only=True)
class AnswerObject:
    """One object of an answer. Spans are places in the text: first character, and the one behind the last.

    at: where it stands, "objects[2]". kind: "bbox_2d", with x1 <= x2 and y1 <= y2, or "poly" (x1, y1, x2, y2, ...).
    bins: as the text has them.
    """

    at: str
    desc: str
    kind: str
    bins: tuple[int, ...]
    desc_span: Span
    coord_spans: tuple[Span, ...]


@attrs.frozen(kw_only=True)
class Answer:
    """What was read. unread: `at` is "objects[2].bbox_2d"; "before", "after" the list of objects; "" for all of it."""

    objects: tuple[AnswerObject, ...]
    unread: tuple[Unread, ...]


class _Unreadable(Exception):  # noqa: N818 - it never leaves this module
    def __init__(self, at: str, reason: str, position: int) -> None:
        super().__init__(reason)
        self.at, self.reason, self.position = at, reason, position


@attrs.frozen
class _Lexeme:
    kind: str  # a group of _LEXEME, or "end" where the text ends
    text: str
    start: int
    end: int


def parse_json(text: str) -> Answer:
    """Read an answer, whatever it is. The time it takes is linear in its length."""
    if not text.strip():
        return Answer(objects=(), unread=(Unread(at="", reason="empty answer"),))
    unread: list[Unread] = []
    found = _LIST.search(text)
    alone = _OBJECT.search(text)
    if found is None and alone is None:
        reason = f"no list of objects; the answer begins {quoted(text.lstrip())}"
        return Answer(objects=(), unread=(Unread(at="", reason=reason),))
    in_list = found is not None and (alone is None or found.start() < alone.start())
    first = found if in_list else alone
    assert first is not None
    _note(unread, "before", text[: first.start()])
    objects, end = _objects(text, first.end() if in_list else first.start(), in_list, unread)
    _note(unread, "after", _TAIL.sub("", text[end:], count=1))
    return Answer(objects=tuple(objects), unread=tuple(unread))


def _note(unread: list[Unread], at: str, text: str) -> None:
    text = _FENCE.sub("", text).strip()
    if text:
        unread.append(Unread(at=at, reason=f"passed over {quoted(text)}"))


def _objects(text: str, position: int, in_list: bool, unread: list[Unread]) -> tuple[list[AnswerObject], int]:
    """The objects from `position` on, and where the list ends."""
    objects: list[AnswerObject] = []
    index = 0
    while True:
        lexeme = _next(text, position)
        if lexeme.text == "," and lexeme.kind == "mark":
            position = lexeme.end
            continue
        if lexeme.text == "]" and lexeme.kind == "mark":
            return objects, lexeme.end
        if lexeme.kind == "end" or not (in_list or lexeme.text == "{"):
            if in_list:
                unread.append(Unread(at="objects", reason="cut off: the list does not end"))
            return objects, position
        at = f"objects[{index}]"
        index += 1
        try:
            if lexeme.text != "{":
                raise _Unreadable("", f"an object belongs there, not {quoted(lexeme.text)}", lexeme.end)
            found, position = _object(text, lexeme.end, at)
            objects.append(found)
        except _Unreadable as error:
            unread.append(Unread(at=at + error.at, reason=error.reason))
            again = _OBJECT.search(text, error.position)
            if again is None:
                return objects, len(text)
            position = again.start()


def _object(text: str, position: int, at: str) -> tuple[AnswerObject, int]:
    """The object whose brace ends at `position`, and the place behind it. Raises _Unreadable."""
    label: tuple[str, Span] | None = None
    geometry: tuple[str, list[_Lexeme]] | None = None
    while True:
        key = _next(text, position)
        if key.text == "}" and key.kind == "mark":
            break
        if key.text == "," and key.kind == "mark":
            position = key.end
            continue
        if key.kind == "end":
            raise _Unreadable("", "cut off", key.end)
        if key.kind != "string":
            _reject_word(key, "a key in quotes belongs there")
        name = _string(key)
        colon = _next(text, key.end)
        if colon.kind == "end":
            raise _Unreadable(f".{name}", "cut off", colon.end)
        if colon.text != ":":
            raise _Unreadable(f".{name}", f"a colon belongs there, not {quoted(colon.text)}", colon.start)
        value = _next(text, colon.end)
        if value.kind == "end" or (value.kind == "word" and value.text == '"'):
            raise _Unreadable(f".{name}", "cut off", len(text))
        if name in _GEOMETRIES:
            if geometry is not None:
                raise _Unreadable(f".{name}", "a second geometry; an object has one", value.start)
            items, position = _coordinates(text, name, value)
            geometry = name, items
        elif name in _LABELS and value.kind == "string":
            label, position = (_string(value), (value.start + 1, value.end - 1)), value.end
        elif value.kind == "mark":
            raise _Unreadable(f".{name}", f"nested wrongly: {quoted(value.text)} where a value belongs", value.end)
        elif name in _LABELS:
            raise _Unreadable(f".{name}", f"no text in quotes, but {quoted(value.text)}", value.end)
        else:
            position = value.end
    if geometry is None:
        raise _Unreadable("", f"no geometry: neither {' nor '.join(_GEOMETRIES)}", position + 1)
    kind, items = geometry
    bins = _bins(kind, items, position)
    if label is None or not label[0]:
        raise _Unreadable(f".{DESC}", "no description", position)
    coord_spans = tuple((item.start, item.end) for item in items)
    found = AnswerObject(at=at, desc=label[0], kind=kind, bins=bins, desc_span=label[1], coord_spans=coord_spans)
    return found, key.end


def _reject_word(lexeme: _Lexeme, what: str) -> None:
    if lexeme.text == '"':
        raise _Unreadable("", "cut off", lexeme.end)
    raise _Unreadable("", f"{what}, not {quoted(lexeme.text)}", lexeme.start + 1)


def _coordinates(text: str, kind: str, opening: _Lexeme) -> tuple[list[_Lexeme], int]:
    """What stands in the brackets, and the place behind them. Raises _Unreadable."""
    at = f".{kind}"
    if opening.text != "[":
        raise _Unreadable(at, f"a list belongs there, not {quoted(opening.text)}", opening.end)
    items: list[_Lexeme] = []
    position = opening.end
    while True:
        item = _next(text, position)
        position = item.end
        if item.kind == "end" or item.text == '"':
            raise _Unreadable(at, f"cut off behind {_count(items)}", item.end)
        if item.kind == "mark":
            if item.text == "]":
                return items, position
            if item.text in "[{}:":
                raise _Unreadable(at, f"nested wrongly: {quoted(item.text)} within the coordinates", item.start)
            continue
        items.append(item)


def _bins(kind: str, items: list[_Lexeme], position: int) -> tuple[int, ...]:
    at = f".{kind}"
    tokens = [item.text.strip('"') for item in items]
    kinds = {item.kind for item, token in zip(items, tokens, strict=True) if not is_coord_token(token)}
    wrong = [token for token in tokens if not is_coord_token(token)]
    if kinds == {"number"} and len(wrong) == len(tokens):
        raise _Unreadable(at, f"plain numbers, beginning {wrong[0]}, where coord tokens belong", position)
    if kinds == {"coord"}:
        raise _Unreadable(at, f"{quoted(wrong[0])} is no coord token", position)
    if wrong:
        raise _Unreadable(at, f"{quoted(wrong[0])} where a coord token belongs", position)
    bins = tuple(token_to_int(token) for token in tokens)
    if kind == "poly":
        if len(bins) < 6 or len(bins) % 2:
            raise _Unreadable(at, f"{_count(items)}; a poly has an even number, at least 6", position)
        return bins
    if len(bins) != 4:
        raise _Unreadable(at, f"{_count(items)}; a bbox_2d has 4", position)
    if order := misordered(bins):
        raise _Unreadable(at, order, position)
    return bins


def _next(text: str, position: int) -> _Lexeme:
    match = _LEXEME.match(text, position)
    if match is None:  # nothing but white space is left
        return _Lexeme("end", "", len(text), len(text))
    kind = str(match.lastgroup)
    return _Lexeme(kind, match[kind], match.start(kind), match.end())


def _string(lexeme: _Lexeme) -> str:
    try:
        value = str(json.loads(lexeme.text, strict=False))
    except ValueError as error:
        raise _Unreadable("", f"a wrong escape in {quoted(lexeme.text)}", lexeme.end) from error
    # Half of a surrogate pair can be written as an escape, but is no text that a file could hold.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _count(items: list[_Lexeme]) -> str:
    number = sum(item.kind != "word" for item in items)
    return f"{number} coordinate{'' if number == 1 else 's'}"


def quoted(text: str) -> str:
    """The beginning of a text, for a reason."""
    shown = json.dumps(text if len(text) <= 40 else text[:39] + "…", ensure_ascii=False)
    return shown.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
