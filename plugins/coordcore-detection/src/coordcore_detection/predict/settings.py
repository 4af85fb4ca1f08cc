"""How a model is asked and how its answers are read. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, get_args

import attrs
from attrs.validators import and_, deep_iterable, ge, in_, instance_of, min_len, optional

from coordcore_detection.decode.automaton import Fields, Geometry
from coordcore_detection.decode.decoding import Coordinates
from coordcore_detection.evaluate.calibration import Calibration
from coordcore_detection.predict.scores import DEFAULT_SCORE, SCORES


def _whole(default: int | None, least: int, wrap: Callable[[Any], Any] = and_) -> Any:
    return attrs.field(default=default, validator=wrap(and_(instance_of(int), ge(least))))


@attrs.frozen(kw_only=True)
class PredictSettings:
    """How a model is asked. Generation is greedy.

    coordinates, window: see `decoding.read_coords`. score: which of `scores.SCORES` `Box.score` is; calibration: what
    is applied to it.
    constrained: allow only tokens that write CoordJSON, so that every answer parses. ordered: with it, no x2 < x1 and
    no y2 < y1. geometry, fields: with it, the kinds of geometry and the order of description and geometry.
    max_new_tokens: of an answer; a constrained one is completed within them. max_objects: of an answer; without
    `constrained` it is cut off where a further one begins. thinking: tokens of a thought before the answer, which is
    not part of it; 0 switches thinking off. repeats: an answer ends in which a chunk of tokens follows itself so often.
    batch_size: images at a time.
    tolerance: with `constrained`, the corners of a box are guessed, by heads or by a model that has learned to say them
    together, and a guess may be so many bins off what the model says; 0 changes no token. None: none are guessed.

    Raises ValueError for values that fit nothing.
    """

    coordinates: Coordinates = attrs.field(default="expectation", validator=in_(get_args(Coordinates)))
    window: int | None = _whole(20, 0, optional)
    score: str = attrs.field(default=DEFAULT_SCORE, validator=in_(list(SCORES)))
    calibration: Calibration | None = None
    constrained: bool = True
    ordered: bool = True
    geometry: tuple[Geometry, ...] = attrs.field(
        default=("bbox_2d", "poly"), converter=tuple, validator=[min_len(1), deep_iterable(in_(get_args(Geometry)))]
    )
    fields: Fields = attrs.field(default="any", validator=in_(get_args(Fields)))
    max_new_tokens: int = _whole(2048, 1)
    max_objects: int = _whole(100, 1)
    thinking: int = _whole(0, 0)
    repeats: int = _whole(4, 2)
    batch_size: int = _whole(25, 1)
    tolerance: int | None = _whole(None, 0, optional)

    def __attrs_post_init__(self) -> None:
        if self.calibration is not None and self.calibration.score != self.score:
            raise ValueError(
                f"score is {self.score!r}, but the calibration was fitted to {self.calibration.score!r}; set both alike"
            )

        if self.tolerance is not None and not self.constrained:
            raise ValueError("corners are proposed where the format is kept to; leave out --free, or --parallel")
        if self.tolerance is not None and "bbox_2d" not in self.geometry:
            kinds = ", ".join(self.geometry)
            raise ValueError(f"--parallel: says the corners of a bbox_2d, and --geometry allows {kinds}; leave it out")

    def also_for(self, kinds: Iterable[str]) -> PredictSettings:
        """The same with further kinds of geometry allowed, such as those that records have."""
        wanted = {*self.geometry, *kinds}
        return attrs.evolve(self, geometry=tuple(kind for kind in get_args(Geometry) if kind in wanted))

    def of_numbers(self) -> dict[str, Any]:
        """As `decoding`, of a model that answers in plain numbers: what is said of coord tokens is left out."""
        kept = ("max_new_tokens", "repeats", *(["thinking"] if self.thinking else []))
        return {"numbers": True, **{name: getattr(self, name) for name in kept}}

    def decoding(self) -> dict[str, Any]:
        """What the header of predictions says of it: all that changes an answer, but for score and calibration."""
        values = attrs.asdict(self)
        values["geometry"] = list(self.geometry)
        unused = ["score", "calibration", "batch_size"]
        unused += [] if self.thinking else ["thinking"]
        unused += [] if self.tolerance else ["tolerance"]
        unused += ["window"] if self.coordinates == "argmax" else []
        unused += [] if self.constrained else ["ordered", "geometry", "fields"]
        return {name: value for name, value in values.items() if name not in unused}
