"""What a record says to the model, as the builder hands it on."""

from __future__ import annotations

import msgspec

from coordcore import Geometry


class Changes(msgspec.Struct, frozen=True, gc=False):
    """What reading had to change, counted.

    widened: boxes whose corners fell into one bin and were widened by one. clipped: objects cut at the image's edge.
    flat: polygons and quads whose corners fell onto one line, which are kept so. Of records of pixels, which do not
    change for it: specks, that hold fractions of the first pixel alone, and silent, that hold no place or are left out.
    """

    widened: int = 0
    clipped: int = 0
    flat: int = 0
    specks: int = 0
    silent: int = 0

    def __add__(self, other: Changes) -> Changes:
        return Changes(
            widened=self.widened + other.widened,
            clipped=self.clipped + other.clipped,
            flat=self.flat + other.flat,
            specks=self.specks + other.specks,
            silent=self.silent + other.silent,
        )


UNCHANGED = Changes()


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The text of an answer with its geometries, and what reading the record had to change.

    cut: labels that a record of the task "named" asks for, and of which `max_objects` leaves none.
    """

    text: str
    geometries: tuple[Geometry, ...] = ()
    changes: Changes = UNCHANGED
    cut: tuple[str, ...] = ()
