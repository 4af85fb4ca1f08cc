"""Checks of answer formats."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from coordcore.components import Component
from coordcore.coords import DEFAULT_COORDS, CoordFormat, int_to_token
from coordcore.records.answers import AnswerObject, Format, Located, answer_text, parse_answer
from coordcore.testing.building import build

_LABELS = ("red ring", "blue square", "red ring", "\u00e9p\u00e9e 5", "red ring")
_SHAPES = {
    "bbox_2d": (12, 40, 500, 999),
    "poly": (0, 0, 999, 3, 7, 999),
    "point": (12, 999),
    "quad": (40, 12, 999, 12, 960, 500, 1, 500),
}


def check_format_survives_a_checkpoint(component: Component, config: Any = None) -> None:
    """What `coordcore.json` holds of the format is the format."""
    form = _form(component, config)
    again = Format.from_dict(form.as_dict(), source="as_dict()")
    assert again.as_dict() == form.as_dict(), "from_dict(as_dict()) is another format"
    for objects in _answers(form):
        assert answer_text(objects, form=again) == answer_text(objects, form=form), "it writes another text"


def check_format_is_read_as_written(component: Component, config: Any = None) -> None:
    """Parser and spans give back what the writer wrote, for every kind of geometry, in either order of the fields."""
    form = _form(component, config)
    for objects in _answers(form):
        for geometry_first in (False, True):
            text = answer_text(objects, form=form, geometry_first=geometry_first)
            answer = parse_answer(text, form)
            assert not answer.unread, f"{text!r}: {answer.unread[0].at} {answer.unread[0].reason}"
            expected = [(item.desc, item.kind, item.bins) for item in chain(*form.grouped(objects))]
            found = [(item.desc, item.kind, _coordinates(item)) for item in answer.objects]
            assert found == expected, f"{text!r}: read as {found}, written were {expected}"
            for item in answer.objects:
                written = [text[slice(*span)] for span in item.coord_spans]
                assert form.numbers or written == [int_to_token(k) for k in item.bins], (
                    f"{text!r}: coord_spans are at {written}"
                )


def check_format_keeps_the_order_of_coordinates(component: Component, config: Any = None) -> None:
    """With tokens that write y first, the same boxes are read."""
    form, coords = _form(component, config), CoordFormat(tokens=DEFAULT_COORDS.tokens, bins=1000, order="yx")
    for objects in _answers(form):
        answer = parse_answer(answer_text(objects, form=form, coords=coords), form, coords=coords)
        expected = [item.bins for item in chain(*form.grouped(objects))]
        assert [_coordinates(item) for item in answer.objects] == expected, "x and y are exchanged"


CHECKS = (
    check_format_survives_a_checkpoint,
    check_format_is_read_as_written,
    check_format_keeps_the_order_of_coordinates,
)


def _coordinates(item: AnswerObject) -> tuple[float, ...]:
    return item.bins or item.numbers


def _form(component: Component, config: Any) -> Format:
    form = build(component, config)
    assert isinstance(form, Format), f"build must give a coordcore.records.answers.Format, got {form!r}"
    form.require()
    return form


def _answers(form: Format) -> Iterator[list[Located]]:
    """No object, one of each kind, and several, labels among them that repeat."""
    yield []
    for kind in form.places:
        yield [Located(desc=_LABELS[0], kind=kind, bins=_SHAPES[kind])]
        yield [Located(desc=label, kind=kind, bins=_SHAPES[kind]) for label in _LABELS]
    kinds = [kind for kind in form.places for _ in range(2)]
    yield [Located(desc=label, kind=kind, bins=_SHAPES[kind]) for label, kind in zip(_LABELS, kinds, strict=False)]
