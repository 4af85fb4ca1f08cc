"""The formula, the promises of a loss, and a few real training steps."""

from __future__ import annotations

import pytest
import torch
from coordcore_huber import plugin
from coordcore_huber.plugin import HuberConfig, expected_huber

from coordcore.protocols import CoordPositions
from coordcore.testing import logged, parametrize_with_checks, train_briefly

torch.set_num_threads(1)


@parametrize_with_checks(plugin, configs=[HuberConfig(), HuberConfig(delta=0.5)])
def test_conformance(check):
    check()


def test_a_sure_prediction_ten_bins_off():
    logits = torch.nn.functional.one_hot(torch.tensor([17]), 1000).float() * 200
    positions = CoordPositions(logits=logits, bins=torch.tensor([7]), values=torch.tensor([7.0]))
    # |10| > 4, so 4 * (10 - 4 / 2), over 4 * 999
    assert expected_huber(positions, 4.0).tolist() == pytest.approx([8 / 999])


def test_it_trains(tmp_path):
    run = train_briefly(tmp_path, loss={"text_ce": {}, "coord_huber": {"weight": 10.0}})
    losses = logged(run, "coord_huber/loss")
    assert losses[-1] < 0.7 * losses[0]
    assert (run / "merged" / "model.safetensors").is_file()
