"""A run with `[eval.label_embeddings]`: checkpoints evaluated, a report made anew, and what `check` refuses of it."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from conftest import ROOT, coordcore
from coordcore_train.testing.tiny import tiny_qwen3vl

SUPPORT = ROOT / "plugins/coordcore-label-embeddings/tests/embedding_support.py"

MANIFEST = """
name = "meaning"

[model]
base = "base"
dtype = "float32"

[data.coord_jsonl]
train = "boxes.jsonl"
validation = "boxes.jsonl"
space = "pixel"

[template.coord_template]

[loss.text_ce]

[loss.coord_soft_ce_w1]

[eval.label_embeddings]
model = "bert"
least = -1.0
max_new_tokens = 60
max_objects = 2

[train]
steps = 2
batch_size = 2
learning_rate = 1e-3
save_every = 1
evaluate_checkpoints = true
device = "cpu"
threads = 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, a base, a BERT, a manifest."""
    folder = tmp_path_factory.mktemp("meaning")
    spec = importlib.util.spec_from_file_location("embedding_support", SUPPORT)
    assert spec is not None
    assert spec.loader is not None
    support = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(support)
    support.tiny_bert(folder / "bert")
    tiny_qwen3vl(folder / "base")
    Image.new("RGB", (64, 64)).save(folder / "image.png")
    box = {"desc": "helmet", "bbox_2d": [8, 8, 40, 40]}
    record = {"images": ["image.png"], "width": 64, "height": 64, "objects": [box]}
    (folder / "boxes.jsonl").write_text(2 * (json.dumps(record) + "\n"), encoding="utf-8")
    (folder / "meaning.toml").write_text(MANIFEST, encoding="utf-8")
    return folder


def test_a_run_measures_its_checkpoints_by_meaning_and_by_text(folder: Path) -> None:
    said = coordcore("run", "meaning.toml", cwd=folder)
    run = folder / "runs/meaning"
    output = run / "eval/label_embeddings"
    found = json.loads((output / "metrics.json").read_text())
    assert {"AP", "F1", "text_AP", "text_F1", "oracle_AP"} <= found.keys()
    assert f"eval     {output}/synonyms.toml" in said
    labels = [json.loads((path / "evaluation.json").read_text())["labels"] for path in (output, output / "step-1")]
    # Whatever the answers call a box, from -1 on it is a helmet.
    assert [[row["label"] for row in rows if row["label"].strip()] for rows in labels] == [["helmet"], ["helmet"]]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any({"eval/label_embeddings/AP", "eval/label_embeddings/text_AP"} <= line.keys() for line in lines)

    before = json.loads((output / "evaluation.json").read_text())["contract"]["labels"]
    (output / "report.html").unlink()
    coordcore("report", str(run), cwd=folder)
    assert before["proposed_by"]["model_sha256"] in (output / "report.html").read_text()
    refused = coordcore("compare", str(output / "by_text.json"), str(run), cwd=folder, expect=2)
    assert "labels: equal text against" in refused


def test_check_refuses_a_model_before_a_run(folder: Path) -> None:
    assert "meaning.toml" in coordcore("check", "meaning.toml", cwd=folder)
    empty = folder / "empty"
    empty.mkdir()
    said = coordcore("check", "meaning.toml", "--set", 'eval.label_embeddings.model="empty"', cwd=folder, expect=2)
    assert f"eval.label_embeddings.model: {empty} holds no config.json" in said
    shutil.rmtree(empty)
    for key, value, reason in (
        ("model", '"gone"', "no such file: "),
        ("least", "nan", "least: must be finite, got nan"),
    ):
        said = coordcore("check", "meaning.toml", "--set", f"eval.label_embeddings.{key}={value}", cwd=folder, expect=2)
        assert reason in said, said
