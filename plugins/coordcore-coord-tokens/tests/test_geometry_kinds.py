"""Points and quads as targets, in every format, and keypoints that are carried and not trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from coordcore import BuildContext, InputError
from coordcore.coords import ints_to_tokens
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore.records.answers import COORDJSON, Format, Located, answer_text, parse_answer
from coordcore_coord_tokens import CoordJsonlConfig
from coordcore_coord_tokens.formats import COMPACT, GROUPED, QWEN, TAGGED
from coordcore_coord_tokens.jsonl import CoordJsonl

FORMATS = [COORDJSON, COMPACT, GROUPED, TAGGED, QWEN]
KINDS = ("point", "quad")
OBJECTS: list[dict[str, Any]] = [
    {"desc": "ship", "quad": [60, 30, 20, 10, 10, 30, 50, 50]},
    {"desc": "button", "point": [12.4, 40]},
    {"desc": "ship", "point": [640, 480]},
]


def opened(write: Any, form: Format, *objects: dict[str, Any], **settings: Any) -> CoordJsonl:
    record = {"images": ["photo.png"], "width": 640, "height": 480, "objects": objects}
    config = CoordJsonlConfig(train=write(record), **{"geometry": KINDS, "space": "pixel", **settings})
    context = BuildContext(run_dir=Path("run"), seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None, format=form)
    return CoordJsonl.open(config, context)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_targets_are_real_valued_in_every_format(form: Format, write: Any) -> None:
    example = opened(write, form, *OBJECTS).train()[0]
    answer = parse_answer(example.messages[-1]["content"], form)
    wide, high = (999 / side for side in (640, 480))

    assert answer.unread == ()
    assert [(item.desc, item.kind) for item in answer.objects] == [
        ("ship", "quad"),
        ("button", "point"),
        ("ship", "point"),
    ]
    assert [item.kind for item in example.geometries] == [item.kind for item in answer.objects]
    assert example.geometries[1].values == pytest.approx((12.4 * wide, 40 * high))
    clockwise = (20 * wide, 10 * high, 60 * wide, 30 * high, 50 * wide, 50 * high, 10 * wide, 30 * high)
    assert example.geometries[0].values == pytest.approx(clockwise)
    for item, geometry in zip(answer.objects, example.geometries, strict=True):
        assert item.bins == tuple(round(value) for value in geometry.values)


def test_their_texts() -> None:
    point, quad = (12, 40), (20, 10, 60, 30, 50, 50, 10, 30)
    objects = [
        Located(desc="ship", kind="point", bins=point),
        Located(desc="ship", kind="point", bins=point),
        Located(desc="ship", kind="quad", bins=quad),
    ]
    p, q = ("".join(ints_to_tokens(bins)) for bins in (point, quad))
    assert answer_text(objects, form=COMPACT) == f"ship|.{p}\nship|.{p}\nship|#{q}"
    assert answer_text(objects, form=GROUPED) == f"ship|.{p}|.{p}\nship|#{q}"
    assert answer_text(objects[:2], form=TAGGED) == (
        f"<|object_ref_start|>ship<|object_ref_end|><|box_start|>{p},{p}<|box_end|>"
    )
    assert answer_text(objects[2:], form=TAGGED) == (
        f"<|object_ref_start|>ship<|object_ref_end|><|box_start|><|quad_start|>{q}<|quad_end|><|box_end|>"
    )
    assert (
        answer_text(objects[:1], form=QWEN)
        == f'[{{"point_2d": [{", ".join(ints_to_tokens(point))}], "label": "ship"}}]'
    )


def test_a_polygon_in_tags() -> None:
    """Its four corners are no quad, and what was read of a damaged group is polygons still."""
    rectangle, roof = (20, 10, 60, 30, 50, 50, 10, 30), (1, 2, 9, 2, 5, 8)
    objects = [Located(desc="this|that", kind="poly", bins=bins) for bins in (rectangle, roof)]
    first, second = ("".join(ints_to_tokens(bins)) for bins in (rectangle, roof))
    text = answer_text(objects, form=TAGGED)

    assert text == f"<|object_ref_start|>this|that<|object_ref_end|><|box_start|>|{first},|{second}<|box_end|>"
    assert parse_answer(text.replace(",|", ","), TAGGED).objects == parse_answer(text, TAGGED).objects[:1]
    whole = {kind: Located(desc="ship", kind=kind, bins=first) for kind, first in (("quad", rectangle), ("poly", roof))}
    mixed = [*whole.values(), *objects, whole["poly"]]
    read = parse_answer(answer_text(mixed, form=TAGGED), TAGGED)
    assert (read.unread, [(item.desc, item.kind, item.bins) for item in read.objects]) == (
        (),
        [(item.desc, item.kind, item.bins) for group in TAGGED.grouped(mixed) for item in group],
    )


@pytest.mark.usefixtures("folder")
def test_kinds_that_were_not_asked_for_are_refused(write: Any) -> None:
    with pytest.raises(
        InputError, match=r"objects\[0\]\.point: not among the kinds `geometry` allows: bbox_2d, poly; add"
    ):
        opened(write, COORDJSON, OBJECTS[1], geometry=("bbox_2d", "poly"))


@pytest.mark.usefixtures("folder")
def test_a_format_without_a_kind_says_so(write: Any) -> None:
    boxes = attrs.evolve(COMPACT, name="boxes", places={"bbox_2d": COMPACT.places["bbox_2d"]})
    with pytest.raises(
        InputError, match="the format boxes cannot say a point; it can say bbox_2d; name another format in the manifest"
    ):
        opened(write, boxes, OBJECTS[1])


@pytest.mark.usefixtures("folder")
def test_keypoints_change_nothing_that_is_trained(write: Any) -> None:
    box = {"desc": "person", "bbox_2d": [10, 20, 300, 400]}
    without = opened(write, COORDJSON, box, geometry=("bbox_2d",)).train()[0]
    carried = opened(write, COORDJSON, {**box, "keypoints": [11, 22, 2, 0, 0, 0]}, geometry=("bbox_2d",)).train()[0]

    assert (carried.messages, carried.geometries) == (without.messages, without.geometries)
    with pytest.raises(InputError, match=r"objects\[0\]\.keypoints: x = 641 lies outside 0\.\.640"):
        opened(write, COORDJSON, {**box, "keypoints": [641, 22, 2]}, geometry=("bbox_2d",))


@pytest.mark.usefixtures("folder")
def test_corners_beyond_the_edge_are_moved_to_it(write: Any) -> None:
    quad = {"desc": "ship", "quad": [-64, 0, 64, 0, 64, 48, -64, 48]}
    builder = opened(write, COORDJSON, quad, outside="clip")

    assert builder.train()[0].geometries[0].values == pytest.approx((0, 0, 99.9, 0, 99.9, 99.9, 0, 99.9))
