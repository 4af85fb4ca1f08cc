"""The keys of `[eval.detection]`, and what of them a run is told before it trains. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs
from attrs.validators import and_, ge, le, lt, optional

from coordcore import InputError, Problem, option
from coordcore_detection.evaluate.radius import RADIUS, Radius

if TYPE_CHECKING:
    from coordcore.manifest import Manifest
    from coordcore_detection.predict.settings import PredictSettings

# `decoding` and `scores` have them too, but import numpy, which `coordcore plugins` can do without.
Coordinates = Literal["argmax", "expectation"]
Score = Literal["geometric_mean", "min", "coord_mass", "entropy", "near"]


_MANY = and_(ge(1), le(10**6))


@attrs.frozen(kw_only=True)
class DetectionConfig:
    """`[eval.detection]`: boxes of the merged checkpoint on the examples held out, measured."""

    images: int | None = option(
        default=None,
        validator=optional(_MANY),
        help="evaluate so many examples, the first that can be measured; all when absent",
    )
    coordinates: Coordinates = option(
        default="expectation", help="read each coordinate as its most likely bin, or as the expected one"
    )
    window: int = option(
        default=20,
        validator=[ge(0), lt(2**15)],
        help="take the expectation over the bins at most so far from the most likely one; 999 takes all of them",
    )
    score: Score = option(default="near", help="what ranks boxes and is held against their being right")
    constrained: bool = option(default=True, help="allow only tokens that write the answer format")
    max_new_tokens: int = option(default=2048, validator=_MANY, help="tokens of an answer")
    max_objects: int = option(default=100, validator=_MANY, help="objects of an answer")
    thinking: int = option(
        default=0, validator=[ge(0), le(10**6)], help="tokens of a thought before the answer; 0 switches thinking off"
    )
    max_detections: int | None = option(
        default=None,
        validator=optional(_MANY),
        help="how many boxes of an image and label AP looks at, those of highest score: 100; for LVIS 300 of an image",
    )
    synonyms: Path | None = option(
        default=None, exists=True, help='TOML file of what else a label may be called: helmet = ["hard hat"]'
    )
    radius: str = option(
        default=RADIUS, help="how far a predicted point may be from a true one: 12px, or 5% of the image's longer side"
    )
    batch_size: int = option(default=25, validator=[ge(1), le(2**16)], help="images at a time")
    parallel: Literal["verified", "fast"] | None = option(
        default=None, help="say the corners of a box together, as the run has learned by train.parallel_boxes"
    )
    tolerance: int | None = option(
        default=None,
        validator=optional([ge(1), lt(2**15)]),
        help='with parallel = "fast", how many bins a corner may be off; 20 when absent',
    )

    def settings(self) -> PredictSettings:
        """The same for `coordcore_detection.predict.asking`."""
        from coordcore_detection.predict.settings import PredictSettings

        return PredictSettings(
            coordinates=self.coordinates,
            window=None if self.window >= 999 else self.window,
            score=self.score,
            constrained=self.constrained,
            max_new_tokens=self.max_new_tokens,
            max_objects=self.max_objects,
            thinking=self.thinking,
            batch_size=self.batch_size,
            tolerance={None: None, "verified": 0, "fast": self.tolerance or 20}[self.parallel],
        )


def problems(config: DetectionConfig, section: str, run: Manifest) -> Iterator[Problem]:
    """What of the section does not fit, told before a run trains. section: "eval.detection"."""
    from coordcore_detection.evaluate import synonyms

    try:
        Radius.read(config.radius)
    except InputError as error:
        yield Problem(path=f"{section}.radius", message=str(error))
    if config.tolerance is not None and config.parallel != "fast":
        yield Problem(path=f"{section}.tolerance", message='is given with parallel = "fast"; leave it out')
    if config.parallel and not config.constrained:
        message = "corners are proposed where the format is kept to; leave out constrained = false, or this"
        yield Problem(path=f"{section}.parallel", message=message)
    if config.parallel and not run.train.parallel_boxes:
        message = "the run does not learn to say corners together; set train.parallel_boxes, or leave this out"
        yield Problem(path=f"{section}.parallel", message=message)
    if config.synonyms is not None and config.synonyms.is_file():
        try:
            synonyms.read(config.synonyms)
        except InputError as error:
            yield Problem(path=f"{section}.synonyms", message=str(error))
