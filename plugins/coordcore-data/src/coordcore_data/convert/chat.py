"""Chat rows: their turns in any of the common spellings, and the boxes that are written into an answer's text."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any

import attrs

from coordcore.coords import CoordFormat
from coordcore.records.answers import AnswerObject, answered, parse_answer
from coordcore_data.convert.core import Reading
from coordcore_data.convert.text import UnreadableError

_NUMBER = r"(?:-?\d+(?:\.\d+)?|<\|coord_\d+\|>)"
_TAG = r"(?:<\|(?:box_start|quad_start|det)\|>|<box>)"
_BOX = re.compile(
    rf"(?:{_TAG}[\s\[(]*)?[\[(]\s*{_NUMBER}(?:\s*[\])]?\s*,\s*[\[(]?\s*{_NUMBER}){{3,}}\s*[\])]"
    rf"|{_TAG}[\s\[(]*|(?:<loc_?\d+>\s*){{4}}|(?:<\|coord_\d+\|>\s*){{4}}"
)
"""What looks like a box, in more forms than are read."""

REF = re.compile(r"<(?:\|object_ref_start\||\|ref\||ref)>([^<]*)<(?:\|object_ref_end\||\|/ref\||/ref)>")
"""A ref in the tags of Qwen, DeepSeek-VL or InternVL."""

_AROUND = re.compile(r"</?answer>|<\|(?:im_end|endoftext)\|>")
_PICTURE = re.compile(r"<img>([^<]+)</img>")
_ANSWERS = ("assistant", "gpt", "model", "bot", "chatgpt", "bing")
"""Who answers, in ms-swift's and ShareGPT's words."""

_USERS = ("user", "human")


@attrs.frozen
class Turn:
    """What is asked, system and tool messages included, and what is answered: None at the end of a row without it.

    user: what the user alone says. others: whether somebody else than user and system asks, a tool for instance.
    """

    question: str
    answer: str | None
    user: str = ""
    others: bool = False


def turns(row: Any) -> list[Turn]:
    """The turns of a row: `messages` (OpenAI, ms-swift), `conversations` (ShareGPT, LLaVA), or `query` and `response`.

    Raises UnreadableError for anything else under these names.
    """
    messages = row.messages if row.messages is not None else row.conversations
    if messages is None:
        history = row.history if isinstance(row.history, list) else []
        pairs = [*history, *([[row.query, row.response]] if row.query is not None else [])]
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise UnreadableError("history that is no list of pairs")
        return [Turn(_text(asked), None if said is None else _text(said), _text(asked)) for asked, said in pairs]
    return list(_paired(messages))


def _paired(messages: Any) -> Iterator[Turn]:
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise UnreadableError("messages that are no list of objects")
    asked: list[str] = []
    user: list[str] = []
    others = False
    for message in messages:
        role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
        if role in _ANSWERS:
            yield Turn("\n".join(asked), _text(content), "\n".join(user), others)
            asked, user, others = [], [], False
            continue
        asked.append(_text(content))
        if role in _USERS:
            user.append(asked[-1])
        others = others or role not in (*_USERS, "system")
    if asked:
        yield Turn("\n".join(asked), None, "\n".join(user), others)


def _text(content: Any) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(content, list):
        parts = [part.get("text", "") if isinstance(part, dict) else part for part in content]
        return "".join(part if isinstance(part, str) else "" for part in parts)
    if content is not None and not isinstance(content, str):
        raise UnreadableError("message whose content is no text")
    return content or ""


def pictures(row: Any) -> list[Any]:
    """The paths of the images that messages hold themselves, in parts (OpenAI, Qwen) or tags (`<img>`, Qwen-VL).

    None for one without a path.
    """
    messages = row.messages if row.messages is not None else row.conversations
    found: list[Any] = []
    for item in messages if isinstance(messages, list) else []:
        content = item.get("content", item.get("value")) if isinstance(item, dict) else None
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, str):
                found += _PICTURE.findall(part)
            elif isinstance(part, dict) and str(part.get("type")).startswith("image"):
                given = part.get("image") or part.get("image_url")
                path = given.get("url") if isinstance(given, dict) else given
                found.append(None if str(path).startswith("data:") else path)
    return found


def without_pictures(question: str) -> str:
    """A question without the marks of its image at its ends, where they say no more than that there is one."""
    text = _PICTURE.sub("", question).strip()
    return text.removeprefix("<image>").removesuffix("<image>")


def holds_box(text: str) -> bool:
    return _BOX.search(text) is not None


@attrs.frozen
class Written:
    """The boxes of an answer's text. empty: the answer is a list of nothing, and of the whole image."""

    objects: tuple[AnswerObject, ...]
    empty: bool


def boxes_in(turn: Turn, coords: CoordFormat) -> Written:
    """What the answer of a turn says in its text. Raises UnreadableError when it holds boxes that are not read."""
    text = turn.answer or ""
    answer = _AROUND.sub("", text[slice(*answered(text))])
    asked = set(REF.findall(turn.question))
    if re.search(_TAG, answer) and not REF.search(answer) and len(asked) == 1:
        answer = f"<ref>{asked.pop()}</ref>{answer}"
    read = parse_answer(answer, numbers=True, coords=coords)
    wrong = next((item.reason for item in read.unread if item.at.startswith("objects")), None)
    if wrong is not None:
        raise UnreadableError("boxes in the text of the answer that cannot be read", wrong)
    starts = sorted(start for item in read.objects for start, _ in item.coord_spans)
    if any(bisect_right(starts, box.end()) == bisect_left(starts, box.start()) for box in _BOX.finditer(answer)):
        raise UnreadableError("boxes in the text of the answer, in a form that is not read", answer[:60])
    empty = not (read.objects or read.unread or re.search(_TAG, turn.question))
    return Written(read.objects, empty=empty)


def located(found: AnswerObject, text: str, reading: Reading) -> list[float]:
    """The coordinates of a box from a text, in pixels or, unless `reading.space` is "pixel", in fractions.

    Raises UnreadableError where nobody has said what the numbers are.
    """
    spec, space = reading.quantisation, reading.space
    if found.bins and (space != "bin" or spec is None):
        raise UnreadableError("coord tokens in the text of the answer: give --from-space bin --from-quantisation NAME")
    if space is None or (space == "bin" and spec is None):
        raise UnreadableError(
            "boxes in the text of the answer, whose numbers nothing declares: give --from-space pixel, norm1, or bin "
            "with --from-quantisation (qwen_1000 for 0..1000)"
        )
    if found.numbers and reading.boxes is None and re.search(r"""["']bbox["']\s*:""", text):
        raise UnreadableError(
            "numbers under bbox, two corners to some and corner and size to others: give --boxes xyxy"
        )
    values = list(map(float, found.bins or found.numbers))
    if space != "bin" or spec is None:
        return values
    # Of 1000 bins the last is 999; a number on a scale of a thousand may be 1000, the edge of the image.
    last = spec.bins - 1 if found.bins else spec.decode_scale
    if not all(0 <= value <= last for value in values):
        raise UnreadableError(f"numbers outside 0..{last:g} in the text of the answer: not {spec.name}")
    return [(value + spec.decode_shift) / spec.decode_scale for value in values]
