"""The best that a quantisation allows: ground truth written in bins, read back, and scored against itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from coordcore.quantisation import Quantisation, encode_boxes
from coordcore_detection.evaluate.matching import Floats
from coordcore_detection.evaluate.truth import TruthImage


def quantised(image: TruthImage, quantisation: Quantisation) -> Floats:
    """[n, 4] pixels: the boxes of `image` as `quantisation` encodes and decodes them.

    Boxes that were read from bins are on the grid already and come back as they are. Corners outside the image are
    moved to its edge; a box that does not overlap it raises InputError, as in `coordcore.quantisation.encode_boxes`.
    """
    if image.in_bins:
        return image.boxes
    size = np.array([image.width, image.height] * 2, dtype=np.float64)
    encoded = encode_boxes(image.boxes, image.width, image.height, quantisation=quantisation, outside="clip")
    decoded: Floats = quantisation.decode(encoded.bins, size)
    return decoded


def quantised_outlines(image: TruthImage, quantisation: Quantisation) -> Mapping[int, Floats]:
    """The same for `image.outlines`; as they are where boxes are rounded outward: single points then have no bins."""
    if image.in_bins or quantisation.rounding == "outward":
        return image.outlines
    size = np.array([image.width, image.height], dtype=np.float64)
    return {
        index: quantisation.decode(quantisation.encode(outline, size, outside="clip"), size)
        for index, outline in image.outlines.items()
    }


def all_quantised(images: Sequence[TruthImage], quantisation: Quantisation) -> Floats:
    """[m, 4]: `quantised` of one image after another."""
    return np.concatenate([np.zeros((0, 4)), *(quantised(image, quantisation) for image in images)])
