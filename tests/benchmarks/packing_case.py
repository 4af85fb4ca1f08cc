"""A training step over answers of very different lengths, packed and padded."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from measure import Case, Reach, Setting, Variant
from PIL import Image
from step_case import STEPS, Worker

from coordcore_train.run.quiet import quiet_transformers
from coordcore_train.testing.tiny import tiny_qwen3vl

BATCH = 8
RECORDS = 400
MOST = 40
"""Objects of a record; most have few, as in COCO."""

VARIANTS = {"packed": {"packing": True}, "padded": {}}


def write_inputs(folder: Path, setting: Setting) -> None:
    """A base, records with one object up to `MOST`, and a manifest for each variant."""
    quiet_transformers()
    width = setting.size(256, 64)
    base = tiny_qwen3vl(
        folder / "base", hidden_size=width, layers=setting.size(4, 1), heads=4, head_dim=width // 4,
        initializer_range=0.02,
    )  # fmt: skip
    Image.new("RGB", (64, 64), (9, 40, 90)).save(folder / "image.png")
    generator = random.Random(0)
    with (folder / "records.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(RECORDS):
            count = min(MOST, 1 + int(generator.expovariate(1 / 7)))
            objects = [{"desc": "disc", "bbox_2d": sorted(generator.sample(range(1000), 4))} for _ in range(count)]
            record = {"images": ["image.png"], "width": 64, "height": 64, "objects": objects}
            file.write(json.dumps(record) + "\n")
    for name, keys in VARIANTS.items():
        manifest: dict[str, Any] = {
            "model": {"base": str(base), "dtype": str(setting.dtype).removeprefix("torch.")},
            "data": {"coord_jsonl": {"train": str(folder / "records.jsonl")}},
            "template": {"coord_template": {}},
            "loss": {"text_ce": {}, "coord_soft_ce_w1": {}},
            "train": {"steps": STEPS, "batch_size": BATCH, "schedule": "constant", "log_every": 1}
            | {"threads": 2, "device": setting.device, **keys},
        }
        (folder / f"{name}.toml").write_text(tomli_w.dumps(manifest), encoding="utf-8")


def variants(setting: Setting) -> Mapping[str, Variant]:
    folder = tempfile.TemporaryDirectory(prefix="coordcore-packing-", ignore_cleanup_errors=True)
    write_inputs(Path(folder.name), setting)
    return {name: Worker(name, folder) for name in VARIANTS}


CASES = [
    Case(
        name="packing",
        title=f"a training step over {BATCH} answers of one to {MOST} objects, most of them short",
        build=variants,
        base="packed",
        rounds=9,
        memory=False,
        reaches=[Reach(what="time", variant="packed", against="padded", at_most=1.0, text="<= 1.0x the time")],
    )
]
