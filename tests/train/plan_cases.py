"""Small real training steps, measured and planned: `python tests/train/plan_cases.py` writes a table of memory.md.

Measured is what autograd keeps between forward and backward pass: each storage that torch's `saved_tensors_hooks` show,
once, less the model's own; and the bytes of weights, gradients and the optimizer's state. Planned is the same run from
its base's config.json alone.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import attrs
import pytest
import support
import torch
from transformers import TrainerCallback

from coordcore_train.engine import planning_of
from coordcore_train.estimate.activations import Watch, bounded, language_model, storages
from coordcore_train.estimate.base import weightless
from coordcore_train.estimate.estimate import plan_of_base
from coordcore_train.estimate.model import language_layers, model_memory, objective_shape, vision_parts
from coordcore_train.estimate.objective import cpu_chunks, objective_memory
from coordcore_train.estimate.optimizers import state_bytes, state_of
from coordcore_train.estimate.vision import tower_of
from coordcore_train.objective import objective
from coordcore_train.run.folder import RunDir
from coordcore_train.run.plan import plan_of
from coordcore_train.run.resolved import fingerprint, resolved
from coordcore_train.swift.arguments import swift_arguments
from coordcore_train.swift.pipeline import CoordSft
from coordcore_train.swift.register import enter
from coordcore_train.swift.trainer import CoordTrainer
from coordcore_train.testing.tiny import tiny_qwen3vl

PAGE = Path(__file__).parents[2] / "docs/explanation/memory.md"


def _case(tuner: str = "lora", dtype: str = "bfloat16", batch: int = 4, tower: bool = False, **train: Any) -> Any:
    return {
        "model": {"dtype": dtype},
        "tuner": {"type": tuner, "freeze_vision": not tower, "freeze_aligner": not tower},
        "train": {"steps": 1, "batch_size": batch, **train},
    }


CASES: dict[str, Any] = {
    "LoRA": _case(),
    "LoRA, float32": _case(dtype="float32"),
    "LoRA, one example (no mask)": _case(batch=1),
    "LoRA, checkpointing": _case(gradient_checkpointing=True),
    "LoRA, packed": _case(batch=3, packing=True),
    "LoRA, tower trained": _case(tower=True),
    "full": _case("full"),
    "full, float32": _case("full", dtype="float32"),
    "full, one example (no mask)": _case("full", batch=1),
    "full, checkpointing": _case("full", gradient_checkpointing=True),
    "full, packed, float32": _case("full", dtype="float32", batch=3, packing=True),
    "full, tower trained": _case("full", tower=True),
    "full, tower trained, checkpointing": _case("full", tower=True, gradient_checkpointing=True),
    "full, adafactor": _case("full", optim="adafactor"),
}


@attrs.define
class Measured(TrainerCallback):
    """What a step of training showed. shape: of its batch. masked: whether examples were filled up. bound: of what is
    kept, where the forward could not be followed. All but the counts in bytes."""

    trainer: Any = None
    shape: tuple[int, int] = (0, 0)
    masked: bool = False
    patches: int = 0
    kept: int = 0
    gradients: int = 0
    optimizer: int = 0
    parameters: int = 0
    trained: int = 0
    weights: int = 0
    bound: int = 0

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        found = list(self.trainer.model.parameters())
        self.gradients = sum(item.grad.nbytes for item in found if item.grad is not None)
        self.parameters, self.weights = sum(item.numel() for item in found), sum(item.nbytes for item in found)
        self.trained = sum(item.numel() for item in found if item.requires_grad)

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        states = self.trainer.optimizer.state.values()
        self.optimizer = sum(item.nbytes for state in states for item in state.values() if torch.is_tensor(item))


def base_of(folder: Path) -> Path:
    """A small real Qwen3-VL, wide enough that its layers are most of it."""
    return tiny_qwen3vl(folder, hidden_size=64, vision_hidden_size=64, head_dim=32, heads=4, kv_heads=2, layers=3)


def measure(folder: Path, base: Path, **sections: Any) -> Measured:
    """Train one step of a run, and look at it."""
    found = Measured()
    charge, run_objective = CoordTrainer.compute_loss, objective.run

    def compute_loss(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        found.trainer, found.shape = self, tuple(inputs["input_ids"].shape)
        mask = inputs.get("attention_mask")
        packed = self.plan.manifest.train.packing and self.plan.manifest.train.batch_size > 1
        found.masked = packed or (mask is not None and not bool(mask.all()))
        found.patches = int(inputs["image_grid_thw"].prod(1).sum())
        watch = Watch(storages(model))
        with torch.autograd.graph.saved_tensors_hooks(watch.keep, lambda tensor: tensor):
            result = charge(self, model, inputs, *args, **kwargs)
        found.kept = watch.total
        return result

    def charge_chunks(batch: Any) -> None:
        # What a chunk keeps is gone before the next one.
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
            run_objective(batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CoordTrainer, "compute_loss", compute_loss)
        patch.setattr(objective, "run", charge_chunks)
        loaded = support.loaded(folder, base, **sections)
        run = RunDir(folder / "run")
        run.prepare(resolved(loaded.manifest, loaded.plugins), fingerprint(loaded.manifest), base, layout={})
        plan = plan_of(loaded.manifest, run.path, base)
        enter(plan)
        CoordSft(swift_arguments(plan, has_validation=False, resume=None), plan, [found]).run()
    return found


def planned(folder: Path, base: Path, seen: Measured, **sections: Any) -> Measured:
    """The same of a run of whose base only config.json is there, for a batch like that of `seen`."""
    alone = folder / "config"
    alone.mkdir(parents=True)
    shutil.copy(base / "config.json", alone)
    loaded = support.loaded(folder / "planned", alone, **sections)
    (folder / "scratch").mkdir()
    with weightless(loaded.manifest) as found:
        plan = plan_of_base(loaded.manifest, found, folder / "scratch")
        skeleton = planning_of(loaded.plugins).skeleton(plan)
        model = model_memory(skeleton, plan)
        batch, tokens = seen.shape
        kept = language_model(
            skeleton.model, batch=batch, tokens=tokens, autocast=skeleton.autocast, eager=False, padded=seen.masked
        )
        size = 2 if skeleton.autocast is not None else 4
        bound = bounded(language_layers(skeleton), rows=batch * tokens, size=size, hidden=kept.hidden)
        if not plan.manifest.tuner.freeze_vision:
            bound = bound.plus(bounded(vision_parts(skeleton), rows=seen.patches, size=size, hidden=0))
            kept = kept.plus(tower_of(skeleton.model, autocast=skeleton.autocast, eager=False).at(seen.patches))
        shape = objective_shape(skeleton, plan, positions=batch * tokens, hidden_bytes=kept.hidden)
    train = plan.manifest.train
    activations = kept.kept(checkpointing=train.gradient_checkpointing)
    of_objective = objective_memory(shape, cpu_chunks(shape)).kept
    return Measured(
        shape=seen.shape,
        masked=seen.masked,
        patches=seen.patches,
        kept=activations + of_objective,
        bound=bound.kept(checkpointing=train.gradient_checkpointing) + of_objective,
        gradients=model.trained_bytes,
        optimizer=state_bytes(state_of(train.optim), model.trained),
        parameters=model.parameters,
        trained=model.trained_parameters,
        weights=model.bytes,
    )


def row(name: str, seen: Measured, told: Measured) -> str:
    """A line of the page's table."""
    pairs = [(told.gradients, seen.gradients), (told.optimizer, seen.optimizer), (told.kept, seen.kept)]
    cells = [f"{a:,} / {b:,}" for a, b in pairs]
    return f"| {name} | {' | '.join(cells)} | {told.kept / seen.kept - 1:+.1%} | {told.bound / seen.kept:.1f} |"


def main() -> None:
    """Measure every case, and write the table into the page."""
    lines = ["| | gradients | optimizer | activations | off by | bound |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        base = base_of(Path(scratch) / "base")
        for number, (name, sections) in enumerate(CASES.items()):
            folder = Path(scratch) / str(number)
            seen = measure(folder / "real", base, **sections)
            lines.append(row(name, seen, planned(folder, base, seen, **sections)))
            print(lines[-1], flush=True)
    start, end = "<!-- measured: python tests/train/plan_cases.py -->\n", "<!-- end -->"
    pattern = re.escape(start) + ".*?" + re.escape(end)
    text = PAGE.read_text(encoding="utf-8")
    table = "\n".join(lines)
    PAGE.write_text(re.sub(pattern, lambda _: f"{start}{table}\n{end}", text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    main()
