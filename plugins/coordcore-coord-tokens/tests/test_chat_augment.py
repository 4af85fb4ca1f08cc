"""Training rows of `chat_jsonl` that differ from epoch to epoch: places in every turn move with the pixels."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from PIL import Image, ImageDraw

from coordcore import BuildContext, Example, InputError
from coordcore.manifest import load
from coordcore.manifest.types import plain
from coordcore.quantisation import DEFAULT_QUANTISATION, quantisation
from coordcore.records.answers import Located, answer_text, parse_answer
from coordcore_coord_tokens import ChatJsonl, ChatJsonlConfig, plugin
from coordcore_coord_tokens.augment.config import ChatAugmentConfig
from coordcore_coord_tokens.formats import TAGGED

RED, BLUE = (12, 40, 301, 412), (350, 20, 420, 90)
FLIP = ChatAugmentConfig(flip=1.0, left_right="exchange")


@pytest.fixture
def drawn(folder: Path) -> None:
    """drawn.png (640 x 480) with a red and a blue rectangle, small.png (100 x 50) with a green one."""
    for name, size, rectangles in (
        ("drawn.png", (640, 480), {"red": RED, "blue": BLUE}),
        ("small.png", (100, 50), {"green": (10, 5, 30, 45)}),
    ):
        image = Image.new("RGB", size, "white")
        for colour, (x1, y1, x2, y2) in rectangles.items():
            ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), fill=colour)
        image.save(name)


@pytest.fixture
def rows(write: Any, context: BuildContext, drawn: None) -> Any:
    """`rows(row, ..., augment=...)` are the training examples of rows."""

    def rows(*given: dict[str, Any], convention: str = "", **settings: Any) -> Any:
        used = attrs.evolve(context, quantisation=quantisation(convention)) if convention else context
        return ChatJsonl.open(ChatJsonlConfig(train=write(*given), **settings), used).train()

    return rows


def row(*texts: str, images: Any = ("drawn.png",), **objects: Any) -> dict[str, Any]:
    """Question and answer in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]
    return {"messages": messages, "images": list(images)} | ({"objects": objects} if objects else {})


def texts(example: Example) -> list[str]:
    return [message["content"] for message in example.messages]


def values(example: Example) -> list[tuple[float, ...]]:
    return [geometry.values for geometry in example.geometries]


def bins_in(text: str) -> list[int]:
    return [int(found) for found in re.findall(r"<\|coord_(\d+)\|>", text)]


def seen(image: Image.Image, colour: str) -> tuple[int, int, int, int] | None:
    """Where a picture has pixels of this colour alone."""
    wanted = Image.new("RGB", (1, 1), colour).getpixel((0, 0))
    return Image.fromarray((np.asarray(image) == wanted).all(-1)).getbbox()


def pixels(coordinates: Any, size: tuple[int, int]) -> list[float]:
    return DEFAULT_QUANTISATION.decode(coordinates, size * (len(coordinates) // 2)).tolist()


# --- places ----------------------------------------------------------------------------------------------------------


def norm(box: tuple[int, ...], scale: float) -> list[float]:
    return [value * scale / side for value, side in zip(box, (640, 480) * 2, strict=True)]


@pytest.mark.parametrize(
    ("space", "written"),
    [("pixel", [*BLUE]), ("norm1", norm(BLUE, 1)), ("norm1000", norm(BLUE, 1000)), ("placeholder", None)],
)
@pytest.mark.parametrize("resize", [None, (0.5, 0.5)])
def test_places_of_questions_and_answers_are_where_the_pixels_went(
    rows: Any, space: str, written: Any, resize: Any
) -> None:
    augment = attrs.evolve(FLIP, resize=resize)
    if space == "placeholder":
        given = row("Is <bbox> blue?", "Yes. <bbox> is red.", bbox=[[*BLUE], [*RED]])
        source = rows(given, augment=augment)
    else:
        red = [*RED] if space == "pixel" else norm(RED, {"norm1": 1, "norm1000": 1000}[space])
        given = row(f"Is {written} blue?", f'Yes. {{"bbox_2d": {red}, "label": "red"}}')
        source = rows(given, augment=augment, space=space)
    example = source.in_epoch(0, 0)
    [image] = example.images

    assert image.size == example.image_size == ((640, 480) if resize is None else (320, 240))
    [asked] = [pixels(bins_in(text), image.size) for text in texts(example)[:1]]
    if resize is None:
        assert asked == pytest.approx(seen(image, "blue"), abs=0.4)
    # To the last digit: targets are computed from what the row has, not from the picture.
    [box] = values(example)
    x1, y1, x2, y2 = RED
    assert box == pytest.approx(
        [(640 - x2) / 640 * 999, y1 / 480 * 999, (640 - x1) / 640 * 999, y2 / 480 * 999], abs=1e-9
    )
    assert bins_in(texts(example)[1]) == [round(value) for value in box]
    assert texts(example)[1].startswith("Yes. ")


def test_coord_tokens_in_the_text_are_mirrored_as_the_places_that_they_stand_for(rows: Any) -> None:
    given = row("At <|coord_100|><|coord_0|>?", "A<|coord_0|><|coord_20|><|coord_300|><|coord_999|>")
    example = rows(given, augment=FLIP).in_epoch(0, 0)
    assert texts(example) == [
        "<image>At <|coord_899|><|coord_0|>?",
        "A<|coord_699|><|coord_20|><|coord_999|><|coord_999|>",
    ]
    assert values(example) == [pytest.approx((699, 20, 999, 999))]


def test_bins_are_mirrored_too(rows: Any) -> None:
    example = rows(row("Where?", "[0, 20, 300, 999]"), space="bin", augment=FLIP).in_epoch(0, 0)
    assert values(example) == [pytest.approx((699, 20, 999, 999))]
    assert bins_in(texts(example)[1]) == [699, 20, 999, 999]


def test_points_polygons_and_quads_are_mirrored(rows: Any) -> None:
    answer = '{"point_2d": [64, 48]} {"poly": [0, 0, 64, 0, 64, 48]} {"quad": [0, 0, 128, 0, 128, 96, 0, 96]}'
    example = rows(row("Where?", answer), space="pixel", augment=FLIP).in_epoch(0, 0)
    point, poly, quad = (pixels(found, (640, 480)) for found in values(example))
    assert point == pytest.approx([576, 48])
    assert poly == pytest.approx([576, 0, 640, 0, 576, 48])  # turns the way it did
    assert quad == pytest.approx([512, 0, 640, 0, 640, 96, 512, 96])  # from its upper left corner


def test_clicks_alone_and_boxes_between_semicolons_are_mirrored(rows: Any) -> None:
    given = row("Where?", "(0.10,0.40)", "Dogs?", "The dogs[0.1,0.2,0.3,0.4;0.5,0.6,0.7,0.8] run.")
    example = rows(given, space="norm1", augment=FLIP).in_epoch(0, 0)
    assert [[round(value, 1) for value in place] for place in values(example)] == [
        [899.1, 399.6],
        [699.3, 199.8, 899.1, 399.6],
        [299.7, 599.4, 499.5, 799.2],
    ]
    assert re.sub(r"<.coord_(\d+).>", r"\1", texts(example)[1]) == "(899,400)"
    assert re.sub(r"<.coord_(\d+).>", r"\1", texts(example)[3]) == "The dogs[699,200,899,400;300,599,500,799] run."


def test_two_points_are_mirrored_each_by_itself(rows: Any) -> None:
    answer = '{"point_2d": [[10, 20], [630, 40]]}'
    example = rows(row("Point at both.", answer), space="pixel", augment=FLIP).in_epoch(0, 0)
    assert [pixels(found, (640, 480)) for found in values(example)] == [
        pytest.approx([630, 20]),
        pytest.approx([10, 40]),
    ]


QUAD = (512, 0, 640, 0, 640, 96, 512, 96)


@pytest.mark.parametrize(
    ("kind", "given", "mirrored"),
    [
        ("point", [(0, 0), (128, 96)], [(640, 0), (512, 96)]),
        ("point", [(0, 0), (128, 96), (256, 48)], [(640, 0), (512, 96), (384, 48)]),
        ("bbox_2d", [(0, 0, 128, 96), (64, 48, 640, 480)], [(512, 0, 640, 96), (0, 48, 576, 480)]),
        ("poly", [(0, 0, 64, 0, 64, 48)], [(576, 0, 640, 0, 576, 48)]),
        ("quad", [(0, 0, 128, 0, 128, 96, 0, 96)] * 2, [QUAD] * 2),
    ],
)
def test_an_answer_between_tags_is_mirrored_as_what_it_is(
    rows: Any, kind: str, given: list[tuple[int, ...]], mirrored: list[tuple[int, ...]]
) -> None:
    sides = 640, 480
    bins = [[round(999 * value / sides[k % 2]) for k, value in enumerate(place)] for place in given]
    answer = answer_text([Located(desc="ring", kind=kind, bins=tuple(place)) for place in bins], form=TAGGED)
    example = rows(row("Where?", answer), augment=FLIP).in_epoch(0, 0)
    read = parse_answer(texts(example)[1], TAGGED)
    assert ([item.kind for item in read.objects], read.unread) == ([kind] * len(given), ())
    assert [item.bins for item in read.objects] == [
        tuple(round(999 * value / sides[k % 2]) for k, value in enumerate(place)) for place in mirrored
    ]
    assert [geometry.kind for geometry in example.geometries] == [kind] * len(given)


def test_a_quad_in_pairs_between_its_tags_is_one(rows: Any) -> None:
    answer = "<|quad_start|>(0,0),(128,0),(128,96),(0,96)<|quad_end|>"
    example = rows(row("Where?", answer), space="pixel", augment=FLIP).in_epoch(0, 0)
    assert [geometry.kind for geometry in example.geometries] == ["quad"]
    assert pixels(values(example)[0], (640, 480)) == pytest.approx(QUAD)


def test_all_images_of_a_row_are_mirrored_or_none(rows: Any) -> None:
    given = row(
        "<image><image>Which is at <bbox>?",
        "The green one, <bbox>. In any of them, [0, 0, 250, 1000] is its edge.",
        images=("drawn.png", "small.png"),
        bbox=[[10, 5, 30, 45], [*RED]],
        image_id=[1, 0],
    )
    source = rows(given, space="norm1000", augment=attrs.evolve(FLIP, flip=0.5, resize=(0.5, 2.0)))
    found = set()
    for epoch in range(12):
        example = source.in_epoch(epoch, 0)
        first, second = example.images
        mirrored = first.getpixel((first.width - 1 - 100 * first.width // 640, first.height // 2)) == (255, 0, 0)
        assert first.width / 640 == pytest.approx(second.width / 100, rel=0.02)
        left = seen(second.resize((100, 50)), "green")
        assert (bins_in(texts(example)[0])[0] > 500) is mirrored is (left is not None and left[0] > 50)
        red, edge = values(example)
        assert red[0] == pytest.approx((640 - 301 if mirrored else 12) / 640 * 999)
        assert edge == pytest.approx((749.25, 0, 999, 999) if mirrored else (0, 0, 249.75, 999))
        assert example.image_size is None
        found.add(mirrored)
    assert found == {True, False}


def test_a_row_of_text_alone_is_as_it_is(rows: Any) -> None:
    given = row("What is left of [1, 2, 3, 4]?", "Nothing is left.", images=())
    source = rows(given, augment=attrs.evolve(FLIP, left_right="refuse"))
    assert source.in_epoch(3, 0) == source[0]


# --- epochs ----------------------------------------------------------------------------------------------------------


def same(first: Example, other: Example) -> bool:
    pixels = [image.tobytes() for image in first.images] == [image.tobytes() for image in other.images]
    return pixels and attrs.evolve(first, images=()) == attrs.evolve(other, images=())


def test_what_a_row_is_in_an_epoch_follows_from_seed_epoch_and_line(rows: Any) -> None:
    given = row("Is <bbox> red?", "Yes.", bbox=[[*RED]])
    augment = ChatAugmentConfig(flip=0.5, resize=(0.5, 1.5), brightness=0.3, hue=0.1)
    source = rows(given, given, augment=augment)
    first = [source.in_epoch(2, index) for index in range(2)]
    other = pickle.loads(pickle.dumps(source))
    other.in_epoch(0, 1)
    assert all(same(other.in_epoch(2, index), first[index]) for index in (1, 0))
    assert not same(first[0], attrs.evolve(first[1], source=first[0].source))
    assert not same(first[0], source.in_epoch(3, 0))
    assert not same(first[0], attrs.evolve(source, seed=1).in_epoch(2, 0))
    assert same(source[0], rows(given)[0])


def test_where_nothing_is_drawn_a_row_is_what_the_file_has(rows: Any) -> None:
    given = row("Is <bbox> red?", "<bbox>.", bbox=[[*RED], [*BLUE]])
    source = rows(given, augment=ChatAugmentConfig(flip=0.5))
    kinds = {same(source.in_epoch(epoch, 0), source[0]) for epoch in range(12)}
    assert kinds == {True, False}


def test_held_out_rows_are_never_changed(write: Any, context: BuildContext, drawn: None) -> None:
    given = row("Left of <bbox>?", "Yes.", bbox=[[*RED]])
    files = {"train": write(row("?", "Yes.")), "validation": write(given, name="v.jsonl")}
    held_out: Any = ChatJsonl.open(ChatJsonlConfig(**files, augment=ChatAugmentConfig(flip=1.0)), context).validation()
    assert not hasattr(held_out, "in_epoch")
    assert texts(held_out[0])[0].startswith("<image>Left of <|coord_19|>")


def test_lengths_are_those_of_the_epoch(rows: Any) -> None:
    given = row("Is <bbox> red?", "The left one.", images=("drawn.png", "small.png"), bbox=[[*RED]])
    source = rows(given, augment=attrs.evolve(FLIP, flip=0.5, resize=(0.2, 3.0)))
    for epoch in range(6):
        example = source.in_epoch(epoch, 0)
        rough = source.plain.reader.coords.rough_length("".join(texts(example)))
        assert source.length(epoch, 0) == (rough, [image.size for image in example.images])


# --- words -----------------------------------------------------------------------------------------------------------


def test_left_and_right_are_exchanged_in_every_turn(rows: Any) -> None:
    given = row(
        "Who is LEFT of <ref-object>?", "The left-handed one at <bbox>.", "And right?", "Nobody, upright or not.",
        ref=["the right shoe"], bbox=[[*RED]],
    )  # fmt: skip
    example = rows(given, augment=FLIP, system="Left is where the clock is.").in_epoch(0, 0)
    said = [re.sub(r"<[^>]*>", "", text) for text in texts(example)]
    assert said == [
        "Right is where the clock is.",
        "Who is RIGHT of the left shoe?",
        "The right-handed one at .",
        "And left?",
        "Nobody, upright or not.",
    ]


def test_a_row_may_be_kept_as_it_is_for_its_words(rows: Any) -> None:
    said, silent = row("Left?", "<bbox>", bbox=[[*RED]]), row("Where?", "<bbox>", bbox=[[*RED]])
    named = row("Where is <ref-object>?", "<bbox>", ref=["the left shoe"], bbox=[[*RED]])
    source = rows(said, silent, named, augment=ChatAugmentConfig(flip=1.0, left_right="keep"))
    assert [same(source.in_epoch(0, index), source[index]) for index in range(3)] == [True, False, True]
    resized = rows(said, augment=ChatAugmentConfig(flip=1.0, left_right="keep", resize=(0.5, 0.5))).in_epoch(0, 0)
    assert (resized.image_size, texts(resized)[0]) == ((320, 240), "<image>Left?")


def test_a_row_is_kept_for_a_word_at_either_end_of_a_turn(rows: Any) -> None:
    keep = ChatAugmentConfig(flip=1.0, left_right="keep")
    source = rows(row("Where is the cat", "left of the dog"), row("It is on the right", "Yes."), augment=keep)
    assert [same(source.in_epoch(0, index), source[index]) for index in range(2)] == [True, True]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (row("Who is left?", "Nobody."), "messages[0].content: 'Who is left?' says 'left', which is wrong of a "),
        (row("Who?", "A.", "And?", "The right one."), "messages[3].content: 'The right one.' says 'right', which is"),
        (row("<ref-object>?", "No.", ref=["the left shoe"]), "messages[0].content: '<image>the left shoe?' says "),
        ({"system": "Right!"} | row("Who?", "A."), "system: 'Right!' says 'Right', which is wrong of a mirrored image"),
        (row("Who?", "x" * 9000 + " left " + "y" * 9000), "messages[1].content: '... xxx"),
    ],
)
def test_left_and_right_are_refused_in_any_turn_before_the_run(rows: Any, given: dict[str, Any], path: str) -> None:
    with pytest.raises(InputError) as caught:
        rows(row("Who?", "A."), given, augment=ChatAugmentConfig(flip=0.1))
    assert str(caught.value).startswith(f"train.jsonl:2: {path}".replace("'Who is left?'", "'<image>Who is left?'"))
    assert len(str(caught.value)) < 500
    assert len(rows(given, augment=ChatAugmentConfig(resize=(0.5, 1.0)))) == 1


def test_without_a_check_before_the_run_they_are_refused_when_they_are_met(rows: Any) -> None:
    source = rows(row("Who is left?", "Nobody."), augment=ChatAugmentConfig(flip=1.0), validate=False)
    with pytest.raises(InputError, match=r"train\.jsonl:1: messages\[0\]\.content: '<image>Who is left\?' says"):
        source.in_epoch(0, 0)


# --- what cannot be ---------------------------------------------------------------------------------------------------


def problems(folder: Path, table: str, keys: str = "") -> list[str]:
    """What `check` says of a run with this table."""
    head = '[model]\nbase = "base"\n[loss.text_ce]\ncoord_positions = true\n'
    Path("m.toml").write_text(
        f'{head}[data.chat_jsonl]\ntrain = "train.jsonl"\n{keys}[data.chat_jsonl.augment]\n{table}'
    )
    try:
        loaded = load(folder / "m.toml")
    except InputError as error:
        return str(error).splitlines()
    return [f"{problem.path}: {problem.message}" for problem in plugin.coordcore_check(loaded.manifest)]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            "crop = [0.5, 1]",
            "m.toml:8: data.chat_jsonl.augment.crop: the texts of chat rows would speak of what is cut off; "
            "leave it out, or train on records (coord_jsonl)",
        ),
        (
            "flip = 0.5\nnoise_objects = 3",
            "m.toml:9: data.chat_jsonl.augment.noise_objects: the answers of chat rows are kept as they are written; "
            "leave it out, or train on records (coord_jsonl)",
        ),
        ("shuffle_objects = true", "m.toml:8: data.chat_jsonl.augment.shuffle_objects: the answers of chat rows are"),
        ("", "m.toml:7: data.chat_jsonl.augment: nothing in it changes an example: set flip, "),
        ("flip = 2", "m.toml:8: data.chat_jsonl.augment.flip: must be <= 1, got 2.0"),
        ("flop = 0.5", "m.toml:8: data.chat_jsonl.augment.flop: unknown key; did you mean 'flip'?"),
        ('flip = 1\nleft_right = "swap"', "m.toml:9: data.chat_jsonl.augment.left_right: must be one of 'refuse', 'e"),
        ("flip = 1\nleft_right_words = {}", "m.toml:9: data.chat_jsonl.augment.left_right_words: "),
    ],
)
def test_a_table_that_cannot_be(folder: Path, write: Any, table: str, expected: str) -> None:
    write(row("?", "Yes.", images=("photo.png",)))
    found = problems(folder, table)
    assert found[0].replace(f"{folder}/", "").startswith(expected)


def test_a_system_message_with_left_and_right(folder: Path, write: Any) -> None:
    write(row("?", "Yes.", images=("photo.png",)))
    [problem, *_] = problems(folder, "flip = 0.5", 'system = "Left!"\n')
    assert problem.startswith("data.chat_jsonl.system: 'Left!' says 'Left'")
    assert problems(folder, 'flip = 0.5\nleft_right = "exchange"', 'system = "Left!"\n') == []


@pytest.mark.parametrize("text", ["<|coord_1|><|coord_2|><|coord_3|><|coord_4|>", "[1, 2, 3, 4]"])
def test_bins_of_a_convention_that_rounds_to_one_side_are_not_mirrored(rows: Any, text: str) -> None:
    with pytest.raises(
        InputError, match=r"train\.jsonl:1: messages\[1\]\.content: bins of floor_999 tell a place to wi"
    ):
        rows(row("?", text), space="bin", augment=FLIP, convention="floor_999")
    assert (
        len(rows(row("?", text), space="bin", augment=ChatAugmentConfig(resize=(0.5, 1)), convention="floor_999")) == 1
    )
    assert rows(row("?", "[64, 48, 128, 96]"), space="pixel", augment=FLIP, convention="floor_999").in_epoch(0, 0)


def test_a_manifest_without_the_table_keeps_its_fingerprint(folder: Path, write: Any) -> None:
    write(row("?", "Yes.", images=("photo.png",)))
    head = '[model]\nbase = "base"\n[loss.text_ce]\ncoord_positions = true\n'
    Path("m.toml").write_text(f'{head}[data.chat_jsonl]\ntrain = "train.jsonl"\n')

    def of_the_fingerprint(*overrides: str) -> Any:
        [builder] = load(folder / "m.toml", overrides).manifest.of("data")
        return plain(builder.config, added=False)

    assert "augment" not in of_the_fingerprint()
    assert of_the_fingerprint("data.chat_jsonl.augment.flip=0.5")["augment"]["flip"] == 0.5
