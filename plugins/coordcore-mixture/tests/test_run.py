"""A run of two sources, cut off in the middle of its second epoch, goes on bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from sources import boxes

from coordcore import Example
from coordcore.testing.training import train_briefly
from coordcore_mixture.data import MixedExamples
from coordcore_train.testing.tiny import tiny_qwen3vl

ASKED = MixedExamples.in_epoch


def test_a_run_that_was_cut_off_goes_on_with_the_records_it_would_have_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_qwen3vl(tmp_path / "base")
    trained: list[str] = []

    def run(name: str, *, stop_at: int | None = None) -> Path:
        def in_epoch(self: MixedExamples, epoch: int, index: int) -> Example:
            trained.append(f"{epoch} {ASKED(self, epoch, index).source}")
            if sum(place.startswith("1 ") for place in trained) == stop_at:
                raise KeyboardInterrupt
            return ASKED(self, epoch, index)

        monkeypatch.setattr(MixedExamples, "in_epoch", in_epoch)
        # An epoch is of 5 examples and 3 steps: the fourth step begins the second epoch, the seventh the third.
        settings = {"steps": 7, "batch_size": 2, "save_every": 2, "log_every": 3}
        return train_briefly(
            tmp_path / name,
            base=base,
            loss={"text_ce": {"coord_positions": True}},
            data={"mixture": {"sources": {"a": boxes(3), "b": boxes(4, records=2)}}},
            train=settings,
            merge=False,
        )

    whole = run("whole")
    every = trained.copy()
    trained.clear()
    with pytest.raises(KeyboardInterrupt):
        run("cut", stop_at=4)
    assert {path.name for path in (tmp_path / "cut/run/checkpoints").iterdir()} >= {"checkpoint-2", "checkpoint-4"}
    trained.clear()
    continued = run("cut")

    assert trained[-5:] == every[-5:]
    assert [place[0] for place in every[-5:]] == ["1", "1", "1", "2", "2"]
    assert (continued / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    both = [line for line in lines if {"loss@a", "loss@b"} <= line.keys()]
    assert len(both) > 1
    for line in both:
        low, high = sorted((line["text_ce/ce@a"], line["text_ce/ce@b"]))
        assert low < line["text_ce/ce"] < high
        assert line["loss@a"] == line["text_ce/ce@a"]
    [held_out] = [line for line in lines if "eval_loss" in line]
    assert held_out["eval_loss"] == pytest.approx((held_out["eval_loss@a"] + held_out["eval_loss@b"]) / 2)
    last = "checkpoints/checkpoint-7/model.safetensors"
    ours, theirs = load_file(continued / last), load_file(whole / last)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
