"""`coordcore data check`: each wrong convention is found in the 830 real boxes, and right ones are left in peace."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversion_support import REAL_COCO, read_lines, records_of, run, write_image, write_lines
from PIL import Image

from coordcore import InputError
from coordcore.quantisation import QUANTISATIONS, quantisation
from coordcore_data.check.result import Checked, check_data
from coordcore_data.check.sample import collect
from coordcore_data.check.sheet import write_sheet
from coordcore_data.check.suspicion import percent

Change = Callable[[list[float], int, int], list[float]]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """COCO's boxes as records in pixels."""
    return records_of(REAL_COCO, "coco", tmp_path_factory.mktemp("real"))[0]


def rewritten(tmp_path: Path, records: list[Any], change: Change) -> Path:
    rows = []
    for item in records:
        size = item["width"], item["height"]
        objects = [{**each, "bbox_2d": change(each["bbox_2d"], *size)} for each in item["objects"]]
        rows.append({key: value for key, value in item.items() if key != "metadata"} | {"objects": objects})
    return write_lines(tmp_path / "changed.jsonl", *rows)


def kinds(checked: Checked) -> list[str]:
    return [suspicion.kind for suspicion in checked.suspicions]


def xywh(box: list[float], *_: int) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def yolo(box: list[float], width: int, height: int) -> list[float]:
    x1, y1, x2, y2 = box
    return [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]


def scaled(scale: float) -> Change:
    def change(box: list[float], width: int, height: int) -> list[float]:
        return [math.floor(v * scale / edge + 0.5) for v, edge in zip(box, [width, height] * 2, strict=True)]

    return change


def whole(box: list[float], *_: int) -> list[float]:
    return [round(value) for value in box]


def one_based(box: list[float], *_: int) -> list[float]:
    return [int(box[0]) + 1, int(box[1]) + 1, math.ceil(box[2]), math.ceil(box[3])]


def last_included(box: list[float], *_: int) -> list[float]:
    return [int(box[0]), int(box[1]), math.ceil(box[2]) - 1, math.ceil(box[3]) - 1]


def y_first(box: list[float], *_: int) -> list[float]:
    return [box[1], box[0], box[3], box[2]]


def halved(box: list[float], *_: int) -> list[float]:
    return [value / 2 for value in box]


def fractions(box: list[float], width: int, height: int) -> list[float]:
    # No more than the whole image: beyond it, if by a rounding error alone, `coordcore check` refuses it.
    return [min(value / edge, 1.0) for value, edge in zip(box, [width, height] * 2, strict=True)]


@pytest.mark.parametrize(
    ("change", "space", "kind", "text"),
    [
        (xywh, "pixel", "order", "77 % of the boxes have x2 < x1 and 74 % y2 < y1: this looks like xywh"),
        (xywh, None, "order", "which fits 100 % of the boxes where xyxy fits 12 %"),
        (yolo, "norm1", "order", "84 % of the boxes have x2 < x1 and 83 % y2 < y1: this looks like cxcywh"),
        (y_first, "pixel", "order", "36 % of the boxes leave their image: this looks like yxyx"),
        (scaled(999), "pixel", "space", "and 79 % of the boxes leave the image: these look like bins; --space bin"),
        (scaled(1000), "pixel", "space", "look like positions in 0..1000; divided by 1000 they are norm1"),
        (scaled(1000), "bin", "space", "1000 occurs 63 times and nothing above it: these are positions in 0..1000"),
        (scaled(2000), "bin", "space", "up to 2000: these are pixels, not bins"),
        (whole, "norm1", "space", "% of the values are above 1, up to 640: these are pixels or bins, not fractions"),
        (scaled(100), "norm1", "space", "up to 100: these are percent (0..100), not fractions"),
        (fractions, "pixel", "space", "no value is above 1: these are fractions, not pixels; --space norm1"),
        (fractions, "bin", "space", "% of the values are no whole numbers, as bins are: --space norm1"),
        (one_based, "pixel", "inclusive", "1-based with the last pixel included (VOC); subtract 1 from x1 and y1"),
        (last_included, "pixel", "inclusive", "the last pixel is included; add 1 to x2 and y2"),
        (halved, "pixel", "unfilled", "no box of 100 images reaches beyond 50 % of the width and 50 % of the height"),
    ],
)
def test_each_wrong_convention_is_named(
    tmp_path: Path, real: list[Any], change: Change, space: Any, kind: str, text: str
) -> None:
    checked = check_data(rewritten(tmp_path, real, change), space=space)
    consequences = ("no extent", "repeated", "refused")
    found = [suspicion for suspicion in checked.suspicions if suspicion.kind not in consequences]
    assert [item.kind for item in found] == [kind]
    assert text in found[0].text


def test_records_that_are_answered_in_text_are_not_empty(tmp_path: Path) -> None:
    caption = {"images": ["a.jpg"], "width": 100, "height": 80, "task": "caption", "answer": "A dog."}
    checked = check_data(write_lines(tmp_path / "a.jsonl", *[caption] * 5), space="pixel")
    assert (checked.empty, kinds(checked)) == (0, [])
    nothing = {**caption, "task": "detect", "answer": None, "objects": []}
    checked = check_data(write_lines(tmp_path / "a.jsonl", *[caption] * 5, nothing), space="pixel")
    assert (checked.empty, kinds(checked)) == (1, ["no box"])
    assert checked.suspicions[0].text.startswith("not one of 1 records has a box")
    unread = {**nothing, "objects": [{"desc": "a", "bbox_2d": [1, 2, 3]}]}
    checked = check_data(write_lines(tmp_path / "a.jsonl", *[unread] * 2, nothing), space="pixel")
    assert checked.suspicions[0].text.startswith("not one of 3 records has a box")


@pytest.mark.parametrize(
    ("change", "space"),
    [
        (lambda box, *_: box, "pixel"),
        (lambda box, *_: box, None),
        (fractions, "norm1"),
        (fractions, None),
        (scaled(999), "bin"),
        (scaled(999), None),
        (whole, "pixel"),
        (whole, None),
    ],
)
def test_right_conventions_are_not_suspected(tmp_path: Path, real: list[Any], change: Change, space: Any) -> None:
    checked = check_data(rewritten(tmp_path, real, change), space=space)
    assert [kind for kind in kinds(checked) if kind not in ("no extent", "repeated")] == []


@pytest.mark.parametrize(
    ("change", "space", "why"),
    [
        (lambda box, *_: box, "pixel", "values are fractions above 1, as bins never are"),
        (fractions, "norm1", "all values lie in 0..1"),
        (scaled(999), "bin", "whole numbers up to 1000, and as pixels no more than 21 % of the boxes fit their image"),
        (scaled(5000), "pixel", "values reach 5000, above the last bin 999"),
        (whole, "pixel", "whole numbers below 1000 that fit pixels and bins alike; taken as pixels, say --space"),
    ],
)
def test_a_space_that_is_not_declared_is_guessed_and_said(
    tmp_path: Path, real: list[Any], change: Change, space: str, why: str
) -> None:
    checked = check_data(rewritten(tmp_path, real, change))
    assert (checked.space, checked.guessed) == (space, why)


def test_the_right_order_silences_the_suspicion(tmp_path: Path, real: list[Any]) -> None:
    path = rewritten(tmp_path, real, xywh)
    assert kinds(check_data(path, space="pixel", order="xywh")) == []


def test_the_round_trip_costs_what_the_conventions_say(tmp_path: Path, real: list[Any]) -> None:
    checked = check_data(rewritten(tmp_path, real, lambda box, *_: box), space="pixel")
    longest = max(max(item["width"], item["height"]) for item in real)
    assert checked.errors["nearest_999"].worst <= longest / 999 / 2 + 1e-9
    assert checked.errors["qwen_1000"].worst == pytest.approx(longest / 1000)  # at the right and lower edge
    assert (
        checked.errors["nearest_999"].mean < checked.errors["mixed_999_1000"].mean < checked.errors["rex_reward"].mean
    )


def test_bins_show_what_another_reading_would_move(tmp_path: Path, real: list[Any]) -> None:
    checked = check_data(rewritten(tmp_path, real, scaled(999)), space="bin")
    assert checked.of_bins == "nearest_999"
    assert checked.errors["nearest_999"].worst == 0
    assert checked.errors["qwen_1000"].worst == pytest.approx(640 * 999 * (1 / 999 - 1 / 1000))


def test_a_declared_convention_of_bins_is_taken_from_the_records(tmp_path: Path) -> None:
    run(REAL_COCO, "coco", tmp_path / "bins.jsonl", space="bin")
    checked = check_data(tmp_path / "bins.jsonl")
    assert (checked.space, checked.of_bins, kinds(checked)) == ("bin", "nearest_999", [])


# --- single records -------------------------------------------------------------------------------------------------


def record(*boxes: list[Any], **more: Any) -> dict[str, Any]:
    objects = [{"desc": "cat", "bbox_2d": box} for box in boxes]
    return {"images": ["a.png"], "width": 100, "height": 80, "objects": objects, **more}


def checked_rows(tmp_path: Path, *rows: Any, **options: Any) -> Checked:
    return check_data(write_lines(tmp_path / "a.jsonl", *rows), **({"space": "pixel"} | options))


def texts(checked: Checked) -> str:
    return "\n".join(suspicion.text for suspicion in checked.suspicions)


def test_boxes_without_extent_and_repeated_boxes_are_counted(tmp_path: Path) -> None:
    found = texts(checked_rows(tmp_path, record([1, 1, 5, 5], [1, 1, 5, 5], [7, 7, 7, 9], [2, 2, 9, 9])))
    assert "1 boxes (25 %) have no width or no height" in found
    assert "1 boxes (25 %) repeat a box of the same image and description" in found


def test_boxes_as_large_as_their_image(tmp_path: Path) -> None:
    boxes = [[0, 0, 100, 80]] + [[k, k, k + 9, k + 9] for k in range(1, 10)]
    assert "10 % of the boxes cover their whole image" in texts(checked_rows(tmp_path, record(*boxes)))


def test_a_single_box_beyond_its_image_is_told_where_the_space_is_said(tmp_path: Path) -> None:
    row = {"images": ["a.png"], "width": 640, "height": 480, "objects": [{"desc": "x", "bbox_2d": [650, 10, 700, 90]}]}
    path = write_lines(tmp_path / "a.jsonl", row)
    assert kinds(check_data(path, space="pixel")) == ["edge", "refused"]


def test_boxes_over_the_edge_say_how_far(tmp_path: Path) -> None:
    boxes = [[90, 10, 110, 20]] + [[k, k + 0.5, k + 9, k + 9] for k in range(1, 20)]
    found = texts(checked_rows(tmp_path, record(*boxes)))
    assert "5 % of the boxes reach over the edge of their image, by up to 10 % of its size" in found


def test_an_image_may_have_a_record_for_each_question(tmp_path: Path) -> None:
    rows = [record(task="refer", question=f"cat {k}") for k in range(9)]
    assert "same image" not in kinds(checked_rows(tmp_path, *rows, record()))
    assert "same image" in kinds(checked_rows(tmp_path, *rows, record(), record()))


def test_one_image_in_several_records(tmp_path: Path) -> None:
    assert "1 records name an image that an earlier record has" in texts(checked_rows(tmp_path, record(), record()))


def test_a_convention_that_is_not_known(tmp_path: Path) -> None:
    rows = [record(metadata={"quantisation": "nonsense"})]
    told = "1 records declare a quantisation that is not known: nonsense; known: nearest_999, qwen_1000, "
    assert told in texts(checked_rows(tmp_path, *rows, space="bin"))
    assert "quantisation" not in kinds(checked_rows(tmp_path, *rows, space="pixel"))  # where nothing reads it


def test_different_declared_conventions(tmp_path: Path) -> None:
    rows = [record(metadata={"quantisation": name}) for name in ("nearest_999", "qwen_1000")]
    found = texts(checked_rows(tmp_path, *rows, space="bin"))
    assert "records declare different quantisations: nearest_999 (1 records), qwen_1000 (1 records)" in found


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ("{", "not JSON: "),
        ("[]", "expected object, got array: "),
        ({"images": ["a"], "width": 5, "height": 5}, "objects: missing; "),
        ({"images": [], "width": 5, "height": 5, "objects": []}, "images: holds 0 images; "),
        (record(width=0), "width: expected int >= 1: "),
        (record(width=10**400), "width: expected int <= 1000000: "),
        (record([1, 2, 3]), "objects[...].bbox_2d: needs 4 numbers (x1, y1, x2, y2), got 3: "),
        (record([1, 2, 3, "<|coord_4|>"]), "objects[...].bbox_2d: mixes numbers and coord tokens; "),
        (record([1, 2, 3, 10**400]), "objects[...].bbox_2d[...]: expected int <= 9007199254740992: "),
        (record([1, 2, 3, 4], colour="red"), "colour: unknown key; "),
        ({**record(), "objects": ["a"]}, "objects[...]: expected object, got str: "),
    ],
)
def test_what_cannot_be_read_is_counted_and_left_out(tmp_path: Path, bad: Any, what: str) -> None:
    checked = checked_rows(tmp_path, record([1, 1, 5, 5]), bad)
    assert checked.records == 2
    assert checked.boxes == 1 + ("colour" in bad)
    assert [suspicion.text.startswith(what) for suspicion in checked.suspicions if suspicion.kind == "unreadable"] == [
        True
    ]


def test_coord_tokens_and_polygons_are_read(tmp_path: Path) -> None:
    tokens = [f"<|coord_{k}|>" for k in (1, 2, 3, 4)]
    row = record(tokens)
    row["objects"].append({"desc": "roof", "poly": [10, 20, 30, 5, 9, 40]})
    sample = collect(write_lines(tmp_path / "a.jsonl", row))
    assert sample.boxes.tolist() == [[1, 2, 3, 4], [9, 5, 30, 40]]
    assert (sample.tokens, sample.polygons) == (1, 1)


def test_a_file_without_records_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.jsonl: holds no records"):
        checked_rows(tmp_path)


def test_summaries_are_no_broken_records(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.jsonl: holds summaries and no objects"):
        checked_rows(tmp_path, {"images": ["a.png"], "width": 100, "height": 80, "summary": "a cat"})


def test_a_file_in_which_no_line_is_a_record_is_an_error(tmp_path: Path) -> None:
    row = {"images": ["a.png"], "width": 100, "objects": []}
    with pytest.raises(
        InputError, match=r"a\.jsonl: holds no records, not one of 2 lines is one: line 1: height"
    ) as told:
        checked_rows(tmp_path, row, row)
    assert "looks like" not in str(told.value)
    assert checked_rows(tmp_path, row, record([1, 2, 3, 4])).records == 2


def test_records_without_any_box_are_suspicious(tmp_path: Path) -> None:
    checked = checked_rows(tmp_path, record(), record() | {"images": ["b.png"]}, space=None)
    assert (checked.boxes, checked.empty, kinds(checked)) == (0, 2, ["no box"])
    assert checked.lines()[0].endswith("2 records (2 empty, 100 %), 0 boxes")
    assert checked.suspicions[0].text.startswith("not one of 2 records has a box")


def test_the_share_of_empty_records_is_told(tmp_path: Path) -> None:
    checked = checked_rows(tmp_path, record(), record([1, 2, 3, 4]), record([1, 2, 3, 4]), space=None)
    assert "no box" not in kinds(checked)
    assert checked.lines()[0].endswith("3 records (1 empty, 33 %), 2 boxes")


def test_a_record_with_crowd_or_points_alone_is_no_statement_for_training(tmp_path: Path) -> None:
    crowd = record() | {"metadata": {"crowd": [{"desc": "cat", "bbox_2d": [1, 2, 3, 4]}]}}
    points = record() | {"metadata": {"points": [{"desc": "cat", "points": [1, 2]}]}}
    checked = checked_rows(tmp_path, record([1, 2, 3, 4]), crowd, points, record(), space=None)
    assert next(suspicion.text for suspicion in checked.suspicions if suspicion.kind == "unsaid").startswith(
        "2 records (50 %) have"
    )


@pytest.mark.parametrize(
    ("stored", "orientation", "what"),
    [
        ((100, 80), None, None),
        ((80, 100), 6, None),
        ((100, 80), 6, "record has the size before the EXIF orientation"),
        ((80, 100), None, "width and height are swapped"),
        ((50, 40), None, "image or record was resized"),
        ((50, 80), None, "image has another shape than the record says"),
        (None, None, "image file missing"),
    ],
)
def test_sizes_are_compared_with_the_files(tmp_path: Path, stored: Any, orientation: Any, what: str | None) -> None:
    if stored is not None:
        write_image(tmp_path / "a.png", *stored, orientation)
    checked = checked_rows(tmp_path, record([1, 1, 5, 5]), images=tmp_path)
    assert checked.files is not None
    assert checked.files.problems == ({} if what is None else {what: 1})


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (0.0001, "< 0.1 %"),
        (0.034, "3.4 %"),
        (0.1234, "12 %"),
        (0.9999, "99.9 %"),
        (1, "100 %"),
        (0.03, "3 %"),
    ],
)
def test_percent_never_says_all_or_nothing_wrongly(share: float, text: str) -> None:
    assert percent(share) == text


# --- the sheet ------------------------------------------------------------------------------------------------------


def test_the_sheet_shows_each_box_where_the_numbers_say(tmp_path: Path) -> None:
    Image.new("RGB", (100, 80), "white").save(tmp_path / "a.png")
    path = write_lines(tmp_path / "a.jsonl", record([20, 20, 80, 60]))
    assert write_sheet(tmp_path / "sheet.png", collect(path), tmp_path, space="pixel") == 1
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    # One image of 100 x 80 is drawn 480 wide at (10, 10): the box's lower edge is at y = 10 + 60 * 4.8.
    row = sheet[10 + 200, 10:490]
    coloured = np.flatnonzero((row != 255).any(1))
    assert coloured.min() == pytest.approx(20 * 4.8, abs=3)
    assert coloured.max() == pytest.approx(80 * 4.8, abs=3)
    column = sheet[10 : 10 + 384, 10 + 300]
    coloured = np.flatnonzero((column != 255).any(1))
    assert coloured.max() == pytest.approx(60 * 4.8, abs=3)


@pytest.mark.parametrize(("space", "order"), [("pixel", "xyxy"), ("norm1", "xyxy"), ("norm1", "yxyx")])
def test_the_sheet_shows_outlines_and_points_as_what_they_are(tmp_path: Path, space: Any, order: Any) -> None:
    """Beside a crowd region, and behind a line and an object that are left out: these are no objects of the sheet."""
    scale = np.array([100, 80]) if space == "norm1" else np.ones(2)
    given = {
        "quad": np.array([[50, 8], [90, 40], [50, 72], [10, 40]]),
        "point": np.array([[50, 44]]),
        "poly": np.array([[2, 2], [30, 2], [2, 30]]),
    }
    step = -1 if order == "yxyx" else 1
    objects = [{"desc": "thing", kind: (places / scale)[:, ::step].ravel().tolist()} for kind, places in given.items()]
    row = {"images": ["a.png"], "width": 100, "height": 80, "objects": objects}
    row |= {"metadata": {"crowd": [{"desc": "thing", "poly": [0, 0, 1, 1, 0, 1]}]}}
    Image.new("RGB", (100, 80), "white").save(tmp_path / "a.png")
    path = write_lines(tmp_path / "a.jsonl", {"images": "none"}, {**row, "objects": [{"desc": "lost"}, *objects]})
    assert write_sheet(tmp_path / "sheet.png", collect(path), tmp_path, space=space, order=order) == 1

    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)[10:394, 10:490]
    lines = (sheet.max(2) - sheet.min(2) > 100) & (sheet.max(2) > 100)
    for start, stop in ((*given["quad"][:2],), given["quad"][2:], given["poly"][1:]):
        for part in np.linspace(0.1, 0.9, 9):
            x, y = np.round((start + (stop - start) * part) * 4.8).astype(int)
            assert lines[y - 2 : y + 3, x - 2 : x + 3].any()
    assert lines[round(44 * 4.8) - 9 : round(44 * 4.8) + 10, 240 - 9 : 240 + 10].any()
    for x, y in ((88, 10), (12, 70), (88, 70)):  # corners of the boxes around them
        assert not lines[int(y * 4.8) - 12 : int(y * 4.8) + 12, int(x * 4.8) - 12 : int(x * 4.8) + 12].any()


def test_a_sheet_of_wrong_records_and_missing_images_is_drawn(tmp_path: Path) -> None:
    rows = [record([90, 70, 10, 5], [-1e9, 0, 1e9, 5], [5, 5, 5, 5]), record([0, 0, 5, 5], width=0), record()]
    rows[0]["objects"][0]["desc"] = "<|im_end|>\n" + "long " * 50 + "🐈"
    path = write_lines(tmp_path / "a.jsonl", *rows)
    assert write_sheet(tmp_path / "sheet.png", collect(path), tmp_path, space="pixel") == 1
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 500


def test_images_of_the_sheet_are_spread_over_the_file(tmp_path: Path, real: list[Any]) -> None:
    path = rewritten(tmp_path, real, lambda box, *_: box)
    assert write_sheet(tmp_path / "sheet.png", collect(path), tmp_path, space="pixel", count=7) == 7


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", record())
    with pytest.raises(InputError, match="no record with a size and a box to draw"):
        write_sheet(tmp_path / "sheet.png", collect(path), tmp_path, space="pixel")


def test_converted_real_boxes_pass_the_check(tmp_path: Path) -> None:
    for space in ("pixel", "norm1", "bin"):
        run(REAL_COCO, "coco", tmp_path / f"{space}.jsonl", space=space)
        checked = check_data(tmp_path / f"{space}.jsonl", space=space)
        assert (checked.records, checked.boxes, checked.suspicions) == (100, 830, [])
        assert len(read_lines(tmp_path / f"{space}.jsonl")) == 100


def test_small_pixels_are_not_called_percent(tmp_path: Path) -> None:
    rows = [
        {"images": [f"{k}.png"], "width": 64, "height": 64, "objects": [{"desc": "a", "bbox_2d": [k, 1.5, 40, 60]}]}
        for k in range(30)
    ]
    checked = check_data(write_lines(tmp_path / "small.jsonl", *rows), space="norm1")
    (told,) = (suspicion.text for suspicion in checked.suspicions if suspicion.kind == "space")
    assert told.endswith("these are percent (0..100) or pixels, not fractions")


def bins_of(name: str, grain: float) -> Change:
    """Positions rounded to `grain` pixels, as bins of a convention."""

    def change(box: list[float], width: int, height: int) -> list[float]:
        size = [width, height] * 2
        pixels = [min(round(value / grain) * grain, edge - 1) for value, edge in zip(box, size, strict=True)]
        upper = [False, False, True, True]
        return [int(k) for k in QUANTISATIONS[name].encode(pixels, size, upper=upper)]

    return change


def test_bins_of_coordexp_are_recognised_by_whole_pixels(tmp_path: Path, real: list[Any]) -> None:
    checked = check_data(rewritten(tmp_path, real, bins_of("coordexp_999", 1)), space="bin")
    (found,) = [suspicion for suspicion in checked.suspicions if suspicion.kind == "convention"]
    assert "are none that the default nearest_999 gives to whole pixels, and all are such of coordexp_999" in found.text


@pytest.mark.parametrize(("name", "grain"), [("nearest_999", 1), ("nearest_999", 0.01), ("coordexp_999", 0.01)])
def test_a_convention_that_fits_or_cannot_be_told_is_left_in_peace(
    tmp_path: Path, real: list[Any], name: str, grain: float
) -> None:
    checked = check_data(rewritten(tmp_path, real, bins_of(name, grain)), space="bin")
    assert "convention" not in kinds(checked)


def test_a_label_without_end_is_drawn_cut(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 40, 30)
    thing = {"desc": "y" * 200_000, "bbox_2d": [1, 2, 30, 20]}
    records = write_lines(tmp_path / "a.jsonl", {"images": ["a.png"], "width": 40, "height": 30, "objects": [thing]})
    sample = collect(records)
    started = time.process_time()
    write_sheet(tmp_path / "s.png", sample, tmp_path, space="pixel", order="xyxy", count=1)
    assert time.process_time() - started < 5


def to_bins(name: str) -> Change:
    def change(box: list[float], width: int, height: int) -> list[float]:
        bins = quantisation(name).encode(box, [width, height] * 2, outside="clip")
        return [int(k) for k in bins]

    return change


@pytest.mark.parametrize("name", ["paligemma_1024", "nearest_255"])
@pytest.mark.parametrize("said", ["declared", "told", "no"])
def test_the_last_bin_is_that_of_the_convention(tmp_path: Path, real: list[Any], name: str, said: str) -> None:
    path = rewritten(tmp_path, real, to_bins(name))
    if said == "declared":
        path = write_lines(path, *({**row, "metadata": {"quantisation": name}} for row in read_lines(path)))
    checked = check_data(path, space="bin", quantisation=quantisation(name) if said == "told" else None)
    if said == "no":
        assert ("space" in kinds(checked)) == (name == "paligemma_1024")
        return
    last = quantisation(name).bins - 1
    assert (checked.of_bins, checked.shares[f"above {last}"], checked.fits["xyxy"]) == (name, 0, 1)
    assert {"space", "edge", "unfilled", "unreadable", "convention"}.isdisjoint(kinds(checked))


def test_coord_tokens_are_those_of_the_convention(tmp_path: Path) -> None:
    row = record([f"<|coord_{k}|>" for k in (1, 2, 1000, 1023)])
    declared = row | {"metadata": {"quantisation": "paligemma_1024"}}
    sample = collect(write_lines(tmp_path / "a.jsonl", declared, row))
    assert (sample.boxes.tolist(), list(sample.problems.values())) == ([[1, 2, 1000, 1023]], [1])
    told = collect(write_lines(tmp_path / "a.jsonl", row), quantisation=quantisation("paligemma_1024"))
    assert told.boxes.tolist() == [[1, 2, 1000, 1023]]


def keyed(keypoints: list[Any], desc: str = "person", **changes: Any) -> dict[str, Any]:
    """A record of an object with keypoints around the middle of its image."""
    return record() | {
        "objects": [{"desc": desc, "bbox_2d": [20, 20, 60, 60], "keypoints": keypoints} | changes],
    }


def test_keypoints_that_check_refuses_are_found(tmp_path: Path) -> None:
    rows = [keyed([30, 30, 2, 40, 40, 1]), keyed([30, 30, 2, 104, 40, 1]), keyed([30, 30, 3, 40, 40, 1])]
    checked = checked_rows(tmp_path, *rows, rows[1], keyed([30, 30, 40, 40]))
    assert checked.with_keypoints == 3
    assert ", 3 objects with keypoints" in checked.lines()[0]
    found = texts(checked)
    refused = '`coordcore check` refuses this in the space "pixel", 2 times; first: line 2: objects[0].keypoints: '
    cure = "`coordcore data convert --keypoints` moves them to the edge"
    assert f"{refused}x = 104 lies outside 0..100; {cure}" in found
    assert "objects[...].keypoints: visibility is 0, 1 or 2: 1 times (first: line 3: objects[0].keypoints: " in found
    assert "needs x, y and visibility of each, got 4 numbers: 1 times (first: line 5: " in found


def test_keypoints_of_one_category_are_as_many_everywhere(tmp_path: Path) -> None:
    rows = [keyed([30, 30, 2] * 3)] * 4 + [keyed([30, 30, 2] * 2), keyed([30, 30, 2], desc="dog")]
    found = texts(checked_rows(tmp_path, *rows))
    assert "objects of 'person' have different numbers of keypoints: 3 (4 objects), 2 (1 objects); " in found
    assert "first with another than 3: line 5: objects[0].keypoints; write all of them" in found
    assert "dog" not in found


def test_keypoints_far_outside_their_box_are_told(tmp_path: Path) -> None:
    near = keyed([15, 15, 2, 70, 70, 1, 0, 0, 0])  # 0, 0, 0 is not labelled
    assert "keypoints" not in kinds(checked_rows(tmp_path, near))
    found = texts(checked_rows(tmp_path, near, keyed([30, 30, 2, 90, 30, 1, 0, 0, 0])))
    assert "1 labelled keypoints (25 %) lie farther from their object's box than half its longer side " in found
    assert "(first: line 2: objects[0].keypoints: 90, 30)" in found


@pytest.mark.parametrize("space", ["pixel", "norm1", "bin"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"bbox_2d": [0.5, 0.2, 1.001, 0.6]},
        {"bbox_2d": [0.6, 0.2, 0.5, 0.6]},
        {"point": [0.5, 1.0005]},
        {"point": [-0.001, 0.5]},
        {"quad": [0.1, 0.1, 0.5, 0.1, 0.5, 1.01, 0.1, 0.5]},
        {"quad": [0.1, 0.1, 0.5, 0.5, 0.5, 0.1, 0.1, 0.5]},
        {"poly": [0.1, 0.1, 0.5, 0.1, 0.5, 1.01]},
        {"bbox_2d": [0.1, 0.1, 0.5, 0.5], "keypoints": [0.2, 1.01, 1]},
        {"bbox_2d": [0.1, 0.1, 0.5, 0.5], "keypoints": [0.2, 0.3, 3]},
    ],
)
def test_what_check_refuses_is_found_by_line_and_path(tmp_path: Path, wrong: dict[str, Any], space: Any) -> None:
    """Also what lies outside by less than the edge is told for, and where others are right."""

    def scaled_to(values: list[float], key: str) -> list[Any]:
        ends = {"pixel": (1000, 800), "norm1": (1, 1), "bin": (999, 999)}[space]
        step = 3 if key == "keypoints" else 2
        made = [value if at % step == 2 else value * ends[at % step] for at, value in enumerate(values)]
        return [math.ceil(value) if value > 999 else math.floor(value) for value in made] if space == "bin" else made

    def row(item: dict[str, Any]) -> dict[str, Any]:
        item = {key: scaled_to(values, key) for key, values in item.items()}
        return {"images": ["a.png"], "width": 1000, "height": 800, "objects": [{"desc": "a", **item}]}

    good = [row({"bbox_2d": [0.1 + k / 100, 0.1, 0.6, 0.7]}) for k in range(30)]
    checked = checked_rows(tmp_path, *good, row(wrong), space=space)
    key = "keypoints" if "keypoints" in wrong else next(iter(wrong))
    assert [item.text for item in checked.suspicions if f"first: line 31: objects[0].{key}: " in item.text]
    assert not [item for item in checked_rows(tmp_path, *good, space=space).suspicions if "first:" in item.text]


def test_points_alone_are_called_points(tmp_path: Path) -> None:
    rows = [record() | {"objects": [{"desc": "eye", "point": [x + 0.5, 40]}]} for x in (*range(10, 26), 130, 120, 150)]
    for space in ("pixel", None):
        found = "\n".join(checked_rows(tmp_path, *rows, space=space).lines())
        assert "boxes" not in found.replace("0 boxes, 19 points", "")
    found = texts(checked_rows(tmp_path, *rows))
    assert "16 % of the points reach over the edge of their image, by up to 50 % of its size " in found
    assert "(first: line 17: objects[0])" in found
    boxes = record(*[[k, k, k + 9, k + 9] for k in range(1, 12)], [95, 5, 109, 9])
    found = texts(checked_rows(tmp_path, *rows, boxes))
    assert "8.3 % of the boxes reach over" in found
    assert "16 % of the points reach over" in found


def test_points_with_y_first_are_told(tmp_path: Path) -> None:
    rows = [record() | {"objects": [{"desc": "eye", "point": [5, 100 - k]}]} for k in range(19)]
    found = texts(checked_rows(tmp_path, *rows))
    assert (
        "of the points leave their image: this looks like yxyx (y first: Gemini, PaliGemma), which fits 100 %" in found
    )


def test_one_reversed_box_does_not_hide_those_over_the_edge(tmp_path: Path) -> None:
    boxes = [[k, k, k + 9, k + 9] for k in range(1, 40)]
    found = texts(checked_rows(tmp_path, record(*boxes, [30, 5, 20, 9], [90, 5, 120, 9])))
    assert "single mistakes" in found
    assert "2.4 % of the boxes reach over the edge" in found


def test_a_label_that_is_said_to_be_absent_is_told_once(tmp_path: Path) -> None:
    denied = record([1, 2, 3, 4]) | {"metadata": {"absent_categories": ["dog", "cat"]}}
    label = denied["objects"][0]["desc"]
    denied["metadata"]["absent_categories"].append(label)
    checked = checked_rows(tmp_path, record([1, 2, 3, 4]), denied)
    told = [item.text for item in checked.suspicions if "absent" in item.text]
    assert len(told) == 1
    assert "line 2: objects[0].desc" in told[0]
    wrong = record([1, 2, 3, 4]) | {"metadata": {"absent_categories": "dog"}}
    assert "metadata.absent_categories: expected array | null, got str: 1 times" in texts(
        checked_rows(tmp_path, record([1, 2, 3, 4]), wrong)
    )
