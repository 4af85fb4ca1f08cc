"""The kit's own data builder, `tiny_boxes`: one coloured box per picture, drawn when it is read. Torch-free.

`train_briefly` offers it to its run. It has no entry point, so an ordinary run does not see it.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from attrs.validators import gt

from coordcore.components import COORD_SUPERVISION, COORD_TOKENS, LENGTHS, BuildContext, Component, option
from coordcore.hookspecs import hookimpl
from coordcore.protocols import ExampleSource
from coordcore.quantisation import DEFAULT_QUANTISATION, Quantisation, encode_boxes
from coordcore.records.answers import geometry_text
from coordcore.records.example import Example, Geometry

SIZE = 64
"""Width and height of the pictures, in pixels."""


@attrs.frozen(kw_only=True)
class TinyBoxesConfig:
    """`[data.tiny_boxes]`."""

    train: int = option(default=64, validator=gt(0), help="training pictures")
    validation: int = option(default=4, validator=gt(0), help="held-out pictures")


@attrs.frozen(kw_only=True)
class TinyBoxes:
    """`count` pictures from number `first` on."""

    count: int
    first: int = 0
    quantisation: Quantisation = DEFAULT_QUANTISATION

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Example:
        from PIL import Image, ImageDraw

        number = self.first + index
        left, top = 2 + number * 7 % 24, 2 + number * 13 % 24
        box = (left, top, left + 16 + number * 3 % 20, top + 16 + number * 5 % 20)
        image = Image.new("RGB", (SIZE, SIZE))
        ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill="white")
        encoded = encode_boxes([box], SIZE, SIZE, quantisation=self.quantisation)
        answer = f"{{{geometry_text('bbox_2d', encoded.bins[0].tolist())}}}"
        return Example(
            messages=({"role": "user", "content": "<image>Where?"}, {"role": "assistant", "content": answer}),
            images=(image,),
            geometries=(Geometry(kind="bbox_2d", values=tuple(encoded.values[0].tolist())),),
            source=f"tiny box {number}",
        )

    def length(self, epoch: int, index: int) -> tuple[int, list[tuple[int, int]]]:
        return 20, [(SIZE, SIZE)]  # all are about as long


@attrs.frozen(kw_only=True)
class TinyBoxesBuilder:
    """The data builder `tiny_boxes`."""

    config: TinyBoxesConfig
    quantisation: Quantisation

    def train(self) -> ExampleSource:
        return TinyBoxes(count=self.config.train, quantisation=self.quantisation)

    def validation(self) -> ExampleSource | None:
        return TinyBoxes(count=self.config.validation, first=self.config.train, quantisation=self.quantisation)


def _build(config: TinyBoxesConfig, context: BuildContext) -> TinyBoxesBuilder:
    return TinyBoxesBuilder(config=config, quantisation=context.quantisation)


@hookimpl
def coordcore_data_builders() -> Iterable[Component]:
    return [
        Component(
            name="tiny_boxes",
            config=TinyBoxesConfig,
            build=_build,
            summary="one white box on a black picture, for tests of plugins",
            provides=lambda _config: [LENGTHS, COORD_TOKENS],
            requires=lambda _config: [COORD_SUPERVISION],
        )
    ]
