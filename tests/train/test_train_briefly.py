"""The kit's short run is a real one, and leaves nothing of the kit behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import support  # noqa: F401 - puts the fakes on the path

from coordcore import kinds
from coordcore.discovery import discover
from coordcore.manifest import ManifestError
from coordcore.testing import logged, train_briefly


def test_a_surgery_and_two_losses_under_lora(tmp_path: Path) -> None:
    run = train_briefly(
        tmp_path,
        loss=["text_ce", "fake_bins"],
        surgery={"fake_rows": {"declared": True}},
        tuner={"type": "lora"},
        train={"steps": 4},
    )
    assert len(logged(run, "text_ce/ce")) == 4
    assert logged(run, "loss")[-1] < logged(run, "loss")[0]
    assert (run / "merged" / "model.safetensors").is_file()


def test_the_kit_s_builder_is_gone_afterwards(tmp_path: Path) -> None:
    path = list(sys.path)
    with pytest.raises(ManifestError) as caught:
        train_briefly(tmp_path, loss={"fake_binz": {}})
    assert "loss.fake_binz: no plugin offers this loss; did you mean 'fake_bins'?" in str(caught.value)
    assert sys.path == path
    assert "tiny_boxes" not in discover().names(kinds.DATA)


def test_the_guard_holds_here_too(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"data\.tiny_boxes: coord tokens need a loss that supervises them"):
        train_briefly(tmp_path, loss="text_ce")
    assert not (tmp_path / "run").exists()
