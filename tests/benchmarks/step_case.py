"""One training step through ms-swift: `coordcore run` and stock `swift sft` on the same model and rows."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from measure import THREADS, Case, Reach, Sample, Setting, Variant
from PIL import Image

from coordcore import BuildContext, kinds
from coordcore.manifest import Loaded, load
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_train.run.quiet import quiet_transformers
from coordcore_train.testing.tiny import tiny_qwen3vl

VOCABULARY = 152_670
TOKENIZER = 1282  # what tiny_qwen3vl's tokenizer holds with the coord tokens
BATCH = 4
RECORDS = 64
STEPS = 10**6  # more than anybody waits for: the worker is stopped, not finished
PEER = "stock swift sft, plain CE"
OFFSETS = "ours, with trained coord rows"
WORKERS = {"ours": "ours", OFFSETS: "offsets", PEER: "stock"}
"""Variant -> what `step_worker` is to train."""


class Worker:
    """A training that makes one step whenever it is called."""

    def __init__(self, name: str, folder: tempfile.TemporaryDirectory[str]) -> None:
        self.folder = folder  # lives as long as this
        script = str(Path(__file__).with_name("step_worker.py"))
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(THREADS),
            "MODELSCOPE_CACHE": str(Path(folder.name) / "cache"),
        }
        self.log = (Path(folder.name) / f"{name}.log").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, script, name, folder.name],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def __call__(self) -> Sample:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("STEP"):
                return Sample(**json.loads(line.removeprefix("STEP")))
        self.log.seek(0)
        raise RuntimeError(f"the training ended by itself:\n{self.log.read()[-2000:]}")


def write_inputs(folder: Path, setting: Setting) -> None:
    """A base with 152,670 rows, records, two manifests, and the same conversations with arguments for `swift sft`."""
    quiet_transformers()
    width = setting.size(256, 64)
    base = tiny_qwen3vl(
        folder / "base",
        padding_rows=setting.size(VOCABULARY, 3000) - TOKENIZER,
        hidden_size=width,
        layers=setting.size(4, 1),
        heads=4,
        head_dim=width // 4,
        initializer_range=0.02,
    )
    Image.new("RGB", (64, 64), (9, 40, 90)).save(folder / "image.png")
    generator = random.Random(0)
    with (folder / "records.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(RECORDS):
            objects = [{"desc": "disc", "bbox_2d": sorted(generator.sample(range(100, 1000), 4))} for _ in range(2)]
            record = {"images": ["image.png"], "width": 64, "height": 64, "objects": objects}
            file.write(json.dumps(record) + "\n")
    data = {"train": str(folder / "records.jsonl"), "prompt": "Locate every disc of the image. " * setting.size(10, 1)}
    train = {"steps": STEPS, "batch_size": BATCH, "schedule": "constant", "log_every": 1, "threads": THREADS}
    manifest: dict[str, Any] = {
        "model": {"base": str(base), "dtype": str(setting.dtype).removeprefix("torch.")},
        "data": {"coord_jsonl": data},
        "template": {"coord_template": {}},
        "loss": {"text_ce": {}, "coord_soft_ce_w1": {}},
        "train": {**train, "device": setting.device},
    }
    (folder / "ours.toml").write_text(tomli_w.dumps(manifest), encoding="utf-8")
    (folder / "offsets.toml").write_text(tomli_w.dumps({**manifest, "surgery": {"coord_offset": {}}}), encoding="utf-8")
    write_stock(folder, load(folder / "ours.toml"))


def write_stock(folder: Path, loaded: Loaded) -> None:
    """The conversations of a manifest's data builder as ms-swift reads them, and its settings as `swift sft` does."""
    manifest = loaded.manifest
    (data,), tuner, train = manifest.of(kinds.DATA), manifest.tuner, manifest.train
    context = BuildContext(run_dir=folder, seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None)
    examples = data.component.build(data.config, context).train()
    with (folder / "stock.jsonl").open("w", encoding="utf-8") as file:
        for example in map(examples.__getitem__, range(len(examples))):
            row = {"messages": list(example.messages), "images": [str(folder / "image.png")]}
            file.write(json.dumps(row) + "\n")
    arguments = {
        "model": manifest.model.base,
        "model_type": "qwen3_vl",
        "template": "qwen3_vl",
        "torch_dtype": manifest.model.dtype,
        "dataset": folder / "stock.jsonl",
        "split_dataset_ratio": 0,
        "output_dir": folder / "stock",
        "max_steps": STEPS,
        "per_device_train_batch_size": train.batch_size,
        "gradient_accumulation_steps": train.accumulation,
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": train.schedule,
        "logging_steps": train.log_every,
        "dataloader_num_workers": train.workers,
        "gradient_checkpointing": train.gradient_checkpointing,
        "optim": train.optim,
        "lora_rank": tuner.rank,
        "lora_alpha": tuner.alpha,
        "lora_dropout": tuner.dropout,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "fp16": "false",
        "use_cpu": train.device == "cpu",
        "use_hf": "true",
        "check_model": "false",
    }
    words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    (folder / "stock.json").write_text(json.dumps(words), encoding="utf-8")


def variants(setting: Setting) -> Mapping[str, Variant]:
    folder = tempfile.TemporaryDirectory(prefix="coordcore-step-", ignore_cleanup_errors=True)
    write_inputs(Path(folder.name), setting)
    return {variant: Worker(name, folder) for variant, name in WORKERS.items()}


CASES = [
    Case(
        name="step",
        title="a training step through ms-swift: tiny model, LoRA, V = 152,670 rows",
        build=variants,
        rounds=15,
        memory=False,
        reaches=[
            Reach(what="time", against=PEER, at_most=1.0, text="<= 1.0x the time"),
            Reach(what="memory", against=PEER, at_most=0.0, text="less than stock swift sft"),
        ],
    )
]
