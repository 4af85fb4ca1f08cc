"""Answers that are no good in a checkpoint's format, read in the others that are installed. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from coordcore.components import BuildContext, Component
from coordcore.errors import InputError
from coordcore.kinds import FORMAT
from coordcore.records.answers import Format, parse_answer
from coordcore_detection.predict.predictions import Row
from coordcore_detection.predict.served_checkpoint import Checkpoint

_BRACKETS = set("{}[]")


def other_format(rows: Sequence[Row], checkpoint: Checkpoint) -> tuple[Format, str] | None:
    """The format that most of the answers have, and one of them, where the checkpoint's reads no box in any.

    What a half-trained model writes is of none: each must be read whole, and at least one must hold an object.
    """
    bad = [row for row in rows if _is_bad(row, checkpoint)]
    if any(row.boxes for row in rows if not _is_bad(row, checkpoint)):
        return None
    texts = [row.text for row in bad if row.stopped == "end"]
    if 2 * len(texts) <= len(rows):
        return None
    best: tuple[int, Format, str] | None = None
    for form in _installed(checkpoint):
        read = [(text, len(answer)) for text in texts if (answer := _objects(text, form, checkpoint)) is not None]
        holding = [text for text, count in read if count]
        begun = sum(text.lstrip().startswith(form.opening + form.before) for text in holding)
        if 2 * len(read) > len(rows) and holding and (best is None or begun > best[0]):
            best = begun, form, holding[0]
    return None if best is None else best[1:]


def _is_bad(row: Row, checkpoint: Checkpoint) -> bool:
    """Whether an answer says nothing in the checkpoint's format, or has coord tokens for its plain numbers."""
    if checkpoint.format.numbers and any(token in row.text for token in checkpoint.coords.bin_of):
        return True
    return bool(row.unread) and not row.boxes


def _objects(text: str, form: Format, checkpoint: Checkpoint) -> list[str] | None:
    """The labels of an answer that a format reads to its last letter, None where it does not."""
    answer = parse_answer(text, form, coords=checkpoint.coords)
    labels = [item.desc for item in answer.objects]
    # A label with brackets is what is left of a list in JSON that went wrong.
    return None if answer.unread or any(_BRACKETS & set(label) for label in labels) else labels


def _installed(checkpoint: Checkpoint) -> Iterator[Format]:
    """The formats that plugins offer, with their switches in all places, but for the checkpoint's own."""
    from coordcore.discovery import discover

    plugins = discover()
    context = BuildContext(
        run_dir=Path(), seed=0, quantisation=checkpoint.quantisation, vocab=None, coords=checkpoint.coords
    )
    for name in plugins.names(FORMAT):
        component = plugins.get(FORMAT, name)
        for config in _configs(component):
            try:
                form: Format = component.build(config, context)
                form.require()
            except (InputError, ValueError, TypeError, AttributeError):  # it has its own check, and is not asked for
                continue
            if form.as_dict() != checkpoint.format.as_dict():
                yield form


def _configs(component: Component) -> Iterator[Any]:
    """The settings of a format that has defaults for all, and each of its switches the other way."""
    try:
        usual = component.config()
    except TypeError:
        return
    yield usual
    for field in attrs.fields(component.config):
        if isinstance(field.default, bool):
            yield attrs.evolve(usual, **{field.name: not field.default})
