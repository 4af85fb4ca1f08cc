"""Annotation of a record in memory: the tokens, bins and fractions of each object's geometry, kept beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordcore.coords import DEFAULT_COORDS, CoordFormat, int_to_token
from coordcore.records.annotations import Rules, read_annotation
from coordcore.records.record import LeftOut, parse_object, parse_objects


def annotate_coord_tokens(record: Mapping[str, Any], coords: CoordFormat = DEFAULT_COORDS) -> dict[str, Any]:
    """A copy of `record` whose objects carry their geometry in three further forms, by geometry kind.

    Each object gains `_coord_tokens` (`{"bbox_2d": ["<|coord_12|>", ...]}`), `_coord_token_ints` (the bins, 0..999) and
    `_coord_token_norm` (bin / 999); the record gains `_coord_tokens_enabled = True`. The names are CoordExp's. Older
    annotations are replaced, keys of other names kept. `record` and its objects are not changed; geometry may be
    integers 0..999 or coord tokens.
    Only `objects` is read: images and sizes are the data builder's business.

    Raises coordcore.InputError with the path in front ("objects[2].bbox_2d: ...") for anything the record format does
    not allow; docs/reference/records.md lists the messages.
    """
    objects = record.get("objects")
    if not isinstance(objects, (list, tuple)):
        objects = parse_objects(record)  # which says what is wrong
    annotated = []
    for index, given in enumerate(objects):
        path = f"objects[{index}]"
        item = read_annotation(parse_object(given, path, LeftOut()), path, Rules(space="bin", coords=coords))
        bins = [int(value) for value in item.values]
        annotated.append(
            {
                **given,
                "_coord_tokens": {item.kind: [int_to_token(k, coords) for k in bins]},
                "_coord_token_ints": {item.kind: bins},
                "_coord_token_norm": {item.kind: [k / (coords.bins - 1) for k in bins]},
            }
        )
    return {**record, "objects": annotated, "_coord_tokens_enabled": True}
