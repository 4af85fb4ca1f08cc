"""The manifest keys of the data component `shapes`, and its question. Torch-free."""

from __future__ import annotations

from typing import Literal

import attrs
from attrs.validators import ge, gt, le, lt

from coordcore import option

PROMPT = "Find the shapes."
"""The question of every example; the base checkpoint knows no other."""

PROMPTS = {
    "refer": "Find the {phrase}.",
    "point": "Point at the {phrase}.",
    "named": "Find the shapes: {categories}.",
}
"""The questions of the tasks that ask for some shapes of a picture."""

ABSENT = 1 / 4
"""The share of pictures on which the phrase of the task "refer" finds nothing."""

_COUNT = [ge(1), le(9)]
_MOST = 10**9
_TURNED = 4


@attrs.frozen(kw_only=True)
class ShapesConfig:
    """`[data.shapes]`: squares, rings and crosses, drawn when they are read.

    Raises ValueError when min_objects > max_objects, for more than four turned squares, and for a task that asks for
    some names where there is but one.
    """

    train_images: int = option(default=4000, validator=[gt(0), le(_MOST)], help="training pictures")
    validation_images: int = option(
        default=200, validator=[ge(0), le(_MOST)], help="held-out pictures; 0 for no evaluation"
    )
    seed: int = option(default=0, validator=[ge(0), lt(2**32)], help="another seed draws other pictures")
    image_size: int = option(
        default=64, validator=[ge(32), le(1024)], help="width and height in pixels; the tiny base was trained on 64"
    )
    min_objects: int = option(default=1, validator=_COUNT, help="fewest shapes on a picture")
    max_objects: int = option(default=1, validator=_COUNT, help="most shapes on a picture")
    label: Literal["colour_shape", "colour", "object"] = option(
        default="colour_shape",
        help="what an object is called: 'red ring', which no other of its picture is, 'red', or 'object', as all are",
        before="colour_shape",
    )
    object_order: Literal["top_left", "label"] = option(
        default="top_left",
        help="order of the objects in the answer: from top to bottom, or all of one label and then all of the next",
        before="top_left",
    )
    task: Literal["detect", "refer", "named"] = option(
        default="detect",
        help="ask for all shapes, for the one that a phrase names (not there in a quarter of the pictures), or for "
        "those of some names, present and absent",
        before="detect",
    )
    geometry: Literal["bbox_2d", "point", "quad"] = option(
        default="bbox_2d",
        help="answer with the box of a shape, with the point in its middle, or with the corners of turned squares",
        before="bbox_2d",
    )
    coord_tokens: bool = option(
        default=True, help="write coordinates as coord tokens; false writes the same bins as plain numbers"
    )

    @property
    def asks(self) -> str:
        """The task of `coordcore.tasks`: a phrase that is answered with a point is one of its own."""
        return "point" if self.task == "refer" and self.geometry == "point" else self.task

    def __attrs_post_init__(self) -> None:
        if self.min_objects > self.max_objects:
            raise ValueError(
                f"min_objects is {self.min_objects}, more than max_objects, which is {self.max_objects}; set both"
            )
        if self.label == "object" and self.task != "detect":
            raise ValueError(
                f"label is 'object', what every shape is called, and task is '{self.task}', which asks for some of the "
                "names; set label to 'colour_shape' or 'colour'"
            )
        if self.geometry == "quad" and self.max_objects > _TURNED:
            raise ValueError(
                f"max_objects is {self.max_objects}, and of the squares that geometry = 'quad' draws each has one of "
                f"{_TURNED} colours to itself; set it to {_TURNED} or fewer"
            )
