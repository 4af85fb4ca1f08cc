"""A run with `train.parallel_boxes`, and its answers with corners said together, as a user asks for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from conftest import ROOT, coordcore

MANIFEST = {
    "extends": str(ROOT / "docs/examples/shapes-many.toml"),
    "name": "boxes",
    "format": {"grouped": {}},
    "data": {"shapes": {"validation_images": 12, "label": "colour"}},
    "eval": {"detection": {"images": 12}},
    "train": {"steps": 30, "save_every": 30, "parallel_boxes": 0.5},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and pictures to ask about."""
    from coordcore_demo import draw

    folder = tmp_path_factory.mktemp("boxes")
    (folder / "m.toml").write_text(tomli_w.dumps(MANIFEST))
    coordcore("run", "m.toml", cwd=folder)
    (folder / "pictures").mkdir()
    for index in range(12):
        draw(0, index, split="held_out", max_objects=3)[0].save(folder / "pictures" / f"{index}.png")
    return folder


def answers(folder: Path, checkpoint: str, *options: str, expect: int = 0) -> tuple[dict[str, Any], list[Any], str]:
    """Header and rows of the file that `predict` writes, and what it says."""
    output = folder / "answers.jsonl"
    output.unlink(missing_ok=True)
    said = coordcore("predict", checkpoint, "pictures", "--output", str(output), *options, cwd=folder, expect=expect)
    if expect:
        return {}, [], said
    header, *rows = map(json.loads, output.read_text().splitlines())
    return header, [(row["text"], [box["bins"] for box in row["boxes"]]) for row in rows], said


@pytest.mark.parametrize("checkpoint", ["runs/boxes", "runs/boxes/checkpoints/checkpoint-30"])
def test_checked_answers_are_the_same_and_unchecked_ones_are_boxes(folder: Path, checkpoint: str) -> None:
    _, plain, _ = answers(folder, checkpoint)
    header, verified, _ = answers(folder, checkpoint, "--parallel", "verified")
    assert verified == plain
    assert "tolerance" not in header["decoding"]
    header, unchecked, _ = answers(folder, checkpoint, "--parallel", "fast", "--tolerance", "999")
    assert header["decoding"]["tolerance"] == 999
    assert "heads" not in header["decoding"]
    boxes = [box for _, found in unchecked for box in found]
    assert unchecked != plain
    assert len(boxes) >= 6
    assert all(x1 <= x2 and y1 <= y2 for x1, y1, x2, y2 in boxes)


def test_a_model_that_has_not_learned_it_is_told_what_it_needs(folder: Path) -> None:
    info = folder / "runs/boxes/merged/coordcore.json"
    before = info.read_text()
    info.write_text(json.dumps({**json.loads(before), "parallel_boxes": False}))
    try:
        *_, said = answers(folder, "runs/boxes", "--parallel", "verified", expect=2)
    finally:
        info.write_text(before)
    assert "was not trained with [train] parallel_boxes" in " ".join(said.split())


def test_heads_are_refused_where_none_would_be_asked(folder: Path) -> None:
    said = coordcore("heads", "runs/boxes", cwd=folder, expect=2)
    assert "has learned to say the corners of a box together (train.parallel_boxes = 0.5)" in " ".join(said.split())
