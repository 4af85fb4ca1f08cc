"""Chat rows written: what each task asks and answers, what a row cannot hold, and the rows read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conversion_support import annotation, coco, read_lines, run, write_image, write_json, write_lines

from coordcore import InputError

BOX, OTHER = [10, 20, 40, 60], [50, 5.5, 90, 70]
CAT, DOG = {"desc": "cat", "bbox_2d": BOX}, {"desc": "dog", "bbox_2d": OTHER}
ENTRY = '{"bbox_2d": <bbox>, "label": "<ref-object>"}'


def record(*objects: Any, **more: Any) -> dict[str, Any]:
    return {"images": ["a.png"], "width": 100, "height": 80, "objects": list(objects), **more}


def rows_of(tmp_path: Path, *records: Any, **options: Any) -> tuple[list[Any], Any]:
    source = write_lines(tmp_path / "records.jsonl", *records)
    account = run(source, "records", tmp_path / "rows.jsonl", to="swift", from_space="pixel", overwrite=True, **options)
    return read_lines(tmp_path / "rows.jsonl"), account


def said(row: Any) -> tuple[str, str, Any]:
    question, answer = row["messages"]
    assert (question["role"], answer["role"]) == ("user", "assistant")
    assert question["content"].startswith("<image>")
    return question["content"].removeprefix("<image>"), answer["content"], row.get("objects")


def boxes(refs: list[str], *values: list[float]) -> dict[str, Any]:
    return {"ref": refs, "bbox": list(values), "bbox_type": "real"}


DETECT = "Locate every object in the image, each with its description and its place."


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (record(CAT, DOG), (DETECT, f"[{ENTRY}, {ENTRY}]", boxes(["cat", "dog"], BOX, OTHER))),
        (record(), (DETECT, "[]", None)),
        (record(CAT, question="What is there?"), ("What is there?", f"[{ENTRY}]", boxes(["cat"], BOX))),
        (
            record(CAT, task="named", categories=["cat", "hen"]),
            ("Locate every object of these categories: cat, hen.", f"[{ENTRY}]", boxes(["cat"], BOX)),
        ),
        (
            record(DOG, CAT, task="named", metadata={"incomplete_categories": ["dog"]}),
            ("Locate every object of these categories: cat.", f"[{ENTRY}]", boxes(["cat"], BOX)),
        ),
        (
            record(CAT, task="refer", question="the grey one"),
            ("Locate what this phrase refers to: the grey one", f"[{ENTRY}]", boxes(["cat"], BOX)),
        ),
        (
            record(task="refer", question="the red one"),
            ("Locate what this phrase refers to: the red one", "[]", None),
        ),
        (
            record({"desc": "eye", "point": [5, 6]}, task="point", question="its eye"),
            (
                "Point at what this phrase refers to: its eye",
                '[{"point_2d": <bbox>, "label": "<ref-object>"}]',
                boxes(["eye"], [5, 6]),
            ),
        ),
        (
            record(CAT, {"desc": "eye", "point": [5, 6]}, task="point", question="its eye"),
            (
                "Point at what this phrase refers to: its eye",
                '[{"point_2d": <bbox>, "label": "<ref-object>"}, {"point_2d": <bbox>, "label": "<ref-object>"}]',
                boxes(["cat", "eye"], [25, 40], [5, 6]),
            ),
        ),
        (record(CAT, task="region", answer="A cat."), ("What is at <bbox>?", "A cat.", boxes([], BOX))),
        (
            record(CAT, task="region", question="What colour is {box}?", answer="Grey."),
            ("What colour is <bbox>?", "Grey.", boxes([], BOX)),
        ),
        (record(task="caption", answer="A cat."), ("Describe the image.", "A cat.", None)),
        (record(task="chat", question="How many?", answer="Two."), ("How many?", "Two.", None)),
    ],
)
def test_each_task_is_asked_and_answered(tmp_path: Path, given: Any, expected: Any) -> None:
    rows, account = rows_of(tmp_path, given)
    assert [said(row) for row in rows] == [expected]
    assert rows[0]["images"] == ["a.png"]
    assert account.objects.written == len((expected[2] or {"bbox": []})["bbox"])


def test_fractions_and_other_sources(tmp_path: Path) -> None:
    rows, _ = rows_of(tmp_path, record(CAT), space="norm1")
    assert rows[0]["objects"] == {"ref": ["cat"], "bbox": [[0.1, 0.25, 0.4, 0.75]], "bbox_type": "norm1"}
    source = write_json(tmp_path / "coco.json", coco([annotation(), annotation(id=2, iscrowd=1)]))
    account = run(source, "coco", tmp_path / "rows.jsonl", to="swift", overwrite=True)
    assert said(read_lines(tmp_path / "rows.jsonl")[0])[1:] == (f"[{ENTRY}]", boxes(["cat"], [10, 20, 40, 60]))
    assert account.objects.dropped == {"crowd region, which no answer says": 1}


def test_a_box_to_point_at_is_written_as_its_middle_in_fractions_too(tmp_path: Path) -> None:
    over = {"desc": "dog", "bbox_2d": [80, 40, 120, 80]}  # of the part in the image, as training takes it
    rows, account = rows_of(tmp_path, record(DOG, over, task="point", question="dogs"), space="norm1")
    assert rows[0]["objects"]["bbox"] == [[0.7, 0.471875], [0.9, 0.75]]
    assert account.notes['box of the task "point": its middle is written'] == 2


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (
            record({"desc": "cat", "quad": [1, 1, 9, 1, 9, 9, 1, 9]}),
            "quad, which a chat row cannot hold: --geometry box writes the box around it",
        ),
        (record(task="named"), 'the task "named", and no category to ask for; write `categories`'),
    ],
)
def test_what_a_row_cannot_hold_is_dropped(tmp_path: Path, bad: Any, reason: str) -> None:
    rows, account = rows_of(tmp_path, record(CAT), bad)
    assert (len(rows), account.images.dropped) == (1, {reason: 1})


def test_polygons_become_boxes_where_that_is_asked_for(tmp_path: Path) -> None:
    rows, _ = rows_of(tmp_path, record({"desc": "cat", "poly": [1, 1, 9, 1, 9, 9]}), geometry="box")
    assert rows[0]["objects"]["bbox"] == [[1, 1, 9, 9]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": "bin"}, "chat rows are in pixels or fractions: --to-space pixel or norm1"),
        ({"keypoints": True}, "--keypoints: chat rows cannot hold what it asks for; write records"),
        ({"purpose": "evaluation"}, "--purpose evaluation: chat rows cannot hold what it asks for; write records"),
        ({"categories": Path("a.json")}, "--categories gives a written COCO file its ids"),
    ],
)
def test_options_that_mean_nothing_for_rows(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rows_of(tmp_path, record(CAT), **options)


def test_rows_are_read_again(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 100, 80)
    written = [
        record(CAT, DOG),
        record(CAT, task="region", question="What colour is {box}?", answer="Grey.") | {"images": ["b.png"]},
        record(task="chat", question="How many?", answer="Two."),
        record() | {"images": ["c.png"]},
    ]
    for name in ("b.png", "c.png"):
        write_image(tmp_path / name, 100, 80)
    rows_of(tmp_path, *written)
    run(tmp_path / "rows.jsonl", "swift", tmp_path / "again.jsonl")
    again = read_lines(tmp_path / "again.jsonl")
    assert [again[0], *again[2:]] == [written[0], *written[2:]]
    assert again[1] == written[1] | {"objects": [CAT | {"desc": "region"}]}  # whose label a row does not hold


@pytest.mark.parametrize("space", ["pixel", "norm1"])
def test_what_rows_ask_is_read_again(tmp_path: Path, space: str) -> None:
    write_image(tmp_path / "a.png", 100, 80)
    cup = {"desc": "cup, red", "bbox_2d": BOX}
    written = [
        record(CAT, task="refer", question="the grey one"),
        record(task="refer", question="the red one"),
        record(CAT, task="named", categories=["cat", "hen"]),
        record(cup, task="named", categories=["cup, red", "hen"]),
        record(task="named", categories=["hen"]),
        record(CAT, DOG),
        record(CAT, question="Which cats are there?"),
        record({"desc": "eye", "point": [5, 6]}, task="point", question="its eye"),
        record({"desc": "eye", "point": [25, 40]}, task="point", question="the middle"),
    ]
    rows_of(tmp_path, *written[:-1], record(CAT | {"desc": "eye"}, task="point", question="the middle"), space=space)
    account = run(tmp_path / "rows.jsonl", "swift", tmp_path / "again.jsonl", geometry="point")
    assert read_lines(tmp_path / "again.jsonl") == written
    assert account.images.dropped == {}
