"""What is drawn for one example in one epoch, and done to its picture and places."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import attrs

from coordcore_coord_tokens.augment.shapes import Shape, Window, beside, grown, mirrored, scaled, within

if TYPE_CHECKING:
    from PIL.Image import Image

    from coordcore_coord_tokens.augment.config import AugmentConfig, ImageConfig

_TRIES = 20


@attrs.frozen
class Draws:
    """Random numbers that follow from `key` alone; each purpose has its own, so that none moves another's."""

    key: str

    def __call__(self, purpose: str) -> Random:
        return Random(f"{self.key} {purpose}")


@attrs.frozen(kw_only=True)
class Move:
    """mirrors, then cuts out `window`, then resizes that to `size`; the whole image and None where it does not.

    hidden: descriptions of what is still to be seen in part, and left out of the shapes.
    """

    mirrors: bool
    window: Window
    size: tuple[int, int]
    shapes: tuple[Shape, ...]
    hidden: frozenset[str] = frozenset()


def drawn(
    config: AugmentConfig,
    draws: Draws,
    shapes: Sequence[Shape],
    size: tuple[int, int],
    *,
    cuts: bool = True,
    enough: Callable[[Sequence[Shape]], bool] = bool,
    max_aspect: float,
) -> Move:
    """How picture and places move. size: width and height in pixels. max_aspect: of a window's sides.

    cuts: whether a window may be cut out, if the settings ask for it. enough: whether a window may leave these of the
    shapes alone; of an image without any, every one may be cut out.

    A window that does not leave enough, or is too long one way, is drawn again; after 20 of them the image is left
    whole.
    """
    mirrors = is_mirrored(config, draws)
    moved = [mirrored(shape, size[0]) for shape in shapes] if mirrors else list(shapes)
    window: Window = (0, 0, *size)
    hidden: frozenset[str] = frozenset()
    for tried in _windows(config, draws("crop"), moved, size) if cuts else ():
        left = [
            shape for item in moved if (shape := within(item, tried, size, visible=config.crop_visible)) is not None
        ]
        sides = sorted((tried[2] - tried[0], tried[3] - tried[1]))
        if (enough(left) or not moved) and sides[1] <= max_aspect * sides[0]:
            shown = {item.desc for item in moved if not beside(item, tried)}
            hidden = frozenset(shown.difference(item.desc for item in left))
            window, moved = tried, left
            break
    cut = window[2] - window[0], window[3] - window[1]
    wanted = resized(config, draws, cut)
    return Move(
        mirrors=mirrors,
        window=window,
        size=wanted,
        shapes=tuple(moved if wanted == cut else [scaled(shape, cut, wanted) for shape in moved]),
        hidden=hidden,
    )


def is_mirrored(config: ImageConfig, draws: Draws) -> bool:
    """Whether an example is mirrored."""
    return draws("flip").random() < config.flip


def resized(config: ImageConfig, draws: Draws, size: tuple[int, int]) -> tuple[int, int]:
    """To which width and height an image of `size` is resized."""
    if config.resize is None:
        return size
    factor = draws("resize").uniform(*config.resize)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _windows(config: AugmentConfig, random: Random, shapes: Sequence[Shape], size: tuple[int, int]) -> Iterator[Window]:
    if config.crop is None:
        return
    for _ in range(_TRIES):
        width, height = (max(1, round(side * random.uniform(*config.crop))) for side in size)
        left, top = random.randint(0, size[0] - width), random.randint(0, size[1] - height)
        window = left, top, left + width, top + height
        yield grown(window, shapes, size, whole=config.crop_objects == "whole")


def moved_picture(image: Image, move: Move) -> Image:
    """The picture as the places have moved, by torchvision."""
    from torchvision.transforms.v2 import functional

    picture: Any = functional.horizontal_flip(image) if move.mirrors else image
    left, top, right, bottom = move.window
    if (right - left, bottom - top) != picture.size:
        picture = functional.crop(picture, top, left, bottom - top, right - left)
    if move.size != picture.size:
        picture = functional.resize(picture, [move.size[1], move.size[0]])
    result: Image = picture
    return result


def coloured(image: Image, config: ImageConfig, draws: Draws) -> Image:
    """The picture in other colours, by torchvision; in the order of the manifest's keys."""
    if not config.colours:
        return image
    from torchvision.transforms.v2 import functional

    factors: tuple[tuple[str, float, Callable[..., Any]], ...] = (
        ("brightness", config.brightness, functional.adjust_brightness),
        ("contrast", config.contrast, functional.adjust_contrast),
        ("saturation", config.saturation, functional.adjust_saturation),
        ("hue", config.hue, functional.adjust_hue),
    )
    picture: Any = image
    for name, most, adjust in factors:
        if most:
            middle = 0.0 if name == "hue" else 1.0
            picture = adjust(picture, draws(name).uniform(middle - most, middle + most))
    result: Image = picture
    return result


def noise_boxes(count: int, random: Random, size: tuple[int, int]) -> list[tuple[float, float, float, float]]:
    """Boxes anywhere in the image, of a twentieth to a half of its sides."""
    boxes = []
    for _ in range(count):
        width, height = (side * random.uniform(0.05, 0.5) for side in size)
        left, top = random.uniform(0, size[0] - width), random.uniform(0, size[1] - height)
        boxes.append((left, top, left + width, top + height))
    return boxes
