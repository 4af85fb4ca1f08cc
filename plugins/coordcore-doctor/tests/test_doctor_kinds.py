"""What the doctor's checks of boxes make of points."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from PIL import Image

from coordcore.coords import CoordVocab
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore.records.answers import COORDJSON, Format, Located, answer_text
from coordcore.records.answers.format import Label
from coordcore.records.example import Example, Geometry
from coordcore_doctor import draw
from coordcore_doctor.sample import Encoded, Sample

VOCAB = CoordVocab(ids=range(100, 1100))
VALUES = {
    "point": (12.4, 40.0),
    "quad": (20.0, 10.0, 60.0, 30.0, 50.0, 50.0, 10.0, 30.0),
    "bbox_2d": (1.0, 2.0, 3.0, 4.0),
}


def test_points_are_no_boxes_but_for_pictures() -> None:
    geometries = tuple(Geometry(kind=kind, values=values) for kind, values in VALUES.items())
    labels = tuple(VOCAB.ids[int(value)] for values in VALUES.values() for value in values)
    row = Encoded(example=Example(messages=(), geometries=geometries), sizes=(), ids=labels, labels=labels, seen=())

    source, written = row.boxes(VOCAB)
    assert source.tolist() == written.tolist() == [[10, 10, 60, 50], [1, 2, 3, 4]]
    assert row.boxes(VOCAB, points=True)[1].tolist() == [[12, 40, 12, 40], [10, 10, 60, 50], [1, 2, 3, 4]]


LINES = attrs.evolve(
    COORDJSON, name="lines", opening="", before="", label=(Label(without='"'),), amid="", after="", between="\n",
    nothing="none", closing="", json=False,
)  # fmt: skip


@pytest.mark.parametrize("form", [COORDJSON, LINES], ids=lambda form: form.name)
def test_the_sheet_has_outlines_and_points_and_their_labels(
    form: Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = [Located(desc=f"a {kind}", kind=kind, bins=tuple(map(round, values))) for kind, values in VALUES.items()]
    Image.new("RGB", (999, 999)).save(tmp_path / "a.png")
    example = Example(
        messages=({"role": "assistant", "content": answer_text(objects, form=form)},),
        images=(tmp_path / "a.png",),
        geometries=tuple(Geometry(kind=kind, values=values) for kind, values in VALUES.items()),
    )
    labels = tuple(VOCAB.ids[k] for item in objects for k in item.bins)
    row = Encoded(example=example, sizes=(), ids=labels, labels=labels, seen=((999, 999),))
    cells: list[draw.Cell] = []
    monkeypatch.setattr(draw, "save_sheet", lambda given, _path: cells.extend(given))

    sample = Sample(rows=(row,), unread=(), unencoded=(), total=1)
    assert draw.write_sheet(tmp_path / "sheet.png", sample, VOCAB, DEFAULT_QUANTISATION, form) == 1
    (cell,) = cells
    assert cell.labels == ["a point", "a quad", "a bbox_2d"]
    assert {index: shape.tolist() for index, shape in cell.outlines.items()} == {
        0: [[12, 40]],
        1: [[20, 10], [60, 30], [50, 50], [10, 30]],
    }
