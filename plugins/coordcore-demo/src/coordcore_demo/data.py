"""Drawn pictures as training examples: the data builder `shapes` and its answer text. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

import attrs
import numpy as np

from coordcore import Example, Geometry
from coordcore.coords import DEFAULT_COORDS
from coordcore.protocols import ExampleSource
from coordcore.quantisation import Quantisation
from coordcore.records import answers
from coordcore.records.geometry import bounds
from coordcore_demo.config import ABSENT, PROMPT, PROMPTS, ShapesConfig
from coordcore_demo.shapes import DESCS, Split, draw, layout
from coordcore_demo.turned import draw_turned, layout_turned

Placed = Sequence[tuple[str, tuple[float, ...]]]
"""Of each object the name and the box or the four corners, in pixels."""


def answer_text(objects: Iterable[tuple[str, Sequence[int]]], *, coord_tokens: bool = True) -> str:
    """CoordJSON, `{"objects": [{"desc": "red ring", "bbox_2d": [...]}]}`, of descriptions and bins (x1, y1, x2, y2).

    The bins are bare coord tokens, or plain numbers with `coord_tokens=False` (which makes it JSON).
    """
    boxes = [answers.Located(desc=desc, kind="bbox_2d", bins=tuple(map(int, bins))) for desc, bins in objects]
    return answers.answer_text(boxes, coord_tokens=coord_tokens)


_CALLED: Mapping[str, Callable[[str], str]] = {
    "colour_shape": str,
    "colour": lambda desc: desc.split()[0],
    "object": lambda desc: "object",
}
"""`label` -> what a "red ring" is called. The demo's tokenizer keeps each word whole."""


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
        return self._example(index, *self._drawn(index, draw, draw_turned))

    def length(self, epoch: int, index: int) -> tuple[int, list[tuple[int, int]]]:
        """About how many tokens its texts have, and the size of its picture, which is not painted for it."""
        _, placed = self._drawn(index, layout, layout_turned)
        said = "".join(message["content"] for message in self._example(index, None, placed).messages)
        return DEFAULT_COORDS.rough_length(said), [(self.config.image_size, self.config.image_size)]

    def _example(self, index: int, image: Any, placed: Placed) -> Example:
        """What is asked of a picture with these objects on it, and answered. image: as `Example` takes it."""
        config = self.config
        called = _CALLED[config.label]
        named = [(called(desc), points) for desc, points in placed]
        every = [desc for desc in DESCS if config.geometry != "quad" or desc.endswith("square")]
        asked = self._asked(index, dict.fromkeys(desc for desc, _ in named), dict.fromkeys(map(called, every)))
        objects = [(desc, points) for desc, points in named if asked is None or desc in asked]
        if config.object_order == "label":
            labels = [*dict.fromkeys(desc for desc, _ in objects)]
            objects.sort(key=lambda item: labels.index(item[0]))
        example = Example.boxes(
            [(desc, bounds(points)) for desc, points in objects],
            image=image,
            image_size=(config.image_size, config.image_size),
            prompt=self._prompt(asked),
            quantisation=self.quantisation,
            coord_tokens=config.coord_tokens,
            form=self.form,
            source=f"shapes {self.split} picture {index} (seed {config.seed})",
        )
        if config.geometry != "bbox_2d":
            example = self._answered(example, objects)
        return attrs.evolve(example, task=config.asks, categories=asked if config.task == "named" and asked else ())

    def _drawn(
        self, index: int, upright: Callable[..., tuple[Any, Any]], turned: Callable[..., tuple[Any, Any]]
    ) -> tuple[Any, Placed]:
        """What `upright`, or for quads `turned`, makes of picture `index`: both draw it, or both lay it out."""
        if not 0 <= index < self.count:
            raise IndexError(f"{self.split} picture {index} of {self.count}")
        config = self.config
        drawing = turned if config.geometry == "quad" else upright
        image, shapes = drawing(
            config.seed,
            index,
            split=self.split,
            image_size=config.image_size,
            min_objects=config.min_objects,
            max_objects=config.max_objects,
        )
        return image, [(desc, points) for desc, points in shapes]

    def _answered(self, example: Example, objects: Sequence[tuple[str, Sequence[float]]]) -> Example:
        """The same question, answered with the corners of each object or the middle of its box, not with the box."""
        size = example.image_size or (1, 1)
        located = []
        for desc, points in objects:
            if self.config.geometry == "point":
                points = ((points[0] + points[2]) / 2, (points[1] + points[3]) / 2)
            pairs = np.reshape(points, (-1, 2))
            bins = self.quantisation.encode(pairs, size).ravel().tolist()
            values = self.quantisation.to_bin_units(pairs, size).ravel().tolist()
            located.append(
                answers.Located(desc=desc, kind=self.config.geometry, bins=tuple(bins), values=tuple(values))
            )
        located = [item for group in self.form.grouped(located) for item in group]
        text = answers.answer_text(located, coord_tokens=self.config.coord_tokens, form=self.form)
        geometries = [Geometry(kind=item.kind, values=item.values) for item in located]
        return attrs.evolve(
            example,
            messages=(*example.messages[:-1], {"role": "assistant", "content": text}),
            geometries=tuple(geometries if self.config.coord_tokens else ()),
        )

    def _asked(self, index: int, present: Iterable[str], every: Iterable[str]) -> tuple[str, ...] | None:
        """What picture `index` is asked for: some of the names on it and some of the others; None for all of it."""
        task = self.config.task
        if task == "detect":
            return None
        rng = np.random.default_rng([self.config.seed, get_args(Split).index(self.split), index, 1])
        there, others = [*present], [desc for desc in every if desc not in {*present}]
        if task == "refer":
            pool = others if others and rng.random() < ABSENT else there
            return (pool[int(rng.integers(len(pool)))],)
        some = [there[int(k)] for k in rng.permutation(len(there))[: int(rng.integers(len(there) + 1))]]
        absent = [others[int(k)] for k in rng.permutation(len(others))[: max(1, len(there) - len(some))]]
        asked = [*some, *absent]
        return tuple(asked[int(k)] for k in rng.permutation(len(asked)))

    def _prompt(self, asked: Sequence[str] | None) -> str:
        """The question of a picture."""
        if asked is None:
            return PROMPT
        listed = ", ".join(asked)
        return PROMPTS[self.config.asks].format(phrase=listed, categories=listed)


@attrs.frozen(kw_only=True)
class Shapes:
    """The data builder `shapes`."""

    config: ShapesConfig
    quantisation: Quantisation
    form: answers.Format = answers.COORDJSON

    @property
    def prompts(self) -> Mapping[str, str] | None:
        """What a checkpoint carries of a task that asks for some shapes."""
        return None if self.config.task == "detect" else {"detect": PROMPT, **PROMPTS}

    def train(self) -> ExampleSource:
        """The training pictures."""
        return self._pictures("train", self.config.train_images)

    def validation(self) -> ExampleSource | None:
        """The validation pictures, or None when `validation_images` is 0."""
        return self._pictures("validation", self.config.validation_images) if self.config.validation_images else None

    def _pictures(self, split: Split, count: int) -> Pictures:
        return Pictures(config=self.config, quantisation=self.quantisation, form=self.form, split=split, count=count)
