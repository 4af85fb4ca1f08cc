"""The reference page of files names every key of coordcore.json, and those of metrics.jsonl."""

from __future__ import annotations

import json
import re
from pathlib import Path

import attrs
import support

from coordcore.coords import CoordVocab
from coordcore.quantisation import quantisation
from coordcore.records.answers import COORDJSON
from coordcore_train.chat import Question
from coordcore_train.checkpoint.folder import write_checkpoint_info

PAGE = (Path(__file__).parents[2] / "docs/reference/files.md").read_text(encoding="utf-8")


def keys(section: str) -> set[str]:
    (text,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    return {
        key for row in re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE) for key in re.findall(r"`(.+?)`", row)
    }


def test_coordcore_json(tmp_path: Path) -> None:
    write_checkpoint_info(
        tmp_path,
        quantisation=quantisation("coordexp_999"),
        vocab=CoordVocab(ids=tuple(range(10, 1010))),
        form=attrs.evolve(COORDJSON, name="mine"),
        question=Question("Find.", None),
        parallel_boxes=True,
        trusted=True,
    )
    written = json.loads((tmp_path / "coordcore.json").read_text())
    assert keys("coordcore.json") == set(written)
    for name in (*written["quantisation"], *written["coords"]):
        assert f"`{name}`" in PAGE


def test_metrics(coord_base: Path, tmp_path: Path) -> None:
    run = support.train(tmp_path, coord_base, train={"steps": 1}, data={"fake_boxes": {"validation": 4}})
    named = keys("metrics.jsonl")
    patterns = [re.sub(r"<\w+>|\\\.\\\.\\\.", r"[\\w/]+", re.escape(key)) for key in named]
    told = {key for line in support.metrics(run) for key in line}
    assert {"epoch", "text_ce/ce", "eval_loss"} <= told
    assert {key for key in told if not any(re.fullmatch(pattern, key) for pattern in patterns)} == set()
