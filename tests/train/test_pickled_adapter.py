"""A run whose adapter is written with torch's pickle (`safe_serialization = false`) is merged like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import support
import torch
from safetensors.torch import load_file

from coordcore import RunError
from coordcore_train.checkpoint.merge.run import merge_run
from coordcore_train.surgery.saved import require_saved


def test_it_is_merged_to_the_same_weights(coord_base: Path, tmp_path: Path) -> None:
    merged = {}
    for safe in (True, False):
        train = {"steps": 2, "learning_rate": 1e-2, "swift": {"safe_serialization": safe}}
        run = support.train(tmp_path / str(safe), coord_base, train=train)
        checkpoint = run.last_checkpoint()
        assert checkpoint is not None
        assert (checkpoint / "adapter_model.bin").exists() is not safe
        require_saved(["row_offset"], checkpoint)
        with pytest.raises(RunError, match="holds no tensor of another_module"):
            require_saved(["another_module"], checkpoint)
        merged[safe] = load_file(merge_run(run.path, tmp_path / f"merged-{safe}").output / "model.safetensors")
    assert merged[True].keys() == merged[False].keys()
    for name, tensor in merged[True].items():
        torch.testing.assert_close(merged[False][name], tensor, rtol=0, atol=1e-6, msg=name)
