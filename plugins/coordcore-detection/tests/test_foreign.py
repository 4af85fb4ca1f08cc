"""Answers of other tools: found, joined to the images of the records, read under the numbers' declared meaning."""

from __future__ import annotations

import gzip
import json
import math
import os
from pathlib import Path
from typing import Any

import attrs
import msgspec
import numpy as np
import pytest
from evaluation_support import header
from typer.testing import CliRunner, Result

from coordcore.cli import app
from coordcore.coords import PRESETS, CoordFormat, CoordVocab, ints_to_tokens
from coordcore.quantisation import quantisation
from coordcore.records.answers import COORDJSON, Format
from coordcore.records.answers.format import Coords, Label
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.answer_files import Given
from coordcore_detection.predict.foreign import Written, rows
from coordcore_detection.predict.numbers import row_of_text
from coordcore_train.checkpoint.folder import write_checkpoint_info

TRUE = [64, 48, 320, 240]  # of 640 x 480: a tenth to a half
QWEN = '[{"bbox_2d": [100, 100, 500, 500], "label": "helmet"}]'
TOKENS = '{"objects": [{"desc": "helmet", "bbox_2d": [<|coord_100|>, <|coord_100|>, <|coord_500|>, <|coord_500|>]}]}'


def record(image: str, **metadata: Any) -> dict[str, Any]:
    objects = [{"desc": "helmet", "bbox_2d": TRUE}]
    return {"images": [image], "width": 640, "height": 480, "objects": objects, "metadata": metadata}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(answers: list[Any] | bytes, *more: str, truth: list[dict[str, Any]] | None = None) -> Result:
    content = (
        answers if isinstance(answers, bytes) else "".join(json.dumps(answer) + "\n" for answer in answers).encode()
    )
    Path("answers.jsonl").write_bytes(content)
    known = [record("a.png")] if truth is None else truth
    Path("val.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in known))
    return CliRunner().invoke(app, ["eval", "answers.jsonl", "val.jsonl", "--space", "pixel", "--json", *more])


def measured(answers: list[Any] | bytes, *more: str, truth: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    done = run(answers, *more, truth=truth)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.output)
    return found


def batch(content: str | None, **more: Any) -> dict[str, Any]:
    body = {"choices": [{"message": {"role": "assistant", "content": content}, **more}]}
    return {"custom_id": "a.png", "response": {"status_code": 200, "body": body}, "error": None}


@pytest.mark.parametrize(
    "line",
    [
        {"image": "a.png", "response": f"```json\n{QWEN}\n```"},
        {"image": "a.png", "answer": QWEN},
        {"image": "a.png", "text": f"Here: {QWEN}"},
        {"image": "a.png", "text": f"<think>Is it {QWEN.replace('100', '300')}?</think>{QWEN}"},
        {"image": "a.png", "predict": QWEN, "label": "x"},
        {"image": "a.png", "answer": "what should be said", "response": QWEN},
        {"images": ["a.png"], "prediction": json.loads(QWEN)},
        {"images": [{"bytes": None, "path": "a.png"}], "response": TOKENS, "labels": "x", "messages": []},
        {"image_path": "a.png", "outputs": [{"text": QWEN, "finish_reason": "stop"}]},
        {"file_name": "a.png", "output": [QWEN]},
        {"id": "a.png", "choices": [{"text": QWEN}]},
        batch(QWEN),
        {"image": "a.png", "answer": '[{"bbox_2d": ["100", "100", "500", "500"], "label": "helmet"}]'},
        {"image": "./a.png", "response": QWEN.replace("100", "100.0")},
        {"image": "/data/val/a.png", "response": QWEN},
        {"image": "C:\\data\\a.png", "response": QWEN},
        {"image": "file:///data/a.png", "response": QWEN},
        {"id": "a", "response": QWEN},
    ],
)
def test_answers_are_found_whoever_wrote_them(line: dict[str, Any]) -> None:
    found = measured([line], "--numbers", "qwen_1000")
    assert (found["metrics"]["AP"], found["counts"]["missing_images"]) == (1.0, 0)


@pytest.mark.parametrize(
    ("numbers", "box"),
    [
        ("qwen_1000", [100, 100, 500, 500]),
        ("nearest_999", [99.9, 99.9, 499.5, 499.5]),
        ("florence_1000", [99.5, 99.5, 499.5, 499.5]),
        ("pixel", TRUE),
        ("norm1", [0.1, 0.1, 0.5, 0.5]),
        ("nearest_255", [25.5, 25.5, 127.5, 127.5]),
        ("floor_10000", [1000, 1000, 5000, 5000]),
    ],
)
def test_numbers_are_what_they_are_said_to_be(numbers: str, box: list[float]) -> None:
    answer = json.dumps([{"bbox_2d": box, "label": "helmet"}])
    found = measured([{"image": "a.png", "answer": answer}], "--numbers", numbers)
    assert found["metrics"]["mean_iou"] == pytest.approx(1.0, abs=1e-9)
    assert found["contract"]["decoding"]["numbers"] == numbers


def test_qwens_last_number_is_the_edge() -> None:
    truth = record("a.png") | {"objects": [{"desc": "helmet", "bbox_2d": [0, 0, 640, 480]}]}
    answer = [{"bbox_2d": [0, 0, 1000, 1000], "label": "helmet"}]
    assert measured([{"image": "a.png", "answer": answer}], "--numbers", "qwen_1000", truth=[truth])["metrics"][
        "mean_iou"
    ] == pytest.approx(1.0)


def test_coord_tokens_need_no_declaration() -> None:
    found = measured([{"image": "a.png", "response": TOKENS}])
    assert (found["contract"]["quantisation"]["name"], found["metrics"]["AP50"]) == ("nearest_999", 1.0)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([100, 100, 1200, 500], "1200 lies outside 0..1000 of qwen_1000; are these pixels (--numbers pixel)?"),
        ([500, 100, 100, 500], "x2 = 100.0 < x1 = 500.0"),
    ],
)
def test_numbers_that_are_none_are_not_read(box: list[float], reason: str) -> None:
    answer = [{"bbox_2d": box, "label": "helmet"}]
    found = measured([{"image": "a.png", "answer": answer}], "--numbers", "qwen_1000")
    assert f"1 parts of answers could not be read: 1 x {reason}" in found["notes"]
    assert found["metrics"]["parse_failure_rate"] == 1.0


def test_the_order_of_answers_and_records_changes_nothing() -> None:
    truth = [record(f"{n}.png") for n in range(12)]
    wrong = QWEN.replace("500", "900")
    answers = [{"image": f"{n}.png", "answer": QWEN if n % 3 else wrong} for n in range(12)]
    found = [
        measured(a, "--numbers", "qwen_1000", truth=t) for a in (answers, answers[::-1]) for t in (truth, truth[::-1])
    ]
    assert all(item == found[0] for item in found)
    assert 0 < found[0]["metrics"]["AP"] < 1


def test_an_answer_that_was_cut_off_or_failed_is_counted() -> None:
    truth = [record("a.png"), record("b.png"), record("c.png")]
    failed = {"custom_id": "b.png", "response": None, "error": {"code": "timeout"}}
    cut = batch(QWEN, finish_reason="length")
    found = measured([cut, failed, {"image": "c.png", "answer": None}], "--numbers", "qwen_1000", truth=truth)
    assert (found["metrics"]["unfinished_rate"], found["metrics"]["parse_failure_rate"]) == pytest.approx(
        (1 / 3, 2 / 3)
    )
    assert any("1 x no answer: {'code': 'timeout'}" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            [{"image": "a.png", "answer": QWEN}],
            "answers.jsonl:1: holds plain numbers (100, 100, 500, 500), and nothing",
        ),
        ([{"answer": TOKENS}], "answers.jsonl:1: does not say which image it is of: neither image, images, "),
        ([{"image": "a.png", "words": TOKENS}], "answers.jsonl:1: holds no answer: none of response, "),
        ([{"images": ["a.png", "b.png"], "answer": TOKENS}], "answers.jsonl:1: images: holds 2 images; boxes refer"),
        ([{"image": "z.png", "answer": TOKENS}], "none of the 1 predicted images is in the ground truth"),
        (
            [{"id": 5, "answer": TOKENS}],
            "none of the 1 predicted images is in the ground truth: the predictions have '5'",
        ),
        (
            [{"image": "a.png", "answer": TOKENS}, {"image": "x/a.png", "answer": "[]"}],
            "a.png: has two predictions that differ, and which comes last must decide nothing; keep one row",
        ),
        (
            [{"image": "a.png", "answer": TOKENS}, {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 1}],
            "answers.jsonl:2: is a detection of COCO's results format among answers",
        ),
        ([record("a.png")], "answers.jsonl:1: is a record, not an answer; give the answers first"),
        ([3], "answers.jsonl:1: is no header of a prediction file"),
        (
            [{"id": 0, "answer": TOKENS}, {"id": 1, "answer": "[]"}],
            "answers.jsonl:1: the ids 0 to 1 count the answers, and not all are ids of images",
        ),
        (b'{"image": "a.png"', "answers.jsonl:1: is not JSON ("),
        (b"[]", "answers.jsonl: holds no answers"),
        (b"", "is no prediction file"),
        (b'{"image": "caf\xe9.png"}', "answers.jsonl: is not UTF-8"),
        (b"\x1f\x8bxx", "answers.jsonl: damaged gzip file"),
        ([{"image": "a.png", "choices": [{"text": "x"}, {"text": "y"}]}], "choices: holds 2 answers to one question"),
        ([{"image": "a.png", "answer": 5}], "answers.jsonl:1: answer: is no text, but 5"),
    ],
)
def test_what_is_missing_is_told(answers: Any, message: str) -> None:
    done = run(answers, truth=[record("a.png", image_id=1)])
    assert (done.exit_code, message in done.stderr) == (2, True), done.stderr


def test_a_name_that_two_images_have_is_refused() -> None:
    truth = [record("train/a.png"), record("val/a.png")]
    done = run([{"image": "a.png", "answer": TOKENS}], truth=truth)
    assert (done.exit_code, "'a.png' can be 'train/a.png' and 'val/a.png'; name the image by" in done.stderr) == (
        2,
        True,
    )
    found = measured([{"image": f"/data/{item}/a.png", "answer": TOKENS} for item in ("train", "val")], truth=truth)
    assert found["metrics"]["AP50"] == 1.0


@pytest.mark.parametrize("given", [7, 7.0, "7"])
@pytest.mark.parametrize("known", [7, 7.0, "7"])
def test_ids_are_joined_as_text(given: Any, known: Any) -> None:
    found = measured([{"image_id": given, "answer": TOKENS}], truth=[record("猫/ß.png", image_id=known)])
    assert found["metrics"]["AP50"] == 1.0


def test_accents_are_the_same_however_they_are_written() -> None:
    found = measured([{"image": "/x/e\u0301.png", "answer": TOKENS}], truth=[record("\u00e9.png")])
    assert found["metrics"]["AP50"] == 1.0


def test_an_answer_without_boxes_is_shown_as_it_is() -> None:
    found = measured([{"image": "a.png", "answer": "none in [1, 2, 3, 4]"}], "--numbers", "pixel")
    assert 'the answer begins "none in [1, 2, 3, 4]"' in found["notes"][0]


def test_an_array_and_a_packed_file_are_read() -> None:
    lines = [{"image": "a.png", "answer": TOKENS}]
    for content in (json.dumps(lines, indent=1).encode(), gzip.compress(json.dumps(lines[0]).encode())):
        assert measured(content)["metrics"]["AP50"] == 1.0


def test_the_bins_of_records_keep_their_own_convention() -> None:
    box = [math.floor(value * 999 / size + 0.5) for value, size in zip(TRUE, (640, 480) * 2, strict=True)]
    truth = [record("a.png", quantisation="nearest_999") | {"objects": [{"desc": "helmet", "bbox_2d": box}]}]
    answers = [{"image": "a.png", "answer": QWEN}]
    assert measured(answers, "--numbers", "qwen_1000", "--space", "bin", truth=truth)["metrics"]["mean_iou"] > 0.99


def test_numbers_that_nobody_knows_are_refused() -> None:
    done = run([{"image": "a.png", "answer": QWEN}], "--numbers", "qwen")
    assert (done.exit_code, "--numbers: 'qwen' is none of pixel, norm1, nearest_999" in done.stderr) == (2, True)
    assert "nor nearest_N or floor_N, N being the last bin" in done.stderr


def test_coord_tokens_are_bins_of_the_numbers_convention() -> None:
    answer = '{"objects": [{"desc": "helmet", "bbox_2d": [%s]}]}'
    tokens = ", ".join(f"<|coord_{k}|>" for k in (100, 100, 500, 500))
    found = measured([{"image": "a.png", "answer": answer % tokens}], "--numbers", "qwen_1000")
    assert found["metrics"]["mean_iou"] == pytest.approx(1.0, abs=1e-9)
    found = measured([{"image": "a.png", "answer": answer % tokens}], "--numbers", "nearest_255")
    assert any("<|coord_500|>" in note for note in found["notes"])
    tokens = ", ".join(f"<|coord_{k}|>" for k in (102, 102, 511, 1014))
    found = measured([{"image": "a.png", "answer": answer % tokens}], "--numbers", "paligemma_1024")
    assert found["metrics"]["parse_failure_rate"] == 0


@pytest.mark.parametrize("choices", [[], None])
def test_a_completion_without_choices_is_no_empty_answer(choices: Any) -> None:
    line = {"custom_id": "a.png", "response": {"status_code": 200, "body": {"choices": choices}}}
    assert "no answer" in measured([line])["notes"][0]


def test_a_body_that_is_no_object_is_why_there_is_no_answer() -> None:
    line = {"custom_id": "a.png", "response": {"status_code": 502, "body": "bad gateway"}}
    assert "no answer: 'bad gateway'" in measured([line])["notes"][0]


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"message": {"content": [{"type": "text", "text": TOKENS}]}}]},
        {
            "output": [
                {"type": "reasoning", "summary": []},
                {"type": "message", "content": [{"type": "output_text", "text": TOKENS}]},
            ]
        },
    ],
)
def test_text_in_parts_is_read(body: dict[str, Any]) -> None:
    line = {"custom_id": "a.png", "response": {"status_code": 200, "body": body}}
    assert measured([line])["metrics"]["AP50"] == 1.0


@pytest.mark.parametrize(
    "name", ["https://x.example/d/%C3%BC%20a.png?key=1", "file:///d/%C3%BC%20a.png", "C:\\d\\\u00fc a.png"]
)
def test_addresses_are_joined_by_their_path(name: str) -> None:
    found = measured([{"image": name, "answer": TOKENS}], truth=[record("d/\u00fc a.png")])
    assert found["metrics"]["AP50"] == 1.0


def test_half_a_surrogate_pair_is_replaced() -> None:
    found = measured(b'{"image": "a.png", "answer": "\\ud800"}\n')
    assert "\ufffd" in found["notes"][0]


@pytest.mark.parametrize("numbers", ["pixel", "qwen_1000", "nearest_255"])
def test_fractions_are_no_pixels_nor_thousandths(numbers: str) -> None:
    answer = '[{"bbox_2d": [0.1, 0.1, 0.5, 0.5], "label": "helmet"}]'
    done = run([{"image": "a.png", "answer": answer}], "--numbers", numbers)
    said = f"--numbers: {numbers}, but all numbers of the answers lie in 0..1, up to 0.5; say --numbers norm1"
    assert (done.exit_code, said in done.stderr) == (2, True)


def test_utf_16_is_told_with_a_cure() -> None:
    done = run(json.dumps([{"image": "a.png", "answer": TOKENS}]).encode("utf-16"))
    assert (done.exit_code, "is not UTF-8 (invalid start byte); save the file as UTF-8" in done.stderr) == (2, True)


def test_boxes_beyond_the_image_are_told() -> None:
    found = measured([{"image": "a.png", "answer": QWEN.replace("500", "900")}], "--numbers", "pixel")
    assert found["counts"]["boxes_beyond_image"] == 1
    assert any("reach beyond their image, by up to 420 pixels" in note for note in found["notes"])


def test_long_names_are_cut_in_notes_and_refusals() -> None:
    long = "x" * 100_000
    found = measured([{"image": "a.png", "answer": TOKENS.replace("helmet", long)}, {"image": long, "answer": TOKENS}])
    assert max(map(len, found["notes"])) < 500
    assert len(run([{"image": "a.png", long: TOKENS}]).stderr) < 500


@pytest.mark.parametrize("content", [b"", b"image,answer\na.png,[]\n", b"PK\x03\x04"])
def test_what_is_no_json_is_not_taken_for_predictions(content: bytes) -> None:
    assert "is no" in (told := run(content, "--numbers", "pixel").stderr)
    assert "says itself" not in told


def test_objects_with_a_text_are_no_completions() -> None:
    found = measured(
        [{"image": "a.png", "answer": [{"bbox_2d": TRUE, "label": "helmet", "text": "PPE"}]}], "--numbers", "pixel"
    )
    assert found["metrics"]["AP50"] == 1.0


@pytest.mark.parametrize("target", ["fifo", "endless"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("eval", "X", "r.jsonl"),
        ("eval", "p.jsonl", "X"),
        ("compare", "X", "X"),
        ("calibrate", "X", "r.jsonl", "--output", "c.json"),
        ("report", "X", "--output", "report"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_nobody_waits_for_a_pipe(target: str, arguments: tuple[str, ...]) -> None:
    os.mkfifo("fifo")
    Path("endless").symlink_to("/dev/zero")
    Path("p.jsonl").write_text(json.dumps({"image": "a.png", "response": QWEN}) + "\n")
    Path("r.jsonl").write_text(json.dumps(record("a.png")) + "\n")
    done = CliRunner().invoke(app, [target if argument == "X" else argument for argument in arguments])

    assert done.exit_code == 2
    assert f"{target}: cannot be read: is a pipe or a device" in done.stderr


def test_answers_that_unpack_to_far_too_much_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordcore.records.source.SMALL", 2**16)
    Path("p.jsonl.gz").write_bytes(gzip.compress(b" " * 2**24))
    Path("r.jsonl").write_text(json.dumps(record("a.png")) + "\n")
    done = CliRunner().invoke(app, ["eval", "p.jsonl.gz", "r.jsonl"])

    assert (done.exit_code, done.stderr) == (
        2,
        "coordcore: p.jsonl.gz: unpacks to more than 200 times its size: not read\n",
    )


def test_what_does_not_go_together_is_told_with_both_files() -> None:
    done = run([{"image": "a.png", "answer": TOKENS}, {"image": "x/a.png", "answer": "[]"}], truth=[record("a.png")])

    assert "answers.jsonl against " in done.stderr


NUMBERS = attrs.evolve(COORDJSON, name="numbers", numbers=True)


def image(width: int, height: int) -> TruthImage:
    nothing = {"labels": (), "boxes": np.zeros((0, 4)), "crowd": np.zeros(0, dtype=bool)}
    return TruthImage(key="a", width=width, height=height, open=lambda: None, **nothing)


def test_numbers_of_a_convention_reach_the_edge_of_the_image() -> None:
    """Qwen3-VL writes 1000 for the edge, which is no bin of qwen_1000."""
    truth = image(640, 480)
    text = '[{"bbox_2d": [0, 0, 1000, 500], "label": "x"}, {"bbox_2d": [10, 20, 1280, 300], "label": "y"}]'
    row = row_of_text(truth, text, "end", form=NUMBERS, quantisation=quantisation("qwen_1000"))
    (box,), (unread,) = row.boxes, row.unread
    assert (box.box, box.bins) == ((0, 0, 640, 240), (0, 0, 1000, 500))
    assert unread.reason == "1280 lies outside 0..1000 of qwen_1000; does the model write pixels?"


def test_numbers_of_pixel_indices_are_read_as_such() -> None:
    """coordexp_999 is k / 999 * (size - 1)."""
    text = '{"objects": [{"desc": "x", "bbox_2d": [0, 0, 999, 999]}]}'
    row = row_of_text(image(101, 51), text, "end", form=NUMBERS, quantisation=quantisation("coordexp_999"))
    assert row.boxes[0].box == (0, 0, 100, 50)


def test_numbers_of_another_tool_that_are_indices_of_pixels() -> None:
    given = Given(at="a:1", names=("a",), ids=(), text='[{"bbox_2d": [0, 0, 999, 999], "label": "helmet"}]')
    (found,) = rows([given], [image(101, 51)], Written.said("coordexp_999"))
    assert found.boxes[0].box == (0, 0, 100, 50)


# Formats of plugins, which these tests cannot import.
LINES = Format(
    name="lines",
    label=(Label(without="<|"),),
    places={"bbox_2d": (Coords("bbox_2d", between=""),), "poly": ("|", Coords("poly", between=""))},
    between="\n",
    nothing="none",
)
GROUPS = attrs.evolve(LINES, name="groups", again="")
TAGS = attrs.evolve(
    GROUPS,
    name="tags",
    before="<|object_ref_start|>",
    amid="<|object_ref_end|><|box_start|>",
    after="<|box_end|>",
    between=", ",
    again=",",
    geometry_first=False,
)
FIRST, SECOND = ("".join(ints_to_tokens(box)) for box in ((100, 100, 500, 500), (600, 600, 900, 900)))
TWO = record("a.png") | {
    "objects": [{"desc": "cat", "bbox_2d": TRUE}, {"desc": "cat", "bbox_2d": [384, 288, 576, 432]}]
}


def checkpoint(
    form: Format, convention: str = "nearest_999", coords: CoordFormat | None = None, name: str = "merged"
) -> str:
    """What a merged checkpoint says of its answers, in a folder of that name."""
    Path(name).mkdir()
    vocab = None if form.numbers else CoordVocab(ids=range(coords.bins), format=coords) if coords else None
    vocab = CoordVocab(ids=range(1000)) if vocab is None and not form.numbers else vocab
    write_checkpoint_info(Path(name), quantisation=quantisation(convention), vocab=vocab, form=form)
    return name


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        (LINES, f"cat{FIRST}\ncat{SECOND}"),
        (GROUPS, f"cat{FIRST}{SECOND}"),
        (TAGS, f"<|object_ref_start|>cat<|object_ref_end|><|box_start|>{FIRST},{SECOND}<|box_end|>"),
    ],
    ids=lambda item: item.name if isinstance(item, Format) else "",
)
def test_a_checkpoint_says_how_its_answers_are_written(form: Format, answer: str) -> None:
    where = checkpoint(form)
    found = measured([{"image": "a.png", "response": answer}], "--checkpoint", where, truth=[TWO])
    assert found["metrics"]["mean_iou"] == pytest.approx(0.99353, abs=1e-5)  # nearest_999; of qwen_1000, 1
    assert (found["counts"]["predicted_boxes"], found["metrics"]["AP50"], found["checkpoint"]) == (2, 1.0, where)
    assert (found["contract"]["answers"]["name"], found["metrics"]["parse_failure_rate"]) == (form.name, 0)
    again = measured([{"image": "a.png", "response": answer}], "--checkpoint", where, "--numbers", "nearest_999")
    assert again["counts"]["predicted_boxes"] == 2


def test_boxes_in_one_pair_of_tags_need_no_checkpoint() -> None:
    answer = f"<|object_ref_start|>cat<|object_ref_end|><|box_start|>{FIRST},{SECOND}<|box_end|>"
    found = measured([{"image": "a.png", "response": answer}], truth=[TWO])
    assert (found["counts"]["predicted_boxes"], found["metrics"]["AP50"]) == (2, 1.0)


@pytest.mark.parametrize("answer", [f"cat{FIRST}\ncat{SECOND}", f"cat{FIRST}{SECOND}", "cat <loc0100><loc0200>"])
def test_labels_and_coord_tokens_that_are_no_list_name_the_option(answer: str) -> None:
    found = measured([{"image": "a.png", "response": answer}], "--numbers", "pixel")
    said = "1 x labels and coord tokens in no list of objects: --checkpoint says their format"
    assert any(note.endswith(said) for note in found["notes"])
    (told,) = (note for note in measured([{"image": "a.png", "response": "no cat"}])["notes"] if "could not" in note)
    assert "--checkpoint" not in told


def test_a_checkpoint_says_what_coord_tokens_are() -> None:
    own, _ = PRESETS["paligemma"]
    where = checkpoint(LINES, "paligemma_1024", own)
    tokens = "".join(own.written[k] for k in (102, 102, 511, 511))
    found = measured([{"image": "a.png", "response": f"helmet{tokens}"}], "--checkpoint", where)
    assert found["contract"]["quantisation"]["name"] == "paligemma_1024"
    assert found["metrics"]["mean_iou"] > 0.99


def test_a_checkpoint_says_what_plain_numbers_are() -> None:
    where = checkpoint(NUMBERS, "qwen_1000")
    found = measured([{"image": "a.png", "response": QWEN}], "--checkpoint", where)
    assert found["metrics"]["mean_iou"] == pytest.approx(1.0)
    wide = measured([{"image": "a.png", "response": QWEN.replace("500", "1280")}], "--checkpoint", where)
    assert any("1280 lies outside 0..1000 of qwen_1000; does the model write pixels?" in note for note in wide["notes"])


def test_plain_numbers_of_a_checkpoint_of_coord_tokens_are_unread() -> None:
    found = measured([{"image": "a.png", "response": QWEN}], "--checkpoint", checkpoint(COORDJSON))
    assert any("plain numbers, beginning 100, where coord tokens belong" in note for note in found["notes"])


def test_what_a_limit_of_tokens_cut_is_unread_in_a_format_too() -> None:
    corners = "".join(ints_to_tokens((100, 100, 500, 100, 500, 500)))
    line = {"image": "a.png", "outputs": [{"text": f"helmet{FIRST}\nhelmet|{corners}", "finish_reason": "length"}]}
    where = checkpoint(LINES)
    found = measured([line], "--checkpoint", where)
    assert found["counts"]["predicted_boxes"] == 1
    assert any("cut off, and may have gone on" in note for note in found["notes"])
    line["outputs"][0]["finish_reason"] = "stop"
    assert measured([line], "--checkpoint", where)["counts"]["predicted_boxes"] == 2


@pytest.mark.parametrize("numbers", ["pixel", "norm1", "qwen_1000"])
def test_numbers_that_contradict_the_checkpoint_are_refused(numbers: str) -> None:
    done = run([{"image": "a.png", "answer": f"cat{FIRST}"}], "--checkpoint", checkpoint(LINES), "--numbers", numbers)
    said = f"merged says that its coordinates are bins of nearest_999, not --numbers {numbers}; leave out --numbers"
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr


def test_a_folder_that_says_nothing_of_answers_is_refused() -> None:
    Path("empty").mkdir()
    done = run([{"image": "a.png", "answer": TOKENS}], "--checkpoint", "empty")
    assert (done.exit_code, "empty: has no coordcore.json, which says how answers are written" in done.stderr) == (2, 1)
    done = run([{"image": "a.png", "answer": TOKENS}], "--checkpoint", "nowhere")
    assert (done.exit_code, "--checkpoint: " in done.stderr, "nowhere: no such folder" in done.stderr) == (2, 1, 1)


def test_predictions_of_coordcore_know_their_format() -> None:
    done = run(msgspec.json.encode(header()) + b"\n", "--checkpoint", checkpoint(LINES))
    said = "--checkpoint: is for answers of other tools; answers.jsonl says itself how its answers are written; leave"
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("root", ["nope", "val.jsonl"])
def test_an_image_root_that_is_no_folder_is_refused(root: str) -> None:
    done = run([{"image": "a.png", "answer": TOKENS}], "--image-root", root)
    said = f"--image-root: {root}: no such folder; name the one where image paths begin"
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr


def test_a_score_beyond_1_in_a_prediction_file_is_refused_by_eval() -> None:
    box = b'{"label":"a","box":[1,1,5,5],"bins":[0,0,0,0],"score":7}'
    line = b'{"image":"a.png","width":640,"height":480,"text":"","boxes":[' + box + b"]}"
    done = run(msgspec.json.encode(header()) + b"\n" + line + b"\n")
    assert (done.exit_code, "answers.jsonl:2: boxes[0].score: 7.0 lies outside 0..1" in done.stderr) == (2, True)


def test_a_run_says_it_by_its_merged_folder() -> None:
    Path("runs/x").mkdir(parents=True)
    Path("runs/x/manifest.resolved.toml").write_text("")
    Path(checkpoint(LINES, name="runs/x/merged"), "config.json").write_text("{}")
    found = measured([{"image": "a.png", "response": f"helmet{FIRST}"}], "--checkpoint", "runs/x")
    assert (found["metrics"]["AP50"], found["checkpoint"]) == (1.0, "runs/x")
