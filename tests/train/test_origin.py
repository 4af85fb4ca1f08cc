"""A checkpoint is of the run that made it: neither a merge nor a continued run takes another, or a changed one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import support
import torch
from safetensors.torch import load_file, save_file

from coordcore.errors import InputError
from coordcore_train.checkpoint.merge.in_memory import load_live
from coordcore_train.checkpoint.merge.run import merge_run
from coordcore_train.checkpoint.origin import FILE
from coordcore_train.run.folder import RunDir
from coordcore_train.run.plan import load_run
from coordcore_train.surgery.saving import signed

SECTIONS = {"train": {"steps": 2, "save_every": 1}}
ADAPTER = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, coord_base: Path) -> RunDir:
    return support.train(tmp_path_factory.mktemp("first"), coord_base, **SECTIONS)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, coord_base: Path) -> RunDir:
    """A run whose adapter has the same shapes."""
    sections = {"train": {**SECTIONS["train"], "seed": 7}}
    return support.train(tmp_path_factory.mktemp("other"), coord_base, **sections)


def last(run: RunDir) -> Path:
    checkpoint = run.last_checkpoint()
    assert checkpoint is not None
    return checkpoint


def copied(run: RunDir, folder: Path) -> RunDir:
    return RunDir(Path(shutil.copytree(run.path, folder / "run")))


def cast(checkpoint: Path, dtype: torch.dtype) -> None:
    tensors = load_file(checkpoint / ADAPTER)
    weights = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_file(weights, checkpoint / ADAPTER, {"format": "pt"})


def with_alpha(checkpoint: Path, alpha: float) -> None:
    file = checkpoint / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "lora_alpha": alpha}))


CHANGES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "another run's checkpoint": (
        lambda own, foreign: shutil.copytree(foreign, own, dirs_exist_ok=True),
        r"checkpoint-2/coordcore_checkpoint\.json: was made by a run of another manifest \(its fingerprint is ",
    ),
    "another run's adapter": (
        lambda own, foreign: shutil.copy(foreign / ADAPTER, own / ADAPTER),
        r"checkpoint-2/adapter_model\.safetensors: was made by a run of another manifest \(its fingerprint is ",
    ),
    "another alpha": (
        lambda own, _foreign: with_alpha(own, 64.0),
        r"checkpoint-2/adapter_config\.json: lora_alpha is 64\.0, it was saved with 8\.0; put back what the run saved",
    ),
    "half precision": (
        lambda own, _foreign: cast(own, torch.float16),
        r"checkpoint-2: base_model\..* is F16, it was saved as F32; put back what the run saved, or remove",
    ),
    "integers": (
        lambda own, _foreign: cast(own, torch.int32),
        r"checkpoint-2: base_model\..* is I32, it was saved as F32",
    ),
    "integers of nobody": (
        lambda own, _foreign: ((own / FILE).unlink(), cast(own, torch.int32)),
        r"checkpoint-2: base_model\..* is I32, and holds no floating-point numbers; put back",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_that_is_not_the_run_s_own_is_refused(
    first: RunDir, other: RunDir, coord_base: Path, tmp_path: Path, change: str
) -> None:
    run = copied(first, tmp_path)
    make, message = CHANGES[change]
    make(last(run), last(other))
    with pytest.raises(InputError, match=message):
        merge_run(run.path, tmp_path / "merged")
    with pytest.raises(InputError, match=message):
        load_live(load_run(run.path), last(run))
    run.write_state(done=False, trained=False)
    with pytest.raises(InputError, match=message):
        support.train(tmp_path, coord_base, **SECTIONS)
    assert not (tmp_path / "merged").exists()


def test_the_run_s_own_is_taken_and_so_is_one_that_says_nothing(first: RunDir, tmp_path: Path) -> None:
    merge_run(first.path, tmp_path / "own")
    run = copied(first, tmp_path)
    (last(run) / FILE).unlink()
    merge_run(run.path, tmp_path / "silent")
    assert (tmp_path / "own" / "model.safetensors").read_bytes() == (
        tmp_path / "silent" / "model.safetensors"
    ).read_bytes()


def test_a_full_tuner_s_checkpoint_in_another_dtype_is_refused(coord_base: Path, tmp_path: Path) -> None:
    run = support.train(tmp_path, coord_base, **SECTIONS, tuner={"type": "full"})
    file = last(run) / "model.safetensors"
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"checkpoint-2: .* is BF16, it was saved as F32"):
        merge_run(run.path, tmp_path / "merged")


def test_the_same_adapter_is_the_same_bytes(tmp_path: Path) -> None:
    from peft import peft_model

    found = set()
    for number in range(20):
        with signed("f" * 64):
            peft_model.safe_save_file(
                {"é.a": torch.ones(2)}, tmp_path / "a", metadata={"format": "pt", "x": str(number)}
            )
        data = (tmp_path / "a").read_bytes()
        assert torch.equal(load_file(tmp_path / "a")["é.a"], torch.ones(2))
        found.add(re.sub(rb'"x":"\d+"', b"", data[8:].replace(b" ", b"")))
    assert len(found) == 1
