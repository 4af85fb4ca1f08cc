"""The manifests of docs/studies say what their names say, and nothing is wrong with them."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path

import pytest
import tomli_w

from conftest import ROOT
from coordcore import kinds
from coordcore.check import check
from coordcore.manifest import load

sys.path.insert(0, str(ROOT / "docs/studies"))
BASE = ROOT / "plugins/coordcore-demo/src/coordcore_demo/tiny_qwen3vl_several"
LOSSES, FORMATS, COMMON = (importlib.import_module(name) for name in ("losses", "formats", "common"))


@pytest.mark.parametrize("name", LOSSES.LOSSES)
def test_a_manifest(tmp_path: Path, name: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(tomli_w.dumps(LOSSES.manifest(LOSSES.LOSSES[name], seed=1, steps=7)))
    loaded = load(path)
    assert check(loaded) == []
    used = {item.component.name: item.config for item in loaded.manifest.of(kinds.LOSS)}
    assert used["text_ce"].coord_positions == (name == LOSSES.PLAIN)
    assert ("coord_soft_ce_w1" in used) == (name != LOSSES.PLAIN)


def test_a_loss_has_the_weights_that_its_name_says(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(tomli_w.dumps(LOSSES.manifest(LOSSES.LOSSES["soft CE + W1, σ = 10"], seed=1, steps=7)))
    (config,) = (
        item.config for item in load(path).manifest.of(kinds.LOSS) if item.component.name == "coord_soft_ce_w1"
    )
    weights = (config.ce_weight, config.soft_ce_weight, config.w1_weight, config.gate_weight, config.sigma)
    assert weights == (0.0, 1.0, 1.0, 1.0, 10.0)


def test_an_interval_is_students() -> None:
    mean, half = COMMON.interval([0.1, 0.2, 0.3])
    assert (mean, half) == (pytest.approx(0.2), pytest.approx(4.303 * 0.1 / 3**0.5))


@pytest.mark.parametrize("name", FORMATS.FORMATS)
def test_a_manifest_of_a_format(tmp_path: Path, name: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(tomli_w.dumps(FORMATS.manifest(name, seed=1)))
    loaded = load(path)
    assert check(loaded) == []
    row = FORMATS.FORMATS[name]
    assert [selected.component.name for selected in loaded.manifest.of(kinds.FORMAT)] == [row.section]
    assert loaded.manifest.train.steps == row.times * FORMATS.STEPS
    losses = {item.component.name for item in loaded.manifest.of(kinds.LOSS)}
    assert losses == {"text_ce", "coord_soft_ce_w1"} if row.coord_tokens else losses == {"text_ce"}


@pytest.mark.parametrize("labels", FORMATS.LABELS)
def test_a_manifest_of_many_objects(tmp_path: Path, labels: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(tomli_w.dumps(FORMATS.manifest("grouped-2x", 1, 7, many=BASE, labels=labels)))
    loaded = load(path)
    assert check(loaded) == []
    (shapes,) = (item.config for item in loaded.manifest.of(kinds.DATA))
    said = {"colours": ("colour", "top_left"), "in_turn": ("colour", "label"), "one": ("object", "top_left")}
    assert (shapes.label, shapes.object_order) == said[labels]
    assert (shapes.min_objects, loaded.manifest.train.steps) == (6, 14)


def test_the_base_of_one_label_is_beside_the_study(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(tomli_w.dumps(FORMATS.manifest("grouped-3x", 1, 7, many=FORMATS.ONE_LABEL, labels="one")))
    assert check(load(path)) == []
    digest = hashlib.sha256((FORMATS.ONE_LABEL / "model.safetensors").read_bytes()).hexdigest()
    assert digest.startswith("fc8524a8b3ecda8a")  # what the page's two commands make, on every machine so far


def test_a_part_that_a_page_has_not_is_told(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# a\n<!-- many -->\nold\n<!-- end -->\nmore\n")
    COMMON.write_measured(page, "new\n", "many")
    assert page.read_text() == "# a\n<!-- many -->\nnew\n<!-- end -->\nmore\n"
    with pytest.raises(ValueError, match="has no lines <!-- other --> and"):
        COMMON.write_measured(page, "new\n", "other")


def test_the_table_compares_within_a_seed() -> None:
    tokens = dict.fromkeys(FORMATS.TOKENS, 20.0)
    runs = [
        {**tokens, "training": 10.0, "boxes/s": 100.0, "free": 10.0, "AP": 0.5, "AP50": 0.8, "F1_95": 0.1},
        {**tokens, "training": 20.0, "boxes/s": 50.0, "free": 10.0, "AP": 0.7, "AP50": 0.9, "F1_95": 0.1},
    ]
    short = [
        {**run, "boxes/s": 4 * run["boxes/s"], FORMATS.TOKENS[0]: 5.0, "training": run["training"] / 2} for run in runs
    ]
    table = FORMATS.table({name: runs if name == FORMATS.LIST else short for name in FORMATS.FORMATS}).splitlines()
    assert "| 20.0 | 20.0 | 15 | 75 | 10 | 0.600 | 0.850 | 0.100 |" in table[2]
    assert (
        "| 5.0 (x 0.25) | 20.0 (x 1.00) | 8 (x 0.50) | 300 (x 4.00) | 10 (x 1.00) | 0.600 (+0.000 ± 0.000) |"
        in table[-1]
    )


def test_a_model_that_finds_no_box_is_none_to_compare_with() -> None:
    run = {"training": 10.0, "boxes/s": 0.0, "free": 0.0, "AP": 0.0, "AP50": 0.0, "F1_95": 0.0}
    run |= dict.fromkeys(FORMATS.TOKENS, 20.0)
    found = {FORMATS.LIST: [run] * 2, "grouped": [{**run, "boxes/s": 3.0}] * 2}
    assert "| 10 (x 1.00) | 3 (x nan) | 0 (x nan) |" in FORMATS.table(found)
