"""`coordcore plan` against training steps that were measured: small real models on the CPU, LoRA and full."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import support
import torch
from transformers import Qwen3VLForConditionalGeneration, TrainerCallback

from coordcore.manifest import fingerprint, resolved
from coordcore_train.engine import Skeleton, planning_of
from coordcore_train.estimate.activations import Watch, language_model, storages
from coordcore_train.estimate.base import weightless
from coordcore_train.estimate.estimate import plan_of_base
from coordcore_train.estimate.model import model_memory, objective_shape
from coordcore_train.estimate.objective import cpu_chunks, objective_memory
from coordcore_train.estimate.optimizers import state_bytes, state_of
from coordcore_train.objective import objective
from coordcore_train.run.folder import RunDir
from coordcore_train.run.plan import plan_of
from coordcore_train.swift.arguments import swift_arguments
from coordcore_train.swift.pipeline import CoordSft
from coordcore_train.swift.register import enter
from coordcore_train.swift.trainer import CoordTrainer
from coordcore_train.testing.tiny import tiny_qwen3vl

WITHIN = 1.1
"""The factor by which predicted activations may be off."""


@attrs.define
class Measured(TrainerCallback):  # type: ignore[misc]
    """What a step of training showed. shape: of its batch. All but the counts in bytes."""

    trainer: Any = None
    shape: tuple[int, int] = (0, 0)
    kept: int = 0
    gradients: int = 0
    optimizer: int = 0
    parameters: int = 0
    trained: int = 0
    weights: int = 0

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        found = list(self.trainer.model.parameters())
        self.gradients = sum(one.grad.nbytes for one in found if one.grad is not None)
        self.parameters, self.weights = sum(one.numel() for one in found), sum(one.nbytes for one in found)
        self.trained = sum(one.numel() for one in found if one.requires_grad)

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        states = self.trainer.optimizer.state.values()
        self.optimizer = sum(one.nbytes for state in states for one in state.values() if isinstance(one, torch.Tensor))


def measure(folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch, **sections: Any) -> Measured:
    """Train one step of a run, and look at it."""
    found = Measured()
    charge, run_objective = CoordTrainer.compute_loss, objective.run

    def compute_loss(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        found.trainer, found.shape = self, tuple(inputs["input_ids"].shape)
        watch = Watch(storages(model))
        with torch.autograd.graph.saved_tensors_hooks(watch.keep, lambda tensor: tensor):
            result = charge(self, model, inputs, *args, **kwargs)
        found.kept = watch.total
        return result

    def charge_chunks(batch: Any) -> None:
        # What a chunk keeps is gone before the next one.
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
            run_objective(batch)

    monkeypatch.setattr(CoordTrainer, "compute_loss", compute_loss)
    monkeypatch.setattr(objective, "run", charge_chunks)
    loaded = support.loaded(folder, base, **sections)
    run = RunDir(folder / "run")
    run.prepare(resolved(loaded.manifest, loaded.plugins), fingerprint(loaded.manifest), base, layout={})
    plan = plan_of(loaded.manifest, run.path, base)
    enter(plan)
    CoordSft(swift_arguments(plan, has_validation=False, resume=None), plan, [found]).run()
    return found


@pytest.fixture(params=[32, 64])
def wide(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    width, heads = request.param, request.param // 16
    return tiny_qwen3vl(
        tmp_path / "base", hidden_size=width, vision_hidden_size=width, head_dim=32, heads=heads, kv_heads=heads
    )


def config_alone(base: Path, folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(base / "config.json", folder)
    return folder


def planned(folder: Path, base: Path, **sections: Any) -> Iterator[tuple[Any, Skeleton]]:
    """The plan and skeleton of the same run, of whose base only config.json is there."""
    loaded = support.loaded(folder, config_alone(base, folder.with_name("config")), **sections)
    with weightless(loaded.manifest) as alone:
        scratch = folder.with_name("scratch")
        scratch.mkdir()
        plan = plan_of_base(loaded.manifest, alone, scratch)
        yield plan, planning_of(loaded.plugins).skeleton(plan)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("tuner", ["lora", "full"])
def test_a_step_takes_what_was_predicted(
    wide: Path, tuner: str, checkpointing: bool, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections: dict[str, Any] = {
        "model": {"dtype": dtype},
        "tuner": {"type": tuner},
        "train": {"steps": 1, "batch_size": 1 if checkpointing else 2, "gradient_checkpointing": checkpointing},
    }
    seen = measure(tmp_path / "real", wide, monkeypatch, **sections)
    [(plan, skeleton)] = planned(tmp_path / "planned", wide, **sections)
    model = model_memory(skeleton, plan)

    assert (model.parameters, model.trained_parameters, model.bytes) == (seen.parameters, seen.trained, seen.weights)
    assert model.trained_bytes == seen.gradients
    assert state_bytes(state_of(plan.manifest.train.optim), model.trained) == seen.optimizer

    batch, tokens = seen.shape
    found = language_model(
        skeleton.model, batch=batch, tokens=tokens, autocast=skeleton.autocast, eager=False, padded=False
    )
    shape = objective_shape(skeleton, plan, positions=batch * tokens, hidden_bytes=found.hidden)
    kept = found.kept(checkpointing=checkpointing) + objective_memory(shape, cpu_chunks(shape)).kept
    print(f"\n{dtype} {tuner} {checkpointing} {seen.shape} kept {seen.kept} predicted {kept} {kept / seen.kept:.3f}")

    assert seen.kept / WITHIN < kept < seen.kept * WITHIN


def test_a_batch_with_a_mask_keeps_more_as_predicted(tmp_path: Path) -> None:
    """Two examples of which one is shorter: shared heads are repeated, and each layer keeps the mask in numbers."""
    base = tiny_qwen3vl(tmp_path / "base", hidden_size=64, heads=4)
    model = Qwen3VLForConditionalGeneration.from_pretrained(base, attn_implementation="sdpa").train()
    mask = torch.ones(2, 96, dtype=torch.int64)
    mask[1, 60:] = 0
    embedded = torch.zeros(2, 96, 64).requires_grad_(True)
    watch = Watch(storages(model))
    with torch.autograd.graph.saved_tensors_hooks(watch.keep, lambda tensor: tensor):
        model.model(inputs_embeds=embedded, attention_mask=mask, use_cache=False)
    padded, alone = (
        language_model(model, batch=2, tokens=96, autocast=None, eager=False, padded=padded) for padded in (True, False)
    )

    kept = padded.kept(checkpointing=False)
    assert watch.total / WITHIN < kept < watch.total * WITHIN
    assert alone.kept(checkpointing=False) < kept
