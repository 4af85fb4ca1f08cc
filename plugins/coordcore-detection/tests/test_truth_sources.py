"""Ground truth from record files and from examples."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from PIL import Image

from coordcore import Example, Geometry, InputError
from coordcore.quantisation import DEFAULT_QUANTISATION, quantisation
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.evaluate.truth_sources import truth_from_examples, truth_from_records

RECORD: dict[str, Any] = {
    "images": ["photo.png"],
    "width": 999,
    "height": 1998,
    "objects": [{"desc": "cat", "bbox_2d": [10, 20, 30, 40]}],
}


def read(folder: Path, *records: dict[str, Any] | str, **settings: Any) -> list[TruthImage]:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path = folder / "val.jsonl"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return list(truth_from_records(path, **{"quantisation": DEFAULT_QUANTISATION, "question": "Where?"} | settings))


def test_bins_become_pixels_of_the_image(tmp_path: Path) -> None:
    (image,) = read(tmp_path, RECORD)
    assert (image.key, image.labels, image.in_bins) == ("photo.png", ("cat",), True)
    assert image.boxes.tolist() == [[10.0, 40.0, 30.0, 80.0]]


def test_coord_tokens_are_bins(tmp_path: Path) -> None:
    tokens = [f"<|coord_{k}|>" for k in (10, 20, 30, 40)]
    (image,) = read(tmp_path, RECORD | {"objects": [{"desc": "cat", "bbox_2d": tokens}]})
    assert image.boxes.tolist() == [[10.0, 40.0, 30.0, 80.0]]


@pytest.mark.parametrize(
    ("space", "box", "expected"),
    [("pixel", [1.5, 2, 3, 1998], [1.5, 2, 3, 1998]), ("norm1", [0, 0.25, 0.5, 1], [0, 499.5, 499.5, 1998])],
)
def test_other_spaces(tmp_path: Path, space: str, box: list[float], expected: list[float]) -> None:
    (image,) = read(tmp_path, RECORD | {"objects": [{"desc": "cat", "bbox_2d": box}]}, space=space)
    assert (image.boxes.tolist(), image.in_bins) == ([expected], False)


def test_a_poly_is_its_bounding_box(tmp_path: Path) -> None:
    poly = {"desc": "roof", "poly": [5, 30, 1, 2, 9, 4], "poly_points": 3}
    (image,) = read(tmp_path, RECORD | {"objects": [poly]}, space="pixel")
    assert image.boxes.tolist() == [[1.0, 2.0, 9.0, 30.0]]


def test_crowd_regions_come_from_the_metadata(tmp_path: Path) -> None:
    metadata = {"crowd": [{"desc": "people", "bbox_2d": [0, 0, 999, 999]}], "image_id": 7}
    (image,) = read(tmp_path, RECORD | {"metadata": metadata})
    assert (image.labels, image.crowd.tolist()) == (("cat", "people"), [False, True])


def test_an_image_without_objects(tmp_path: Path) -> None:
    (image,) = read(tmp_path, RECORD | {"objects": []})
    assert (image.boxes.shape, image.crowd.shape, image.labels) == ((0, 4), (0,), ())


def test_several_records_of_one_image_get_keys_of_their_own(tmp_path: Path) -> None:
    assert [item.key for item in read(tmp_path, RECORD, RECORD)] == ["photo.png", "photo.png#2"]


def test_the_model_is_asked_the_question(tmp_path: Path) -> None:
    (image,) = read(tmp_path, RECORD, system="Be exact.")
    assert image.messages == (
        {"role": "system", "content": "Be exact."},
        {"role": "user", "content": "<image>Where?"},
    )


def test_images_are_opened_upright_when_they_are_used(tmp_path: Path) -> None:
    picture = Image.new("RGB", (20, 10))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "photo.jpg", exif=exif)
    (image,) = read(tmp_path, RECORD | {"images": ["photo.jpg"], "width": 10, "height": 20, "objects": []})
    assert image.open().size == (10, 20)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (None, "no image file at"),
        ((9, 9), "photo.png is 9 x 9, but the record says 999 x 1998; width and height are those of the upright image"),
    ],
)
def test_images_that_cannot_be_used(tmp_path: Path, size: tuple[int, int] | None, message: str) -> None:
    if size is not None:
        Image.new("RGB", size).save(tmp_path / "photo.png")
    (image,) = read(tmp_path, RECORD)
    with pytest.raises(InputError, match=message):
        image.open()


def wrong_object(**members: Any) -> dict[str, Any]:
    return RECORD | {"objects": [{"desc": "cat"} | members]}


@pytest.mark.parametrize(
    ("record", "settings", "message"),
    [  # tests/together/test_record_readers.py has what every reader of records refuses
        ("{", {}, "val.jsonl:1: not JSON: input data was truncated"),
        (RECORD | {"width": 0}, {}, "val.jsonl:1: width: expected int >= 1"),
        (wrong_object(bbox_2d=[1, 2, 3]), {}, "objects[0].bbox_2d: needs 4 numbers (x1, y1, x2, y2), got 3"),
        (
            wrong_object(bbox_2d=["<|coord_1|>", 2, 3, 4]),
            {"space": "pixel"},
            'objects[0].bbox_2d: \'<|coord_1|>\' is text, but `space` is "pixel"; write numbers, or set "bin"',
        ),
        (
            wrong_object(bbox_2d=[1, 2, 1000, 4]),
            {"space": "pixel"},
            'objects[0].bbox_2d: x = 1000 lies outside 0..999; `outside = "clip"` moves such corners to the edge',
        ),
        (
            wrong_object(bbox_2d=[1000, 2, 1001, 4]),
            {"space": "pixel", "outside": "clip"},
            "objects[0].bbox_2d: x = 1000..1001 does not overlap 0..999; remove the object",
        ),
        (
            RECORD | {"metadata": {"quantisation": "qwen_1000"}},
            {},
            "val.jsonl:1: metadata.quantisation: the record is quantised as qwen_1000 (version 1)",
        ),
        (
            RECORD | {"metadata": {"crowd": [{"desc": "people", "bbox_2d": [3, 2, 1, 4]}]}},
            {},
            "val.jsonl:1: metadata.crowd[0].bbox_2d: x2 = 1 < x1 = 3",
        ),
    ],
)
def test_wrong_records(tmp_path: Path, record: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path, record, **settings)
    assert message in str(error.value)


def test_corners_outside_are_clipped_when_asked(tmp_path: Path) -> None:
    (image,) = read(tmp_path, wrong_object(bbox_2d=[-1, 2, 1000, 4]), space="pixel", outside="clip")
    assert image.boxes.tolist() == [[0.0, 2.0, 999.0, 4.0]]


def test_twenty_problems_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path, *["{}"] * 23)
    lines = str(error.value).splitlines()
    assert (len(lines), lines[-1].rpartition(": ")[2]) == (21, "3 more records have problems")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    with pytest.raises(InputError, match=r"none.jsonl: cannot be read: no such file or directory"):
        truth_from_records(path, quantisation=DEFAULT_QUANTISATION, question="")


def test_a_file_without_records(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"val.jsonl: holds no records"):
        read(tmp_path)


# --- examples -------------------------------------------------------------------------------------------------------

ANSWER = '{"objects": [{"desc": "a \\"cat\\"", "bbox_2d": [<|coord_10|>, <|coord_20|>, <|coord_30|>, <|coord_40|>]}]}'


def example(**changes: Any) -> Example:
    made = Example(
        messages=(
            {"role": "user", "content": "<image>Where?"},
            {"role": "assistant", "content": ANSWER},
        ),
        images=(Image.new("RGB", (999, 1998)),),
        geometries=(Geometry(kind="bbox_2d", values=(10.25, 20.0, 30.0, 40.0)),),
        source="train.jsonl:3",
    )
    return attrs.evolve(made, **changes)


def test_positions_of_an_example_are_finer_than_bins() -> None:
    (image,) = truth_from_examples([example()], DEFAULT_QUANTISATION)
    assert (image.key, image.width, image.height, image.labels) == ("example-0", 999, 1998, ('a "cat"',))
    assert image.boxes.tolist() == [[10.25, 40.0, 30.0, 80.0]]
    assert (image.in_bins, image.messages) == (False, ({"role": "user", "content": "<image>Where?"},))


def test_numbers_in_the_answer_are_bins() -> None:
    answer = {"role": "assistant", "content": ANSWER.replace("<|coord_", "").replace("|>", "")}
    (image,) = truth_from_examples([example(messages=(answer,), geometries=())], quantisation("florence_1000"))
    assert image.boxes[0, 0] == pytest.approx(10.5 * 999 / 1000)
    assert image.in_bins


def test_images_may_be_paths_or_bytes(tmp_path: Path) -> None:
    picture, buffer = Image.new("RGB", (8, 6)), io.BytesIO()
    picture.save(tmp_path / "a.png")
    picture.save(buffer, "png")
    given = [example(images=(tmp_path / "a.png",)), example(images=(buffer.getvalue(),))]
    truths = truth_from_examples(given, DEFAULT_QUANTISATION)
    assert [(truth.width, truth.height, truth.open().size) for truth in truths] == [(8, 6, (8, 6))] * 2
    assert [truth.path for truth in truths] == [tmp_path / "a.png", None]


def test_examples_are_read_when_they_are_asked_for() -> None:
    truths = truth_from_examples([example(images=()), example()], DEFAULT_QUANTISATION)
    assert (len(truths), truths[-1].key, [truth.key for truth in truths[1:]]) == (2, "example-1", ["example-1"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": ()}, "train.jsonl:3: has 0 images; boxes refer to one image"),
        ({"messages": ()}, "train.jsonl:3: does not end with an answer"),
        ({"images": (b"no image",)}, "train.jsonl:3: image in memory cannot be read: cannot identify image file"),
        (
            {"geometries": (Geometry(kind="bbox_2d", values=(0, 0, 1, 1)),) * 2},
            "has 2 geometries, but its answer speaks of 1",
        ),
        ({"messages": ({"role": "assistant", "content": "A cat."},)}, "the answer is no list of objects in CoordJSON"),
    ],
)
def test_wrong_examples(changes: dict[str, Any], message: str) -> None:
    truths = truth_from_examples([example(**changes)], DEFAULT_QUANTISATION)
    with pytest.raises(InputError) as error:
        truths[0]
    assert message in str(error.value)


def test_an_example_without_objects() -> None:
    answer = {"role": "assistant", "content": '{"objects": []}'}
    (image,) = truth_from_examples([example(messages=(answer,), geometries=())], DEFAULT_QUANTISATION)
    assert (image.boxes.shape, image.crowd.dtype) == ((0, 4), np.dtype(bool))


def test_what_is_transparent_is_white_as_in_training(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 51, 255)):
        picture.putpixel((x, 0), (255, 0, 0, alpha))
    picture.save(tmp_path / "photo.png")
    opened = read(tmp_path, RECORD | {"width": 3, "height": 1})[0].open()
    assert [opened.getpixel((x, 0)) for x in range(3)] == [(255, 255, 255), (255, 204, 204), (255, 0, 0)]


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_images_are_refused_for_rgb_would_turn_them_white(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (3, 1)).save(tmp_path / "photo.png", format="TIFF")
    (image,) = read(tmp_path, RECORD | {"width": 3, "height": 1})
    with pytest.raises(InputError, match="more than 8 bits a channel; convert it to 8 bits first"):
        image.open()


def test_examples_have_what_lvis_says_of_their_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    metadata = {"absent_categories": ["dog"], "incomplete_categories": ["cat"]}
    lines = [RECORD, RECORD | {"metadata": metadata}]
    Path("val.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = [example(source=source) for source in ("val.jsonl:1", "val.jsonl:2", "gone.jsonl:2", "x:y")]
    found = truth_from_examples(made, DEFAULT_QUANTISATION)
    assert [(item.absent, item.incomplete) for item in found] == [((), ()), (("dog",), ("cat",)), ((), ()), ((), ())]
    assert [item.id for item in found] == [0, 1, 2, 3]


def test_records_have_the_areas_of_their_objects(tmp_path: Path) -> None:
    two = {"objects": [{"desc": name, "bbox_2d": [0, 0, 10, 20]} for name in ("cat", "dog")], "width": 999}
    given = {"object_areas": [None, 7.5], "crowd": [{"desc": "cat", "bbox_2d": [0, 0, 5, 5]}]}
    known, plain = read(tmp_path, RECORD | two | {"metadata": given}, RECORD | two, space="pixel")
    assert (known.areas is not None and known.areas.tolist(), plain.areas) == ([200.0, 7.5, 25.0], None)


BOXES = ([100, 200, 300, 400], [500, 200, 700, 300], [100, 200, 300, 420])


@pytest.mark.parametrize(
    ("scale", "tokens"),
    [((1, 2), False), ((1 / 999, 1 / 999), False), ((1, 1), False), ((1, 1), True)],
    ids=["pixel", "norm1", "bin", "tokens"],
)
def test_examples_have_the_areas_of_their_records(tmp_path: Path, scale: tuple[float, float], tokens: bool) -> None:
    """In whatever space they are written, and in whatever order the builder names them; clipped, that of the box."""
    labels = ("cat", "dog", "cat")
    written = [[k * scale[n % 2] for n, k in enumerate(box)] for box in BOXES]
    given = [[f"<|coord_{k}|>" for k in box] for box in BOXES] if tokens else written
    objects = [{"desc": label, "bbox_2d": box} for label, box in zip(labels, given, strict=True)]
    record = RECORD | {"objects": objects, "metadata": {"object_areas": [11.5, 12, 13]}}
    (tmp_path / "val.jsonl").write_text(json.dumps(record) + "\n")
    answered = [(labels[n], BOXES[n]) for n in (2, 0, 1)] + [("cat", [0, 0, 10, 10])]
    text = json.dumps({"objects": [{"desc": label, "bbox_2d": box} for label, box in answered]})
    made = example(
        images=(Image.new("RGB", (999, 1998)),),
        messages=({"role": "user", "content": "<image>"}, {"role": "assistant", "content": text}),
        geometries=tuple(Geometry(kind="bbox_2d", values=tuple(map(float, box))) for _, box in answered),
        source=f"{tmp_path / 'val.jsonl'}:1",
    )
    (image,) = truth_from_examples([made], DEFAULT_QUANTISATION)
    assert image.areas is not None
    assert image.areas.tolist() == [13, 11.5, 12, 200]


def test_records_have_ids_and_what_lvis_says(tmp_path: Path) -> None:
    metadata = {"absent_categories": ["dog"], "incomplete_categories": ["cat"], "image_id": 7}
    first, second, third = read(
        tmp_path, RECORD | {"metadata": metadata}, RECORD | {"metadata": {"image_id": [1]}}, RECORD
    )
    assert (first.id, first.absent, first.incomplete) == (7, ("dog",), ("cat",))
    assert [(item.id, item.absent) for item in (second, third)] == [(None, ()), (None, ())]


def test_a_polygon_over_the_edge_is_cut_before_it_is_enclosed(tmp_path: Path) -> None:
    slanted = wrong_object(poly=[-40, 10, 20, 30, 20, 70, -40, 90])
    (image,) = read(tmp_path, slanted, space="pixel", outside="clip")
    assert image.boxes[0].tolist() == pytest.approx([0, 70 / 3, 20, 230 / 3])


def test_an_image_outside_its_root_is_not_opened(tmp_path: Path) -> None:
    Image.new("RGB", (3, 1)).save(tmp_path / "photo.png")
    (tmp_path / "set").mkdir()
    outside = RECORD | {"width": 3, "height": 1, "images": ["../photo.png"], "objects": []}
    (image,) = read(tmp_path, outside, image_root=tmp_path / "set")
    with pytest.raises(InputError, match=r"\.\./photo\.png lies outside .*images_within = "):
        image.open()
    (image,) = read(tmp_path, outside, image_root=tmp_path / "set", images_within=tmp_path)
    assert image.open().size == (3, 1)


BEFORE = {"role": "assistant", "content": "At [<|coord_1|>, <|coord_2|>, <|coord_3|>, <|coord_4|>]."}


@pytest.mark.parametrize(
    ("thought", "earlier"),
    [
        ("<think>[<|coord_1|>, <|coord_2|>, <|coord_3|>, <|coord_4|>]?</think>\n\n", ()),
        ("It may be [<|coord_1|>, <|coord_2|>, <|coord_3|>, <|coord_4|>].</think>", ()),
        ("<|channel>thought\n[<|coord_1|>, <|coord_2|>, <|coord_3|>, <|coord_4|>]<channel|>", ()),
        ("", (BEFORE, {"role": "user", "content": "And all of them?"})),
    ],
)
def test_what_stands_before_the_answer_is_none_of_it(thought: str, earlier: tuple[dict[str, str], ...]) -> None:
    question, answer = example().messages
    said = ({**question}, *earlier, {**answer, "content": thought + answer["content"]})
    geometries = (Geometry(kind="bbox_2d", values=(1.0, 2.0, 3.0, 4.0)), *example().geometries)
    (image,) = truth_from_examples([example(messages=said, geometries=geometries)], DEFAULT_QUANTISATION)
    assert (image.labels, image.boxes.tolist()) == (('a "cat"',), [[10.25, 40.0, 30.0, 80.0]])


def test_an_empty_thought_before_an_answer_in_numbers() -> None:
    text = ANSWER.replace("<|coord_", "").replace("|>", "")
    answer = {"role": "assistant", "content": f"<think>\n\n</think>\n\n{text}"}
    (image,) = truth_from_examples([example(messages=(answer,), geometries=())], DEFAULT_QUANTISATION)
    assert image.boxes.tolist() == [[10.0, 40.0, 30.0, 80.0]]
