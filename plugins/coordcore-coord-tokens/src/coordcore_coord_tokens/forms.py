"""The forms that plain records come in, as types that msgspec checks in C while it decodes."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal, cast

import msgspec

from coordcore.coords import CoordFormat
from coordcore.records.record import LARGEST, Record, RecordObject

# Of a key that is there twice the reference judges both values, and refuses integers beyond these.
REAL: Any = Annotated[float, msgspec.Meta(gt=-LARGEST, lt=LARGEST)]

NOT_PLAIN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What `Form.decoder` raises for a record of another form, or of none."""

# Types that are made as it runs.
_tuple, _list, _annotated, _literal = cast(Any, tuple), cast(Any, list), cast(Any, Annotated), cast(Any, Literal)


class Form:
    """What a coordinate is, and whether objects hold a description and a box alone, or whatever an object may hold.

    The types are those of the reference, narrowed; what they leave open is for the reader to check.
    """

    def __init__(self, coordinate: Any, geometry: tuple[str, ...], *, boxes_only: bool, tokens: bool) -> None:
        self.coordinate = coordinate
        self.geometry = geometry
        self.boxes_only = boxes_only
        self.tokens = tokens

    @cached_property
    def decoder(self) -> msgspec.json.Decoder[Any]:
        """Decodes the records of this form alone."""
        box = _tuple[(self.coordinate,) * 4]
        if self.boxes_only:  # every further field takes time
            plain = _struct("PlainObject", [("desc", str), ("bbox_2d", box)])
        else:
            poly = _annotated[_list[self.coordinate], msgspec.Meta(min_length=6)]
            fields: list[Any] = [(key, None, None) for key in ("line", "quad", "keypoints", "point_2d")]
            for kind, shape in (("bbox_2d", box), ("poly", poly), ("point", _tuple[(self.coordinate,) * 2])):
                fields.append((kind, shape | None if kind in self.geometry else None, None))
            plain = _struct("PlainObject", fields, RecordObject)
        path = _annotated[str, msgspec.Meta(min_length=1)]
        # Of a record with a task the reference reads all; without one none of its keys may be there.
        tasks = [(key, None, None) for key in ("task", "question", "prompt", "answer", "categories")]
        record = _struct("PlainRecord", [("images", _tuple[path]), ("objects", _list[plain]), *tasks], Record)
        return msgspec.json.Decoder(record)


def forms(coords: CoordFormat | None, geometry: tuple[str, ...]) -> list[Form]:
    """The forms that records of these geometries may have, the plainest first. coords: of bins; None for reals."""
    coordinates: list[Any] = [REAL]
    if coords is not None:
        coordinates = [_annotated[int, msgspec.Meta(ge=0, le=coords.bins - 1)], _literal[coords.written]]
    return [
        Form(coordinate, geometry, boxes_only=boxes_only, tokens=bool(tokens))
        for tokens, coordinate in enumerate(coordinates)
        for boxes_only in (True, False)
        if not boxes_only or "bbox_2d" in geometry
    ]


def _struct(name: str, fields: list[Any], *bases: type[msgspec.Struct]) -> Any:
    return msgspec.defstruct(name, fields, bases=bases, kw_only=True, forbid_unknown_fields=True, gc=False)
