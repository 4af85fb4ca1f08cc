"""The fast path answers what the reference answers, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordcore.coords import CoordFormat, ints_to_tokens
from coordcore.quantisation import DEFAULT_QUANTISATION, QUANTISATIONS, Quantisation, quantisation
from coordcore.records.geometry import KINDS
from coordcore.records.record import RecordError, parse_record
from coordcore_coord_tokens import CoordJsonlConfig, annotate_coord_tokens
from coordcore_coord_tokens.answer import Answer
from coordcore_coord_tokens.quick import quick_reader
from coordcore_coord_tokens.reader import Reader, read_answer

SIZE = (640, 480)


def config_of(**settings: Any) -> CoordJsonlConfig:
    return CoordJsonlConfig(train=Path("train.jsonl"), **settings)


CONFIGS = st.builds(
    config_of,
    space=st.sampled_from(["bin", "pixel", "norm1"]),
    outside=st.sampled_from(["error", "clip"]),
    coord_tokens=st.booleans(),
    geometry=st.sampled_from([("bbox_2d", "poly"), ("bbox_2d",), ("poly",), ("point",), (*KINDS,)]),
    field_order=st.sampled_from(["desc_first", "geometry_first"]),
    object_order=st.sampled_from(["as_given", "top_left"]),
    max_objects=st.sampled_from([None, 1, 2]),
)
SPECS = st.sampled_from(list(QUANTISATIONS.values()))


def coordinate(config: CoordJsonlConfig, limit: int) -> st.SearchStrategy[Any]:
    """A coordinate on an axis of `limit` pixels: mostly right, at edges and ties, or a little outside."""
    if config.space == "bin":
        return st.integers(0, 999) | st.sampled_from([-1, 0, 998, 999, 1000, 1.0])
    high = limit if config.space == "pixel" else 1
    ties = st.integers(0, 1000).map(lambda k: (k + 0.5) * high / 999)
    edges = [0, -0.0, 1e-17, high, high - 1e-9, -0.25, high + 0.25, high * 2, 2**53 + 1, -(2**54), 1e300]
    return st.floats(0, high) | st.integers(0, high) | ties | st.sampled_from(edges)


@st.composite
def shapes(draw: st.DrawFn, config: CoordJsonlConfig) -> dict[str, Any]:
    """The geometry of one object."""
    width, height = (coordinate(config, side) for side in SIZE)
    if draw(st.integers(0, 3)):
        xs, ys = (draw(st.lists(axis, min_size=2, max_size=2)) for axis in (width, height))
        if draw(st.integers(0, 9)):
            xs, ys = sorted(xs), sorted(ys)
        return {"bbox_2d": [xs[0], ys[0], xs[1], ys[1]]}
    kind = draw(st.sampled_from(["poly", "poly", "point", "quad"]))
    if kind != "poly":
        count = draw(st.sampled_from([1, 1, 4]) if kind == "point" else st.sampled_from([4, 4, 3]))
        return {kind: [value for _ in range(count) for value in (draw(width), draw(height))]}
    points = draw(st.lists(st.tuples(width, height), min_size=2, max_size=5))
    shape: dict[str, Any] = {"poly": [value for point in points for value in point]}
    if draw(st.booleans()):
        shape["poly_points"] = draw(st.sampled_from([len(points), 3]))
    return shape


@st.composite
def lines(draw: st.DrawFn, config: CoordJsonlConfig) -> bytes:
    """A line that is mostly right."""
    descs = st.sampled_from(["red circle", 'a "blue" häuschen\n', "a < b", "x <image>", " ", "é\u2028🙂"]) | st.text()
    objects: list[dict[str, Any]] = []
    tokens = config.space == "bin" and draw(st.booleans())
    for _ in range(draw(st.integers(0, 4))):
        item = {"desc": draw(descs), **draw(shapes(config))}
        for kind in KINDS:
            if tokens and kind in item and all(type(k) is int and 0 <= k <= 999 for k in item[kind]):
                item[kind] = ints_to_tokens(item[kind])
        item |= draw(
            st.sampled_from(
                [
                    {},
                    {},
                    {},
                    {"line": None},
                    {"poly_points": 3},
                    {"keypoints": [1, 1, 2]},
                    {"_coord_tokens": {"a": [1]}},
                ]
            )
        )
        objects.append(item)
    record: dict[str, Any] = {"images": ["a.png"], "width": SIZE[0], "height": SIZE[1], "objects": objects}
    extra = [{"summary": "s"}, {"metadata": None}, {"metadata": {"quantisation": "nearest_999"}}, {"width": 0}]
    record |= draw(st.sampled_from([{}, {}, {}, {"images": [""]}, {"images": ["a", "b"]}, {"colour": 1}, *extra]))
    return json.dumps(record, ensure_ascii=draw(st.booleans())).encode()


def reference(line: bytes, config: CoordJsonlConfig, spec: Quantisation) -> Answer | None:
    try:
        return read_answer(parse_record(line), config, spec, CoordFormat(bins=spec.bins))
    except RecordError:
        return None


@settings(max_examples=150)
@given(data=st.data(), config=CONFIGS, spec=SPECS)
def test_what_it_answers_is_the_reference_s_answer(
    data: st.DataObject, config: CoordJsonlConfig, spec: Quantisation
) -> None:
    quick = quick_reader(config, spec, CoordFormat(bins=spec.bins))
    if quick is None:
        assert (spec.rounding, config.space != "bin") == ("outward", True)
        return
    for _ in range(3):  # the second record finds the form of the first
        line = data.draw(lines(config))
        found, expected = quick.read(line), reference(line, config, spec)
        if found is not None:
            record, answer = found
            assert answer == expected
            assert (list(record.images), record.width, record.height) == (["a.png"], *SIZE)


@settings(max_examples=100)
@given(data=st.data(), config=CONFIGS, spec=SPECS)
def test_a_check_counts_the_same_without_the_text(
    data: st.DataObject, config: CoordJsonlConfig, spec: Quantisation
) -> None:
    reader = Reader(config, spec, CoordFormat(bins=spec.bins))
    line = data.draw(lines(config))
    expected = reference(line, config, spec)
    if expected is None:
        with pytest.raises(RecordError):
            reader.check(line)
    else:
        _, answer = reader.check(line)
        assert answer.changes == expected.changes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)


@given(
    item=st.fixed_dictionaries({"desc": st.just("x") | JSON}, optional={"bbox_2d": JSON, "poly": JSON, "line": JSON}),
    more=st.fixed_dictionaries({}, optional={"metadata": JSON, "summary": JSON, "width": JSON, "images": JSON}),
    config=CONFIGS,
)
def test_it_takes_no_line_that_the_reference_refuses(
    item: dict[str, Any], more: dict[str, Any], config: CoordJsonlConfig
) -> None:
    record = {"images": ["a.png"], "width": 640, "height": 480, "objects": [item], **more}
    line = json.dumps(record).encode()
    quick = quick_reader(config, DEFAULT_QUANTISATION)
    assert quick is not None
    found = quick.read(line)
    assert found is None or found[1] == reference(line, config, DEFAULT_QUANTISATION)


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"{", b"[]", b"\xef\xbb\xbf{}", b'{"images": ["caf\xe9.jpg"]}', b'{"a": ' + b"[" * 9999, b"\xff"],
    ids=repr,
)
def test_a_line_that_is_no_record_is_left_to_the_reference(line: bytes) -> None:
    quick = quick_reader(config_of(), DEFAULT_QUANTISATION)
    assert quick is not None
    assert quick.read(line) is None


@pytest.mark.parametrize(("entry", "value"), [("bins", 1000.0), ("version", 1.0)])
def test_a_spec_of_other_types_is_left_to_the_reference(entry: str, value: float) -> None:
    declared = {**DEFAULT_QUANTISATION.as_dict(), entry: value}
    line = json.dumps({"images": ["a"], "width": 9, "height": 9, "objects": [], "metadata": {"quantisation": declared}})
    with pytest.raises(
        RecordError, match=f"^metadata.quantisation: the record's spec: '{entry}' must be <class 'int'>"
    ):
        Reader(config_of(), DEFAULT_QUANTISATION).read(line.encode())


def test_the_first_of_two_values_is_read_as_strictly() -> None:
    first = '"objects": [{"desc": "x", "bbox_2d": [0, 0, 9007199254740993, 9]}]'
    line = f'{{"images": ["a"], "width": 9, "height": 9, {first}, "objects": []}}'
    with pytest.raises(RecordError, match=r"^objects\[0\].bbox_2d\[2\]: expected int <= 9007199254740992$"):
        Reader(config_of(space="pixel"), DEFAULT_QUANTISATION).read(line.encode())


@attrs.frozen
class Taken:
    """A record that the fast path must take, or it is not fast: its objects and how they are read."""

    objects: list[dict[str, Any]]
    settings: dict[str, Any]
    quantisation: str = "nearest_999"
    metadata: dict[str, Any] = attrs.field(factory=dict)


BOX = {"desc": "red circle", "bbox_2d": [12, 40, 300, 412]}
TOKENS = {"desc": "red circle", "bbox_2d": ints_to_tokens([12, 40, 300, 412])}
POLY = {"desc": "roof", "poly": [0, 80, 200, 0, 400, 80], "poly_points": 3}
TAKEN = {
    "boxes": Taken([BOX, BOX], {}),
    "tokens": Taken([TOKENS, TOKENS], {}),
    "polygons": Taken([BOX, POLY], {}),
    "annotated": Taken(annotate_coord_tokens({"objects": [BOX, POLY]})["objects"], {}),
    "none": Taken([], {}),
    "a declared name": Taken([BOX], {}, metadata={"quantisation": "nearest_999"}),
    "a declared spec": Taken([BOX], {}, metadata={"quantisation": DEFAULT_QUANTISATION.as_dict()}),
    "pixels": Taken([BOX, {"desc": "x", "bbox_2d": [0.5, 0, 640, 479.25]}], {"space": "pixel"}),
    "a thin box": Taken([{"desc": "x", "bbox_2d": [5, 5, 5, 9]}], {"space": "pixel"}),
    "a box to clip": Taken([{"desc": "x", "bbox_2d": [-5, 5, 5, 990]}], {"space": "pixel", "outside": "clip"}),
    "polygons in pixels": Taken([POLY, BOX], {"space": "pixel"}),
    "fractions": Taken([{"desc": "x", "bbox_2d": [0, 0.25, 1, 1]}], {"space": "norm1"}),
    "another convention": Taken([BOX], {"space": "pixel"}, "qwen_1000"),
    "everything else": Taken([BOX, BOX], {"object_order": "top_left", "field_order": "geometry_first"}),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_plainly_right_takes_the_fast_path(name: str) -> None:
    case = TAKEN[name]
    record = {"images": ["a.png"], "width": 640, "height": 480, "objects": case.objects, "metadata": case.metadata}
    line = json.dumps(record).encode()
    config, spec = config_of(**case.settings), quantisation(case.quantisation)
    quick = quick_reader(config, spec, CoordFormat(bins=spec.bins))
    assert quick is not None
    found = quick.read(line)
    assert found is not None
    assert found[1] == reference(line, config, spec)


@pytest.mark.parametrize("x", [0.49999999999999994, 0.5, 1.4999999999999998, 1.5, 511.49999999999994, 511.5, 996.5])
def test_ties_go_up_and_nothing_else_does(x: float) -> None:
    # On 999 pixels a pixel is a bin. floor(x + 0.5) would take the first one to 1: the sum itself is rounded.
    record = {"images": ["a"], "width": 999, "height": 999, "objects": [{"desc": "x", "bbox_2d": [x, 0, 999, 999]}]}
    quick = quick_reader(config_of(space="pixel", coord_tokens=False), DEFAULT_QUANTISATION)
    assert quick is not None
    found = quick.read(json.dumps(record).encode())
    assert found is not None
    expected = int(DEFAULT_QUANTISATION.encode(x, 999))
    assert found[1].text == f'{{"objects": [{{"desc": "x", "bbox_2d": [{expected}, 0, 999, 999]}}]}}'
