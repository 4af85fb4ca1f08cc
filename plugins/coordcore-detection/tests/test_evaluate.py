"""Evaluation as a whole: what does not fit is counted and said, and the command line shows it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import attrs
import pytest
from evaluation_support import header, row, truth
from typer.testing import CliRunner, Result

from coordcore import InputError
from coordcore.cli import app
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore.records.answers import Unread
from coordcore_detection.evaluate import results, tables
from coordcore_detection.evaluate.compare import compare
from coordcore_detection.evaluate.contract import differences
from coordcore_detection.evaluate.evaluation import evaluate
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict import prediction_files
from coordcore_detection.predict.predictions import Row

CAT = ("cat", (10.0, 10.0, 50.0, 50.0))
DOG = ("dog", (60.0, 60.0, 90.0, 90.0))
FAR = (0.0, 90.0, 5.0, 99.0)


def result(truths: list[TruthImage], rows: list[Row], **changes: Any) -> results.Result:
    return evaluate(truths, header(**changes), rows).result


# --- the right answer, and others -----------------------------------------------------------------------------------


def test_the_right_answer_is_worth_one() -> None:
    metrics = result([truth("a", [CAT])], [row("a", [CAT], [1.0])]).metrics
    ones = ("AP", "AP50", "AP95", "agnostic_AP", "F1", "F1_95", "mean_iou", "accuracy_50", "AR1", "oracle_AP50")
    assert {name: metrics[name] for name in ones} == dict.fromkeys(ones, 1.0)
    assert (metrics["ece"], metrics["box_count_error"], metrics["AP_small"]) == (0.0, 0.0, None)


def test_a_wrong_label_is_right_without_labels() -> None:
    metrics = result([truth("a", [CAT])], [row("a", [("lynx", CAT[1])])]).metrics
    names = ("AP50", "F1_50", "accuracy_50", "mean_iou")
    assert [metrics[name] for name in names] == [0.0] * 4
    assert [metrics[f"agnostic_{name}"] for name in names] == [1.0] * 4


@pytest.mark.parametrize(("scores", "expected"), [([0.9, 0.1], 0.0), ([0.1, 0.9], 1.0), ([0.5, 0.5], 0.0)])
def test_accuracy_looks_at_the_box_of_highest_score(scores: list[float], expected: float) -> None:
    rows = [row("a", [("cat", FAR), CAT], scores)]
    assert result([truth("a", [CAT])], rows).metrics["accuracy_50"] == expected


def test_labels_are_listed_with_their_ap() -> None:
    rows = [row("a", [DOG]), row("b", [])]
    found = result([truth("a", [CAT, DOG]), truth("b", [CAT])], rows).labels
    assert found == [
        {"label": "cat", "true_boxes": 2, "predicted_boxes": 0, "AP": 0.0, "AP50": 0.0},
        {"label": "dog", "true_boxes": 1, "predicted_boxes": 1, "AP": 1.0, "AP50": 1.0},
    ]


def test_labels_may_hold_anything() -> None:
    odd = ('a "q"\n🐈', CAT[1])
    assert result([truth("a", [odd])], [row("a", [odd])]).metrics["AP50"] == 1.0


def test_scores_do_not_change_what_knows_no_score() -> None:
    boxes = [("cat", (10.0, 10.0, 50.0, 35.0)), CAT]
    measured = [result([truth("a", [CAT])], [row("a", boxes, item)]).metrics for item in ([0.9, 0.1], [0.1, 0.9])]
    assert measured[0]["F1"] == measured[1]["F1"]
    assert measured[0]["mean_iou"] == measured[1]["mean_iou"] == 1.0


def test_a_crowd_region_is_neither_missed_nor_found() -> None:
    image = truth("a", [CAT, ("cat", (0.0, 60.0, 99.0, 99.0))], crowd=[False, True])
    metrics = result([image], [row("a", [CAT, ("cat", FAR)])]).metrics
    assert [metrics[name] for name in ("AP", "F1", "precision_50", "accuracy_50")] == [1.0] * 4


# --- what does not fit ----------------------------------------------------------------------------------------------


def test_an_image_without_a_prediction_is_an_empty_answer() -> None:
    found = result([truth("a", [CAT]), truth("b", [CAT])], [row("a", [CAT])])
    assert (found.metrics["recall_50"], found.counts["missing_images"]) == (0.5, 1)
    assert "1 images have no prediction: counted as empty answers ('b')" in found.notes


def test_predictions_of_unknown_images_are_left_out() -> None:
    found = result([truth("a", [CAT])], [row("a", [CAT]), row("x", [CAT, DOG])])
    assert (found.metrics["precision_50"], found.counts["unknown_images"]) == (1.0, 1)
    assert "1 predicted images are not in the ground truth: left out ('x')" in found.notes


def test_predictions_of_other_images_altogether_are_an_error() -> None:
    with pytest.raises(InputError, match="none of the 2 predicted images is in the ground truth"):
        result([truth("a", [CAT])], [row("x", []), row("y", [])])


def test_a_prediction_that_is_there_twice_counts_once() -> None:
    found = result([truth("a", [CAT])], [row("a", [CAT], [math.nan]), row("a", [CAT], [math.nan])])
    assert (found.metrics["precision_50"], found.counts["repeated_images"]) == (1.0, 1)


def test_two_predictions_of_one_image_are_an_error() -> None:
    with pytest.raises(InputError, match="a: has two predictions that differ"):
        result([truth("a", [CAT])], [row("a", []), row("a", [CAT])])


def test_another_image_size_is_an_error() -> None:
    with pytest.raises(InputError, match="a: predicted on 7 x 100, the ground truth says 100 x 100; evaluate against"):
        result([truth("a", [CAT])], [row("a", [], width=7)])


def test_an_image_twice_in_the_truth_is_an_error() -> None:
    with pytest.raises(InputError, match="a: is twice in the ground truth"):
        result([truth("a", []), truth("a", [])], [])


def test_no_image_is_an_error() -> None:
    with pytest.raises(InputError, match="the ground truth holds no images"):
        result([], [])


def test_ground_truth_without_boxes() -> None:
    found = result([truth("a", [])], [row("a", [CAT])])
    names = ("AP", "oracle_AP", "recall_50", "mean_iou")
    assert [found.metrics[name] for name in names] == [None] * 4
    assert (found.metrics["F1_50"], found.metrics["box_count_bias"]) == (0.0, 1.0)
    assert any(note.startswith("the ground truth holds no boxes") for note in found.notes)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_boxes_without_a_score_rank_last(score: float) -> None:
    found = result([truth("a", [CAT])], [row("a", [("cat", FAR), CAT], [score, 0.8])])
    assert (found.metrics["AP50"], found.metrics["ece"]) == (1.0, pytest.approx(0.2))
    assert (found.counts["unscored_boxes"], found.detail.score) == (1, [None, 0.8])


def test_only_boxes_without_a_score() -> None:
    metrics = result([truth("a", [CAT])], [row("a", [CAT], [math.nan])]).metrics
    assert (metrics["AP50"], metrics["ece"]) == (1.0, None)


def test_scores_that_are_no_probabilities_do_not_enter_the_calibration() -> None:
    found = result([truth("a", [CAT])], [row("a", [CAT, ("cat", FAR)], [17.0, 0.5])])
    assert (found.metrics["AP50"], found.metrics["ece"], found.counts["scores_outside_0_1"]) == (1.0, 0.5, 1)


@pytest.mark.parametrize("box", [(50.0, 10.0, 10.0, 50.0), (math.nan, 10.0, 50.0, 50.0), (0.0, 0.0, math.inf, 9.0)])
def test_boxes_that_are_none_overlap_nothing(box: tuple[float, float, float, float]) -> None:
    found = result([truth("a", [CAT])], [row("a", [("cat", box)])])
    assert (found.metrics["precision_50"], found.counts["broken_boxes"]) == (0.0, 1)


def test_a_true_box_without_area_is_counted() -> None:
    found = result([truth("a", [("cat", (5.0, 5.0, 5.0, 9.0))])], [row("a", [("cat", (5.0, 5.0, 5.0, 9.0))])])
    assert (found.metrics["recall_50"], found.counts["flat_true_boxes"]) == (0.0, 1)


def test_labels_that_no_true_box_has_are_counted() -> None:
    found = result([truth("a", [CAT])], [row("a", [CAT, DOG])])
    assert (found.metrics["AP50"], found.metrics["precision_50"]) == (1.0, 0.5)
    assert found.counts["boxes_of_unknown_labels"] == 1


def test_answers_that_could_not_be_read() -> None:
    cut, strange = Unread(at="objects[1]", reason="is cut off"), Unread(at="", reason="is no list")
    rows = [row("a", [CAT], unread=[cut], stopped="length"), row("b", [], unread=[strange, cut]), row("c", [])]
    found = result([truth(key, [CAT]) for key in "abc"], rows)
    assert (found.metrics["parse_failure_rate"], found.metrics["unfinished_rate"]) == pytest.approx((2 / 3, 1 / 3))
    assert "3 parts of answers could not be read: 2 x is cut off; 1 x is no list" in found.notes


def test_an_image_that_could_not_be_opened_is_no_parse_failure() -> None:
    rows = [row("a", [], unread=[Unread(at=prediction_files.NO_IMAGE, reason="no image file")])]
    found = result([truth("a", [CAT])], rows)
    assert (found.metrics["parse_failure_rate"], found.counts["unopened_images"]) == (0.0, 1)


def test_duplicates_are_those_that_are_marked() -> None:
    answer = row("a", [CAT, CAT])
    answer.boxes[1].duplicate = True
    assert result([truth("a", [CAT])], [answer]).metrics["duplicate_rate"] == 0.5


def test_true_boxes_that_lie_outside_name_their_image() -> None:
    with pytest.raises(InputError, match=r"a: box 0 .* does not overlap the image of 100 x 100"):
        result([truth("a", [("cat", (200.0, 0.0, 300.0, 50.0))])], [])


def test_truth_in_bins_says_that_its_ceiling_is_none() -> None:
    image = attrs.evolve(truth("a", [CAT]), in_bins=True)
    found = result([image], [])
    assert found.metrics["oracle_AP95"] == 1.0
    assert any("what quantising cost is not in these records" in note for note in found.notes)


# --- contract and file ----------------------------------------------------------------------------------------------


def test_the_contract_holds_what_the_numbers_depend_on() -> None:
    contract = result([truth("a", [CAT])], [], calibration={"method": "isotonic", "x": [0.1]}).contract
    assert (contract["score"], contract["calibration"]) == ("min", "isotonic")
    assert contract["quantisation"] == DEFAULT_QUANTISATION.as_dict()
    assert contract["max_detections"] == [1, 10, 100]
    assert set(contract["versions"]["eval"]) == {"coordcore", "coordcore-detection", "numpy"}


def test_the_order_of_the_images_is_no_part_of_the_contract() -> None:
    images = [truth("a", [CAT]), truth("b", [DOG])]
    contracts = [result(item, []).contract["truth"] for item in (images, images[::-1])]
    assert contracts[0] == contracts[1]


def test_differences_name_their_place() -> None:
    a = result([truth("a", [CAT])], [])
    b = result([truth("a", [DOG])], [], score="geometric_mean", decoding={"coordinates": "expectation"})
    found = list(differences(a.contract, b.contract))
    assert found[1:] == ["decoding.coordinates: argmax against expectation", "score: min against geometric_mean"]
    assert found[0].startswith("truth.sha256: ")


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    made = result([truth("a", [CAT]), truth("b", [])], [row("a", [CAT, DOG], [0.3, math.nan])])
    results.write(made, tmp_path / "new" / "evaluation.json")
    assert results.read(tmp_path / "new") == made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"evaluation": 2},
            "has evaluation format 2, this coordcore-detection reads 1; evaluate the predictions again",
        ),
        ({"metrics": []}, "is no evaluation"),
        ({"detail.image": [5]}, "is incomplete, or its columns do not fit together"),
        ({"detail.score": []}, "is incomplete, or its columns do not fit together"),
        ({"counts": {}}, "is incomplete"),
        ({"labels": [{}]}, "is incomplete"),
        ({"contract": {}}, "is incomplete"),
    ],
)
def test_files_that_are_no_result(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    results.write(result([truth("a", [CAT])], [row("a", [CAT])]), tmp_path / "evaluation.json")
    plain = json.loads((tmp_path / "evaluation.json").read_text())
    for path, value in change.items():
        parts = path.split(".")
        (plain if len(parts) == 1 else plain[parts[0]])[parts[-1]] = value
    (tmp_path / "evaluation.json").write_text(json.dumps(plain))
    with pytest.raises(InputError, match=message):
        results.read(tmp_path / "evaluation.json")


def test_folders_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither evaluation.json nor eval/detection/evaluation.json"):
        results.read(tmp_path)
    with pytest.raises(InputError, match=r"none.json: cannot be read: no such file"):
        results.read(tmp_path / "none.json")


def test_the_evaluation_of_a_run_is_that_of_its_evaluator(tmp_path: Path) -> None:
    """Whatever the evaluator is called, while it is the only one; else that of detection."""
    files = [tmp_path / "eval" / name / results.FILE for name in ("mine", "yours", "detection")]
    for file in files:
        file.parent.mkdir(parents=True)
    files[0].touch()
    assert results.file_in(tmp_path) == files[0]
    files[1].touch()
    with pytest.raises(InputError, match=r"holds eval/mine/evaluation\.json and eval/yours/evaluation\.json; name one"):
        results.file_in(tmp_path)
    files[2].touch()
    assert results.file_in(tmp_path) == files[2]


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with val.jsonl and predictions.jsonl."""
    monkeypatch.chdir(tmp_path)
    record = {
        "images": ["a.png"],
        "width": 100,
        "height": 100,
        "objects": [{"desc": "cat", "bbox_2d": [10, 10, 50, 50]}],
    }
    Path("val.jsonl").write_text(json.dumps(record) + "\n")
    prediction_files.write(Path("predictions.jsonl"), header(), [row("a.png", [CAT, DOG])])
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["eval", "predictions.jsonl", "val.jsonl", "--space", "pixel", *arguments])


@pytest.mark.usefixtures("folder")
def test_the_command_shows_a_table() -> None:
    shown = run()
    assert shown.exit_code == 0, shown.output
    assert "1 images, 1 true boxes, 2 predicted; nearest_999 (version 1), score min" in shown.output
    assert any(line.split() == ["AP50", "1.0000", "1.0000", "1.0000", "1.0000"] for line in shown.output.splitlines())
    assert "note: 1 predicted boxes have labels that no true box has ('dog')" in shown.output


@pytest.mark.usefixtures("folder")
def test_the_command_prints_json_without_the_detail() -> None:
    printed = json.loads(run("--json").output)
    assert (printed["metrics"]["AP50"], "detail" in printed) == (1.0, False)


def test_the_command_reads_the_first_records(folder: Path) -> None:
    record = json.loads((folder / "val.jsonl").read_text())
    both = [record, record | {"images": ["b.png"]}]
    (folder / "val.jsonl").write_text("".join(json.dumps(item) + "\n" for item in both))
    counts = [json.loads(run("--json", *limit).output)["counts"] for limit in ((), ("--limit", "1"))]
    assert [(count["images"], count["missing_images"]) for count in counts] == [(2, 1), (1, 0)]


def test_the_command_writes_once(folder: Path) -> None:
    assert run("--output", "out.json").exit_code == 0
    again = run("--output", "out.json")
    assert (again.exit_code, again.stderr) == (
        2,
        "coordcore: out.json: exists; replace it with --overwrite, or name another file\n",
    )
    assert run("--output", "out.json", "--overwrite").exit_code == 0
    assert results.read(folder / "out.json").metrics["AP50"] == 1.0


def test_a_wrong_space_is_explained(folder: Path) -> None:
    record = json.loads((folder / "val.jsonl").read_text())
    record["objects"][0]["bbox_2d"] = [1, 2, 1016, 4]
    (folder / "val.jsonl").write_text(json.dumps(record) + "\n")
    shown = CliRunner().invoke(app, ["eval", "predictions.jsonl", "val.jsonl"])
    assert shown.exit_code == 2
    assert shown.stderr == (
        "coordcore: val.jsonl:1: objects[0].bbox_2d: 1016 > 999: this looks like absolute pixels; "
        'convert to bins 0..999 first (`space = "pixel"` converts on reading)\n'
    )


# --- what distorts AP -----------------------------------------------------------------------------------------------


def test_images_of_more_boxes_than_ap_looks_at_are_told() -> None:
    many = [("cat", (float(n % 10 * 10), float(n // 10 * 8), n % 10 * 10 + 9.0, n // 10 * 8 + 7.0)) for n in range(120)]
    image, answer = truth("a", many), row("a", many)
    short = evaluate([image], header(), [answer]).result
    assert (short.metrics["AR100"], short.counts["images_of_many_boxes"]) == (pytest.approx(100 / 120), 1)
    assert any(
        note.startswith("1 images have more than 100 true boxes, up to 120 ('a')") and "--max-detections 120" in note
        for note in short.notes
    )
    whole = evaluate([image], header(), [answer], max_detections=120).result
    assert (whole.metrics["AR120"], whole.metrics["oracle_AP50"], whole.counts["images_of_many_boxes"]) == (1.0, 1.0, 0)
    assert list(differences(short.contract, whole.contract)) == ["max_detections: [1, 10, 100] against [1, 10, 120]"]


def federated() -> results.Result:
    """A cat that is found; a cat and a dog where nobody looked for dogs; a cat where not all cats are marked."""
    lacking = attrs.evolve(truth("a", [CAT]), absent=("bird",))
    partly = attrs.evolve(truth("b", [CAT]), absent=("dog",), incomplete=("cat",))
    rows = [row("a", [CAT, DOG]), row("b", [CAT, ("cat", FAR), DOG])]
    return result([lacking, partly, truth("c", [DOG])], rows)


def test_federated_truth_stands_beside_ap() -> None:
    found = federated()
    (caveat,) = found.caveats
    assert caveat.startswith("2 of 3 images say which labels are absent or incomplete in them, as LVIS's do")
    assert (found.counts["federated_images"], found.counts["unjudged_boxes"]) == (2, 2)
    assert result([truth("a", [CAT])], [row("a", [DOG])]).caveats == []


def test_federated_truth_is_part_of_the_contract() -> None:
    plain = truth("a", [CAT])
    digests = {
        result([item], []).contract["truth"]["sha256"]
        for item in (plain, attrs.evolve(plain, absent=("dog",)), attrs.evolve(plain, incomplete=("dog",)))
    }
    assert len(digests) == 3


def test_tables_and_comparisons_mark_the_distorted_ap() -> None:
    found = federated()
    names = [name for name, _ in tables.metric_rows(found)]
    assert ("AP (!)" in names, "AP50 (!)" in names, "F1" in names, "AR300" in names) == (True, True, True, True)
    assert compare(found, found, resamples=2).caveats == tuple(found.caveats)


def test_the_command_says_what_distorts_ap(folder: Path) -> None:
    record = json.loads((folder / "val.jsonl").read_text())
    metadata = {"absent_categories": ["dog"], "incomplete_categories": ["cat"]}
    lines = [record | {"metadata": metadata}, record | {"images": ["b.png"]}]
    (folder / "val.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = run("--output", "a.json", "--report", "report")
    assert shown.exit_code == 0, shown.output
    sentence = "1 of 2 images say which labels are absent or incomplete in them"
    lines = [line.split()[:2] for line in shown.output.splitlines()]
    assert (["AP50", "(!)"] in lines, f"\n(!) {sentence}" in shown.output) == (True, True)
    assert sentence in json.loads(run("--json").output)["caveats"][0]
    page = (folder / "report" / "report.html").read_text()
    assert (page.count(f"(!) {sentence}"), "<dt>AP (!)</dt>" in page, '<th scope="col">AP50 (!)</th>' in page) == (
        1,
        True,
        True,
    )
    both = CliRunner().invoke(app, ["compare", "a.json", "a.json", "--resamples", "2"])
    assert (f"(!) {sentence}" in both.output, "AP50 (!)" in both.output) == (True, True)


def test_the_command_measures_federated_truth_as_lvis_does(folder: Path) -> None:
    record = json.loads((folder / "val.jsonl").read_text())
    record["metadata"] = {"absent_categories": ["dog"], "category_frequencies": {"cat": "r"}, "object_areas": [5]}
    (folder / "val.jsonl").write_text(json.dumps(record) + "\n")
    shown = run("--output", "a.json", "--report", "report")
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.output.splitlines()]
    assert all([name, "1.0000", "1.0000"] in [line[:3] for line in lines] for name in ("APr", "AP_small"))
    assert ("AR300" in shown.output, "(!)" in shown.output) == (True, False)
    assert results.read(folder / "a.json").contract["max_detections"] == [300]


def test_metadata_that_holds_no_labels_is_told(folder: Path) -> None:
    record = json.loads((folder / "val.jsonl").read_text()) | {"metadata": {"absent_categories": [3]}}
    (folder / "val.jsonl").write_text(json.dumps(record) + "\n")
    shown = run()
    assert (shown.exit_code, shown.stderr) == (
        2,
        "coordcore: val.jsonl:1: metadata.absent_categories[0]: expected str, got int\n",
    )
