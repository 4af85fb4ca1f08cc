"""`swift export --merge_lora true` of a run writes what `coordcore merge` does, or stops with the cure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import support
import torch
from safetensors.torch import load_file

from coordcore_train.checkpoint.merge.run import merge_run
from coordcore_train.run.folder import RunDir


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, coord_base: Path) -> RunDir:
    return support.train(tmp_path_factory.mktemp("export"), coord_base, train={"steps": 2, "learning_rate": 1e-2})


def export(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command as a user gives it, writing to `folder`/out."""
    return subprocess.run(
        [
            *(str(Path(sys.executable).with_name("swift")), "export", *map(str, arguments)),
            *("--merge_lora", "true", "--output_dir", str(folder / "out"), "--use_hf", "true"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MODELSCOPE_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_rows_are_merged(run: RunDir, tmp_path: Path) -> None:
    checkpoint = run.last_checkpoint()
    assert checkpoint is not None
    done = export(tmp_path, "--adapters", checkpoint)
    assert done.returncode == 0, done.stdout + done.stderr
    ours = merge_run(run.path, tmp_path / "ours", checkpoint=checkpoint).output
    expected, found = (load_file(folder / "model.safetensors") for folder in (ours, tmp_path / "out"))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6, msg=name)


def test_a_command_that_does_not_load_coordcore_is_told_the_cure(run: RunDir, coord_base: Path, tmp_path: Path) -> None:
    checkpoint = run.last_checkpoint()
    assert checkpoint is not None
    moved = Path(shutil.copytree(checkpoint, tmp_path / "moved"))
    (moved / "args.json").unlink()
    done = export(tmp_path, "--adapters", moved, "--model", coord_base, "--model_type", "qwen3_vl")
    assert done.returncode != 0
    assert "LORA with row_offset, which this program would lose" in done.stderr + done.stdout
    assert "coordcore merge RUN" in done.stderr + done.stdout
    assert not (tmp_path / "out").exists()
