"""A base that has PaliGemma's tokens, 1024 with y first: checked, trained, merged, asked and evaluated as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import coordcore
from coordcore.coords import PRESETS
from coordcore.quantisation import quantisation
from coordcore_detection.predict import prediction_files
from coordcore_train.testing.tiny import tiny_qwen3vl

COORDS = PRESETS["paligemma"][0]
MANIFEST = """
[model]
base = "base"
dtype = "float32"

[coords]
tokens = "paligemma"

[train]
steps = 2
device = "cpu"
threads = 1

[output]
dir = "run"

[data.coord_jsonl]
train = "train.jsonl"
validation = "train.jsonl"
space = "pixel"

[template.coord_template]

[surgery.coord_offset]

[loss.text_ce]

[loss.coord_soft_ce_w1]

[eval.detection]
max_new_tokens = 120
max_objects = 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("paligemma")
    tiny_qwen3vl(folder / "base", coord_tokens=COORDS)
    records = []
    for number in range(2):
        Image.new("RGB", (64, 32), (number, 90, 0)).save(folder / f"{number}.png")
        box = {"desc": "cup", "bbox_2d": [8, 4, 40 + number, 28]}
        records.append({"images": [f"{number}.png"], "width": 64, "height": 32, "objects": [box]})
    (folder / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "m.toml").write_text(MANIFEST)
    return folder


def test_a_base_with_tokens_of_its_own_goes_the_whole_way(folder: Path) -> None:
    report = coordcore("doctor", "m.toml", cwd=folder)
    assert "1024 ordinary tokens, whole in text" in report
    coordcore("run", "m.toml", cwd=folder)
    info = json.loads((folder / "run" / "merged" / "coordcore.json").read_text())
    assert info["coords"] == {"tokens": "<loc{:04}>", "bins": 1024, "order": "yx"}
    assert info["quantisation"] == quantisation("paligemma_1024").as_dict()

    header, rows = prediction_files.read(next((folder / "run").rglob("predictions.jsonl")))
    assert header.coords == info["coords"]
    assert len(rows) == 2
    result = json.loads(next((folder / "run").rglob("evaluation.json")).read_text())
    assert result["contract"]["coords"] == info["coords"]
    assert result["metrics"]["oracle_AP"] > 0.9  # the truth, of y-first answers, lies where the boxes are


def test_without_the_preset_check_says_which_it_is(folder: Path) -> None:
    (folder / "other.toml").write_text(MANIFEST.replace('tokens = "paligemma"', ""))
    said = coordcore("check", "other.toml", cwd=folder, expect=2)
    assert 'it has its own: set [coords] tokens = "paligemma"' in said
