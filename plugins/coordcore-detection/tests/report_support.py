"""What the tests of the report share: drawn images with answers near the truth, and a run folder around them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from evaluation_support import header
from PIL import Image, ImageDraw

from coordcore_detection.evaluate import distributions, results
from coordcore_detection.evaluate.distributions import Distribution
from coordcore_detection.evaluate.evaluation import Evaluated, evaluate
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.predictions import Box, Row
from coordcore_detection.report.write import write_report
from coordcore_train.run.folder import METRICS, RunDir

LABELS = ("cat", "<script>alert('x')</script>", 'a "quoted" & long dog')
PARTS = ("text_ce/ce", "soft/ce", "soft/far")

MANIFEST = """manifest_version = 1
name = "try <b>1<b>"

[model]
base = "tiny"

[data.made_up]

[loss.text_ce]
weight = 1.0

[loss.soft]
width = 10.0
"""


def _drawn(seed: int, width: int, height: int, boxes: Any) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for box in boxes:
        pen.rectangle(tuple(box), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def scene(images: int = 12, *, size: tuple[int, int] = (320, 200), seed: int = 0) -> tuple[list[TruthImage], list[Row]]:
    """Images with one to three boxes each, and answers that miss some, invent some and are off by a few pixels."""
    rng = np.random.default_rng(seed)
    scale = np.array(size * 2)
    truths, rows = [], []
    for index in range(images):
        count = int(rng.integers(1, 4))
        corner = rng.uniform(0, 0.6, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0.08, 0.39, (count, 2))], axis=1) * scale
        labels = tuple(LABELS[integer] for integer in rng.integers(0, len(LABELS), count))
        key = f"images/{index}.jpg"
        truths.append(
            TruthImage(
                key=key,
                width=size[0],
                height=size[1],
                labels=labels,
                boxes=boxes,
                crowd=np.zeros(count, dtype=bool),
                open=partial(_drawn, index, *size, boxes),
            )
        )
        near = np.clip(boxes + rng.normal(0, 1 + index, boxes.shape), 0, scale)
        near = np.concatenate([near[:, :2], np.maximum(near[:, :2] + 1, near[:, 2:])], axis=1)
        answer = [
            Box(
                label=label if rng.random() > 0.1 else LABELS[0],
                box=tuple(box),
                bins=tuple(np.clip(box / scale * 999, 0, 999).round().astype(int).tolist()),
                score=float(rng.uniform(0.3, 1.0)),
            )
            for label, box in zip(labels, near.tolist(), strict=True)
            if rng.random() > 0.1
        ]
        rows.append(Row(image=key, width=size[0], height=size[1], text="", boxes=answer))
    return truths, rows


def evaluated(images: int = 12, **more: Any) -> tuple[list[TruthImage], list[Row], Evaluated]:
    truths, rows = scene(images, **more)
    return truths, rows, evaluate(truths, header(checkpoint="runs/try/merged"), rows)


def recorded(rows: Sequence[Row], width: float = 12.0) -> list[Distribution]:
    """Bell-shaped distributions around what the first boxes say."""
    bins = np.arange(1000)
    found = []
    for row in rows:
        if row.boxes:
            logits = -((bins - np.array(row.boxes[0].bins)[:, None]) ** 2) / (2 * width**2)
            p = np.exp(logits)
            p = (p / p.sum(1, keepdims=True)).astype(np.float32)
            found.append(Distribution(image=row.image, bins=row.boxes[0].bins, probabilities=p))
    return found


def metrics(steps: int = 30, *, every: int = 10) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        values = {name: 5 / (step + index) for index, name in enumerate(PARTS)}
        rates = {"learning_rate": 1e-4 / step, "lr/llm": 1e-4 / step, "lr/offset": 1e-2 / step}
        lines.append({"step": step, "epoch": step / 10, "loss": 6 / step, "grad_norm": 1.0, **values, **rates})
        if step % every == 0:
            held_out = {f"eval_{name}": value * 1.1 for name, value in values.items()}
            lines.append({"step": step, "epoch": None, "eval_loss": 7 / step, **held_out})
            lines.append(
                {"step": step, "epoch": None, "eval/detection/AP": step / 40, "eval/detection/AP50": step / 35}
            )
    return lines


def run_folder(path: Path, *, offsets: Sequence[str] = ("embed_offset", "head_offset")) -> Path:
    """A run folder with metrics, a manifest and a last checkpoint that holds offset tables."""
    from safetensors.numpy import save_file

    folder = RunDir(path)
    checkpoint = folder.checkpoints / "checkpoint-30"
    checkpoint.mkdir(parents=True)
    folder.manifest.write_text(MANIFEST)
    rows = [json.dumps(metric) + "\n" for metric in metrics()]
    (path / METRICS).write_text("".join(rows) + '{"step": 31, "lo')
    rng = np.random.default_rng(0)
    tensors = {
        f"base_model.model.rows_of_a_surgery.{name}": rng.normal(0, 0.1, (1000, 8)).astype(np.float32)
        for name in offsets
    }
    tensors["base_model.model.layers.0.lora_A.weight"] = np.zeros((4, 8), dtype=np.float32)
    save_file(tensors, checkpoint / "adapter_model.safetensors")
    (checkpoint / "trainer_state.json").write_text("{}")
    return path


def full_report(folder: Path, images: int = 12, **more: Any) -> Path:
    """A report in which every section has something to show."""
    truths, rows, found = evaluated(images, **more)
    run = run_folder(folder / "run")
    output = run / "eval" / "detection"
    results.write(found.result, output / results.FILE)
    kept = distributions.beside(output / "predictions.jsonl")
    distributions.write(recorded(rows), kept)
    return write_report(output, found.result, evaluated=found, truth=truths, recorded=kept, run_dir=run)
