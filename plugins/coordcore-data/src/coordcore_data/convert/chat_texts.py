"""Chat rows that a record says in words: a question and its answer, about an image or about a box in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coordcore.records.record import RecordError, check_text
from coordcore_data.convert.chat import Turn, holds_box, without_pictures
from coordcore_data.convert.chat_places import tells_places
from coordcore_data.convert.text import UnreadableError

AS_THEY_ARE = "`[data.chat_jsonl]` trains on such rows as they are"

REGION = "region"
"""The label of a box that a question speaks of, where the row names none. Nothing is trained on it."""


def asked_in_words(said: Sequence[Turn], refs: Sequence[str | None], images: int) -> dict[str, Any]:
    """The keys of a record that asks and answers as a row does: of the task "region" where the question holds a
    `<bbox>`, else of "chat", or of "caption" where nothing is asked.

    Raises UnreadableError for what a record cannot say.
    """
    if images > 1:
        raise UnreadableError(f"answer in words about several images: a record has one; {AS_THEY_ARE}")
    if len(said) != 1:
        raise UnreadableError(f"several questions and answers in words: a record has one of each; {AS_THEY_ARE}")
    [turn] = said
    if turn.others:
        raise UnreadableError(f"message of another than user, assistant and system; {AS_THEY_ARE}")
    question, answer = without_pictures(turn.user).strip(), (turn.answer or "").strip()
    if "<image>" in question:
        raise UnreadableError(f"<image> within a question: a record's image comes first; {AS_THEY_ARE}")
    if question.count("<bbox>") > 1 or "<bbox>" in answer or holds_box(question):
        raise UnreadableError(f"question about boxes that is answered in words; {AS_THEY_ARE}")
    if tells_places(question, answer):
        raise UnreadableError("places that a record's text cannot hold; `[data.chat_jsonl]` reads clicks and corners")
    question, answer = _named(question, answer, refs)
    task = "region" if "<bbox>" in question else "chat" if question else "caption"
    asked = {"question": question.replace("<bbox>", "{box}"), "answer": answer}
    for key, text in asked.items():
        if text or key == "answer":
            try:
                check_text(text.replace("{box}", ""), key)
            except RecordError as error:
                raise UnreadableError(f"text that a record cannot hold: {error.reason}") from error
    if task != "region" and "{box}" in question:
        raise UnreadableError("{box} in a question, where a record has its box; reword it")
    return {"task": task} | {key: text for key, text in asked.items() if text}


def _named(question: str, answer: str, refs: Sequence[str | None]) -> tuple[str, str]:
    """Both with the refs in place of their placeholders."""
    if question.count("<ref-object>") + answer.count("<ref-object>") != len(refs) or None in refs:
        raise UnreadableError("row with another number of <ref-object> than of refs")
    parts = "\0".join((question, answer)).split("<ref-object>")
    text = "".join(f"{part}{ref}" for part, ref in zip(parts, [*refs, ""], strict=True))
    named, _, said = text.partition("\0")
    return named, said


def is_about_a_box(said: Sequence[Turn], refs: Sequence[str | None], boxes: int) -> bool:
    """Whether a row asks what a box is, or about it, and names it nowhere."""
    placed = [text.count("<bbox>") for turn in said for text in (turn.question, turn.answer or "")]
    return boxes == 1 == sum(placed[::2]) and not refs and not any(placed[1::2])
