"""Ground truth of images: what is where, in pixels, from record files or from a run's examples. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from coordcore.tasks import TASKS

if TYPE_CHECKING:
    from PIL.Image import Image

Boxes = np.ndarray[Any, np.dtype[np.float64]]
Id = int | float | str


@attrs.frozen(kw_only=True, eq=False)
class TruthImage:
    """One image and what is in it.

    key: names the image in prediction files: its path as the record writes it, or "example-17" for one without a file.
    width, height: of the upright image, in pixels. labels: one per box. boxes: [n, 4] float64 x1, y1, x2, y2 in pixels
    of the upright image. crowd: [n] bool, regions that count neither as found nor as missed. open: the upright RGB
    image; raises InputError. messages: the conversation before the answer, for a model to be asked. in_bins: whether
    the source holds bins, so that the boxes are on the grid of the quantisation and nothing finer is known.
    id: the source's own id of the image, which orders it among the others; None where there is none.
    absent, incomplete: labels that are known not to be there, and those of which not every object is marked (LVIS).
    federated: whether the source names such labels, be it none: then any other label was not looked for here.
    frequencies: label -> "r", "c" or "f", how many training images have it (LVIS). areas: [n] square pixels of the
    objects themselves, of their masks for instance; None where they are those of the boxes.
    outlines: index of a box -> [k, 2] corners in pixels of the polygon or quad that it encloses. points: label, x and y
    in pixels of each object that is a point, and so none of the boxes. targets: label and box of each object of the
    task "point" that is a box, in which a point is right, and so none of the boxes. kinds: of geometry, of all objects.
    max_pixels: to how many the image is reduced before it is shown to a model, as `Example.max_pixels`.
    task: what is asked, of `coordcore.tasks`. question: the record's own, or its phrase; None where it has none, or is
    not known. categories: those that a question of the task "named" asks for. answer: of a task in text.
    """

    key: str
    width: int
    height: int
    labels: tuple[str, ...]
    boxes: Boxes
    crowd: np.ndarray[Any, np.dtype[np.bool_]]
    open: Callable[[], Image] = attrs.field(repr=False)
    messages: tuple[dict[str, Any], ...] = ()
    path: Path | None = None
    in_bins: bool = False
    id: Id | None = None
    absent: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()
    federated: bool = False
    frequencies: Mapping[str, str] = attrs.Factory(dict)
    areas: np.ndarray[Any, np.dtype[np.float64]] | None = None
    outlines: Mapping[int, Boxes] = attrs.Factory(dict)
    points: tuple[tuple[str, float, float], ...] = ()
    targets: tuple[tuple[str, Boxes], ...] = ()
    kinds: frozenset[str] = frozenset()
    task: str = "detect"
    question: str | None = None
    categories: tuple[str, ...] = ()
    answer: str = ""
    max_pixels: int | None = None

    @property
    def is_text(self) -> bool:
        """Whether it is answered with text, and no boxes."""
        return TASKS[self.task].is_text

    def least_pixels(self, limit: int | None) -> int | None:
        """The smaller of its own limit and a model's."""
        return min((pixels for pixels in (limit, self.max_pixels) if pixels is not None), default=None)

    @property
    def asked(self) -> str:
        """What the last of its messages asks, without the image; "" where it has none."""
        return str(self.messages[-1]["content"]).replace("<image>", "") if self.messages else ""
