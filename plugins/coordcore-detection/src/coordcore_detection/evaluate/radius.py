"""Within which a predicted point finds a true one. Without numpy: `coordcore check` reads it."""

from __future__ import annotations

import math
import re

import attrs

from coordcore import InputError


@attrs.frozen(kw_only=True)
class Radius:
    """How far a predicted point may be from the true one: so many pixels, or percent of the image's longer side."""

    text: str
    pixels: float | None
    share: float

    @classmethod
    def read(cls, text: str) -> Radius:
        """ "12px" or "5%". Raises InputError for anything else, and for what is not above 0."""
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(px|%)", text.strip())
        size = float(found[1]) if found else 0.0
        if found is None or not 0 < size < math.inf:
            raise InputError(f"{text!r} is no radius above 0; write pixels, 12px, or percent of the longer side, 5%")
        return cls(text=text, pixels=size if found[2] == "px" else None, share=size / 100)

    def of(self, size: tuple[int, int]) -> float:
        """In pixels of an image of this size."""
        return self.share * max(size) if self.pixels is None else self.pixels


RADIUS = "5%"
