"""COCO's boxes and polygons as two sources of a run that writes groups, packed and not: the losses are the same."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coco import write_coco_records
from coordcore.cli import app

MANIFEST = """
[model]
base = "{base}"
dtype = "float32"
attention = "sdpa"

[vocab]

[data.mixture.sources.boxes]
builder = "coord_jsonl"
settings = {{ train = "train.jsonl", validation = "val.jsonl", space = "pixel" }}

[data.mixture.sources.outlines]
builder = "coord_jsonl"
settings = {{ train = "outlines.jsonl", validation = "val.jsonl", space = "pixel" }}

[format.grouped]

[template.coord_template]

[surgery.coord_offset]

[loss.text_ce]

[loss.coord_soft_ce_w1]

[train]
steps = 3
batch_size = 4
log_every = 1
learning_rate = 1e-3
max_pixels = 4096
max_length = 8192
packing = {packing}
device = "cpu"
threads = 1

[output]
dir = "{packing}"
merge = false
"""


def test_a_mixture_trains_alike_packed_and_not(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = write_coco_records(tmp_path / "coco").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        record["images"] = [f"coco/{path}" for path in record["images"]]
    write("train.jsonl", records[:90])
    write("val.jsonl", records[90:])
    for record in records:
        for item in record["objects"]:
            x1, y1, x2, y2 = item.pop("bbox_2d")
            item["poly"] = [x1, y1, x2, y1, x2, y2, x1, y2]
    write("outlines.jsonl", records[:90])
    logs = []
    for packing in ("false", "true"):
        Path("m.toml").write_text(MANIFEST.format(base=tiny_base, packing=packing), encoding="utf-8")
        done = CliRunner().invoke(app, ["run", "m.toml"])
        assert done.exit_code == 0, done.output
        logs.append([json.loads(line) for line in Path(packing, "metrics.jsonl").read_text().splitlines()])
    told = {name for line in logs[0] for name in line}
    assert {"loss@boxes", "loss@outlines", "eval_loss@boxes", "eval_loss@outlines"} <= told
    assert all(math.isfinite(value) for line in logs[0] for value in line.values())
    for apart, packed in zip(*logs, strict=True):
        assert packed == pytest.approx(apart, rel=1e-5)


def write(name: str, records: list[dict[str, object]]) -> None:
    Path(name).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
