"""Prediction files: a header row with the contract they were made under, then one row per image. Torch-free.

JSON lines. The header says which checkpoint, quantisation, decoding and score made the rows; `coordcore eval` writes it
into its result, and two results are compared only under one contract.
"""

from __future__ import annotations

from typing import Any

import msgspec

from coordcore.records.answers import Unread

VERSION = 1


class Header(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The first row.

    predictions: VERSION. checkpoint: the folder that was asked. weights: a digest that tells two trainings in one
    folder apart. quantisation: the whole spec, as `Quantisation.as_dict()`. coords: how coordinates are written, by
    tokens, bins and order, None for `<|coord_0|>` to `<|coord_999|>`. answers: the format, as `Format.as_dict()`, None
    for CoordJSON. decoding: how coordinates were read and the text
    was constrained. score: the name of the score that `Box.score` is. calibration: what was fitted to it, None for a
    raw score. versions: of coordcore, this plugin, torch, transformers.
    """

    predictions: int
    checkpoint: str
    quantisation: dict[str, Any]
    decoding: dict[str, Any]
    score: str
    weights: str = ""
    calibration: dict[str, Any] | None = None
    coords: dict[str, Any] | None = None
    answers: dict[str, Any] | None = None
    versions: dict[str, str] = {}


class Box(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One box of an answer.

    label: its description. box: x1, y1, x2, y2 in pixels of the upright image, sub-bin where the decoding gives that.
    bins: what the text says. score: in 0..1, by the header's `score`, calibrated if the header says so; NaN, which a
    file holds as null, where there is none. scores: every raw score by name. duplicate: of an earlier box of the same
    image: same label, IoU of at least .9.
    kind, points: where it is no box: of what geometry, and its x, y, x, y, ... in pixels; `box` and `bins` enclose it.
    spread: standard deviation of each coordinate's distribution, in bins; None where it was not asked for.
    """

    label: str
    box: tuple[float, float, float, float]
    bins: tuple[int, int, int, int]
    score: float
    scores: dict[str, float] = {}
    duplicate: bool = False
    spread: tuple[float, float, float, float] | None = None
    kind: str | msgspec.UnsetType = msgspec.UNSET
    points: list[float] | msgspec.UnsetType = msgspec.UNSET

    @property
    def outline(self) -> list[float] | None:
        """x, y, x, y, ... of a polygon or quad in pixels, None for anything else."""
        points = self.points or []
        return points if self.kind != "point" and len(points) >= 6 and len(points) % 2 == 0 else None


class Row(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The answer to one image.

    image: the key of the image, or of the record, where an image has several. text: the raw answer. question: what was
    asked, of a record that asks a question of its own. stopped: "end" for an end token, "length" for too many tokens,
    "repetition" for a loop that was cut off.
    """

    image: str
    width: int
    height: int
    text: str
    boxes: list[Box]
    unread: list[Unread] = []
    stopped: str = "end"
    question: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def regions(self) -> list[Box]:
        """What has an area, which is all but points."""
        return [box for box in self.boxes if box.kind != "point"]
