"""Where boxes stand in the text of a message: placeholders, coord tokens, and numbers in JSON, in tags or in brackets.

Numbers with a name for each are those of `named`.

What an answer means, labels and all, is read by `coordcore.records.answers`. Here only the coordinates matter, in
questions as well and without a label, and the text around them stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

import attrs

from coordcore.coords import CoordFormat
from coordcore.records.answers import answered, reserved
from coordcore.records.geometry import has_count
from coordcore.records.record import RecordError
from coordcore_coord_tokens.chat import named
from coordcore_coord_tokens.chat.unread import check_left_over

BBOX, REF = "<bbox>", "<ref-object>"

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_BOX_TAG, _QUAD_TAG = "<|box_start|>", "<|quad_start|>"
_POINT_TAG = "<point>"
_BOX_TAGS = (_BOX_TAG, "<box>", "<|det|>")
_TAGS = {
    **dict(zip(_BOX_TAGS, ("<|box_end|>", "</box>", "<|/det|>"), strict=True)),
    _QUAD_TAG: "<|quad_end|>",
    _POINT_TAG: "</point>",
}
_OPENING, _CLOSING = ("|".join(map(re.escape, tags)) for tags in (_TAGS, _TAGS.values()))
_GROUNDING = re.compile(
    rf"{_OPENING}|{_CLOSING}|<\|object_ref_(?:start|end)\|>|<\|/?(?:ref|grounding)\|>|{re.escape('<image>')}"
    r"|</?think>|◁/?think▷|<\|channel>thought|<channel\|>|</?tool_(?:call|response)>"
)
"""Markup that may stand in a message: what Qwen, InternVL and DeepSeek-VL put around labels and boxes; thoughts; what
agents write around a call, whose template puts it into texts itself."""

_BEGIN = re.compile(r"""[<\[("']|\bx\s{0,9}=""")
_IN_TAGS = re.compile(rf"(?:{_OPENING})((?:(?!{_OPENING}).)*?)(?:{_CLOSING})", re.DOTALL)
_KEY = re.compile(rf"""["'](\w+){named.QUOTE}\s*:\s*(?:{named.QUOTE})?[\[(\s]*$""")
_UNREAD_KEY = re.compile(r"""["'](bbox_2d|bbox|box_2d|poly|point_2d|quad)\\{0,3}["']\s*:[\\"'\[(\s]*[-+.]?\d""")
_LISTED = re.compile(r"""["']\w+["']\s*:\s*(?:\[\s*)?$""")
_QUOTED = re.compile(r"""(?:["']\s*:|\[|",)\s*"$""")
_NO_CORNERS = re.compile(
    "(key|way|end|mid|start)?points?|poly(gon|line)?s?|(base|cent(er|re)|mid)?lines?|linestring|segment(s|ations?)?"
    "|contours?|vert(s|ex|exes|ices)|landmarks?|[xc]+ywh|(yx)+"
)
"""A word that says of a key, as its last, that numbers are not x1, y1, x2, y2: of text_line, not of line_chart."""
_OUTLINES = re.compile("poly(gon|line)s?|segmentations?|contours?|vert(ex|exes|ices)|keypoints|landmarks")
"""Of these, in which more numbers than four are no scores or times either."""
_KEYPOINTS = re.compile("keypoints|landmarks")
"""Of these, whose numbers stand in twos or threes."""
_HOW = {"list", "coord", "coords", "coordinates", "xy", "px", "pixel", "pixels", "norm", "d"}
"""Words behind it that say how the numbers are written."""
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_BOX_KEYS, _POINT_KEYS = ("bbox_2d", "bbox", "box_2d"), ("point_2d", "point")
_BOX_WORDS = re.compile("b?box(es)?|rect(angle)?s?|corners")
"""A word that says of a key that two pairs of numbers are the corners of a box."""
_BOX_BEFORE = re.compile(
    rf"(?:{'|'.join(map(re.escape, _BOX_TAGS))}|\b(?i:b?box(?:es)?(?:_2d)?|rect(?:angle)?)\s*[:=])[\[(\s]*$"
)
"""The tag of a box, or its name without quotes."""
_BEFORE_ALL, _BEHIND_ALL = re.compile(r"\s*(?:<answer>)?[\s\[(]*"), re.compile(r"[\s\])]*(?:</answer>)?\s*")
_BEFORE = 64
"""Letters before coordinates in which their key is looked for."""


@attrs.frozen(kw_only=True)
class Shape:
    """A geometry in a text. spans: of its coordinates. values: x first. tokens: written as coord tokens."""

    kind: str
    values: tuple[float, ...]
    spans: tuple[tuple[int, int], ...]
    tokens: bool


@attrs.frozen(kw_only=True)
class Place:
    """`<bbox>` or `<ref-object>` in a text. listed: stands in JSON, where four coord tokens need brackets.

    quoted: is a whole text of JSON, in which quotes and backslashes need one before them.
    """

    name: str
    spans: tuple[tuple[int, int]]
    listed: bool = False
    quoted: bool = False


@lru_cache
def _grammar(coords: CoordFormat) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What finds shapes and placeholders, and what finds the coordinates in a shape, but for digits of names."""
    token = coords.pattern()
    some = rf"(?:[\"']?{token}[\"']?|{_NUMBER})"
    pair = rf"[\[(]\s*{some}\s*,\s*{some}\s*[\])]"
    four = r"\s*,\s*".join([some] * 4)
    shapes = re.compile(
        rf"(?P<place>{BBOX}|{REF})"
        rf"|(?P<tagged>(?:{_OPENING})\s*{some}(?:[\s,]+{some})*\s*(?:{_CLOSING})"
        rf"|{_POINT_TAG}[\s\[(]*{some}\s*,\s*{some}[\s\])]*{_TAGS[_POINT_TAG]})"
        rf"|{named.grammar(some)}"
        rf"|(?P<pairs>{pair}(?:\s*(?:,\s*)?{pair})*)"
        rf"|(?P<list>[\[(]\s*{some}(?:\s*,\s*{some})*\s*[\])])"
        rf"|(?P<boxes>[\[(]\s*{four}(?:\s*;\s*{four})+\s*[\])])"
        rf"|(?P<bare>{token}(?:[\s,]*{token})*)"
    )
    return shapes, re.compile(rf"(?P<token>{token})|(?<!\w){_NUMBER}")


def shapes_in(
    text: str, path: str, coords: CoordFormat, *, numbers: bool, is_answer: bool = False
) -> Iterator[Shape | Place]:
    """What stands in a text, in order.

    numbers: whether plain numbers are read; if not, they are text. is_answer: whether it is one, where a pair of
    numbers that is all of it is a point. Raises RecordError for coordinates that are no shape, and for control tokens
    in the rest. The time it takes is linear in the length of the text.
    """
    shapes, coordinates = _grammar(coords)
    rest, position, listed = [], 0, False
    answer = answered(text) if is_answer else None
    for match in _matches(shapes, text):
        start, end = match.span()
        found: list[Shape | Place] = []
        if match["place"]:
            beside = listed and not text[position:start].strip(" ,\n\t")
            listed = match["place"] == BBOX and (
                beside or _LISTED.search(text, max(0, start - _BEFORE), start) is not None
            )
            quoted = text.startswith('"', end) and _QUOTED.search(text, max(0, start - _BEFORE), start) is not None
            found.append(Place(name=match["place"], spans=((start, end),), listed=listed, quoted=quoted))
        else:
            alone = answer is not None and _is_all_of(match, *answer)
            found.extend(_shapes(match, list(coordinates.finditer(text, start, end)), path, coords, numbers, alone))
        if not found:
            continue
        rest += [text[position:start], "\0"]
        position = end
        yield from found
    _check_rest("".join(rest) + text[position:], path, coords, numbers)


def _words(key: str) -> list[str]:
    """The words of a key, in small letters: of bboxXYWH and bbox_xywh the same two."""
    return [word.lower() for word in _WORDS.findall(key)]


def _matches(shapes: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """As `shapes.finditer`, which tries every letter, looking only where a shape can begin."""
    position = 0
    while begin := _BEGIN.search(text, position):
        match = shapes.match(text, begin.start())
        position = match.end() if match else begin.end()
        if match:
            yield match


def _is_all_of(match: re.Match[str], begin: int, end: int) -> bool:
    """Whether an answer, a part of the text, is nothing but a pair in brackets: "(0.49,0.40)", no interval "[0, 5)"."""
    return (
        match.lastgroup == "pairs"
        and match[0][0] + match[0][-1] in ("()", "[]")
        and _BEFORE_ALL.fullmatch(match.string, begin, match.start()) is not None
        and _BEHIND_ALL.fullmatch(match.string, match.end(), end) is not None
    )


def _shapes(
    match: re.Match[str],
    found: Sequence[re.Match[str]],
    path: str,
    coords: CoordFormat,
    numbers: bool,
    alone: bool,
) -> Iterator[Shape]:
    how, called = match.lastgroup, False
    if how in ("arguments", "pairs", "list") and len(found) in (2, 3):
        called = named.is_called(match)  # a third argument is a time
        found = found[:2] if called else found
    tokens = [item["token"] is not None for item in found]
    if not any(tokens) and not numbers:
        return
    if any(tokens) and not all(tokens):
        raise RecordError(path, f"{match[0][:60]!r} mixes numbers and coord tokens; write one form throughout")
    text, count = match.string, len(found)
    dragged = count == 4 and named.is_drag(match)
    if how == "named":
        if kind := named.named_kind(match, path, coords):
            for part in (found[:2], found[2:]) if dragged else (found,):
                shape = _shape("point" if len(part) == 2 else kind, part, path, coords)
                yield shape if shape.tokens else attrs.evolve(shape, values=coords.arranged(shape.values))
        return
    if called:
        yield _shape("point", found, path, coords)
    if called or how == "arguments":
        return
    keyed = _KEY.search(text, max(0, match.start() - _BEFORE), match.start())
    in_point_tag = match[0].startswith(_POINT_TAG)
    key = keyed[1] if keyed and not in_point_tag else ""
    tagged = how == "tagged" or (
        text.endswith(_BOX_TAG, 0, match.start()) and text.startswith("<|box_end|>", match.end())
    )
    pointed = count == 2 and (alone or named.is_pair(match) or (not key and (tokens[0] or tagged)))
    in_quad_tag = match[0].startswith(_QUAD_TAG) or text.endswith(_QUAD_TAG, 0, match.start())
    is_quad = key == "quad" or in_quad_tag or (how == "bare" and text.endswith("|#", 0, match.start()))
    is_box = key in _BOX_KEYS or (how == "tagged" and not is_quad)
    poly = key == "poly" or (how == "bare" and text.endswith("|", 0, match.start()))
    if key in ("box_2d", "point") and not tokens[0]:
        cure = {"box_2d": "bbox_2d", "point": "point_2d"}[key]
        raise RecordError(path, f"numbers under {key}, which begin with y where Gemini writes them; write {cure}")
    whole = (poly or is_quad) and has_count("poly" if poly else "quad", count)
    word = next((word for word in _words(key)[::-1] if word not in _HOW), "")
    no_box = count == 4 or (how == "pairs" and word == "points")
    if (
        how != "tagged"
        and count > 1
        and not whole
        and key not in (*_BOX_KEYS, *_POINT_KEYS)
        and (_NO_CORNERS if no_box else _OUTLINES if count > 4 else _KEYPOINTS).fullmatch(word)
    ):
        cure = "" if tokens[0] else ', or set `space = "text"` where they are no places'
        raise RecordError(
            path, f"{count} numbers under {key}, which are no x1, y1, x2, y2; write bbox_2d, poly or point_2d{cure}"
        )
    if whole:
        yield _shape("poly" if poly else "quad", found, path, coords)
    elif count % 2 == 0 and (key in _POINT_KEYS or pointed or dragged or _are_points(match, found)):
        for first in range(0, count, 2):
            yield _shape("point", found[first : first + 2], path, coords)
    elif how == "pairs" and count == 4 and not _says_box(match, key):
        cure = "" if tokens[0] else f", or {named.TEXT}"
        said = f"{match[0][:60]!r}: 2 pairs are a box or two points"
        raise RecordError(
            path, f"{said}; write them in <box> or under bbox_2d, each in <point> or under point_2d{cure}"
        )
    elif not is_quad and not in_point_tag and (count == 4 or (how in ("bare", "tagged", "boxes") and count % 4 == 0)):
        for first in range(0, count, 4):
            yield _shape("bbox_2d", found[first : first + 4], path, coords)
    elif how == "pairs" and count > 4 and not tokens[0] and not key:
        raise RecordError(
            path,
            f"{match[0][:60]!r}: {count // 2} pairs are several boxes or none; write [x1, y1, x2, y2] for each, or "
            'set `space = "text"` where they are no boxes',
        )
    elif tokens[0] or is_box or poly or is_quad or key in _POINT_KEYS:
        counts = "a box has 4, a point 2, a quad 8, a poly 6 or more in pairs"
        raise RecordError(path, f"{match[0][:60]!r} has {count} coordinates; {counts}")


def _says_box(match: re.Match[str], key: str) -> bool:
    """Whether two pairs stand in the tags of a box, behind its name, or under a key of one."""
    said = _BOX_BEFORE.search(match.string, max(0, match.start() - _BEFORE), match.start()) is not None
    return said or any(_BOX_WORDS.fullmatch(word) for word in _words(key))


def _are_points(match: re.Match[str], found: Sequence[re.Match[str]]) -> bool:
    """Whether pairs of coord tokens stand between tags as `grouped` writes points, a comma from each to the next."""
    between = [match.string[one.end() : other.start()].strip() for one, other in pairwise(found)]
    in_tag = match.lastgroup == "bare" and match.string.endswith(_BOX_TAG, 0, match.start())
    return in_tag and not any(between[::2]) and set(between[1::2]) == {","}


def _shape(kind: str, found: Sequence[re.Match[str]], path: str, coords: CoordFormat) -> Shape:
    tokens = found[0]["token"] is not None
    if not tokens:
        values = tuple(float(item[0]) for item in found)
    elif wrong := next((item[0] for item in found if item[0] not in coords.bin_of), None):
        raise RecordError(path, f"{wrong!r} is no coord token; write {coords.written[0]} to {coords.written[-1]}")
    else:
        values = coords.arranged([coords.bin_of[item[0]] for item in found])
    return Shape(kind=kind, values=values, spans=tuple(item.span() for item in found), tokens=tokens)


def _check_rest(text: str, path: str, coords: CoordFormat, numbers: bool) -> None:
    """Raise RecordError for what is left of a text without its shapes. "\\0" stands for each."""
    if numbers:
        for inside in _IN_TAGS.finditer(text):
            if not inside[0].startswith(_POINT_TAG) and re.search(r"\d", inside[1]):
                raise RecordError(path, f"{inside[0][:60]!r} is no box that can be read; write (x1,y1),(x2,y2)")
        if unread := _UNREAD_KEY.search(text):
            raise RecordError(path, f"what stands under {unread[1]} is no box that can be read: {unread[0]!r} ...")
        check_left_over(text, path)
    if found := reserved(_GROUNDING.sub(" ", text), coords):
        raise RecordError(
            path, f"contains {found!r}, which the tokenizer or the template reads as a control token; reword it"
        )
