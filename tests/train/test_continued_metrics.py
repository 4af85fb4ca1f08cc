"""A run that was interrupted writes the same metrics, to the byte, as one that was not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import support
import torch

from coordcore.errors import InputError, RunError
from coordcore_train.checkpoint.origin import FILE, Origin, read_origin, write_origin
from coordcore_train.swift.trainer import CoordTrainer

BETWEEN = {"steps": 7, "batch_size": 1, "save_every": 3, "log_every": 2}
"""Lines at steps 1, 2, 4, 6 and 7, checkpoints at 3, 6 and 7."""


def test_a_line_between_two_checkpoints_is_of_all_its_steps(
    coord_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {"data": {"fake_boxes": {"train": 5}}, "train": BETWEEN}
    whole = support.train(tmp_path / "whole", coord_base, **sections)
    monkeypatch.setenv("FAKE_STOP_AT", "4")
    with pytest.raises(RunError, match="stopped at step 4"):
        support.train(tmp_path / "stopped", coord_base, **sections)
    monkeypatch.delenv("FAKE_STOP_AT")
    continued = support.train(tmp_path / "stopped", coord_base, **sections)

    assert [line["step"] for line in support.metrics(whole)] == [1, 2, 4, 6, 7]
    assert continued.metrics.read_bytes() == whole.metrics.read_bytes()


def rank_of_two(rank: int, *sums: float) -> Any:
    """What `CoordTrainer` has on a rank at step 6, its last line at 4: its loss, and sum and count of the only part."""
    loss, total, seen = (torch.tensor([value], dtype=torch.float64) for value in sums)
    return SimpleNamespace(
        _tr_loss=loss[0].float(),
        _globalstep_last_logged=4,
        moved=True,
        sums={"train": total},
        seen={"train": seen},
        args=SimpleNamespace(world_size=2, process_index=rank, device="cpu"),
        state=SimpleNamespace(global_step=6),
        plan=SimpleNamespace(fingerprint="ab", objective=SimpleNamespace(parts=["ce"])),
    )


def test_each_rank_goes_on_with_its_own_sums() -> None:
    saving, other = rank_of_two(0, 0.25, 0.1, 3), torch.tensor([[0.5, 1 / 3, 4]], dtype=torch.float64)
    saving.accelerator = SimpleNamespace(gather=lambda own: torch.cat([own, other]))
    origin = CoordTrainer.origin(saving)
    assert origin == Origin(fingerprint="ab", moved=True, steps=2, sums=((0.25, 0.1, 3.0), (0.5, 1 / 3, 4.0)))

    continued = rank_of_two(1, 0, 0, 0)
    continued._globalstep_last_logged = 6  # as transformers sets it
    CoordTrainer.continue_from(continued, origin)
    assert continued._globalstep_last_logged == 4
    assert (continued._tr_loss.item(), continued.sums["train"].item(), continued.seen["train"].item()) == (
        0.5,
        1 / 3,
        4,
    )


def test_sums_come_back_to_the_bit(tmp_path: Path) -> None:
    origin = Origin(fingerprint="ab", moved=True, steps=3, sums=((0.1, 1e-300, 1 / 3), (2.0**53 + 2, 0.0, -1.5)))
    write_origin(tmp_path, origin)
    assert read_origin(tmp_path) == origin


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert read_origin(tmp_path) is None
    (tmp_path / FILE).write_text('{"fingerprint": 3}')
    with pytest.raises(InputError, match=r"coordcore_checkpoint\.json: not readable: Expected `str`, got `int`"):
        read_origin(tmp_path)
