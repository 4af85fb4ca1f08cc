"""What trains is looked at once a checkpoint: none holds NaN or infinity, and a run that moved nothing says so."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import support
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from coordcore.cli import app
from coordcore_train.run.folder import RunDir
from coordcore_train.run.progress import ProgressCallback
from coordcore_train.swift.trained import Start, not_finite, trained
from coordcore_train.swift.trainer import CoordTrainer


def alone(tensor: Tensor) -> Tensor:
    """The sum over a single rank."""
    return tensor


# --- finite -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_named(dtype: torch.dtype, value: float) -> None:
    tensors = {name: torch.ones(5, 3, dtype=dtype) for name in ("first", "second", "third")}
    tensors["none here"] = torch.empty(0, dtype=dtype)  # of a shard
    assert not_finite(tensors, alone) == []
    tensors["second"][4, 1] = value
    assert not_finite(tensors, alone) == ["second"]


def test_what_another_rank_holds_is_named_too() -> None:
    assert not_finite({"first": torch.ones(2), "second": torch.ones(2)}, lambda bad: bad + torch.tensor([0, 1])) == [
        "second"
    ]


def test_only_what_trains_is_looked_at() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert list(trained(model)) == ["1.weight", "1.bias"]


def test_weights_that_are_not_finite_are_not_kept(
    coord_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(_callback: Any, _args: Any, state: Any, _control: Any, *, model: nn.Module, **_more: Any) -> None:
        """The update of step 2, of a finite loss and gradient, is too large for one number."""
        if state.global_step == 1:
            next(iter(trained(model).values()))[0, 0] = torch.inf

    monkeypatch.setattr(ProgressCallback, "on_optimizer_step", overflow)
    manifest = support.write_manifest(tmp_path, coord_base, train={"save_every": 1})
    result = CliRunner().invoke(app, ["run", str(manifest), "--output", str(tmp_path / "run")])
    last = tmp_path / "run" / "checkpoints" / "checkpoint-1"
    assert result.exit_code == 1
    assert "step 2: NaN or infinity in base_model." in result.output
    assert f"so no checkpoint was kept; the last good checkpoint is {last}; lower train" in result.output
    assert RunDir(tmp_path / "run").last_checkpoint() == last


# --- moved ------------------------------------------------------------------------------------------------------------


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"A": torch.randn(40, 300, generator=generator), "B": torch.zeros(300, 40)}


def moved(change: Any) -> bool:
    tensors = weights()
    start = Start(tensors)
    change(tensors)
    return start.moved(tensors, alone)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: None, False),
        (lambda tensors: tensors["A"].mul_(0.9), False),  # weight decay
        (lambda tensors: [tensors["A"].mul_(1 - 1e-3) for _ in range(200)], False),
        (lambda tensors: tensors["B"].fill_(1e-25), False),
        (lambda tensors: tensors["B"].fill_(1e-5), True),
        (lambda tensors: tensors["A"].add_(1e-4), True),
        (lambda tensors: tensors["A"][1::4].mul_(1.01), True),
        (lambda tensors: tensors["A"].mul_(0.9).add_(1e-4), True),
    ],
)
def test_what_counts_as_moving(change: Any, says: bool) -> None:
    assert moved(change) is says


def test_tensors_that_all_start_at_zero() -> None:
    tensors = {"rows": torch.zeros(9, 4), "none here": torch.empty(0)}
    start = Start(tensors)
    assert start.moved(tensors, alone) is False
    tensors["rows"][3, 3] = 1e-9
    assert start.moved(tensors, alone) is True
    assert Start({}).moved({}, alone) is False
    assert Start({}).moved({}, lambda here: here + 1) is True  # on another rank


def test_a_run_that_moved_nothing_says_so(coord_base: Path, tmp_path: Path) -> None:
    train = {"steps": 2, "learning_rate": 1e-12, "weight_decay": 0.1}
    manifest = support.write_manifest(tmp_path, coord_base, train=train)
    result = CliRunner().invoke(app, ["run", str(manifest), "--output", str(tmp_path / "run")])
    assert result.exit_code == 0
    assert "checkpoint-2: none of the trained tensors has moved, weight decay apart: the result is" in result.output
    assert (
        "train.learning_rate = 1e-12 (in warming up, the first step's is 0), train.max_grad_norm = 1.0" in result.output
    )


def test_that_something_moved_is_remembered() -> None:
    # A continuation of few steps at the end of a schedule may move nothing itself.
    trainer: Any = SimpleNamespace(model=nn.Linear(2, 2), moved=True, _sum=alone)
    CoordTrainer.check_weights(trainer)
    assert trainer.moved is True


def test_a_run_that_moved_says_nothing(coord_base: Path, tmp_path: Path) -> None:
    manifest = support.write_manifest(tmp_path, coord_base, train={"steps": 2})
    result = CliRunner().invoke(app, ["run", str(manifest), "--output", str(tmp_path / "run")])
    assert (result.exit_code, "warning" in result.output) == (0, False)
