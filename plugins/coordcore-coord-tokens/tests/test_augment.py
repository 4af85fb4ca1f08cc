"""Training examples of `coord_jsonl` that differ from epoch to epoch."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from coordcore import BuildContext, Example, InputError
from coordcore.manifest import load
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore.records.answers import parse_json
from coordcore_coord_tokens import CoordJsonl, CoordJsonlConfig, plugin
from coordcore_coord_tokens.augment.config import AugmentConfig

Build = Callable[..., CoordJsonl]
Write = Callable[..., Path]
BOXES = {"red": (12, 40, 301, 412), "blue": (350, 20, 420, 90), "green": (500, 300, 640, 480)}
EVERYTHING = {"flip": 0.5, "crop": (0.5, 1.0), "resize": (0.5, 1.5), "brightness": 0.3, "shuffle_objects": True}


@pytest.fixture
def drawn(folder: Path) -> dict[str, Any]:
    """A record of rectangles in three colours, drawn where it says."""
    image = Image.new("RGB", (640, 480), "white")
    for colour, (x1, y1, x2, y2) in BOXES.items():
        ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), fill=colour)
    image.save("drawn.png")
    objects = [{"desc": colour, "bbox_2d": list(box)} for colour, box in BOXES.items()]
    return {"images": ["drawn.png"], "width": 640, "height": 480, "objects": objects}


def source(built: CoordJsonl) -> Any:
    return built.train()


def boxes(example: Example) -> dict[str, list[float]]:
    """Description -> the box in pixels of the example's image, from its real-valued targets."""
    assert example.image_size is not None
    names = [item.desc for item in parse_json(example.messages[-1]["content"]).objects]
    return {
        name: DEFAULT_QUANTISATION.decode(geometry.values, example.image_size * 2).tolist()
        for name, geometry in zip(names, example.geometries, strict=True)
    }


def seen(image: Image.Image, colour: str) -> tuple[int, int, int, int] | None:
    """Where a picture has pixels of this colour alone."""
    wanted = Image.new("RGB", (1, 1), colour).getpixel((0, 0))
    mask = (np.asarray(image) == wanted).all(-1)
    return Image.fromarray(mask).getbbox()


def same(first: Example, other: Example) -> bool:
    pixels = [image.tobytes() for image in first.images] == [image.tobytes() for image in other.images]
    return pixels and attrs.evolve(first, images=()) == attrs.evolve(other, images=())


# --- places ---


def test_boxes_are_where_the_rectangles_are(build: Build, drawn: dict[str, Any]) -> None:
    augment = AugmentConfig(flip=0.5, crop=(0.4, 1.0), crop_visible=0.0)
    examples = source(build(drawn, space="pixel", augment=augment))
    kept = 0
    for epoch in range(30):
        example = examples.in_epoch(epoch, 0)
        assert example.image_size == example.images[0].size
        found = boxes(example)
        for colour in BOXES:
            assert found.get(colour) == pytest.approx(seen(example.images[0], colour)) if colour in found else True
            assert (colour in found) == (seen(example.images[0], colour) is not None)
        kept += len(found)
    assert 30 < kept < 90


def test_places_are_not_rounded(build: Build, record: dict[str, Any]) -> None:
    record["objects"][0]["bbox_2d"] = [12.25, 40.125, 300.5, 412.75]
    [example] = source(build(record, space="pixel", augment=AugmentConfig(flip=1.0))).in_epoch(0, 0).geometries
    assert example.values == tuple(
        place * 999 / size for place, size in zip((339.5, 40.125, 627.75, 412.75), (640, 480) * 2, strict=True)
    )


@pytest.mark.parametrize("space", ["bin", "norm1"])
def test_records_of_every_space_move(build: Build, record: dict[str, Any], space: str) -> None:
    record["objects"][0]["bbox_2d"] = [99, 0, 500, 999] if space == "bin" else [0.125, 0.0, 0.5, 1.0]
    [geometry] = source(build(record, space=space, augment=AugmentConfig(flip=1.0))).in_epoch(0, 0).geometries
    expected = (499, 0, 900, 999) if space == "bin" else (499.5, 0, 874.125, 999)
    assert geometry.values == pytest.approx(expected)


def test_what_does_not_move_is_to_the_bit_what_the_file_has(build: Build, drawn: dict[str, Any]) -> None:
    drawn["objects"][0]["bbox_2d"] = [12.3, 40.7, 300.1, 412.9]
    built = build(drawn, space="pixel", augment=AugmentConfig(brightness=0.5))
    plain, changed = source(built)[0], source(built).in_epoch(3, 0)
    assert (changed.messages, changed.geometries) == (plain.messages, plain.geometries)
    assert changed.images[0].tobytes() != plain.images[0].tobytes()


def test_polygons_are_clipped(build: Build, record: dict[str, Any]) -> None:
    record["objects"] = [{"desc": "all of it", "poly": [0, 0, 640, 0, 640, 480, 0, 480]}]
    augment = AugmentConfig(crop=(0.5, 0.5), crop_visible=0.0)
    example = source(build(record, space="pixel", augment=augment)).in_epoch(0, 0)
    assert example.image_size == (320, 240)
    assert set(example.geometries[0].values) == {0.0, 999.0}


def test_quads_stay_whole_and_points_are_in_or_out(build: Build, record: dict[str, Any]) -> None:
    quad, point = [100, 100, 200, 120, 180, 220, 80, 200], [50, 60]
    record["objects"] = [{"desc": "quad", "quad": quad}, {"desc": "point", "point": point}]
    augment = AugmentConfig(flip=0.5, crop=(0.2, 0.5))
    examples = source(build(record, space="pixel", geometry=("quad", "point"), augment=augment))
    found = set()
    for epoch in range(20):
        example = examples.in_epoch(epoch, 0)
        assert example.image_size is not None
        for geometry in example.geometries:
            found.add(geometry.kind)
            xs, ys = (
                [value * size / 999 for value in geometry.values[axis::2]]
                for axis, size in enumerate(example.image_size)
            )
            assert len(xs) == (4 if geometry.kind == "quad" else 1)
            assert geometry.kind == "point" or (max(xs) - min(xs), max(ys) - min(ys)) == pytest.approx((120, 120))
    assert found == {"quad", "point"}


def test_whole_objects_are_never_cut(build: Build, drawn: dict[str, Any]) -> None:
    augment = AugmentConfig(crop=(0.3, 0.8), crop_objects="whole")
    examples = source(build(drawn, space="pixel", augment=augment))
    sizes = {colour: (x2 - x1, y2 - y1) for colour, (x1, y1, x2, y2) in BOXES.items()}
    for epoch in range(20):
        example = examples.in_epoch(epoch, 0)
        for colour, (x1, y1, x2, y2) in boxes(example).items():
            assert (x2 - x1, y2 - y1) == pytest.approx(sizes[colour])
        assert {colour for colour in BOXES if seen(example.images[0], colour)} == boxes(example).keys()


def test_an_object_over_the_edge_is_clipped_there(build: Build, record: dict[str, Any]) -> None:
    record["objects"][0]["bbox_2d"] = [-20, 40, 300, 500]
    built = build(record, space="pixel", outside="clip", augment=AugmentConfig(flip=1.0))
    [geometry] = source(built).in_epoch(0, 0).geometries
    assert geometry.values == pytest.approx((340 * 999 / 640, 40 * 999 / 480, 999, 999))


OVER_THE_EDGE = {
    "a quad by a hair": {"quad": [-0.01, 100, 160, 100, 160, 240, -0.01, 240]},
    "a quad by much": {"quad": [-80, 100, 160, 100, 160, 240, -80, 240]},
    "most of a box": {"bbox_2d": [-500, 100, 160, 240]},
    "most of a polygon": {"poly": [-500, 100, 160, 100, 160, 240, -500, 240]},
}


@pytest.mark.parametrize("crop_objects", ["clipped", "whole"])
@pytest.mark.parametrize("shape", OVER_THE_EDGE.values(), ids=OVER_THE_EDGE.keys())
def test_a_window_of_the_whole_image_leaves_what_reaches_over_its_edge(
    build: Build, record: dict[str, Any], context: BuildContext, shape: dict[str, Any], crop_objects: Any
) -> None:
    record["objects"] = [{"desc": "over", **shape}, {"desc": "inside", "bbox_2d": [200, 200, 500, 400]}]
    keys = {"space": "pixel", "outside": "clip", "geometry": ("bbox_2d", "poly", "quad")}
    plain = source(build(record, **keys, augment=AugmentConfig(flip=0.5)))
    augment = AugmentConfig(flip=0.5, crop=(1.0, 1.0), crop_objects=crop_objects)
    cut = source(CoordJsonl.open(attrs.evolve(plain.plain.config, augment=augment), context))
    found = set()
    for epoch in range(10):
        over, inside = cut.in_epoch(epoch, 0).geometries
        assert (over, inside) == (*plain.in_epoch(epoch, 0).geometries,)
        found.add((min(over.values[::2]), max(over.values[::2])))
    assert sorted(found) == [(0.0, 249.75), (749.25, 999.0)]


def test_a_window_leaves_a_quad_over_the_image_s_edge(build: Build, record: dict[str, Any]) -> None:
    quad = [-0.01, 150, 200, 150, 200, 250, -0.01, 250]
    record["objects"] = [{"desc": "q", "quad": quad}, {"desc": "b", "bbox_2d": [200, 200, 500, 400]}]
    augment = AugmentConfig(crop=(0.8, 1.0))
    examples = source(build(record, space="pixel", outside="clip", geometry=("bbox_2d", "quad"), augment=augment))
    sizes = set()
    for epoch in range(30):
        example = examples.in_epoch(epoch, 0)
        assert [geometry.kind for geometry in example.geometries] == ["quad", "bbox_2d"]
        xs = example.geometries[0].values[::2]
        assert example.image_size is not None
        assert (xs[0], xs[1]) == (0, pytest.approx(200 * 999 / example.image_size[0]))
        sizes.add(example.image_size)
    assert len(sizes) > 10


def test_a_quad_whose_sides_cross_only_at_the_edge_is_resized(build: Build, record: dict[str, Any]) -> None:
    record["objects"] = [{"desc": "q", "quad": [650, 80, 645, 87, 630, 110, 630, 120]}]
    keys = {"space": "pixel", "outside": "clip", "geometry": ("quad",)}
    examples = source(build(record, **keys, augment=AugmentConfig(resize=(2.0, 2.0))))
    [resized], [plain] = examples.in_epoch(0, 0).geometries, examples[0].geometries
    assert resized.values == pytest.approx(plain.values)


# --- reproducible ---


def test_an_example_follows_from_seed_epoch_and_line(
    build: Build, drawn: dict[str, Any], context: BuildContext
) -> None:
    built = build(drawn, drawn, space="pixel", augment=AugmentConfig(**EVERYTHING))
    examples = source(built)
    first = [examples.in_epoch(2, index) for index in range(2)]
    for other in (
        examples,
        pickle.loads(pickle.dumps(examples)),
        source(CoordJsonl.open(examples.plain.config, context)),
    ):
        other.in_epoch(0, 1)
        assert all(same(other.in_epoch(2, index), first[index]) for index in (1, 0))
    assert not same(first[0], first[1])
    assert not same(first[0], examples.in_epoch(3, 0))
    seeded = CoordJsonl.open(examples.plain.config, attrs.evolve(context, seed=1))
    assert not same(first[0], source(seeded).in_epoch(2, 0))


def test_nobody_else_s_random_numbers_are_touched(build: Build, drawn: dict[str, Any]) -> None:
    examples = source(build(drawn, space="pixel", augment=AugmentConfig(**EVERYTHING, noise_objects=2)))
    before = random.getstate(), torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist()
    examples.in_epoch(0, 0)
    assert before == (random.getstate(), torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist())


def test_by_index_an_example_is_as_without_the_table(
    build: Build, drawn: dict[str, Any], context: BuildContext
) -> None:
    changed = source(build(drawn, space="pixel", augment=AugmentConfig(**EVERYTHING)))
    plain = CoordJsonl.open(attrs.evolve(changed.plain.config, augment=None), context)
    assert same(changed[0], plain.train()[0])


def test_held_out_examples_are_never_changed(build: Build, drawn: dict[str, Any], write: Write) -> None:
    held_out = build(drawn, validation=write(drawn, name="v.jsonl"), space="pixel", augment=AugmentConfig(**EVERYTHING))
    validation: Any = held_out.validation()
    assert all(same(validation.in_epoch(epoch, 0), validation[0]) for epoch in range(4))


# --- words ---


def refused(config: CoordJsonlConfig, run: Any) -> list[str]:
    from coordcore_coord_tokens.augment.check import problems

    return [str(problem) for problem in problems(config, run)]


def manifest(folder: Path, text: str = "", **keys: Any) -> Any:
    """A loaded manifest with these keys of [data.coord_jsonl], and `text` behind."""
    prompts = "".join(f"prompts.{task} = {json.dumps(texts)}\n" for task, texts in keys.pop("prompts", {}).items())
    lines = prompts + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    head = '[model]\nbase = "base"\n[loss.text_ce]\ncoord_positions = true\n'
    Path("m.toml").write_text(f'{head}[data.coord_jsonl]\ntrain = "train.jsonl"\n{lines}{text}')
    return load(folder / "m.toml")


def problems_of(loaded: Any) -> list[str]:
    return [f"{problem.path}: {problem.message}" for problem in plugin.coordcore_check(loaded.manifest)]


def test_left_and_right_in_records_are_refused_before_the_run(
    folder: Path, write: Write, record: dict[str, Any]
) -> None:
    write(record, record | {"objects": [{"desc": "left shoe", "bbox_2d": [1, 1, 5, 5]}]})
    [problem] = problems_of(manifest(folder, "[data.coord_jsonl.augment]\nflip = 0.5"))
    assert problem.startswith(
        "objects[0].desc: 'left shoe' says 'left', which is wrong of a mirrored image; beside flip"
    )
    assert problems_of(manifest(folder, '[data.coord_jsonl.augment]\nflip = 0.5\nleft_right = "exchange"')) == []
    assert problems_of(manifest(folder, "[data.coord_jsonl.augment]\nresize = [0.5, 1]")) == []


def test_left_and_right_in_held_out_records_do_no_harm(folder: Path, write: Write, record: dict[str, Any]) -> None:
    write(record)
    write(record | {"objects": [{"desc": "left shoe", "bbox_2d": [1, 1, 5, 5]}]}, name="v.jsonl")
    assert problems_of(manifest(folder, "[data.coord_jsonl.augment]\nflip = 0.5", validation="v.jsonl")) == []


def test_left_and_right_in_questions_are_refused(folder: Path, write: Write, record: dict[str, Any]) -> None:
    write(record)
    text = "[data.coord_jsonl.augment]\nflip = 0.5"
    found = problems_of(manifest(folder, text, prompt="From left to right?", system="Right!"))
    assert sorted(line.partition(":")[0] for line in found) == ["data.coord_jsonl.prompt", "data.coord_jsonl.system"]


def test_words_of_mirrored_examples_are_exchanged(build: Build, record: dict[str, Any]) -> None:
    record["objects"][0]["desc"] = "left shoe"
    augment = AugmentConfig(flip=0.5, left_right="exchange")
    examples = source(build(record, space="pixel", prompt="From left to right?", system="Left.", augment=augment))
    said = set()
    for epoch in range(12):
        example = examples.in_epoch(epoch, 0)
        mirrored = boxes(example)[next(iter(boxes(example)))][0] == pytest.approx(340)
        texts = [message["content"] for message in example.messages]
        assert [text.partition("?")[0] for text in texts[:2]] == (
            ["Right.", "<image>From right to left"] if mirrored else ["Left.", "<image>From left to right"]
        )
        assert [*boxes(example)] == ["right shoe" if mirrored else "left shoe"]
        said.add(mirrored)
    assert said == {True, False}


def test_an_unchecked_record_is_refused_when_it_is_mirrored(build: Build, record: dict[str, Any]) -> None:
    record["objects"][0]["desc"] = "left shoe"
    examples = source(build(record, space="pixel", validate=False, augment=AugmentConfig(flip=1.0)))
    with pytest.raises(InputError, match=r"^train.jsonl:1: 'left shoe' says 'left'"):
        examples.in_epoch(0, 0)


def test_a_mirrored_summary_has_its_words_exchanged(build: Build, record: dict[str, Any]) -> None:
    augment = AugmentConfig(flip=1.0, left_right="exchange")
    built = build(record | {"summary": "A cup, left of a can."}, mode="summary", augment=augment)
    assert source(built).in_epoch(0, 0).messages[-1]["content"] == "A cup, right of a can."


# --- tasks ---


def asked(build: Build, record: dict[str, Any], **task: Any) -> Example:
    """A record of a task, mirrored."""
    augment = AugmentConfig(flip=1.0, crop=(0.5, 0.5), left_right="exchange", noise_objects=1)
    example: Example = source(build(record | task, space="pixel", augment=augment)).in_epoch(0, 0)
    return example


def test_the_phrase_of_a_mirrored_example_is_exchanged(build: Build, record: dict[str, Any]) -> None:
    example = asked(build, record, task="refer", question="the left one")
    assert example.messages[0]["content"].endswith("the right one")
    assert (example.task, example.uncharged) == ("refer", ())


def test_categories_are_exchanged(build: Build, record: dict[str, Any]) -> None:
    labels = ["left shoe", "left hat"]
    objects = [{"desc": labels[0], "bbox_2d": [0, 0, 640, 480]}]
    example = asked(build, record, task="named", objects=objects, categories=labels)
    assert example.categories == ("right shoe", "right hat")
    assert example.messages[0]["content"].endswith("right shoe, right hat.")
    assert [item.desc for item in parse_json(example.messages[-1]["content"]).objects] == ["right shoe"]


def test_the_box_in_a_question_moves_and_is_not_cut_off(build: Build, record: dict[str, Any]) -> None:
    objects = [{"desc": "x", "bbox_2d": [0, 0, 64, 48]}]
    example = asked(build, record, task="region", objects=objects, answer="The left one.")
    assert example.image_size == (640, 480)
    assert "<|coord_899|>, <|coord_0|>, <|coord_999|>, <|coord_100|>" in example.messages[0]["content"]
    assert example.messages[-1]["content"] == "The right one."


def test_words_in_what_is_asked_are_refused_before_the_run(folder: Path, write: Write, record: dict[str, Any]) -> None:
    write(record | {"task": "refer", "question": "the left one"})
    text = "[data.coord_jsonl.augment]\nflip = 0.5"
    [problem] = problems_of(manifest(folder, text, space="pixel"))
    assert problem.startswith("question: 'the left one' says 'left'")
    found = problems_of(manifest(folder, text, space="pixel", validate=False, prompts={"refer": ["Left? {phrase}"]}))
    assert [line.partition(":")[0] for line in found] == ["data.coord_jsonl.prompts.refer"]


@pytest.mark.parametrize("key", ["question", "prompt"])
def test_words_in_the_question_of_a_record_without_a_task_are_refused_before_the_run(
    folder: Path, write: Write, record: dict[str, Any], key: str
) -> None:
    write(record | {key: "Locate what is on the left.", "metadata": {"absent_categories": ["right shoe"]}})
    [problem] = problems_of(manifest(folder, "[data.coord_jsonl.augment]\nflip = 0.5", space="pixel"))
    assert problem.startswith("question: 'Locate what is on the left.' says 'left', which is wrong of a mirrored image")


# --- order and noise ---


def test_the_order_of_objects_is_another_in_every_epoch(build: Build, drawn: dict[str, Any]) -> None:
    built = build(drawn, space="pixel", object_order="top_left", augment=AugmentConfig(shuffle_objects=True))
    orders = {tuple(boxes(source(built).in_epoch(epoch, 0))) for epoch in range(40)}
    assert len(orders) == 6
    assert boxes(source(built).in_epoch(0, 0)) == boxes(source(built)[0])


def test_what_a_shuffled_answer_has_no_room_for_is_not_asked_for(build: Build, drawn: dict[str, Any]) -> None:
    augment = AugmentConfig(shuffle_objects=True, flip=0.5, left_right="exchange")
    named = drawn | {"task": "named", "categories": ["red", "blue", "green", "left cup"]}
    built = build(named, space="pixel", max_objects=1, augment=augment)
    found = set()
    for epoch in range(40):
        example = source(built).in_epoch(epoch, 0)
        there = set(boxes(example))
        assert {label for label in example.categories if not label.endswith("cup")} == there
        assert all(label in example.messages[0]["content"] for label in example.categories)
        found |= there
    assert found == {"red", "blue", "green"}


def test_noise_stands_at_the_end_and_no_loss_sees_its_places(build: Build, drawn: dict[str, Any]) -> None:
    augment = AugmentConfig(noise_objects=2, noise_label="nothing")
    built = build(drawn, space="pixel", object_order="top_left", max_objects=2, augment=augment)
    example = source(built).in_epoch(0, 0)
    answer = parse_json(example.messages[-1]["content"])
    assert [item.desc for item in answer.objects] == ["blue", "red", "nothing", "nothing"]
    assert (example.uncharged, len(example.geometries)) == ((2, 3), 4)
    assert source(built).in_epoch(1, 0).geometries[:2] == example.geometries[:2]
    assert source(built).in_epoch(1, 0).geometries[2:] != example.geometries[2:]
    assert source(built)[0].uncharged == ()


def test_nothing_else_is_called_as_noise_is(folder: Path, write: Write, record: dict[str, Any]) -> None:
    write(record)
    [problem] = problems_of(
        manifest(folder, '[data.coord_jsonl.augment]\nnoise_objects = 1\nnoise_label = "red circle"')
    )
    assert problem.startswith("objects[0].desc: 'red circle' is what noise is called; set another noise_label")


# --- what is refused ---


@pytest.mark.parametrize(
    ("keys", "augment", "coords", "expected"),
    [
        ({"mode": "summary"}, "crop = [0.5, 1]", "", "data.coord_jsonl.augment.crop: a summary would speak of what"),
        ({"mode": "summary"}, "noise_objects = 1", "", "data.coord_jsonl.augment.noise_objects: a summary names no"),
        ({"mode": "summary"}, "shuffle_objects = true", "", "data.coord_jsonl.augment.shuffle_objects: a summary"),
        (
            {"coord_tokens": False},
            "noise_objects = 1",
            "",
            "data.coord_jsonl.augment.noise_objects: no loss may see",
        ),
        (
            {"geometry": ["poly"]},
            "noise_objects = 1",
            "",
            "data.coord_jsonl.augment.noise_objects: noise is boxes, and",
        ),
        ({}, "flip = 1", "floor_999", "data.coord_jsonl.augment: bins of floor_999 tell a place to within a bin"),
    ],
)
def test_what_cannot_be_done_with_a_run(
    folder: Path, write: Write, record: dict[str, Any], keys: dict[str, Any], augment: str, coords: str, expected: str
) -> None:
    write(record | {"summary": "A circle."}, name="train.jsonl")
    text = f"[data.coord_jsonl.augment]\n{augment}\n" + (f'[coords]\nquantisation = "{coords}"\n' if coords else "")
    loaded = manifest(folder, text, validate=False, **keys)
    [problem] = refused(loaded.manifest.of("data")[0].config, loaded.manifest)
    assert problem.startswith(expected)


@pytest.mark.parametrize("categories", ["drawn", "listed", "listed on a federated image"])
def test_a_category_that_a_window_shows_in_part_is_not_asked_for(
    build: Build, drawn: dict[str, Any], categories: str
) -> None:
    aside = {
        "crowd": [{"desc": "people", "bbox_2d": [0, 0, 640, 480]}],
        "points": [{"desc": "eye", "points": [100, 60]}],
    }
    federated = {"absent_categories": [], "incomplete_categories": []}
    asked: dict[str, Any] = {"metadata": aside} if categories == "drawn" else {"categories": [*BOXES]}
    if categories == "listed on a federated image":
        asked["metadata"] = federated
    others = [{"desc": label, "bbox_2d": [0, 0, 9, 9]} for label in ("people", "eye")]
    other = {**drawn, "objects": others, "task": "named"}
    augment = AugmentConfig(crop=(0.3, 0.6), crop_visible=1.0)
    train = source(build({**drawn, "task": "named", **asked}, other, space="pixel", augment=augment))
    hidden = gone = 0
    for epoch in range(40):
        example = train.in_epoch(epoch, 0)
        answered, asked_for = boxes(example), set(example.categories)
        for colour in BOXES:
            in_part = seen(example.images[0], colour) is not None and colour not in answered
            hidden, gone = hidden + in_part, gone + (colour in asked_for - answered.keys())
            assert not (in_part and colour in asked_for)
        assert answered.keys() <= asked_for
        assert asked_for.isdisjoint({"people", "eye"})
    assert hidden > 5
    assert gone > 5


@pytest.mark.parametrize(("question", "is_cut"), [("Find discs.", False), ("Find {categories}.", True), (None, True)])
def test_a_question_in_its_own_words_keeps_all_that_it_asks_for(
    build: Build, drawn: dict[str, Any], question: str | None, is_cut: bool
) -> None:
    record = {**drawn, "task": "named", "categories": [*BOXES], "question": question}
    augment = AugmentConfig(crop=(0.3, 0.6), crop_visible=1.0, flip=0.5)
    train = source(build(record, space="pixel", augment=augment))
    examples = [train.in_epoch(epoch, 0) for epoch in range(20)]
    assert any(example.image_size != (drawn["width"], drawn["height"]) for example in examples) is is_cut
    assert all(boxes(example).keys() == {*BOXES} for example in examples) is not is_cut


def test_a_window_leaves_something_of_what_a_federated_record_asks_for(build: Build, drawn: dict[str, Any]) -> None:
    metadata = {"incomplete_categories": ["red", "green"], "absent_categories": []}
    augment = AugmentConfig(crop=(0.2, 0.3))
    train = source(build({**drawn, "task": "named", "metadata": metadata}, space="pixel", augment=augment))
    examples = [train.in_epoch(epoch, 0) for epoch in range(40)]
    assert {example.categories for example in examples} == {("blue",)}
    assert all(boxes(example).keys() == {"blue"} for example in examples)
    assert sum(example.image_size != (640, 480) for example in examples) > 10  # and in the others it stays whole


def test_of_an_image_of_which_nothing_is_asked_for_any_window_is_cut_out(build: Build, drawn: dict[str, Any]) -> None:
    metadata = {"incomplete_categories": [*BOXES], "absent_categories": ["cow"]}
    augment = AugmentConfig(crop=(0.2, 0.2))
    train = source(build({**drawn, "task": "named", "metadata": metadata}, space="pixel", augment=augment))
    for epoch in range(5):
        example = train.in_epoch(epoch, 0)
        assert (example.categories, example.image_size, boxes(example)) == (("cow",), (128, 96), {})


@pytest.mark.parametrize("task", ["refer", "point"])
def test_a_window_leaves_all_that_a_phrase_refers_to(build: Build, drawn: dict[str, Any], task: str) -> None:
    phrase = {**drawn, "task": task, "question": "the coloured ones", "objects": drawn["objects"][:2]}
    augment = AugmentConfig(crop=(0.5, 0.9), flip=0.5, crop_visible=0.5)
    keys = {"space": "pixel", "geometry": ("bbox_2d", "point"), "augment": augment}
    examples = [source(build(phrase, **keys)).in_epoch(epoch, 0) for epoch in range(30)]
    assert {len(example.geometries) for example in examples} == {2}
    assert sum(example.image_size != (640, 480) for example in examples) > 15
    plain = source(build(drawn | {"objects": drawn["objects"][:2]}, **keys))
    assert {len(plain.in_epoch(epoch, 0).geometries) for epoch in range(30)} == {1, 2}


def test_a_phrase_whose_objects_lie_too_far_apart_keeps_its_image(build: Build, drawn: dict[str, Any]) -> None:
    augment = AugmentConfig(crop=(0.4, 0.5))
    train = source(build({**drawn, "task": "refer", "question": "all"}, space="pixel", augment=augment))
    for epoch in range(5):
        example = train.in_epoch(epoch, 0)
        assert (example.image_size, len(example.geometries)) == ((640, 480), 3)
