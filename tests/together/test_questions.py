"""Training without an epoch and the evaluation of the same file ask each record the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coordcore import BuildContext
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_coord_tokens import CoordJsonl, CoordJsonlConfig
from coordcore_detection.evaluate.truth_sources import truth_from_records

PLACES = {"bbox_2d": [12, 40, 300, 412]}
RECORDS: list[dict[str, Any]] = [
    {"task": "named", "objects": [{"desc": f"thing {number}", **PLACES}]} for number in range(7)
] + [
    {"task": "named", "objects": []},
    {"task": "named", "objects": [{"desc": "knife", **PLACES}], "question": "Is there any of {categories}?"},
    {"task": "named", "objects": [{"desc": "knife", **PLACES}], "question": "Find all knives."},
    {"task": "named", "objects": [], "question": "Find all knives."},
    {
        "task": "named",
        "objects": [{"desc": "knife", **PLACES}],
        "categories": ["fork", "knife"],
        "question": "Find it.",
    },
    {
        "task": "named",
        "objects": [{"desc": "knife", **PLACES}, {"desc": "cup", **PLACES}],
        "metadata": {"incomplete_categories": ["cup"], "absent_categories": ["cow"]},
    },
    {"task": "refer", "objects": [{"desc": "knife", **PLACES}], "question": "the knife"},
    {"objects": [{"desc": "knife", **PLACES}], "question": "Everything."},
]


def test_training_and_evaluation_ask_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDCORE_CACHE", str(tmp_path / "cache"))
    Image.new("RGB", (999, 999)).save(tmp_path / "a.png")
    path = tmp_path / "val.jsonl"
    image = {"images": ["a.png"], "width": 999, "height": 999}
    path.write_text("".join(json.dumps({**image, **record}) + "\n" for record in RECORDS))
    context = BuildContext(run_dir=tmp_path / "run", seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None)
    examples = CoordJsonl.open(CoordJsonlConfig(train=path), context).train()
    images = truth_from_records(path, quantisation=DEFAULT_QUANTISATION, question="All.")
    trained = [(examples[index].messages[-2]["content"], examples[index].categories) for index in range(len(RECORDS))]
    assert trained == [(item.messages[-1]["content"], item.categories) for item in images]
    assert [len(categories) for _, categories in trained] == [4] * 7 + [3, 4, 1, 0, 2, 2, 0, 0]
