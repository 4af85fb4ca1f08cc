"""Models that answer in plain numbers, scored and trained by the same commands: what coord tokens are compared with."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from conftest import ROOT, coordcore
from coordcore_demo import PROMPT, draw

BASE = str(files("coordcore_demo") / "tiny_qwen3vl")

TRAINED = f"""
extends = "{ROOT}/docs/examples/shapes.toml"
drop = ["vocab", "surgery", "loss.coord_soft_ce_w1", "optimizer"]
name = "numbers"
[coords]
quantisation = "qwen_1000"
[format.qwen_numbers]
[data.shapes]
coord_tokens = false
train_images = 64
validation_images = 4
[template.coord_template]
coord_tokens = false
[eval.detection]
images = 4
max_new_tokens = 60
[train]
steps = 2
"""


def write_records(folder: Path, count: int) -> Path:
    lines = []
    for index in range(count):
        image, shapes = draw(5, index)
        image.save(folder / f"{index}.png")
        objects = [{"desc": shape.desc, "bbox_2d": list(shape.box)} for shape in shapes]
        lines.append(json.dumps({"images": [f"{index}.png"], "width": 64, "height": 64, "objects": objects}))
    path = folder / "held.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_model_as_it_is_published_is_scored_as_the_baseline(tmp_path: Path) -> None:
    records = write_records(tmp_path, 16)
    told = ("--numbers", "nearest_999", "--question", PROMPT, "--device", "cpu")
    coordcore("predict", BASE, str(records), "--space", "pixel", "--output", "base.jsonl", *told, cwd=tmp_path)
    coordcore("eval", "base.jsonl", str(records), "--space", "pixel", "--output", "scores.json", cwd=tmp_path)
    metrics = json.loads((tmp_path / "scores.json").read_text())["metrics"]
    assert metrics["agnostic_mean_iou"] > 0.6
    assert metrics["agnostic_F1_50"] > 0.8


def test_one_that_is_trained_to_write_numbers_says_so_in_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "numbers.toml").write_text(TRAINED)
    coordcore("run", "numbers.toml", cwd=tmp_path)
    run = tmp_path / "runs/numbers"
    info = json.loads((run / "merged/coordcore.json").read_text())
    assert (info["coord_ids"], info["answers"]["numbers"], info["quantisation"]["name"]) == ([], True, "qwen_1000")
    header, *rows = map(json.loads, (run / "eval/detection/predictions.jsonl").read_text().splitlines())
    assert (header["score"], len(rows)) == ("none", 4)
    out = coordcore("check", "numbers.toml", "--set", "data.shapes.coord_tokens=true", cwd=tmp_path, expect=2)
    assert "hold plain numbers; set coord_tokens = false" in out
