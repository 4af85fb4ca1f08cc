"""What a record asks: whether it has what its task needs, the categories that it names, the question."""

from __future__ import annotations

import random

from coordcore.coords import CoordFormat
from coordcore.errors import did_you_mean
from coordcore.records.record import LEFT_OUT, Record, RecordError, check_text, labels_under, regions_under
from coordcore.tasks import TASKS, Task

ABSENT, INCOMPLETE, _ASIDE = "absent_categories", "incomplete_categories", ("crowd", "points")
"""Keys under `metadata` of an image on which not everything was looked for: labels that are known not to be there, and
labels of which not every object is marked. And of any image, those of what is in it and no object of its record."""

_TAKES = {"refer": ("bbox_2d", "poly", "quad"), "point": ("point", "bbox_2d")}
"""What finds a phrase, by task. Of a box the middle is the point that is trained, and any point in it is right."""


def check_asked(record: Record, coords: CoordFormat) -> Task:
    """The task of a record, which has what that needs, nothing of another, and texts that can be asked.

    Raises RecordError.
    """
    name = "detect" if record.task is None else record.task
    if (task := TASKS.get(name)) is None:
        raise RecordError("task", f"{name!r} is no task; {did_you_mean(name, TASKS)}", reason="is no task")
    asked, count = record.categories, len(record.objects or ())
    for key, value in {"question": record.question, "answer": record.answer, "categories": asked}.items():
        if value is None and key in task.needs:
            raise RecordError(key, f'missing; the task "{name}" needs it')
        if value is not None and key not in ("question", task.placeholder, *task.needs):
            raise RecordError(key, f'the task "{name}" takes none; leave it out, or name the `task` that it belongs to')
        if value == []:
            raise RecordError(key, "empty; list what is asked for, or leave the key out, which asks for what is there")
        for index, text in enumerate([value] if isinstance(value, str) else value or ()):
            check_text(text, key if isinstance(value, str) else f"{key}[{index}]", coords)
    if record.objects is None and not task.is_text:
        raise RecordError("objects", "missing; write an empty list when the image holds none")
    if task.is_text and count != (task.placeholder == "box"):
        cure = "one, the place; write a record for each" if task.placeholder == "box" else "none; leave the key out"
        raise RecordError("objects", f'holds {count}, and the task "{name}" takes {cure}')
    if record.question and (task.placeholder == "box") != ("{box}" in record.question):
        raise RecordError("question", 'must hold {box}, its place, for the task "region", and for no other; reword it')
    for other in ("{categories}", "{phrase}"):  # in words alone they may be what is talked about
        if not task.is_text and other in (record.question or "") and (name, other) != ("named", "{categories}"):
            raise RecordError("question", f'holds {other}, which the task "{name}" does not fill in; reword it')
    unsure, absent, takes = labels_under(record, INCOMPLETE), labels_under(record, ABSENT), _TAKES.get(name, ())
    there = {item.desc for item in record.objects or ()}
    for index, label in enumerate(asked or ()):
        if label in [*unsure, *(asked or ())[:index]]:
            raise RecordError(f"categories[{index}]", f"{label!r} is there twice, or in metadata.{INCOMPLETE}; drop it")
        if label not in there and (label in labels_aside(record) or not (_is_whole(record) or label in absent)):
            what = f"{label!r} is neither among the objects nor known to be absent"
            raise RecordError(f"categories[{index}]", f"{what} (metadata.{ABSENT}, crowd and points); drop it")
    for index, item in enumerate(record.objects or ()):
        if item is LEFT_OUT:
            continue
        if asked is not None and item.desc not in asked:
            raise RecordError(f"objects[{index}].desc", f"{item.desc!r} is not among `categories`; ask for it too")
        if item.desc in absent:
            cure = f"is in metadata.{ABSENT} too; drop it there, or the object"
            raise RecordError(f"objects[{index}].desc", f"{item.desc!r} {cure}", reason=cure)
        if takes and all(getattr(item, kind) is None for kind in takes):
            cure = f"takes a {' or '.join(takes)}; write one, or name another task"
            raise RecordError(f"objects[{index}]", f'the task "{name}" {cure}')
    return task


def asked_categories(record: Record, others: tuple[str, ...], absent: int, draw: str) -> list[str]:
    """The categories that a record of the task "named" asks for: those it lists, or those that are there and `absent`
    that are not, mixed; where it asks in its own words, which list none that is drawn, those that are there.

    others: labels to draw absent ones from; where `metadata` lists some that are known to be absent, these. draw: what
    the drawing follows from. Labels of which not every object is marked are not asked for, and those of crowd regions
    and of points under `metadata` are not absent. Raises RecordError where nothing is left to ask for.
    """
    unsure, known = ({*labels_under(record, key)} for key in (INCOMPLETE, ABSENT))
    there = [label for label in dict.fromkeys(item.desc for item in record.objects or ()) if label not in unsure]
    if record.categories is not None or asks_in_own_words(record):
        return there if record.categories is None else record.categories
    pool = sorted(({*others} if _is_whole(record) else known).difference(there, unsure, labels_aside(record)))
    asked = [*there, *random.Random(draw).sample(pool, min(absent if there else max(absent, 1), len(pool)))]
    if not asked:
        raise RecordError("categories", "missing; nothing is there to ask for, nor known to be absent; write the list")
    return random.Random(f"{draw} order").sample(asked, len(asked))


def _is_whole(record: Record) -> bool:
    """Whether every category was looked for in its image."""
    return {ABSENT, INCOMPLETE}.isdisjoint(record.metadata or ())


def asks_in_own_words(record: Record) -> bool:
    """Whether its question for categories lists none, and goes on asking for one that is left out of the answer."""
    return record.task == "named" and "{categories}" not in (record.question or "{categories}")


def labels_aside(record: Record) -> list[str]:
    """The labels of what is in an image and no object of its record. Raises RecordError."""
    return [str(item.get("desc")) for key in _ASIDE for item in regions_under(record, key) if isinstance(item, dict)]


def question_of(record: Record, prompt: str | None, *, categories: tuple[str, ...] = (), box: str = "") -> str:
    """The question of a record. prompt: of its task, the usual one when None. box: how a question says its place.

    A category with a comma stands in quotes.
    """
    task = TASKS[record.task or "detect"]
    whole = None if task.placeholder == "phrase" else record.question
    listed = ", ".join(f'"{label}"' if ", " in label else label for label in categories)
    said = {"phrase": record.question, "categories": listed, "box": box}.get(task.placeholder)
    return (whole or prompt or task.prompt).replace("{" + task.placeholder + "}", said or "{}")
