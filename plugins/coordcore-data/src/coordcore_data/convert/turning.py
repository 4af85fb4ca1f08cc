"""The attribute `rotation` of a box, as CVAT's exports to other formats have it beside the box before its turn."""

from __future__ import annotations

import math
from typing import Any

from coordcore.records.geometry import misordered
from coordcore_data.convert.core import Account, Box
from coordcore_data.convert.geometry import NEGATIVE, rotated
from coordcore_data.convert.text import UnreadableError, number


def angle(rotation: Any, account: Account, where: str) -> float:
    """Degrees in 0..360 of the attribute; 0 without one, and for what is no number: another tool means that."""
    try:
        degrees = number(0 if rotation is None else rotation)
        if type(degrees) not in (int, float) or not math.isfinite(degrees):
            raise ValueError
    except (ValueError, OverflowError):  # an integer that no float holds
        account.note("attribute rotation that is no number: no turn", where, repr(rotation))
        return 0.0
    return float(degrees % 360)


def turned(box: Box, degrees: float) -> list[float] | None:
    """The corners of `box` after its turn (clockwise about the centre), None where there is none to make.

    Raises UnreadableError for corners in the wrong order: turned, they would look right.
    """
    if not degrees:
        return None
    if misordered(box):
        raise UnreadableError(NEGATIVE)
    return rotated(box, degrees) if box[0] < box[2] and box[1] < box[3] else None
