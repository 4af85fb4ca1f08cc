"""What a record says to the model, as the builder hands it on."""

from __future__ import annotations

import msgspec

from coordcore import Geometry


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The text of an answer with its geometries, and what reading the record had to change.

    widened: boxes whose corners fell into one bin and were widened by one. clipped: objects cut at the image's edge.
    flat: polygons and quads whose corners fell onto one line, which are kept so.
    cut: labels that a record of the task "named" asks for, and of which `max_objects` leaves none.
    """

    text: str
    geometries: tuple[Geometry, ...] = ()
    widened: int = 0
    clipped: int = 0
    flat: int = 0
    cut: tuple[str, ...] = ()
