"""What needs ms-swift: nothing else here imports it. A training of a few steps through the engine, and its merge."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

from setting import Setting, check, require

STEPS = 4


def training(setting: Setting) -> dict[str, Any]:
    """The demo's run, shortened: its losses are finite, and its merge is proven by its logits."""
    require("swift", "peft", "torchvision", "qwen_vl_utils")
    from coordcore.check import load_and_check
    from coordcore_train.checkpoint.merge.run import merge_run
    from coordcore_train.run.session import run

    manifest = Path(__file__).parents[2] / "docs" / "examples" / "shapes.toml"
    with tempfile.TemporaryDirectory() as folder:
        changes = [f"train.steps={STEPS}", f"train.device={setting.device}"]
        path = run(load_and_check(manifest, changes), output=Path(folder) / "run")
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        losses = [line["loss"] for line in lines if "loss" in line]
        report = merge_run(path, Path(folder) / "merged", compare_logits=True)
    assert report.logits is not None
    return {
        "checks": [
            check("losses that are not finite", sum(not math.isfinite(loss) for loss in losses), 0),
            check("metrics without a loss", float(not losses), 0),
            check("merged logits against live ones", report.logits, 0.05),
        ]
    }
