"""What travels from a data builder through the template to the loss. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class Geometry:
    """One geometry of the answer, in the order in which its coord tokens are written.

    kind: "bbox_2d" (x1, y1, x2, y2) or "poly" (x1, y1, x2, y2, ...).
    values: targets in bin units on the run's quantisation, real-valued where the source is finer than a bin
        (12.4 rounds to the written token `<|coord_12|>`), else the bin itself. One value per coord token.
    """

    kind: str
    values: tuple[float, ...]


@attrs.frozen(kw_only=True)
class Example:
    """One training example: a conversation with its images, and the geometries its answer speaks of.

    messages: `{"role": "user" | "assistant" | "system", "content": str}` dicts, `<image>` where an image stands.
    images: paths, encoded bytes or PIL images, one per `<image>`. EXIF orientation is already applied (a path must
        point to an upright image): boxes and pixels then agree.
    geometries: one per geometry in the assistant's text, in order; empty when the answer holds no coord tokens.
        Their value count must equal the coord tokens of the answer, or encoding stops with `source` in the message.
    source: where the example came from, "train.jsonl:17".
    """

    messages: Sequence[dict[str, str]]
    images: Sequence[Path | str | bytes | Any] = ()
    geometries: tuple[Geometry, ...] = ()
    source: str = ""
