"""The forms that plain records come in, as types that msgspec checks in C while it decodes."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal, cast

import msgspec

from coordcore.coords import ints_to_tokens
from coordcore.quantisation import NUM_BINS
from coordcore.records.record import LARGEST, Record, RecordObject

TOKENS = tuple(ints_to_tokens(range(NUM_BINS)))
"""`TOKENS[k]` is the coord token of bin k."""

BIN: Any = Annotated[int, msgspec.Meta(ge=0, le=NUM_BINS - 1)]
TOKEN: Any = Literal[TOKENS]
# Of a key that is there twice the reference judges both values, and refuses integers beyond these.
REAL: Any = Annotated[float, msgspec.Meta(gt=-LARGEST, lt=LARGEST)]

NOT_PLAIN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What `Form.decoder` raises for a record of another form, or of none."""

_tuple, _list, _annotated = cast(Any, tuple), cast(Any, list), cast(Any, Annotated)  # types that are made as it runs


class Form:
    """What a coordinate is, and whether objects hold a description and a box alone, or whatever an object may hold.

    The types are those of the reference, narrowed; what they leave open is for the reader to check.
    """

    def __init__(self, coordinate: Any, geometry: tuple[str, ...], *, boxes_only: bool) -> None:
        self.coordinate = coordinate
        self.geometry = geometry
        self.boxes_only = boxes_only
        self.tokens = coordinate is TOKEN

    @cached_property
    def decoder(self) -> msgspec.json.Decoder[Any]:
        """Decodes the records of this form alone."""
        box = _tuple[(self.coordinate,) * 4]
        if self.boxes_only:  # every further field takes time
            plain = _struct("PlainObject", [("desc", str), ("bbox_2d", box)])
        else:
            poly = _annotated[_list[self.coordinate], msgspec.Meta(min_length=6)]
            fields: list[Any] = [("line", None, None)]
            for kind, shape in (("bbox_2d", box), ("poly", poly)):
                fields.append((kind, shape | None if kind in self.geometry else None, None))
            plain = _struct("PlainObject", fields, RecordObject)
        path = _annotated[str, msgspec.Meta(min_length=1)]
        record = _struct("PlainRecord", [("images", _tuple[path]), ("objects", _list[plain])], Record)
        return msgspec.json.Decoder(record)


def forms(coordinates: list[Any], geometry: tuple[str, ...]) -> list[Form]:
    """The forms that records of these coordinates and geometries may have, the plainest first."""
    return [
        Form(coordinate, geometry, boxes_only=boxes_only)
        for coordinate in coordinates
        for boxes_only in (True, False)
        if not boxes_only or "bbox_2d" in geometry
    ]


def _struct(name: str, fields: list[Any], *bases: type[msgspec.Struct]) -> Any:
    return msgspec.defstruct(name, fields, bases=bases, kw_only=True, forbid_unknown_fields=True, gc=False)
