"""The demo in small: shapes.toml with half of the steps, checked in plain transformers without coordcore."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, coordcore
from coordcore_demo import PROMPT, draw

IMAGES = 30

# Runs where `import coordcore` fails: the merged folder must be a checkpoint like any other.
WITHOUT_COORDCORE = """
import json, re, sys
sys.modules["coordcore"] = None
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
folder, pictures, out = sys.argv[1:]
torch.set_num_threads(1)
model = AutoModelForImageTextToText.from_pretrained(folder).eval()
processor = AutoProcessor.from_pretrained(folder)
rows = json.load(open(pictures))
answers = []
for row in rows:
    content = [{"type": "image"}, {"type": "text", "text": row["prompt"]}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=[text], images=[Image.open(row["image"])], return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    answers.append(processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
json.dump(answers, open(out, "w"))
"""


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    small = ("--set", "train.steps=160", "--set", "data.shapes.train_images=3200")
    coordcore("run", str(ROOT / "docs/examples/shapes.toml"), *small, cwd=folder)
    return folder / "runs" / "shapes" / "merged"


def test_verified_corners_change_no_token(merged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads trained for a run: what they propose, on 200 pictures, against a token a pass under the same grammar."""
    import torch

    from coordcore_demo.config import ShapesConfig
    from coordcore_demo.data import Pictures
    from coordcore_detection.evaluate.truth_sources import truth_from_examples
    from coordcore_detection.predict import ahead, asking
    from coordcore_detection.predict.proposing import proposer_of

    torch.set_num_threads(1)
    said = coordcore("heads", str(merged.parent), "--examples", "600", cwd=merged.parent)
    assert "parallel_boxes/heads.safetensors: learned from 600 boxes of 600 examples" in " ".join(said.split())
    loaded = asking.load(merged.parent, "cpu")
    config = ShapesConfig(validation_images=200)
    pictures = Pictures(config=config, quantisation=loaded.quantisation, split="validation", count=200)
    truth = truth_from_examples(pictures, loaded.quantisation)

    def answers(tolerance: int | None) -> tuple[list[tuple[str, object]], int]:
        """Texts and bins, and the passes of the model."""
        passes: list[int] = []
        hook = loaded.model.register_forward_pre_hook(lambda *_: passes.append(1))
        rows = asking.predict(
            loaded.model,
            loaded.processor,
            truth,
            asking.PredictSettings(tolerance=tolerance),
            vocab=loaded.vocab,
            quantisation=loaded.quantisation,
            proposer=proposer_of(merged, loaded),
        )
        found = [(row.text, [box.bins for box in row.boxes]) for row in rows]
        hook.remove()
        return found, len(passes)

    def refuses(*_: object) -> None:
        raise ahead.NotAheadError("not asked")

    (verified, few), (format_alone, more) = answers(0), answers(None)
    _, fewest = answers(999)
    monkeypatch.setattr(asking, "write_ahead", refuses)
    alone, most = answers(None)
    assert verified == format_alone == alone
    assert fewest < few < more < most


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / (sum(areas) - common)


def test_the_merged_folder_boxes_held_out_shapes_in_plain_transformers(merged: Path, tmp_path: Path) -> None:
    rows, truths = [], []
    for index in range(IMAGES):
        picture, shapes = draw(0, index, split="held_out")
        picture.save(tmp_path / f"{index}.png")
        rows.append({"image": str(tmp_path / f"{index}.png"), "prompt": PROMPT})
        truths.append([value / 64 * 999 for value in shapes[0].box])
    (tmp_path / "pictures.json").write_text(json.dumps(rows))
    arguments = [str(merged), str(tmp_path / "pictures.json"), str(tmp_path / "answers.json")]
    subprocess.run([sys.executable, "-c", WITHOUT_COORDCORE, *arguments], check=True, cwd=tmp_path)
    answers = json.loads((tmp_path / "answers.json").read_text())
    boxes = [[int(k) for k in re.findall(r"<\|coord_(\d+)\|>", answer)] for answer in answers]
    parsed = [len(box) == 4 for box in boxes]
    overlaps = [iou(box, truth) for box, truth in zip(boxes, truths, strict=True) if len(box) == 4]
    assert sum(parsed) >= 0.9 * IMAGES, answers
    assert sum(overlaps) / IMAGES >= 0.6, overlaps


def test_the_run_ends_with_metrics_and_a_report(merged: Path) -> None:
    folder = merged.parent / "eval" / "detection"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["agnostic_AP50"] >= 0.8  # half of the demo's steps; all of them give 1.0
    assert metrics["parse_failure_rate"] == 0.0
    assert (folder / "report.html").stat().st_size < 5_000_000
