"""Reads lists of objects in JSON as boxes, and says of every box that it could not read why.

The format is CoordJSON, `{"objects": [{"desc": "red circle", "bbox_2d": [<|coord_12|>, ...]}]}`. Qwen's own list,
`[{"bbox_2d": [...], "label": "..."}]`, other names of these keys, single quotes, several boxes of one label, a single
object, lists within prose or code fences, boxes and quads in tags (`<|box_start|>`, `<|quad_start|>`) are read as well.
What a model thinks before it answers is not. Whatever could be meant in two ways is left unread.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache, partial
from itertools import chain, groupby, pairwise
from typing import NamedTuple

import attrs
import msgspec

from coordcore.coords import DEFAULT_COORDS, CoordFormat, token_to_int
from coordcore.records.answers.format import COORDJSON, DESC
from coordcore.records.answers.write import THOUGHT
from coordcore.records.geometry import COUNTS, has_count, misordered

Span = tuple[int, int]

_LABELS = (DESC, "label")  # CoordJSON's, and Qwen's own
_ALL_LABELS = (*_LABELS, "name", "category", "category_name", "class", "class_name")  # read where none of those is
_KINDS = {kind: kind for kind in COORDJSON.places} | {"bbox": "bbox_2d", "box_2d": "bbox_2d", "point_2d": "point"}
_OBJECT = re.compile(rf'\{{\s*["\'](?:{"|".join((*_ALL_LABELS, *_KINDS))})["\']\s*:')
_QUAD = "<|quad_start|>"
_BOX_TAGS = {"<|box_start|>": "<|box_end|>", "<box>": "</box>", "<|det|>": "<|/det|>", _QUAD: "<|quad_end|>"}
_TAG = re.compile(  # Qwen2-VL, InternVL, DeepSeek-VL2
    r"<(?:\|object_ref_start\||ref|\|ref\|)>(?P<label>[^<]*)<(?:\|object_ref_end\||/ref|\|/ref\|)>"
    rf"|(?P<box>{'|'.join(map(re.escape, _BOX_TAGS))})"
)
_CLOSING = {"[": "]", "(": ")", "{": "}"} | _BOX_TAGS
_START = re.compile(
    r"""(?P<list>\{\s*["']objects["']\s*:\s*\[|\[\s*(?=\{|\]\s*(?:```\s*)?$))"""
    rf"|(?P<object>{_OBJECT.pattern})|(?P<tag>{_TAG.pattern})"
)
_THOUGHT = re.compile(THOUGHT)
_TAIL = re.compile(r"[\s\]},]*(?:```\s*)?")
_FENCE = re.compile(r"```(?:json)?\s*")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@lru_cache
def _lexemes(coords: CoordFormat) -> re.Pattern[str]:
    return re.compile(
        rf"""\s*(?:
          (?P<mark>[\[\]{{}}():,])
        | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
        | (?P<tag>{"|".join(map(re.escape, _BOX_TAGS.values()))})
        | (?P<coord>{coords.pattern("[^|<>]*")})
        | (?P<number>{_NUMBER.pattern})
        | (?P<end>["'])
        | (?P<word><?[^\s\[\]{{}}():,"'<]+|\S)
        )""",
        re.VERBOSE | re.DOTALL,
    )


_STRINGS = json.JSONDecoder(strict=False)
_REQUOTED = {'"': '\\"', "\\'": "'"}
_DEEP = 32
"""Brackets within brackets that are passed over. A limit keeps the time linear."""


class Unread(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A part of an answer that is no box. at: "objects[2].bbox_2d", "" for the whole answer. reason: in words."""

    at: str
    reason: str


@attrs.frozen(kw_only=True)
class AnswerObject:
    """One object of an answer. Spans are places in the text: first character, and the one behind the last.

    at: where it stands, "objects[2]". kind: one of `geometry.KINDS`; a "bbox_2d" has x1 <= x2 and y1 <= y2. bins: as
    the text has them. numbers: where the text has plain numbers instead, and the caller asked for them.
    """

    at: str
    desc: str
    kind: str
    bins: tuple[int, ...]
    desc_span: Span
    coord_spans: tuple[Span, ...]
    numbers: tuple[float, ...] = ()


@attrs.frozen(kw_only=True)
class Answer:
    """What was read. unread: `at` is "objects[2].bbox_2d"; "before", "after" the list of objects; "" for all of it."""

    objects: tuple[AnswerObject, ...]
    unread: tuple[Unread, ...]


class _Unreadable(Exception):  # noqa: N818 - it never leaves this module
    """again: where to look for the next object, None right behind this one."""

    def __init__(self, at: str, reason: str, again: int | None = None) -> None:
        super().__init__(reason)
        self.at, self.reason, self.again = at, reason, again


class _Lexeme(NamedTuple):
    kind: str  # a group of _LEXEME, or "end" where the text ends
    text: str
    start: int
    end: int


_Text = tuple[str, Span]


@attrs.define
class _Written:
    """What an object holds, by key. others: where further values begin that have coord tokens in them."""

    labels: dict[str, _Text] = attrs.Factory(dict)
    geometry: dict[str, list[_Lexeme]] = attrs.Factory(dict)
    others: dict[str, int] = attrs.Factory(dict)


def parse_json(text: str, numbers: bool = False, coords: CoordFormat = DEFAULT_COORDS) -> Answer:
    """Read an answer, whatever it is. The time it takes is linear in its length.

    numbers: read plain numbers too. What they mean only the caller can know.
    """
    begin, end = answered(text)
    reader = _Reader(text[:end], numbers, coords)
    if not text.strip():
        reader.unread.append(Unread(at="", reason="empty answer"))
    elif not text[begin:end].strip():
        reader.unread.append(Unread(at="", reason="thoughts, and no answer behind them"))
    elif first := _START.search(text, begin, end):
        reader.read(first)
        reader.note("after", text[end:])
    else:
        reason = f"no list of objects; the answer begins {quoted(text[begin:end].lstrip())}"
        reader.unread.append(Unread(at="", reason=reason))
    return Answer(objects=tuple(reader.objects), unread=tuple(reader.unread))


def answered(text: str) -> Span:
    """The part of a text that is its answer: behind the last thought, before one that does not end."""
    begin, end = 0, len(text)
    for tag in _THOUGHT.finditer(text):
        if tag["end"] or tag["last"]:
            begin, end = tag.end(), len(text)
        else:
            end = min(end, tag.start())
    return begin, end


class _Reader:
    """Reads the lists of one text. index: of the next object."""

    def __init__(self, text: str, numbers: bool, coords: CoordFormat) -> None:
        self.text, self.numbers, self.coords = text, numbers, coords
        self.lexemes = _lexemes(coords)
        self.objects: list[AnswerObject] = []
        self.unread: list[Unread] = []
        self.index = 0

    def read(self, first: re.Match[str] | None) -> None:
        """Every list from `first` on."""
        position, place = 0, "before"
        seen: set[tuple[str, Span | tuple[float, ...]]] = set()
        while first is not None:
            self.note(place, self.text[position : first.start()])
            if place == "after":
                reason = f"a further list, at character {first.start()}: read as well"
                self.unread.append(Unread(at=place, reason=reason))
            count, place = len(self.objects), "after"
            if first.lastgroup == "tag":
                position = self._tagged(first.start())
            elif first.lastgroup == "list":
                position = self._list(first.end(), True)
            else:
                position = self._list(first.start(), False)
            # What a further list repeats of an earlier one is said once.
            new = [item for item in self.objects[count:] if (item.desc, item.bins + item.numbers) not in seen]
            self.objects[count:] = new
            seen.update((item.desc, item.bins + item.numbers) for item in new)
            if tail := _TAIL.match(self.text, position):
                position = tail.end()
            first = _START.search(self.text, position)
        self.note(place, self.text[position:])

    def note(self, at: str, text: str) -> None:
        """Say of a text that it was passed over."""
        text = _FENCE.sub("", text).strip()
        if text:
            self.unread.append(Unread(at=at, reason=f"passed over {quoted(text)}"))

    def _next(self, position: int) -> _Lexeme:
        match = self.lexemes.match(self.text, position)
        if match is None:  # nothing but white space is left
            return _Lexeme("end", "", len(self.text), len(self.text))
        kind = str(match.lastgroup)
        return _Lexeme(kind, match[kind], match.start(kind), match.end())

    def _list(self, position: int, in_list: bool) -> int:
        """Read the objects from `position` on; gives where the list ends."""
        while True:
            lexeme = self._next(position)
            if lexeme.text == "," and lexeme.kind == "mark":
                position = lexeme.end
                continue
            if lexeme.text == "]" and lexeme.kind == "mark":
                return lexeme.end
            if lexeme.kind == "end" or not (in_list or lexeme.text == "{"):
                if in_list:
                    self.unread.append(Unread(at="objects", reason="cut off: the list does not end"))
                return position
            at = f"objects[{self.index}]"
            self.index += 1
            try:
                if lexeme.text != "{":
                    raise _Unreadable("", f"an object belongs there, not {quoted(lexeme.text)}", lexeme.end)
                written, position = self._object(lexeme.end)
                self._describe(at, written)
            except _Unreadable as error:
                self.unread.append(Unread(at=at + error.at, reason=error.reason))
                if error.again is not None:
                    found = _OBJECT.search(self.text, error.again)
                    if found is None:
                        return len(self.text)
                    position = found.start()

    def _object(self, position: int) -> tuple[_Written, int]:
        """What stands in the object whose brace ends at `position`, and the place behind it. Raises _Unreadable."""
        written = _Written()
        while (key := self._next(position)).text != "}":
            position = key.end
            if key.text == ",":
                continue
            if key.kind != "string":
                wrong = f"a key in quotes belongs there, not {quoted(key.text)}"
                raise _Unreadable("", "cut off" if key.kind == "end" else wrong, key.start + 1)
            name = _string(key)
            colon = self._next(key.end)
            value = self._next(colon.end)
            if "end" in (colon.kind, value.kind):
                raise _Unreadable(f".{name}", "cut off", len(self.text))
            if colon.text != ":":
                raise _Unreadable(f".{name}", f"a colon belongs there, not {quoted(colon.text)}", colon.start)
            position = value.end
            if name in _KINDS:
                if written.geometry:
                    raise _Unreadable(f".{name}", "a second geometry; an object has one", value.start)
                opening = self._next(value.start + 1) if value.kind == "string" else value  # a list in quotes
                written.geometry[name], behind = self._inside(f".{name}", opening, "{}:")
                if value.kind == "string" and behind > position:
                    raise _Unreadable(f".{name}", f"no list in quotes, but {quoted(value.text)}", behind)
                position = max(position, behind)
            elif name in _ALL_LABELS and value.kind == "string":
                found = _string(value), (value.start + 1, value.end - 1)
                if written.labels.setdefault(name, found)[0] != found[0]:
                    raise _Unreadable(f".{name}", "a second description; an object has one", value.end)
            elif name in _LABELS:
                raise _Unreadable(f".{name}", f"no text in quotes, but {quoted(value.text)}", value.start)
            elif value.kind == "mark":
                items, position = self._inside(f".{name}", value)
                if any(item.kind == "coord" for item in items):
                    written.others[name] = value.start
        return written, key.end

    def _describe(self, at: str, written: _Written) -> None:
        """Take what stands in an object as objects. Raises _Unreadable."""
        labels = written.labels
        if not written.geometry:
            again = next(iter(written.others.values()), None)
            raise _Unreadable("", f"no geometry: neither {' nor '.join(COORDJSON.places)}", again)
        own = next((labels[name] for name in _LABELS if name in labels), None)
        if own is None and len({desc for desc, _ in labels.values()}) > 1:
            raise _Unreadable("", f"several descriptions: {', '.join(labels)}")
        self._add(at, *written.geometry.popitem(), own or next(iter(labels.values()), None))
        self.unread += [
            Unread(at=f"{at}.{name}", reason="passed over, with its coordinates") for name in written.others
        ]

    def _add(self, at: str, name: str, items: list[_Lexeme], label: _Text | None) -> None:
        """Take coordinates under one label as objects. Raises _Unreadable."""
        shapes = _shapes(name, items)
        values = [self._values(name, shape) for shape in shapes]
        if label is None or not label[0]:
            raise _Unreadable(f".{DESC}", "no description")
        make = partial(AnswerObject, at=at, desc=label[0], kind=_KINDS[name], desc_span=label[1])
        for shape, (bins, numbers) in zip(shapes, values, strict=True):
            spans = tuple((item.start, item.end) for item in (self.coords.arranged(shape) if bins else shape))
            self.objects.append(make(bins=bins, numbers=numbers, coord_spans=spans))

    def _tagged(self, position: int) -> int:
        """Read labels and boxes in tags from `position` on; gives the place behind the last.

        A label has the boxes that follow it, and a box only one label.
        """
        labels: list[_Text] = []
        boxed = box_first = False
        while tag := _TAG.search(self.text, position):
            at, position = f"objects[{self.index}]", tag.end()
            if tag["box"] is None:
                if boxed:
                    labels = []
                labels.append((tag["label"].strip(), tag.span("label")))
                boxed = False
                continue
            boxed, box_first, self.index = True, box_first or not labels, self.index + 1
            name = "quad" if tag[0] == _QUAD else "bbox_2d"
            try:
                items, position = self._inside(f".{name}", _Lexeme("tag", tag[0], *tag.span()), "{}:")
                if len(labels) > 1:
                    raise _Unreadable("", f"{len(labels)} labels before one box, which may be of any")
                if box_first and labels:
                    raise _Unreadable("", "boxes stand before their labels, or without: which is whose is not said")
                self._add(at, name, items if name == "quad" else self._apart(items), labels[0] if labels else None)
            except _Unreadable as error:
                self.unread.append(Unread(at=at + error.at, reason=error.reason))
                position = max(position, error.again or 0)
        if not boxed:
            self.unread.append(Unread(at=f"objects[{self.index}]", reason="a label without a box"))
        return position

    def _apart(self, items: list[_Lexeme]) -> list[_Lexeme]:
        """Boxes in one pair of tags as lists of their own: two pairs in brackets each, or coord tokens of which commas
        stand between the boxes and nowhere else: with one behind every two these may as well be points.
        """
        apart = _Lexeme("mark", ",", 0, 0)
        pairs = [list(run) for bracket, run in groupby(items, lambda item: item.kind == "mark") if not bracket]
        if len(pairs) > 2 and len(pairs) % 2 == 0 and {len(pair) for pair in pairs} == {2}:  # (x1,y1),(x2,y2)
            return [item for k in range(0, len(pairs), 2) for item in (*pairs[k], *pairs[k + 1], apart)]
        gaps = [self.text[a.end : b.start].strip() for a, b in pairwise(items)]
        whole = len(items) % 4 == 0 and all(item.kind == "coord" for item in items)
        if not whole or gaps != ["," if k % 4 == 0 else "" for k in range(1, len(items))]:
            return items
        return [item for k in range(0, len(items), 4) for item in (*items[k : k + 4], apart)]

    def _inside(self, at: str, opening: _Lexeme, wrong: str = "") -> tuple[list[_Lexeme], int]:
        """What stands behind a bracket or tag up to what closes it, but for commas, and the place behind that.

        wrong: marks that may not be in it. Raises _Unreadable.
        """
        if opening.text in wrong or opening.text not in _CLOSING:
            raise _Unreadable(at, f"a list belongs there, not {quoted(opening.text)}", opening.end)
        closings, position = [_CLOSING[opening.text]], opening.end
        items: list[_Lexeme] = []
        while True:
            item = self._next(position)
            position = item.end
            if item.kind in ("mark", "tag"):
                if item.text == closings[-1]:
                    closings.pop()
                    if not closings:
                        return items, position
                elif item.text in _CLOSING and item.text not in wrong and len(closings) < _DEEP:
                    closings.append(_CLOSING[item.text])
                elif item.text in wrong or item.text not in ",:":
                    raise _Unreadable(at, f"nested wrongly: {quoted(item.text)} in the list", item.start)
            elif item.kind == "end":
                raise _Unreadable(at, f"cut off behind {_count(items)}", item.end)
            if item.text != ",":
                items.append(item)

    def _values(self, name: str, items: list[_Lexeme]) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """The bins, or the plain numbers. Raises _Unreadable."""
        at, kind = f".{name}", _KINDS[name]
        bins: tuple[int, ...] = ()
        numbers: tuple[float, ...] = ()
        tokens = [item.text.strip("\"'") for item in items]
        wrong = next((token for token in tokens if token not in self.coords.bin_of), None)
        if wrong is None:
            bins = self.coords.arranged([token_to_int(token, self.coords) for token in tokens])
        elif not all(map(_NUMBER.fullmatch, tokens)):
            token = re.fullmatch(self.coords.pattern("[^|<>]*"), wrong)
            raise _Unreadable(at, f"{quoted(wrong)} {'is no coord token' if token else 'where a coord token belongs'}")
        elif not self.numbers:
            raise _Unreadable(at, f"plain numbers, beginning {wrong}, where coord tokens belong")
        elif name in ("box_2d", "point"):
            raise _Unreadable(at, "plain numbers, which begin with y where Gemini writes them and with x elsewhere")
        else:
            numbers = tuple(map(float, tokens))
        if not has_count(kind, len(items)):
            raise _Unreadable(at, f"{_count(items)}; a {kind} has {COUNTS[kind] or 'an even number, at least 6'}")
        if kind == "bbox_2d" and (order := misordered(numbers or bins)):
            raise _Unreadable(at, order)
        return bins, numbers


def _shapes(name: str, items: list[_Lexeme]) -> list[list[_Lexeme]]:
    """The coordinates of each shape: lists of two are the points of one, longer ones shapes. Raises _Unreadable."""
    lists = [list(run) for bracket, run in groupby(items, lambda item: item.kind == "mark") if not bracket] or [[]]
    sizes = {len(coordinates) for coordinates in lists}
    count = COUNTS[_KINDS[name]]
    if len(lists) == 1 or sizes == {count}:
        return lists
    if sizes == {2} and count in (None, 2 * len(lists)):
        return [list(chain(*lists))]
    raise _Unreadable(f".{name}", f"nested wrongly: {len(lists)} lists that are no {_KINDS[name]}")


def _string(lexeme: _Lexeme) -> str:
    written = lexeme.text
    if written[0] == "'":  # Python's way of quoting
        written = '"' + re.sub(r'\\.|"', lambda part: _REQUOTED.get(part[0], part[0]), written[1:-1]) + '"'
    try:
        value = str(_STRINGS.decode(written))
    except ValueError as error:
        raise _Unreadable("", f"a wrong escape in {quoted(lexeme.text)}", lexeme.end) from error
    # Half of a surrogate pair can be written as an escape, but is no text that a file could hold.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _count(items: list[_Lexeme]) -> str:
    number = sum(item.kind in ("coord", "number", "string") for item in items)
    return f"{number} coordinate{'' if number == 1 else 's'}"


def quoted(text: str) -> str:
    """The beginning of a text, for a reason."""
    shown = json.dumps(text if len(text) <= 40 else text[:39] + "…", ensure_ascii=False)
    return shown.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
