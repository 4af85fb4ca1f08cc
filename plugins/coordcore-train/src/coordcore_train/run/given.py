"""What a data builder gives, looked at before it is trained on: a wrong one would train another model. Torch-free."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from coordcore.coords import CoordFormat
from coordcore.errors import InputError, RunError
from coordcore.manifest.types import show
from coordcore.records.answers import COORDJSON, Format, parse_answer
from coordcore.records.example import Example, Geometry
from coordcore.records.geometry import COUNTS, KINDS, has_count
from coordcore.tasks import TASKS
from coordcore_train.hidden import KIND
from coordcore_train.run.built import asked

_ROLES = ("system", "user", "assistant")
_FEW, _MANY = 16, 1024
"""Examples of a sample: the few that are looked at, and the many before it is said that none is of the format."""

Sample = Callable[[int], Iterable[Example]]
"""Gives at most so many examples, from all over a source."""


def spread(count: int, most: int) -> list[int]:
    """At most so many places, from all over `count`."""
    return sorted({count * part // most for part in range(most)})


def counted(who: str, source: Any, what: str) -> int:
    """How many examples a source has. Raises RunError, with `who`, for what is no source."""
    lacking = [name for name in ("__len__", "__getitem__") if not hasattr(source, name)]
    if lacking:
        raise RunError(f"{who}: {what} gave {show(source)}, which has no {', no '.join(lacking)}; tell its authors")
    return int(asked(who, lambda: len(source), f"len({what})"))


def example_of(who: str, source: Any, index: int, epoch: int | None = None) -> Example:
    """One example, that of an epoch where there is one. Raises RunError, with `who`, for what is no right example."""
    what = f"its example {index}" if epoch is None else f"its example {index} of epoch {epoch}"
    example = asked(who, lambda: source[index] if epoch is None else source.in_epoch(epoch, index), what)
    if not isinstance(example, Example):
        raise RunError(f"{who}: {what} must be a coordcore.Example, got {show(example)}; tell its authors")
    # What looking itself stumbles over is the plugin's, too.
    if fault := asked(who, lambda: next(_faults(example), ""), f"what is looked at in {what}"):
        raise RunError(f"{example.where}: {fault} ({what}, given by {who})")
    return example


def require_written(who: str, sample: Sample, form: Format, coords: CoordFormat) -> None:
    """Raise RunError, with `who`, where no answer of a sample is one of `form`, unless that is the default.

    The checkpoint carries the format: it would be asked, and read, in another one than it was trained on.
    """
    if form == COORDJSON or form.numbers:  # the default is what a builder with answers of its own has, too
        return
    answers: list[tuple[str, str]] = []
    for count in (_FEW, _MANY):  # of a mixture a few may all be from a source of chats
        answers = []
        for example in _placed(sample, count):
            said = [message["content"] for message in example.messages if message["role"] == "assistant"]
            if any(_is_written(answer, form, coords) for answer in said):
                return
            answers += [(example.where, answer) for answer in said]
        if not answers:
            return
    where, first = answers[0]
    raise RunError(
        f"{who}: none of {len(answers)} answers is of the format {form.name} that the manifest names, the first, of "
        f"{where}: {show(first)}; name the format of the answers, or let the builder pass "
        "context.format on (Example.boxes takes it as form)"
    )


def require_unplaced(who: str, sample: Sample) -> None:
    """Raise RunError, with `who`, for coord tokens in an example of a sample, in a run that supervises none."""
    for example in _placed(sample, _FEW):
        raise RunError(
            f"{who}: {example.where} has geometries, so coord tokens, which no loss of this run says it supervises: "
            "add one that does ([loss.coord_soft_ce_w1], or coord_positions = true in [loss.text_ce]); a loss of your "
            "own says provides=lambda config: [coordcore.COORD_SUPERVISION]. For `coordcore check`, the data builder "
            "says provides=lambda config: [coordcore.COORD_TOKENS]"
        )


def require_boxes(who: str, sample: Sample) -> None:
    """Raise InputError, with `who`, where no example of a sample has a box whose corners can be hidden."""
    looked = 0
    for example in sample(_MANY):
        if any(geometry.kind == KIND for geometry in example.geometries):
            return
        looked += 1
    raise InputError(
        f"train.parallel_boxes: none of {looked} examples of {who} has a {KIND}, whose corners a model could learn to "
        "say together; leave it out"
    )


def _placed(sample: Sample, most: int) -> Iterator[Example]:
    """Of a sample of `most` examples those that have geometries."""
    return (example for example in sample(most) if example.geometries)


def _is_written(answer: str, form: Format, coords: CoordFormat) -> bool:
    """Whether something is read in an answer, but for one in the default format: the reader of JSON takes any list."""
    default = "".join(COORDJSON.opening.split())
    is_default = "".join(answer.split()).startswith(default)
    if is_default and form.opening != COORDJSON.opening:
        return False
    return bool(parse_answer(answer, form, coords=coords).objects)


def _faults(example: Example) -> Iterator[str]:
    yield from _messages(example.messages)
    yield from _images(example)
    yield from _geometries(example.geometries)
    size, most, places = example.image_size, example.max_pixels, len(example.geometries)
    if size is not None and not (_is_list(size) and len(size) == 2 and all(_is_number(side) for side in size)):
        yield f"image_size must be width and height in pixels, or None, got {show(size)}"
    if most is not None and not (_is_number(most) and most >= 1):
        yield f"max_pixels must be a number of pixels, or None, got {show(most)}"
    if not _is_list(example.uncharged) or not all(number in range(places) for number in example.uncharged):
        yield f"uncharged must hold numbers of its {places} geometries, from 0, got {show(example.uncharged)}"
    if example.task not in TASKS:
        yield f"task must be one of {', '.join(TASKS)}, got {show(example.task)}"


def _messages(messages: Any) -> Iterator[str]:
    if not _is_list(messages):
        yield f"messages must be a list, got {show(messages)}"
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or set(message) - {"loss"} != {"role", "content"}:  # ms-swift reads `loss`
            yield f"messages[{number}] must be a dict of role and content, got {show(message)}"
        if message["role"] not in _ROLES:
            yield f"messages[{number}]: role must be one of {', '.join(_ROLES)}, got {show(message['role'])}"
        if not isinstance(message["content"], str):
            yield f"messages[{number}]: content must be text, got {show(message['content'])}"
    if not messages or messages[-1]["role"] != "assistant":
        yield "messages must end with an answer (role assistant), or nothing is trained; leave the example out"


def _images(example: Example) -> Iterator[str]:
    if not _is_list(example.images):
        yield f"images must be a list, got {show(example.images)}"
    for number, image in enumerate(example.images):
        if not isinstance(image, os.PathLike | str | bytes) and not hasattr(image, "convert"):  # as PIL's have
            cure = "PIL.Image.fromarray makes one of an array"
            yield f"images[{number}] must be a path, encoded bytes or a PIL image, got {type(image).__name__}; {cure}"
    tags = sum(message["content"].count("<image>") for message in example.messages)
    if tags != len(example.images):
        yield f"its messages hold {tags} <image> for {len(example.images)} images; write one where each image stands"


def _geometries(geometries: Any) -> Iterator[str]:
    if not _is_list(geometries):
        yield f"geometries must be a tuple, got {show(geometries)}"
    for number, geometry in enumerate(geometries):
        where = f"geometries[{number}]"
        if not isinstance(geometry, Geometry):
            yield f"{where} must be a coordcore.records.example.Geometry, got {show(geometry)}"
        if geometry.kind not in KINDS:
            yield f"{where}: kind must be one of {', '.join(KINDS)}, got {show(geometry.kind)}"
        values = geometry.values
        if not hasattr(values, "__len__"):
            yield f"{where}: values must be a tuple, got {show(values)}"
        if not has_count(geometry.kind, len(values)):
            most = COUNTS[geometry.kind] or "an even number from 6 on"
            yield f"{where}: a {geometry.kind} has {most} values, got {len(values)}; give one Geometry for each place"
        if not all(map(_is_finite, values)):
            yield f"{where}: values must be finite numbers in bin units, got {show(values)}"
        if geometry.kind == "bbox_2d" and (values[0] > values[2] or values[1] > values[3]):
            yield f"{where}: a bbox_2d is x1, y1, x2, y2 with x1 <= x2 and y1 <= y2, got {show(values)}"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_number(value: Any) -> bool:
    return _is_finite(value) and value > 0


def _is_finite(value: Any) -> bool:
    try:
        return not isinstance(value, str) and math.isfinite(value)
    except TypeError:
        return False
