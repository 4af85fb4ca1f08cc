"""What chat rows that are answered with boxes ask: a phrase, some categories, or a question of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import attrs

from coordcore.records.asking import question_of
from coordcore.records.record import Record, RecordError, check_text
from coordcore.tasks import TASKS
from coordcore_data.convert.chat import REF, Turn, holds_box, without_pictures
from coordcore_data.convert.core import Shape
from coordcore_data.convert.text import clean_label

_LISTED = re.compile(r'(?:"([^"]*, [^"]*)"|(.+?))(?:, |$)')


@attrs.frozen
class Question:
    """What a row asks, as a record would. phrases: the refs in it."""

    text: str
    phrases: tuple[str, ...]

    @property
    def is_usual(self) -> bool:
        """Whether a record asks it that says nothing of what it asks."""
        return self.text == TASKS["detect"].prompt


def asked_once(said: Sequence[Turn], refs: Sequence[str | None], images: int) -> Question | None:
    """The question of a row that has one, about its one image; None for any that a record cannot hold."""
    if images != 1 or len(said) != 1 or said[0].others or said[0].answer is None:
        return None
    text = without_pictures(said[0].user).strip()
    count = text.count("<ref-object>")
    given = [ref for ref in refs[:count] if ref]
    if len(given) != count or count != said[0].question.count("<ref-object>"):
        return None
    text = "".join(f"{part}{ref}" for part, ref in zip(text.split("<ref-object>"), [*given, ""], strict=True))
    phrases = (*given, *REF.findall(text))
    text = REF.sub(r"\1", text)
    if "<bbox>" in text or "{box}" in text or holds_box(text):
        return None
    try:
        check_text(text, "question")
    except RecordError:
        return None
    return Question(text, phrases)


def asked_by(question: Question, answered: Sequence[Shape]) -> dict[str, Any]:
    """The task of a question that names what it asks for, and what that is; empty for any other."""
    labels = {shape.label for shape in answered}
    points = {shape.points is not None for shape in answered}
    for task in ("refer", "point"):
        before, _, after = TASKS[task].prompt.partition("{phrase}")
        phrase = question.text[len(before) : len(question.text) - len(after)].strip()
        if phrase and question.text == f"{before}{phrase}{after}" and (task == "point" or True not in points):
            return {"task": task, "question": phrase}
    categories = _categories(question.text)
    if categories and labels <= {*categories} and True not in points:
        return {"task": "named", "categories": [clean_label(label).text or label for label in categories]}
    if len(question.phrases) == 1 and labels <= {*question.phrases} and len(points) < 2:
        return {"task": "point" if True in points else "refer", "question": question.phrases[0]}
    return {}


def _categories(text: str) -> list[str]:
    """The categories that the usual question of the task "named" asks for; none where it is another question."""
    before, _, after = TASKS["named"].prompt.partition("{categories}")
    if not text.startswith(before) or not text.endswith(after):
        return []
    found = [quoted or bare for quoted, bare in _LISTED.findall(text[len(before) : len(text) - len(after)])]
    record = Record(images=["a"], width=1, height=1, task="named", categories=found)
    is_same = question_of(record, None, categories=tuple(found)) == text
    return found if is_same and len({*found}) == len(found) else []
