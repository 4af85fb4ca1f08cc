"""The manifest keys of `[data.coord_jsonl.augment]`. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs
from attrs.validators import ge, le, min_len

from coordcore import option
from coordcore.manifest.structure import Structurer
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
class ImageConfig:
    """How images differ from epoch to epoch, and places in them with them."""

    flip: float = option(default=0.0, validator=_SHARE, help="share of the examples that are mirrored, left to right")
    left_right_words: dict[str, str] = option(
        factory=lambda: {"left": "right"}, validator=[min_len(1), _are_pairs], help="the words, in pairs"
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

    def __attrs_post_init__(self) -> None:
        if not self.changes:
            raise ValueError("nothing in it changes an example: set flip, resize, brightness ..., or leave it out")

    @property
    def changes(self) -> bool:
        """Whether anything in it changes an example."""
        return self.moves or self.colours

    @property
    def moves(self) -> bool:
        """Whether places in the image may change."""
        return self.flip > 0 or self.resize is not None

    @property
    def colours(self) -> bool:
        """Whether the image's colours may change."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))


@attrs.frozen(kw_only=True)
class AugmentConfig(ImageConfig):
    """`[data.coord_jsonl.augment]`: how training examples differ from epoch to epoch. Held-out ones never do."""

    left_right: Literal["refuse", "exchange"] = option(
        default="refuse",
        help="words such as left and right in questions, descriptions and summaries, where examples are mirrored: "
        "refuse them before the run, or exchange them in what is mirrored",
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
    shuffle_objects: bool = option(
        default=False, help="the objects of an answer in another order in every epoch, whatever object_order says"
    )
    noise_objects: int = option(
        default=0,
        validator=[ge(0), le(1000)],
        help="boxes anywhere, over objects too, at the end of every answer, whose coordinates no loss sees (Pix2Seq)",
    )
    noise_label: str = option(
        default="noise", validator=[_has_letters, is_plain_text], help="what these are called, and nothing else is"
    )

    @property
    def changes(self) -> bool:
        return self.moves or self.colours or self.shuffle_objects or self.noise_objects > 0

    @property
    def moves(self) -> bool:
        return self.flip > 0 or self.resize is not None or self.crop is not None


_OF_RECORDS: Mapping[str, str] = {
    **dict.fromkeys(
        ("crop", "crop_objects", "crop_visible"),
        "the texts of chat rows would speak of what is cut off; leave it out, or train on records (coord_jsonl)",
    ),
    **dict.fromkeys(
        ("shuffle_objects", "noise_objects", "noise_label"),
        "the answers of chat rows are kept as they are written; leave it out, or train on records (coord_jsonl)",
    ),
}
"""Keys of `AugmentConfig` -> why chat rows do not have them."""


@attrs.frozen(kw_only=True)
class ChatAugmentConfig(ImageConfig):
    """`[data.chat_jsonl.augment]`: how the images of training rows differ from epoch to epoch, and their places."""

    left_right: Literal["refuse", "exchange", "keep"] = option(
        default="refuse",
        help="words such as left and right in any turn of rows with images, where these are mirrored: refuse them "
        "before the run, exchange them in what is mirrored, or keep such rows as they are",
    )

    @classmethod
    def from_manifest(cls, table: dict[str, Any], structurer: Structurer) -> Any:
        """The table of a manifest; `attrs.NOTHING`, and what is wrong reported, for one that cannot be."""
        before = len(structurer.problems)
        for key in table.keys() & _OF_RECORDS.keys():
            structurer.report((key,), _OF_RECORDS[key])
        values = structurer.values({key: table[key] for key in table.keys() - _OF_RECORDS.keys()}, cls)
        if len(structurer.problems) == before:
            try:
                return cls(**values)
            except ValueError as error:
                structurer.report((), str(error))
        return attrs.NOTHING
