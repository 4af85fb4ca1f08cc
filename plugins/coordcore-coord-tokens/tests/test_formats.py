"""The formats compact, grouped and qwen: their texts, and what the builder makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from coordcore import BuildContext, InputError
from coordcore.coords import ints_to_tokens
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore.records.answers import COORDJSON, Format, Located, answer_text
from coordcore.testing import checks_for
from coordcore_coord_tokens import CoordJsonlConfig
from coordcore_coord_tokens.formats import COMPACT, GROUPED, QWEN, TAGGED, GroupedConfig, components
from coordcore_coord_tokens.jsonl import CoordJsonl, record_problems
from coordcore_coord_tokens.quick import quick_reader
from coordcore_coord_tokens.reader import read_answer

COMPONENTS = {component.name: component for component in components()}
FORMATS = [COORDJSON, COMPACT, GROUPED, TAGGED, QWEN]
OBJECTS: list[dict[str, Any]] = [
    {"desc": "ring", "bbox_2d": [12, 40, 300, 412]},
    {"desc": "cross", "bbox_2d": [0, 0, 9, 9]},
    {"desc": "ring", "bbox_2d": [1, 2, 3, 4]},
]
RECORD = {"images": ["photo.png"], "width": 640, "height": 480, "objects": OBJECTS}


@pytest.mark.parametrize("check", checks_for("format"), ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    ("name", "config"),
    [("compact", None), ("grouped", None), ("grouped", GroupedConfig(tags=True)), ("qwen", None)],
    ids=["compact", "grouped", "tags", "qwen"],
)
def test_formats_keep_the_promises_of_their_kind(check: Callable[..., None], name: str, config: Any) -> None:
    check(COMPONENTS[name], config)


def test_their_texts() -> None:
    objects = [Located(desc=item["desc"], kind="bbox_2d", bins=tuple(item["bbox_2d"])) for item in OBJECTS]
    first, two, three = ("".join(ints_to_tokens(item.bins)) for item in objects)
    assert answer_text(objects, form=COMPACT) == f"ring{first}\ncross{two}\nring{three}"
    assert answer_text(objects, form=GROUPED) == f"ring{first}{three}\ncross{two}"
    assert answer_text(objects[:1], form=QWEN) == (
        f'[{{"bbox_2d": [{", ".join(ints_to_tokens(objects[0].bins))}], "label": "ring"}}]'
    )
    assert answer_text(objects, form=TAGGED).startswith("<|object_ref_start|>ring<|object_ref_end|><|box_start|>")
    assert [answer_text([], form=form) for form in FORMATS] == ['{"objects": []}', "none", "none", "none", "[]"]


def opened(write: Any, record: dict[str, Any], form: Format, **settings: Any) -> CoordJsonl:
    config = CoordJsonlConfig(train=write(record), **settings)
    context = BuildContext(run_dir=Path("run"), seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None, format=form)
    return CoordJsonl.open(config, context)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_geometries_stand_in_the_order_of_the_text(form: Format, write: Any) -> None:
    example = opened(write, RECORD, form).train()[0]
    text = example.messages[-1]["content"]
    values = [value for geometry in example.geometries for value in geometry.values]
    written = [int(part.split("|")[0]) for part in text.split("<|coord_")[1:]]
    assert written == values
    assert written[4:8] == ([0, 0, 9, 9] if form.again is None else [1, 2, 3, 4])


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("settings", [{}, {"object_order": "top_left"}, {"max_objects": 2}, {"coord_tokens": False}])
@pytest.mark.parametrize("form", [COORDJSON, QWEN], ids=lambda form: form.name)
def test_the_fast_path_writes_what_the_reference_writes(form: Format, settings: dict[str, Any], write: Any) -> None:
    poly = {"desc": "kite", "poly": [10, 20, 110, 40, 90, 140, 20, 100]}
    line = json.dumps({**RECORD, "objects": [*OBJECTS, poly]}).encode()
    config = CoordJsonlConfig(train=write(RECORD), **settings)
    quick = quick_reader(config, DEFAULT_QUANTISATION, form=form)
    assert quick is not None
    read = quick.read(line)
    assert read is not None
    record, answer = read
    assert answer == read_answer(record, config, DEFAULT_QUANTISATION, form=form)


@pytest.mark.usefixtures("folder")
def test_formats_that_are_not_in_json_have_no_fast_path(write: Any) -> None:
    config = CoordJsonlConfig(train=write(RECORD))
    assert [quick_reader(config, DEFAULT_QUANTISATION, form=form) for form in (COMPACT, GROUPED, TAGGED)] == [None] * 3


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("form", "item", "reason"),
    [
        (COMPACT, {"desc": "a < b", "bbox_2d": [1, 2, 3, 4]}, "the format compact cannot hold '<'; reword it"),
        (GROUPED, {"desc": "this|that", "bbox_2d": [1, 2, 3, 4]}, "the format grouped cannot hold '|'; reword it"),
        (TAGGED, {"desc": "a < b", "poly": [1, 2, 3, 4, 5, 6]}, "the format grouped_tags cannot hold '<'; reword it"),
    ],
)
def test_what_a_format_cannot_say_is_found_before_training(form: Format, item: Any, reason: str, write: Any) -> None:
    record = {**RECORD, "objects": [item]}
    with pytest.raises(InputError, match=r":1: objects: ") as caught:
        opened(write, record, form)
    assert reason in str(caught.value)
    opened(write, record, COORDJSON)  # which is not to be the answer that is kept in the cache
    config = CoordJsonlConfig(train=write(record))
    (problem,) = record_problems(config, DEFAULT_QUANTISATION, form=form)
    assert reason in str(problem)


@pytest.mark.usefixtures("folder")
def test_an_own_format_in_json_for_boxes_alone(write: Any) -> None:
    boxes = attrs.evolve(QWEN, name="boxes", places={"bbox_2d": QWEN.places["bbox_2d"]})
    assert "bbox_2d" in opened(write, RECORD, boxes).train()[0].messages[-1]["content"]
    roof = {**RECORD, "objects": [{"desc": "roof", "poly": [1, 2, 3, 4, 5, 6]}]}
    with pytest.raises(InputError, match="the format boxes cannot say a poly"):
        opened(write, roof, boxes)


@pytest.mark.usefixtures("folder")
def test_tags_keep_their_order(write: Any) -> None:
    example = opened(write, RECORD, TAGGED, field_order="geometry_first").train()[0]
    assert example.messages[-1]["content"].startswith("<|object_ref_start|>ring<|object_ref_end|><|box_start|><|coord_")
