"""The JSONL builder as one would write it with `json` and plain Python: the peer it is measured against.

The same checks, answers and geometries as `[data.coord_jsonl]` with its default settings, for bins (integers or coord
tokens) and for pixels on the default quantisation. Written to be read, and as fast as such code is.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coordcore import Geometry

RECORD_KEYS = {"images", "width", "height", "objects", "summary", "metadata", "_coord_tokens_enabled"}
OBJECT_KEYS = {"desc", "bbox_2d", "poly", "poly_points", "_coord_tokens", "_coord_token_ints", "_coord_token_norm"}
CONTROL = re.compile(
    r"<\|[^<>|]*\|>"
    r"|<(?:image|video|audio|bbox|ref-object|cot-process|start-image)>"
    r"|</?(?:think|tool_call|tool_response)>"
)
TOKEN = re.compile(r"<\|coord_(0|[1-9][0-9]{0,2})\|>")

Placed = tuple[str, str, list[int], Sequence[float]]
"""One object of an answer: description, kind of geometry, bins, and the same places unrounded, in bin units."""


def scan(path: Path, space: str) -> tuple[int, int]:
    """Check every record of a file and look for its image: how many there are, and how many boxes were widened.

    Raises ValueError naming the line for the first record that is not right.
    """
    count = total = 0
    with path.open("rb") as file:
        for count, line in enumerate(file, start=1):
            try:
                record, _, widened = read(line, space)
            except ValueError as error:
                raise ValueError(f"{path}:{count}: {error}") from error
            image = os.path.join(path.parent, record["images"][0])
            if not os.path.isfile(image):
                raise ValueError(f"{path}:{count}: images[0]: no image file at {image}")
            total += widened
    return count, total


class Source:
    """A file's answers by index, read when asked for."""

    def __init__(self, path: Path, space: str) -> None:
        self.space = space
        self.offsets = [0]
        self.file = path.open("rb")
        for line in self.file:
            self.offsets.append(self.offsets[-1] + len(line))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> tuple[str, tuple[Geometry, ...]]:
        """The answer text and its geometries. Raises ValueError for a record that is not right."""
        self.file.seek(self.offsets[index])
        _, placed, _ = read(self.file.readline(), self.space)
        return answer(placed)


def answer(placed: list[Placed]) -> tuple[str, tuple[Geometry, ...]]:
    """The answer text, and the geometries that go with it."""
    written = []
    geometries = []
    for desc, kind, bins, values in placed:
        tokens = ", ".join([f"<|coord_{k}|>" for k in bins])
        written.append(f'{{"desc": {json.dumps(desc, ensure_ascii=False)}, "{kind}": [{tokens}]}}')
        geometries.append(Geometry(kind=kind, values=tuple(map(float, values))))
    return '{"objects": [' + ", ".join(written) + "]}", tuple(geometries)


def read(line: bytes, space: str) -> tuple[dict[str, Any], list[Placed], int]:
    """The record on a line, its objects in bins, and how many of them had to be widened. Raises ValueError."""
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("expected an object")
    for key in record:
        if key not in RECORD_KEYS:
            raise ValueError(f"{key}: unknown key")
    images = record.get("images")
    if not isinstance(images, list) or len(images) != 1 or not isinstance(images[0], str) or not images[0]:
        raise ValueError("images: expected an array of one path")
    size = []
    for key in ("width", "height"):
        pixels = record.get(key)
        if type(pixels) is not int or not 1 <= pixels <= 10**6:
            raise ValueError(f"{key}: expected a whole number, 1..1000000")
        size.append(pixels)
    if not isinstance(record.get("summary"), str | None):
        raise ValueError("summary: expected text")
    metadata = record.get("metadata")
    if not isinstance(metadata, dict | None):
        raise ValueError("metadata: expected an object")
    if space == "bin" and metadata is not None and metadata.get("quantisation", "nearest_999") != "nearest_999":
        raise ValueError("metadata.quantisation: not the run's")
    objects = record.get("objects")
    if not isinstance(objects, list):
        raise ValueError("objects: expected an array")
    placed = []
    widened = 0
    for index, item in enumerate(objects):
        desc, kind, values = check_object(item, f"objects[{index}]")
        if space == "bin":
            bins = read_bins(values, kind, f"objects[{index}].{kind}")
            placed.append((desc, kind, bins, bins))
        else:
            check_pixels(values, kind, size, f"objects[{index}].{kind}")
            bins, units, wider = encode(values, kind, size)
            placed.append((desc, kind, bins, units))
            widened += wider
    return record, placed, widened


def check_object(item: Any, path: str) -> tuple[str, str, list[Any]]:
    """The description, the kind of geometry and its coordinates. Raises ValueError."""
    if not isinstance(item, dict):
        raise ValueError(f"{path}: expected an object")
    for key in item:
        if key not in OBJECT_KEYS:
            raise ValueError(f"{path}.{key}: unknown key")
    desc = item.get("desc")
    if not isinstance(desc, str) or not desc.strip():
        raise ValueError(f"{path}.desc: missing, no text or empty")
    if CONTROL.search(desc):
        raise ValueError(f"{path}.desc: contains a control token")
    box, poly, points = item.get("bbox_2d"), item.get("poly"), item.get("poly_points")
    if (box is None) == (poly is None):
        raise ValueError(f"{path}: needs exactly one geometry")
    kind, values = ("bbox_2d", box) if poly is None else ("poly", poly)
    if not isinstance(values, list):
        raise ValueError(f"{path}.{kind}: expected an array")
    if kind == "bbox_2d":
        if len(values) != 4 or points is not None:
            raise ValueError(f"{path}.bbox_2d: needs 4 numbers and no poly_points")
    elif len(values) < 6 or len(values) % 2 or (points is not None and points != len(values) // 2):
        raise ValueError(f"{path}.poly: needs at least 3 points, and as many as poly_points says")
    return desc, kind, values


def read_bins(values: list[Any], kind: str, path: str) -> list[int]:
    """The bins of integers or coord tokens. Raises ValueError."""
    bins = []
    for value in values:
        if type(value) is not type(values[0]):
            raise ValueError(f"{path}: mixes numbers and coord tokens")
        if type(value) is int:
            if not 0 <= value <= 999:
                raise ValueError(f"{path}: {value} is no bin")
            bins.append(value)
        elif type(value) is str:
            match = TOKEN.fullmatch(value)
            if match is None:
                raise ValueError(f"{path}: {value!r} is no coord token")
            bins.append(int(match[1]))
        else:
            raise ValueError(f"{path}: {value!r} is no bin")
    if kind == "bbox_2d" and (bins[2] < bins[0] or bins[3] < bins[1]):
        raise ValueError(f"{path}: corners are not x1, y1, x2, y2")
    return bins


def check_pixels(values: list[Any], kind: str, size: list[int], path: str) -> None:
    """Raise ValueError unless the values are numbers within the image, and a box's corners in order."""
    for index, value in enumerate(values):
        if type(value) is not float and type(value) is not int:
            raise ValueError(f"{path}: {value!r} is no number")
        if not 0 <= value <= size[index % 2]:
            raise ValueError(f"{path}: {value} lies outside the image")
    if kind == "bbox_2d" and (values[2] < values[0] or values[3] < values[1]):
        raise ValueError(f"{path}: corners are not x1, y1, x2, y2")


def encode(values: list[float], kind: str, size: list[int]) -> tuple[list[int], list[float], bool]:
    """Pixels as bins (the nearest of 0..999) and in bin units; whether a collapsed box was widened by one bin."""
    units = [value * 999 / size[index % 2] for index, value in enumerate(values)]
    bins = []
    for unit in units:
        below = math.floor(unit)
        bins.append(below + 1 if unit - below >= 0.5 else below)
    wider = False
    if kind == "bbox_2d":
        for low, high in ((0, 2), (1, 3)):
            if bins[high] <= bins[low]:
                wider = True
                moved = high if bins[low] < 999 else low
                bins[moved] += 1 if moved == high else -1
                units[moved] = float(bins[moved])
    return bins, units, wider
