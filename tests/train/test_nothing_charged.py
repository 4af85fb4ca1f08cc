"""A run whose losses charge nothing is refused, or stopped; one in which now and then nothing is charged goes on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import support
import torch
from torch.utils.data import Dataset
from typer.testing import CliRunner

from coordcore.builtins import FunctionTerm
from coordcore.cli import app
from coordcore.errors import InputError, RunError
from coordcore_train.objective import Objective
from coordcore_train.swift.pipeline import require_charged
from coordcore_train.swift.trainer import CoordTrainer

ONLY_BOXES = {"loss": {"text_ce": None, "fake_bins": {}}}


def objective(*terms: FunctionTerm) -> Objective:
    return Objective([("bins", term) for term in terms or [FunctionTerm(fn=lambda seen: seen.lse, scope="text")]], None)


class Encoded(Dataset[Any]):
    """Examples as numbers, of which `charged` hold something. Draws random numbers, and notes who was looked at."""

    def __init__(self, count: int, charged: Sequence[int]) -> None:
        self.dataset = SimpleNamespace(real=count)
        self.charged, self.seen = charged, []

    def __getitem__(self, index: int) -> float:
        self.seen.append(index)
        return float(index in self.charged) + 0 * (random.random() + numpy.random.rand() + torch.rand(1).item())


def look(encoded: Encoded) -> None:
    plan: Any = SimpleNamespace(
        objective=objective(), manifest=SimpleNamespace(of=lambda _kind: [SimpleNamespace(path="data.mine")])
    )
    require_charged(plan, encoded, lambda batch: {"counts": batch}, workers=0)


@pytest.mark.parametrize(("count", "charged", "looked_at"), [(9, [3], 4), (9, [0], 1), (1000, [500], 129)])
def test_the_first_charged_example_is_enough(count: int, charged: list[int], looked_at: int) -> None:
    encoded = Encoded(count, charged)
    states = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    look(encoded)
    assert len(encoded.seen) == looked_at
    assert states == (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_examples_from_all_over_the_data_are_looked_at() -> None:
    encoded = Encoded(10_000, [])
    with pytest.raises(
        InputError, match=r"data\.mine: 256 of its 10000 examples hold no position that .*\(bins/loss\)"
    ):
        look(encoded)
    assert (encoded.seen[0], encoded.seen[128], encoded.seen[-1]) == (0, 5000, 9960)


def test_a_run_of_which_the_losses_charge_nothing_is_refused(coord_base: Path, tmp_path: Path) -> None:
    manifest = support.write_manifest(tmp_path, coord_base, **ONLY_BOXES, data={"fake_boxes": {"boxes_until": 0}})
    result = CliRunner().invoke(app, ["run", str(manifest), "--output", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert "data.fake_boxes: 48 of its 48 examples hold no position that a loss charges (fake_bins/ce" in result.output


def test_a_logging_interval_without_any_stops_the_run(coord_base: Path, tmp_path: Path) -> None:
    manifest = support.write_manifest(
        tmp_path,
        coord_base,
        **ONLY_BOXES,
        data={"fake_boxes": {"boxes_until": 1}},
        train={"batch_size": 2, "log_every": 2, "save_every": 1},
    )
    result = CliRunner().invoke(app, ["run", str(manifest), "--output", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert "steps 2 to 2: no position that a loss charges, so they trained nothing; the last good" in result.output


@pytest.mark.parametrize(
    ("step", "of", "steps", "log_every", "whole"),
    [
        (1, 100, 1, 10, False),  # the first step's own line
        (10, 100, 9, 10, True),
        (20, 100, 10, 10, True),
        (25, 25, 5, 10, False),  # the rest of a run
        (1, 100, 1, 1, True),
        (5, 5, 4, 10, True),  # all that there is
        (1, 1, 1, 10, True),
        (1, 2, 1, 10, False),
    ],
)
def test_what_a_whole_interval_is(step: int, of: int, steps: int, log_every: int, whole: bool) -> None:
    state = SimpleNamespace(global_step=step, max_steps=of, logging_steps=log_every)
    trainer: Any = SimpleNamespace(state=state, _last_good=lambda: "no checkpoint had been written yet")
    if whole:
        with pytest.raises(RunError, match=f"steps {step - steps + 1} to {step}: .*or raise train.log_every"):
            CoordTrainer.require_charged(trainer, steps)
    else:
        CoordTrainer.require_charged(trainer, steps)


def test_parts_without_a_weight_charge_nothing() -> None:
    def value(seen: Any) -> Any:
        return seen.lse

    shown, ramp = (
        FunctionTerm(fn=value, scope="text", weight=0.0, name="shown"),
        FunctionTerm(fn=value, scope="text", schedule=lambda step, total: step / total, name="ramp"),
    )
    assert objective(shown).is_charged([5.0]) is False
    assert objective(shown, ramp).is_charged([5.0, 0.0]) is False
    assert objective(shown, ramp).is_charged([5.0, 2.0]) is True
