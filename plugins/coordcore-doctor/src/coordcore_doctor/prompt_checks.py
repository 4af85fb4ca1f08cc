"""The check that a question is put to the model in training as it is when the model is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile
from typing import Any

from jinja2 import TemplateError

from coordcore.records.images import open_example_image
from coordcore_doctor.examined import ExaminedRun
from coordcore_doctor.findings import Finding, not_applicable, ok, share, warning
from coordcore_doctor.sample import Encoded
from coordcore_train.chat import question_text
from coordcore_train.engine import IGNORE

SHOWN = 60
"""Characters of a difference that are shown."""


def check_question(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether `coordcore predict` and servers, which ask through the processor's chat template, put the same tokens
    before an answer as training does: system message, turns, the place of the image, and what switches thinking off.
    """
    rows = [row for row in run.sample.rows if row.example.messages[-1]["role"] == "assistant" and row.answer]
    if not rows:
        yield not_applicable(name, "no example of the sample has an answer")
        return
    processor = run.rehearsal.encoder.processor
    differing: list[tuple[Encoded, list[int]]] = []
    try:
        for row in rows:
            ids = _asked_ids(processor, row)
            if not _begins_alike(row, ids):
                differing.append((row, ids))
    except (TemplateError, ValueError, TypeError, KeyError) as error:  # what templates and processors raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        cure = "write the chat template that belongs to the model (chat_template.jinja) into the base"
        yield warning(name, f"the processor's chat template cannot ask it: {reason}", cure)
        return
    if not differing:
        yield ok(name, f"{len(rows)} questions have the same tokens in training and when they are asked")
        return
    row, ids = differing[0]
    trained, when_asked = _difference(run.rehearsal.encoder.tokenizer, _question(row), ids)
    yield warning(
        name,
        f"{share(len(differing), len(rows), 'questions')} are asked with other tokens than trained: "
        f"training has {trained!r}, coordcore predict and servers have {when_asked!r}",
        "set data.<name>.system to the system message that is asked with, or model.template to the template of this "
        "checkpoint",
    )


def _question(row: Encoded) -> list[int]:
    """The tokens before the answer."""
    return list(row.ids[: next(place for place, label in enumerate(row.labels) if label != IGNORE)])


def _asked_ids(processor: Any, row: Encoded) -> list[int]:
    text = question_text(processor, row.example.messages[:-1])
    images = [open_example_image(image) for image in row.example.images]
    ids = processor(text=[text], **({"images": [images]} if images else {}), return_tensors="pt")["input_ids"]
    return [int(item) for item in ids[0]]


def _begins_alike(row: Encoded, ids: Sequence[int]) -> bool:
    """Whether `ids` are what stands before the answer, or go on as the answer does: an empty thought may be a label.

    How many tokens an image has is another check's matter.
    """
    question, asked_with = _folded(_question(row)), _folded(ids)
    return asked_with == question or (
        len(asked_with) > len(question) and _folded(row.ids)[: len(asked_with)] == asked_with
    )


def _folded(ids: Sequence[int]) -> list[int]:
    """Each run of one token as one."""
    return [token for token, _ in groupby(ids)]


def _difference(tokenizer: Any, trained: Sequence[int], asked_with: Sequence[int]) -> tuple[str, str]:
    """Where the two part, as text."""
    first, second = _folded(trained), _folded(asked_with)
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    start = max(0, sum(1 for _ in alike) - 2)
    return tokenizer.decode(first[start:])[:SHOWN], tokenizer.decode(second[start:])[:SHOWN]
