"""COCO results written from predictions: pycocotools measures of them what it measures of the predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from evaluation_support import header, row, truth
from test_order import by_pycocotools, golden, records, rows
from typer.testing import CliRunner

from coordcore import InputError
from coordcore.cli import app
from coordcore_detection.evaluate import coco_results
from coordcore_detection.predict import prediction_files

CAT = ("cat", (10.0, 10.0, 50.0, 40.0))
DOG = ("dog", (1.0, 2.0, 3.0, 5.0))


def written(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def test_pycocotools_measures_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    coco, found = golden(ids="int", levels=3)
    Path("coco.json").write_text(json.dumps(coco))
    Path("val.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records(coco)))
    prediction_files.write(Path("p.jsonl"), header(), rows(coco, found))
    command = ["eval", "p.jsonl", "val.jsonl", "--space", "pixel", "--outside", "clip", "--coco-results", "r.json"]
    done = CliRunner().invoke(app, [*command, "--categories", "coco.json"])
    assert done.exit_code == 0, done.output
    assert f"r.json: {len(found)} boxes on 100 images\n" in done.output
    assert by_pycocotools(coco, written(Path("r.json"))) == pytest.approx(by_pycocotools(coco, found), abs=1e-9)


def test_numbers_as_data_convert_gives_them(tmp_path: Path) -> None:
    told = coco_results.write(
        tmp_path / "r.json",
        [truth("b.png", [DOG, CAT]), truth("a.png", [CAT])],
        [row("a.png", [CAT, DOG, ("eel", CAT[1])], [0.25, 0.5, 0.75]), row("c.png", [CAT])],
        None,
    )
    assert written(tmp_path / "r.json") == [
        {"image_id": 2, "category_id": 1, "bbox": [10, 10, 40, 30], "score": 0.25},
        {"image_id": 2, "category_id": 2, "bbox": [1, 2, 2, 3], "score": 0.5},
    ]
    assert told.endswith(
        "r.json: 2 boxes on 2 images; 1 left out, whose labels have no category id; "
        "image ids are 1, 2, ... in the order of the records, which have none, or not one each"
    )


@pytest.mark.parametrize(("label", "categories"), [("kitty", [1]), ("tom", [1]), ("cat", [1]), ("dog", [2])])
def test_a_synonym_has_the_id_of_its_name(tmp_path: Path, label: str, categories: list[int]) -> None:
    images, answers = [truth("a.png", [("kitty", CAT[1]), DOG])], [row("a.png", [(label, CAT[1])])]
    coco_results.write(tmp_path / "r.json", images, answers, {"kitty": 1, "dog": 2}, {"cat": ("kitty", "tom")})
    assert [item["category_id"] for item in written(tmp_path / "r.json")] == categories


@pytest.mark.parametrize(
    ("ids", "wanted"), [((7, 3), [7, 3]), ((7, 7), [1, 2]), (("7", 3), [1, 2]), ((None, 3), [1, 2]), ((1.5, 3), [1, 2])]
)
def test_image_ids(tmp_path: Path, ids: tuple[Any, Any], wanted: list[int]) -> None:
    images = [attrs.evolve(truth(f"{n}.png", [CAT]), id=number) for n, number in enumerate(ids)]
    coco_results.write(tmp_path / "r.json", images, [row(f"{n}.png", [CAT]) for n in range(2)], None)
    assert [item["image_id"] for item in written(tmp_path / "r.json")] == wanted


def test_records_of_an_image_are_one_image_and_other_tasks_none(tmp_path: Path) -> None:
    """As `data convert --to coco` numbers them, which writes no image for what was asked for and is not there."""
    path = Path("a.png")
    images = [
        attrs.evolve(truth("0.png", []), task="named"),
        attrs.evolve(truth("1.png", [CAT]), task="refer"),
        attrs.evolve(truth("a.png", [CAT]), path=path),
        attrs.evolve(truth("a.png#2", [DOG]), path=path, task="named"),
        truth("b.png", [CAT]),
    ]
    answers = [row(item.key, [CAT]) for item in images[:3]] + [row("a.png#2", [DOG]), row("b.png", [CAT])]
    told = coco_results.write(tmp_path / "r.json", images, answers, None)
    assert [(item["image_id"], item["category_id"]) for item in written(tmp_path / "r.json")] == [
        (1, 1),
        (1, 2),
        (2, 1),
    ]
    assert told.startswith(
        f"{tmp_path}/r.json: 3 boxes on 2 images; records left out, whose tasks COCO does not have: 1;"
    )

    with_ids = [attrs.evolve(item, id=number) for item, number in zip(images[2:], (7, 7, 9), strict=True)]
    told = coco_results.write(tmp_path / "r.json", with_ids, answers[2:], None)
    assert [item["image_id"] for item in written(tmp_path / "r.json")] == [7, 7, 9]
    assert "image ids are" not in told


def test_boxes_without_a_score_rank_last_and_what_is_no_box_is_left_out(tmp_path: Path) -> None:
    bad = [("cat", (np.nan, 0.0, 1.0, 1.0)), ("cat", (5.0, 0.0, 1.0, 1.0))]
    told = coco_results.write(
        tmp_path / "r.json", [truth("a.png", [CAT])], [row("a.png", [CAT, CAT, *bad], [0.5, np.nan, 0.1, 0.1])], None
    )
    assert [item["score"] for item in written(tmp_path / "r.json")] == [0.5, pytest.approx(-0.9)]
    assert "; 2 left out that are no boxes" in told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "has no COCO categories"),
        ("{}", "has no COCO categories .*categories"),
        ('{"categories": [{"id": "1", "name": "cat"}]}', "has no COCO categories"),
        ('{"categories": [{"id": 1}]}', "has no COCO categories .*name"),
        ('{"categories": []}', "its list of categories is empty"),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "category 'b' with id 1"),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}', "category 'a' with id 2"),
        ("{", "has no COCO categories"),
        ("", "has no COCO categories"),
    ],
)
def test_categories_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(InputError, match=message):
        coco_results.read_categories(tmp_path / "c.json")
    with pytest.raises(InputError, match=r"no\.json: cannot be read"):
        coco_results.read_categories(tmp_path / "no.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--categories", "c.json"], "--categories: is for --coco-results"),
        (["--coco-results", "val.jsonl", "--overwrite"], "val.jsonl"),
        (["--coco-results", "there.json"], "there.json: exists; replace it with --overwrite"),
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    record = {"images": ["a.png"], "width": 100, "height": 100, "objects": [{"desc": "cat", "bbox_2d": CAT[1]}]}
    Path("val.jsonl").write_text(json.dumps(record) + "\n")
    Path("there.json").write_text("[]")
    prediction_files.write(Path("p.jsonl"), header(), [row("a.png", [CAT])])
    done = CliRunner().invoke(app, ["eval", "p.jsonl", "val.jsonl", "--space", "pixel", *arguments])
    assert done.exit_code != 0
    assert message in (done.output + str(done.exception))
    assert Path("there.json").read_text() == "[]"
