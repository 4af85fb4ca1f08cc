"""Chat rows are checked and train: several images and turns, boxes in questions, answers, objects and texts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import coordcore
from coordcore_train.testing.tiny import tiny_qwen3vl

MANIFEST = """
name = "chat"

[model]
base = "{base}"
dtype = "float32"

[data.chat_jsonl]
train = "train.jsonl"
space = "norm1000"

[template.coord_template]

[loss.text_ce]

[loss.coord_soft_ce_w1]

[train]
steps = 3
batch_size = 2
learning_rate = 1e-3
log_every = 1
device = "cpu"
threads = 1

[output]
merge = false
"""


def chat(*texts: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]
    return {"messages": messages, "images": ["a.png"], **more}


ROWS = [
    chat(
        "<image>Where is <ref-object>?",
        "<bbox>",
        "And what is at <bbox>?",
        "a cat, beside <bbox>",
        images=["a.png", "b.png"],
        objects={"ref": ["the dog"], "bbox": [[1, 2, 30, 40], [1, 1, 9, 9], [1, 1, 9, 9]], "image_id": [0, 1, 1]},
    ),
    chat("<image>List.", '[{"bbox_2d": [10, 20, 300, 400], "label": "dog"}]'),
    chat("<image>What is it?", "A dog."),
    {
        "image": "a.png",
        "conversations": [
            {"from": "human", "value": "<image>\nWhere?"},
            {"from": "gpt", "value": "<ref>dog</ref><box>[[10, 20, 300, 400]]</box>"},
        ],
    },
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen3vl(tmp_path_factory.mktemp("base") / "tiny")  # with coord tokens, which saves expanding it


@pytest.fixture
def folder(tmp_path: Path, base: Path) -> Path:
    Image.new("RGB", (64, 48), "white").save(tmp_path / "a.png")
    Image.new("RGB", (32, 32), "white").save(tmp_path / "b.png")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "chat.toml").write_text(MANIFEST.format(base=base))
    return tmp_path


def test_chat_rows_train(folder: Path) -> None:
    coordcore("run", "chat.toml", cwd=folder)
    lines = (folder / "runs" / "chat" / "metrics.jsonl").read_text().splitlines()
    assert [math.isfinite(json.loads(line)["loss"]) for line in lines] == [True] * 3


def test_an_array_of_the_rows_trains_as_they_do_on_lines(folder: Path) -> None:
    manifest = (folder / "chat.toml").read_text().replace("\nspace", '\nvalidation = "val.jsonl"\nspace')
    (folder / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:3]))
    (folder / "train.json").write_text(json.dumps(ROWS, indent=2))
    (folder / "val.json").write_text(json.dumps(ROWS[:3]))
    told = []
    for name, text in (("lines", manifest), ("array", manifest.replace(".jsonl", ".json"))):
        (folder / f"{name}.toml").write_text(text.replace('name = "chat"', f'name = "{name}"'))
        assert "no problems found" in coordcore("check", f"{name}.toml", cwd=folder)
        coordcore("run", f"{name}.toml", cwd=folder)
        lines = [json.loads(line) for line in (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()]
        told.append([{key: value for key, value in line.items() if "loss" in key} for line in lines])
    assert told[0] == told[1]
    assert any("eval_loss" in line for line in told[1])


@pytest.mark.parametrize(("name", "expect"), [("qwen", 0), ("qwen_numbers", 2)])
def test_a_format_says_what_the_answers_of_rows_are_written_in(folder: Path, name: str, expect: int) -> None:
    with (folder / "chat.toml").open("a") as file:
        file.write(f"\n[format.{name}]\n")
    said = coordcore("check", "chat.toml", cwd=folder, expect=expect)
    assert ("no problems found" if expect == 0 else "data.chat_jsonl: writes coord tokens") in said


def test_rows_are_checked_before_a_run(folder: Path) -> None:
    wrong = chat("<image>Where is <bbox>?", "<bbox>", objects={"bbox": [[1, 2, 3, 4]]})
    with (folder / "train.jsonl").open("a") as file:
        file.write(json.dumps(wrong) + "\n")
    said = coordcore("check", "chat.toml", cwd=folder, expect=2)
    assert "train.jsonl:5: messages[1].content: a further <bbox>, but objects.bbox holds 1" in said
    (folder / "train.jsonl").write_text(json.dumps([*ROWS, wrong], indent=1))  # the name says nothing
    said = coordcore("check", "chat.toml", cwd=folder, expect=2)
    assert "train.jsonl[4]: messages[1].content: a further <bbox>, but objects.bbox holds 1" in said


def test_records_that_are_written_as_rows_are_right(folder: Path) -> None:
    box = {"desc": "dog", "bbox_2d": [1, 2, 30, 40]}
    asked: list[dict[str, Any]] = [
        {"objects": [box, {"desc": 'a "cat"', "bbox_2d": [3, 4, 5, 6.5]}]},
        {"objects": []},
        {"objects": [box], "task": "named", "categories": ["dog", "hen"]},
        {"objects": [box], "task": "refer", "question": "the dog"},
        {"objects": [{"desc": "eye", "point": [5, 6]}], "task": "point", "question": "its eye"},
        {"objects": [box], "task": "region", "answer": "A dog."},
        {"task": "caption", "answer": "A dog."},
        {"task": "chat", "question": "How many?", "answer": "Two."},
    ]
    records = [{"images": ["a.png"], "width": 64, "height": 48, **item} for item in asked]
    (folder / "records.jsonl").write_text("".join(json.dumps(item) + "\n" for item in records))
    said = ("records.jsonl", "train.jsonl", "--from", "records", "--from-space", "pixel", "--to", "swift")
    coordcore("data", "convert", *said, "--overwrite", cwd=folder)
    assert len((folder / "train.jsonl").read_text().splitlines()) == len(records)
    assert "no problems found" in coordcore("check", "chat.toml", cwd=folder)
