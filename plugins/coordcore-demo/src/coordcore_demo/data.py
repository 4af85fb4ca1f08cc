"""Drawn pictures as training examples: the data builder `shapes` and its answer text. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from coordcore import Example
from coordcore.protocols import ExampleSource
from coordcore.quantisation import Quantisation
from coordcore.records import answers
from coordcore_demo.config import PROMPT, ShapesConfig
from coordcore_demo.shapes import Split, draw


def answer_text(objects: Iterable[tuple[str, Sequence[int]]], *, coord_tokens: bool = True) -> str:
    """CoordJSON, `{"objects": [{"desc": "red ring", "bbox_2d": [...]}]}`, of descriptions and bins (x1, y1, x2, y2).

    The bins are bare coord tokens, or plain numbers with `coord_tokens=False` (which makes it JSON).
    """
    boxes = [answers.Located(desc=desc, kind="bbox_2d", bins=tuple(map(int, bins))) for desc, bins in objects]
    return answers.answer_text(boxes, coord_tokens=coord_tokens)


@attrs.frozen(kw_only=True)
class Pictures:
    """The examples of one split, each drawn when it is read."""

    config: ShapesConfig
    quantisation: Quantisation
    split: Split
    count: int
    form: answers.Format = answers.COORDJSON

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Example:
        if not 0 <= index < self.count:
            raise IndexError(f"{self.split} picture {index} of {self.count}")
        config = self.config
        image, shapes = draw(
            config.seed,
            index,
            split=self.split,
            image_size=config.image_size,
            min_objects=config.min_objects,
            max_objects=config.max_objects,
        )
        return Example.boxes(
            [(shape.desc if config.label == "colour_shape" else shape.desc.split()[1], shape.box) for shape in shapes],
            image=image,
            image_size=image.size,
            prompt=PROMPT,
            quantisation=self.quantisation,
            coord_tokens=config.coord_tokens,
            form=self.form,
            source=f"shapes {self.split} picture {index} (seed {config.seed})",
        )


@attrs.frozen(kw_only=True)
class Shapes:
    """The data builder `shapes`."""

    config: ShapesConfig
    quantisation: Quantisation
    form: answers.Format = answers.COORDJSON

    def train(self) -> ExampleSource:
        """The training pictures."""
        return self._pictures("train", self.config.train_images)

    def validation(self) -> ExampleSource | None:
        """The validation pictures, or None when `validation_images` is 0."""
        return self._pictures("validation", self.config.validation_images) if self.config.validation_images else None

    def _pictures(self, split: Split, count: int) -> Pictures:
        return Pictures(config=self.config, quantisation=self.quantisation, form=self.form, split=split, count=count)
