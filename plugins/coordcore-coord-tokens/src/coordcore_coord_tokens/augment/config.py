"""The manifest keys of `[data.coord_jsonl.augment]`. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs
from attrs.validators import ge, le, min_len

from coordcore import option
from coordcore_coord_tokens.texts import is_plain_text

Range = tuple[float, float]


def _between(least: float, most: float) -> Callable[[Any, Any, Range | None], None]:
    """A range within these two, its smaller end first."""

    def validate(_instance: Any, _attribute: Any, given: Range | None) -> None:
        if given is not None and not least <= given[0] <= given[1] <= most:
            raise ValueError(
                f"must be two numbers, the smaller first, between {least:g} and {most:g}, got {list(given)}"
            )

    return validate


def _has_letters(_instance: Any, _attribute: Any, text: str) -> None:
    if not text.strip():
        raise ValueError(f"must say something, got {text!r}")


def _are_pairs(_instance: Any, _attribute: Any, words: Mapping[str, str]) -> None:
    every = [word for pair in words.items() for word in pair]
    for word in every:
        if not word.isalpha():
            raise ValueError(f"needs words of letters alone, got {word!r}")
    twice = [word for word in every if sum(other.lower() == word.lower() for other in every) > 1]
    if twice:
        raise ValueError(f"needs each word once, got {twice[0]!r} twice; a pair counts in both directions")


_SHARE = [ge(0), le(1)]


@attrs.frozen(kw_only=True)
class AugmentConfig:
    """`[data.coord_jsonl.augment]`: how training examples differ from epoch to epoch. Held-out ones never do."""

    flip: float = option(default=0.0, validator=_SHARE, help="share of the examples that are mirrored, left to right")
    left_right: Literal["refuse", "exchange"] = option(
        default="refuse",
        help="words such as left and right in questions, descriptions and summaries, where examples are mirrored: "
        "refuse them before the run, or exchange them in what is mirrored",
    )
    left_right_words: dict[str, str] = option(
        factory=lambda: {"left": "right"}, validator=[min_len(1), _are_pairs], help="the words, in pairs"
    )
    crop: Range | None = option(
        default=None,
        validator=_between(0.1, 1),
        help="cut out a window: each of its sides is a share of the image's, drawn between these two",
    )
    crop_objects: Literal["clipped", "whole"] = option(
        default="clipped",
        help="objects at the window's edge: clipped to it, or kept whole by a window that grows until it cuts none",
    )
    crop_visible: float = option(
        default=0.3,
        validator=_SHARE,
        help="clipped objects of which a smaller share of the area is left are left out of the answer",
    )
    resize: Range | None = option(
        default=None,
        validator=_between(0.1, 8),
        help="resize the image, what is left of it, by a factor drawn between these two, both sides alike",
    )
    brightness: float = option(default=0.0, validator=_SHARE, help="factor drawn between 1 - this and 1 + this")
    contrast: float = option(default=0.0, validator=_SHARE, help="factor drawn between 1 - this and 1 + this")
    saturation: float = option(default=0.0, validator=_SHARE, help="factor drawn between 1 - this and 1 + this")
    hue: float = option(
        default=0.0, validator=[ge(0), le(0.5)], help="shift drawn between -this and this, of the circle of colours"
    )
    shuffle_objects: bool = option(
        default=False, help="the objects of an answer in another order in every epoch, whatever object_order says"
    )
    noise_objects: int = option(
        default=0,
        validator=[ge(0), le(1000)],
        help="boxes where nothing is, at the end of every answer, whose coordinates no loss sees (Pix2Seq)",
    )
    noise_label: str = option(
        default="noise", validator=[_has_letters, is_plain_text], help="what these are called, and nothing else is"
    )

    def __attrs_post_init__(self) -> None:
        if not (self.moves or self.colours or self.shuffle_objects or self.noise_objects):
            raise ValueError(
                "nothing in it changes an example: set flip, crop, resize, brightness ..., or leave it out"
            )

    @property
    def moves(self) -> bool:
        """Whether places in the image may change."""
        return self.flip > 0 or self.crop is not None or self.resize is not None

    @property
    def colours(self) -> bool:
        """Whether the image's colours may change."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))
