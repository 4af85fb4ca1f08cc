"""What a data builder gives, looked at before it is trained on: a wrong one would train another model. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from coordcore.errors import InputError, RunError
from coordcore.guard import told
from coordcore.manifest.types import show
from coordcore.records.example import Example, Geometry
from coordcore.records.geometry import COUNTS, KINDS, has_count
from coordcore.tasks import TASKS

_ROLES = ("system", "user", "assistant")


def asked(who: str, ask: Callable[[], Any], what: str) -> Any:
    """What a builder answers. who: its section and plugin. what: what it is asked for.

    Raises InputError and RunError of the builder; InputError, with `who`, for a file that it cannot read; RunError for
    anything else that it raises.
    """
    try:
        return ask()
    except (InputError, RunError):
        raise
    except OSError as error:
        raise InputError(f"{who}: {what} cannot be had: {error}") from error
    except (Exception, SystemExit) as error:  # which would end the run as if it were done
        raise RunError(f"{who}: {what} raised {told(error)}; tell its authors") from error


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
    for fault in _faults(example):
        raise RunError(f"{example.where}: {fault} ({what}, given by {who})")
    return example


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
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
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
        if not isinstance(image, Path | str | bytes) and not hasattr(image, "convert"):  # PIL's are not imported here
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
