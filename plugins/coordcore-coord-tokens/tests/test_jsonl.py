"""Examples of the JSONL builder."""

from __future__ import annotations

import json
import logging
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordcore import BuildContext, Geometry, InputError
from coordcore.quantisation import DEFAULT_QUANTISATION, quantisation
from coordcore.records.record import RecordError, parse_record
from coordcore_coord_tokens import CoordJsonl, CoordJsonlConfig, JsonlSource
from coordcore_coord_tokens.config import DENSE_PROMPT, SUMMARY_PROMPT
from coordcore_coord_tokens.reader import read_answer

Build = Callable[..., CoordJsonl]
Write = Callable[..., Path]


def answer(source: JsonlSource, index: int = 0) -> str:
    return source[index].messages[-1]["content"]


def places(source: JsonlSource, index: int = 0) -> list[list[int]]:
    """The coordinates in an answer, as bins."""
    text = re.sub(r"<\|coord_(\d+)\|>", r"\1", answer(source, index))
    return [item.get("bbox_2d") or item["poly"] for item in json.loads(text)["objects"]]


def box(*values: float, desc: str = "thing") -> dict[str, Any]:
    return {"desc": desc, "bbox_2d": list(values)}


def test_a_conversation(build: Build, record: dict[str, Any]) -> None:
    example = build(record).train()[0]
    assert (example.messages, example.geometries, example.source) == (
        [
            {"role": "user", "content": f"<image>{DENSE_PROMPT}"},
            {
                "role": "assistant",
                "content": '{"objects": [{"desc": "red circle", '
                '"bbox_2d": [<|coord_12|>, <|coord_40|>, <|coord_300|>, <|coord_412|>]}]}',
            },
        ],
        (Geometry(kind="bbox_2d", values=(12.0, 40.0, 300.0, 412.0)),),
        "train.jsonl:1",
    )


def test_the_image_comes_decoded(build: Build, record: dict[str, Any]) -> None:
    (image,) = build(record).train()[0].images
    assert (image.size, image.mode) == ((640, 480), "RGB")


def test_tokens_and_numbers_in_the_file_are_the_same_record(build: Build, record: dict[str, Any]) -> None:
    tokens = {**record, "objects": [box(*[f"<|coord_{k}|>" for k in (12, 40, 300, 412)], desc="red circle")]}
    train = build(record, tokens).train()
    assert train[0].messages == train[1].messages


def test_plain_numbers_have_no_geometries(build: Build, record: dict[str, Any]) -> None:
    example = build(record, coord_tokens=False).train()[0]
    expected = '{"objects": [{"desc": "red circle", "bbox_2d": [12, 40, 300, 412]}]}'
    assert (example.messages[-1]["content"], example.geometries) == (expected, ())


def test_prompt_and_system_message(build: Build, record: dict[str, Any]) -> None:
    messages = build(record, prompt="Find all.", system="Be exact.").train()[0].messages
    assert messages[:2] == [
        {"role": "system", "content": "Be exact."},
        {"role": "user", "content": "<image>Find all."},
    ]


def test_summaries(build: Build, record: dict[str, Any]) -> None:
    example = build({**record, "summary": "A red circle."}, mode="summary").train()[0]
    assert (example.messages, example.geometries) == (
        [
            {"role": "user", "content": f"<image>{SUMMARY_PROMPT}"},
            {"role": "assistant", "content": "A red circle."},
        ],
        (),
    )


def test_no_objects(build: Build, record: dict[str, Any]) -> None:
    assert answer(build({**record, "objects": []}).train()) == '{"objects": []}'


@pytest.mark.parametrize(("space", "size"), [("pixel", (640, 480)), ("norm1", (1, 1))])
def test_real_places_are_encoded_and_kept(build: Build, record: dict[str, Any], space: str, size: Any) -> None:
    share = (0.1, 0.3, 0.55, 0.9)
    given = [part * side for part, side in zip(share, size * 2, strict=True)]
    train = build({**record, "objects": [box(*given)]}, space=space).train()
    (geometry,) = train[0].geometries
    assert (places(train), geometry.values) == (
        [[100, 300, 549, 899]],
        pytest.approx([part * 999 for part in share], abs=1e-9),
    )


def test_boxes_and_polygons_stay_in_order(build: Build, record: dict[str, Any]) -> None:
    objects = [
        box(0, 0, 640, 480),
        {"desc": "roof", "poly": [0, 480, 640, 480, 320, 0], "poly_points": 3},
        box(0, 0, 320, 240),
    ]
    train = build({**record, "objects": objects}, space="pixel").train()
    assert (places(train), [geometry.kind for geometry in train[0].geometries]) == (
        [[0, 0, 999, 999], [0, 999, 999, 999, 500, 0], [0, 0, 500, 500]],
        ["bbox_2d", "poly", "bbox_2d"],
    )


def test_the_run_s_quantisation_is_used(write: Write, context: BuildContext, record: dict[str, Any]) -> None:
    config = CoordJsonlConfig(train=write({**record, "objects": [box(63.99, 48, 320, 240)]}), space="pixel")
    builder = CoordJsonl.open(config, attrs.evolve(context, quantisation=quantisation("floor_999")))
    assert places(builder.train()) == [[99, 99, 499, 499]]


def test_a_box_thinner_than_a_bin_is_widened_and_counted(
    build: Build, record: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    train = build({**record, "objects": [box(100, 100, 100.1, 200)]}, space="pixel").train()
    assert (places(train), caplog.messages) == (
        [[156, 208, 157, 416]],
        ["train.jsonl: 1 boxes narrower than one bin were widened by one bin"],
    )


@pytest.mark.parametrize(
    ("shape", "flat"),
    [
        ({"poly": [5, 5, 5, 5, 5, 5]}, True),
        ({"poly": [5, 5, 5, 5, 300, 300, 305, 305]}, False),  # 640 x 480: no line in bins
        ({"poly": [64, 48, 128, 96, 320, 240]}, True),
        ({"quad": [0, 0, 64, 48, 128, 96, 192, 144]}, True),
        ({"quad": [0, 100, 300, 100, 300, 100.1, 0, 100.1]}, True),  # thinner than a bin
        ({"quad": [0, 100, 300, 100, 300, 110, 0, 110]}, False),
        ({"poly": [0, 0, 10, 10, 10, 0, 0, 10]}, False),  # its sides cross
    ],
)
def test_an_outline_without_area_is_kept_and_counted(
    build: Build, record: dict[str, Any], caplog: pytest.LogCaptureFixture, shape: dict[str, Any], flat: bool
) -> None:
    keys: dict[str, Any] = {"space": "pixel", "geometry": ("poly", "quad")}
    train = build({**record, "objects": [{"desc": "x", **shape}]}, **keys).train()
    assert len(train[0].geometries[0].values) == len(next(iter(shape.values())))
    told = "train.jsonl: 1 polygons and quads have no area: in bins, their corners lie on one line"
    assert caplog.messages == [told] * flat


def test_a_box_over_the_edge_is_clipped_and_counted(
    build: Build, record: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    train = build({**record, "objects": [box(-5, 0, 700, 480)]}, space="pixel", outside="clip").train()
    assert (places(train), caplog.messages) == (
        [[0, 0, 999, 999]],
        ["train.jsonl: 1 objects reaching over the image's edge were clipped"],
    )


def test_only_the_first_rank_checks_and_reports(
    write: Write, context: BuildContext, record: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    config = CoordJsonlConfig(train=write({**record, "objects": [box(0, 0, 0, 9)]}, b"wrong"), space="pixel")
    with caplog.at_level(logging.DEBUG):
        second = CoordJsonl.open(config, attrs.evolve(context, rank=1, world_size=2))
    assert (caplog.messages, len(second.train())) == ([], 2)
    with pytest.raises(InputError, match=r"^train\.jsonl:2: not JSON"):
        CoordJsonl.open(config, context)


def test_object_order_and_count(build: Build, record: dict[str, Any]) -> None:
    objects = [box(5, 900, 6, 901), box(7, 10, 8, 11), box(3, 10, 4, 11)]
    train = build({**record, "objects": objects}, object_order="top_left", max_objects=2).train()
    assert (places(train), len(train[0].geometries)) == ([[3, 10, 4, 11], [7, 10, 8, 11]], 2)


def test_images_are_found_under_the_image_root(build: Build, record: dict[str, Any], folder: Any) -> None:
    (folder / "photos").mkdir()
    (folder / "photo.png").rename(folder / "photos" / "photo.png")
    assert build(record, image_root=folder / "photos").train()[0].images[0].size == (640, 480)


@pytest.mark.parametrize("validate", [True, False])
def test_images_outside_their_root_need_a_word_in_the_manifest(
    build: Build, record: dict[str, Any], folder: Any, validate: bool
) -> None:
    (folder / "set").mkdir()
    for image in ("../photo.png", str(folder.resolve() / "photo.png")):
        elsewhere = {**record, "images": [image]}
        with pytest.raises(InputError, match=r"train\.jsonl:1: images\[0\]: .* lies outside .*images_within = "):
            build(elsewhere, image_root=folder / "set", validate=validate).train()[0]
        allowed = build(elsewhere, image_root=folder / "set", images_within=folder, validate=validate)
        assert allowed.train()[0].images[0].size == (640, 480)


def test_limit_leaves_the_rest_unread(build: Build, record: dict[str, Any]) -> None:
    assert len(build(record, record, b"not json", limit=2).train()) == 2


def test_lines_may_end_in_any_way(write: Write, context: BuildContext, record: dict[str, Any]) -> None:
    path = write()
    path.write_bytes(json.dumps(record).encode() + b"\r\n" + json.dumps(record).encode())
    train = CoordJsonl.open(CoordJsonlConfig(train=path), context).train()
    assert [train[0].messages, train[-1].source] == [train[1].messages, "train.jsonl:2"]


def test_a_record_without_its_image(build: Build, record: dict[str, Any]) -> None:
    read, said = build(record).train().read(0)
    assert (list(read.images), said.text) == (["photo.png"], answer(build(record).train()))


def test_no_example_past_the_end(build: Build, record: dict[str, Any]) -> None:
    train = build(record).train()
    with pytest.raises(IndexError):
        train[1]


def test_validation(write: Write, context: BuildContext, record: dict[str, Any]) -> None:
    held_out = write(record, record, name="validation.jsonl")
    builder = CoordJsonl.open(CoordJsonlConfig(train=write(record), validation=held_out), context)
    validation = builder.validation()
    assert validation is not None
    assert (len(builder.train()), validation[1].source) == (1, "validation.jsonl:2")


def test_without_validation(build: Build, record: dict[str, Any]) -> None:
    assert build(record).validation() is None


def test_a_source_can_be_sent_to_another_process(build: Build, record: dict[str, Any]) -> None:
    train = build(record, space="pixel").train()
    assert pickle.loads(pickle.dumps(train))[0].messages == train[0].messages


def test_a_declared_quantisation_that_is_the_run_s(build: Build, record: dict[str, Any]) -> None:
    declared = {**record, "metadata": {"quantisation": DEFAULT_QUANTISATION.as_dict()}}
    assert places(build(declared).train()) == [[12, 40, 300, 412]]


def test_annotated_records_are_read(build: Build, record: dict[str, Any]) -> None:
    from coordcore_coord_tokens import annotate_coord_tokens

    train = build(record, annotate_coord_tokens(record)).train()
    assert train[0].messages == train[1].messages


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)


@given(
    item=st.fixed_dictionaries({"desc": st.just("x") | JSON}, optional={"bbox_2d": JSON, "poly": JSON, "line": JSON}),
    space=st.sampled_from(["bin", "pixel", "norm1"]),
    outside=st.sampled_from(["error", "clip"]),
)
def test_whatever_the_line_holds_it_is_read_or_named(item: dict[str, Any], space: Any, outside: Any) -> None:
    line = json.dumps({"images": ["a.png"], "width": 640, "height": 480, "objects": [item]}).encode()
    config = CoordJsonlConfig(train=Path("train.jsonl"), space=space, outside=outside)
    try:
        read = read_answer(parse_record(line), config, DEFAULT_QUANTISATION)
    except RecordError as error:
        named = error.path.startswith("objects[0]")
    else:
        named = len(re.findall(r"<\|coord_\d+\|>", read.text)) == len(read.geometries[0].values)
    assert named


@given(
    x=st.lists(st.floats(0, 640), min_size=2, max_size=2).map(sorted),
    y=st.lists(st.floats(0, 480), min_size=2, max_size=2).map(sorted),
)
def test_every_box_within_the_image_is_read_to_half_a_bin(x: list[float], y: list[float]) -> None:
    given_box = [x[0], y[0], x[1], y[1]]
    line = json.dumps({"images": ["a.png"], "width": 640, "height": 480, "objects": [box(*given_box)]}).encode()
    config = CoordJsonlConfig(train=Path("train.jsonl"), space="pixel")
    read = read_answer(parse_record(line), config, DEFAULT_QUANTISATION)
    bins = [int(k) for k in re.findall(r"<\|coord_(\d+)\|>", read.text)]
    units = [v * 999 / side for v, side in zip(given_box, (640, 480) * 2, strict=True)]
    widest = 1.5 if read.changes.widened else 0.5
    assert max(abs(k - v) for k, v in zip(bins, units, strict=True)) <= widest + 1e-9
