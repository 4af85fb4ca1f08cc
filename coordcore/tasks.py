"""The tasks that records set, and the questions that are asked where nobody wrote others."""

from __future__ import annotations

from typing import NamedTuple

ABSENT = 3
"""Categories that a question of the task "named" asks for beside those that are there, where nobody says how many."""


class Task(NamedTuple):
    """prompt: the question, with `{placeholder}` where there is one, which may be a key of the record. needs: keys that
    a record must have; it may have a question. is_text: whether the answer is text and holds no place.
    """

    prompt: str
    placeholder: str = ""
    needs: tuple[str, ...] = ()
    is_text: bool = False


TASKS = {
    "detect": Task("Locate every object in the image, each with its description and its place."),
    "named": Task("Locate every object of these categories: {categories}.", "categories"),
    "refer": Task("Locate what this phrase refers to: {phrase}", "phrase", needs=("question",)),
    "point": Task("Point at what this phrase refers to: {phrase}", "phrase", needs=("question",)),
    "region": Task("What is at {box}?", "box", needs=("answer",), is_text=True),
    "caption": Task("Describe the image.", needs=("answer",), is_text=True),
    "chat": Task("", needs=("question", "answer"), is_text=True),
}
"""What is asked: every object, which is the task of a record that names none; every object of some categories; what a
phrase refers to, by its box or by a point; what is at a box; what the image shows; a question of the record's own."""
