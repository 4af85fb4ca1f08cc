"""What placeholders in ms-swift's chat rows stand for: `<ref-object>` for the next ref, `<bbox>` for the next box."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from coordcore.coords import ints_to_tokens
from coordcore.records.answers import answered, parse_answer
from coordcore_data.convert.chat import Turn
from coordcore_data.convert.text import UnreadableError

_PLACEHOLDER = re.compile(r"<ref-object>|<bbox>")
_REFS = "row whose refs do not match its boxes"
_UNCLEAR = "row that does not say which ref a box belongs to"
_DENIAL = re.compile(r"\W*(?:no|not|none|nothing|false|there (?:is|are) (?:no|not|none))\b|\s*\[\s*\]", re.IGNORECASE)


def without_thoughts(answer: str) -> str:
    return answer[slice(*answered(answer))]


def asked_for(refs: Sequence[str | None], said: Sequence[Turn]) -> list[str]:
    """The refs of the questions, each once."""
    found: list[str | None] = []
    next_ref = 0
    for turn in said:
        asked = turn.question.count("<ref-object>")
        found += refs[next_ref : next_ref + asked]
        next_ref += asked + (turn.answer or "").count("<ref-object>")
    return [ref for ref in dict.fromkeys(found if next_ref else refs) if ref]


def labels_of(count: int, refs: Sequence[str | None], said: Sequence[Turn]) -> dict[int, str | None]:
    """Box -> its label, of those that are asked for or answered and not only thought of. count: of all boxes.

    Raises UnreadableError for what could mean several things.
    """
    text = "".join(turn.question + (turn.answer or "") for turn in said)
    boxes_placed, refs_placed = text.count("<bbox>"), text.count("<ref-object>")
    if boxes_placed not in (0, count):
        raise UnreadableError("row with another number of <bbox> than of boxes")
    if not boxes_placed:
        return dict(enumerate(_all_labels(refs, count)))
    pairs = list(_sides(said, refs))
    if refs and not refs_placed:
        labels = _all_labels(refs, count)
        return {box: labels[box] for sides in pairs for side in sides for box in side.boxes}
    if refs_placed != len(refs):
        raise UnreadableError("row with another number of <ref-object> than of refs")
    found: dict[int, str | None] = {}
    for asked, reply in pairs:
        named = re.fullmatch(r"(?:RB+)*", "".join(asked.order))
        if asked.boxes and asked.refs and (not named or _DENIAL.match(reply.message)):
            raise UnreadableError("row that asks whether a box is of a ref: what its answer means is not read")
        found |= asked.pair(reply.refs) | reply.pair(asked.refs)
    return found


def _all_labels(refs: Sequence[str | None], count: int) -> Sequence[str | None]:
    if len(refs) not in (1, count):
        raise UnreadableError(_REFS)
    return [*refs] * count if len(refs) == 1 else refs


def _sides(said: Sequence[Turn], refs: Sequence[str | None]) -> Iterator[tuple[_Side, _Side]]:
    """The question and the answer of each turn. A thought takes its placeholders' refs and boxes, and is left out."""
    next_ref = next_box = 0
    for turn in said:
        answer = turn.answer or ""
        begin, end = answered(answer)
        sides = []
        for part in (turn.question, answer[:begin], answer[begin:end], answer[end:]):
            sides.append(_Side(part, refs, next_ref, next_box))
            next_ref, next_box = next_ref + len(sides[-1].refs), next_box + len(sides[-1].boxes)
        yield sides[0], sides[2]


class _Side:
    """A message, or a part of one, and what its placeholders stand for: in `order` "R" is a ref and "B" a box."""

    def __init__(self, message: str, refs: Sequence[str | None], next_ref: int, next_box: int) -> None:
        self.order = ["R" if found[0] == "<ref-object>" else "B" for found in _PLACEHOLDER.finditer(message)]
        self.refs = list(refs[next_ref : next_ref + self.order.count("R")])
        self.boxes = list(range(next_box, next_box + self.order.count("B")))
        self.message = message

    def pair(self, others: Sequence[str | None]) -> dict[int, str | None]:
        """Box -> ref. others: the refs of the other message. Raises UnreadableError."""
        if not self.boxes:
            return {}
        if found := self._as_lists():
            return found
        known = set(self.refs or others)
        if len(known) == 1:
            return dict.fromkeys(self.boxes, known.pop())
        order = "".join(self.order)
        if not self.refs or not re.fullmatch(r"(?:RB+)+|(?:B+R)+", order):
            raise UnreadableError(_UNCLEAR)
        groups = re.findall("B+", order)
        boxes = iter(self.boxes)
        return {next(boxes): ref for group, ref in zip(groups, self.refs, strict=True) for _ in group}

    def _as_lists(self) -> dict[int, str | None]:
        """The same where the message is a list of objects, which has one reading; empty where it is none."""
        refs, boxes = iter(self.refs), iter(self.boxes)

        def fill(found: re.Match[str]) -> str:
            if found[0] == "<ref-object>":
                return json.dumps(next(refs) or "", ensure_ascii=False)[1:-1]
            number = next(boxes)
            return f"[{', '.join(ints_to_tokens([number // 1000, number % 1000, 999, 999]))}]"

        read = parse_answer(_PLACEHOLDER.sub(fill, self.message))
        pairs = {item.bins[0] * 1000 + item.bins[1]: item.desc for item in read.objects if len(item.bins) == 4}
        return dict(pairs) if sorted(pairs) == self.boxes else {}
