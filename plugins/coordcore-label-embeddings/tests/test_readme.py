"""README.md: its table of keys is what the config class adds to that of `[eval.detection]`."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from coordcore_detection.evaluate.config import DetectionConfig
from coordcore_label_embeddings.evaluator import BY_TEXT, LABELLED, TABLE, LabelEmbeddingsConfig

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_table_is_the_config_class() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (.+) \|$", README, flags=re.MULTILINE)
    known = {field.name for field in attrs.fields(DetectionConfig)}
    fields = [field for field in attrs.fields(LabelEmbeddingsConfig) if field.name not in known]
    assert [(name, text) for name, _, text in rows] == [(field.name, field.metadata["help"]) for field in fields]
    assert [default for _, default, _ in rows] == ["required", str(attrs.fields(LabelEmbeddingsConfig).least.default)]


def test_files_and_metrics_are_named() -> None:
    assert all(f"`{name}`" in README for name in (TABLE, BY_TEXT, *(f"text_{metric}" for metric in LABELLED)))
