"""Checkpoints of a run whose files are damaged: named before torch and PEFT meet them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coordcore.errors import InputError
from coordcore_train.checkpoint.origin import Origin, write_origin
from coordcore_train.checkpoint.tensorfile import TensorSpec, WeightFile
from coordcore_train.checkpoint.trained import require_readable, trainer_state
from coordcore_train.run.folder import RunDir

STATE = {"global_step": 2, "max_steps": 4, "num_train_epochs": 1, "epoch": 0.5, "log_history": [], "unknown": None}
ADAPTER = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    (folder / "trainer_state.json").write_text(json.dumps(STATE))
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER))
    output = WeightFile(folder / "adapter_model.safetensors", [TensorSpec(name="a", dtype="U8", shape=(1,), size=1)])
    output.write("a", b"\0")
    output.close()
    write_origin(folder, Origin(fingerprint="f", moved=True, steps=0, sums=()))
    return folder


def test_a_checkpoint_that_is_whole_is_taken(checkpoint: Path) -> None:
    require_readable(checkpoint, adapter=True)

    assert not trainer_state(checkpoint).is_last


def test_a_whole_model_needs_no_adapter(checkpoint: Path) -> None:
    (checkpoint / "adapter_config.json").unlink()

    require_readable(checkpoint, adapter=False)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def holds(**changes: Any) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **changes})) and None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes().rstrip()[:-1])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("adapter_config.json", Path.unlink, "no such file"),
        ("adapter_config.json", folder, "cannot be read: is a directory"),
        ("adapter_config.json", pipe, "cannot be read: is a pipe or a device"),
        ("adapter_config.json", cut, "not readable as JSON"),
        ("adapter_config.json", holds(r="four"), "expected `int`, got `str` - at `$.r`"),
        ("adapter_config.json", holds(peft_type=None), "expected `str`, got `null` - at `$.peft_type`"),
        ("coordcore_checkpoint.json", folder, "cannot be read: is a directory"),
        ("coordcore_checkpoint.json", pipe, "cannot be read: is a pipe or a device"),
        ("coordcore_checkpoint.json", cut, "not readable: "),
        ("trainer_state.json", folder, "cannot be read: is a directory"),
        ("trainer_state.json", holds(global_step=-1), "expected `int` >= 0 - at `$.global_step`"),
        ("trainer_state.json", holds(max_steps=None), "expected `int`, got `null` - at `$.max_steps`"),
        ("adapter_model.safetensors", folder, "cannot be read: is a directory"),
        ("adapter_model.safetensors", pipe, "cannot be read: is a pipe or a device"),
        ("adapter_model.safetensors", cut, "64 bytes, but its header needs 65"),
    ],
)
def test_a_damaged_file_is_named(checkpoint: Path, name: str, damage: Callable[[Path], None], message: str) -> None:
    damage(checkpoint / name)
    read = trainer_state if name == "trainer_state.json" else partial(require_readable, adapter=True)

    with pytest.raises(InputError) as caught:
        read(checkpoint)
    assert str(caught.value).lower().startswith(f"{checkpoint / name}: {message.replace('`', '')}".lower())


def test_no_pipe_waits_for_peft_or_ms_swift(checkpoint: Path) -> None:
    (checkpoint / "link").symlink_to("nothing")
    require_readable(checkpoint, adapter=True)
    os.mkfifo(checkpoint / "additional_config.json")
    with pytest.raises(InputError, match=r"additional_config\.json: cannot be read: is a pipe or a device"):
        require_readable(checkpoint, adapter=True)


@pytest.mark.parametrize("line", [b'{"step": 1, "loss": "\xba"}', b"[]", b'{"loss": 1}', b'{"step": "1"}', b"{"])
def test_a_line_of_metrics_that_is_none_is_not_lost_in_silence(tmp_path: Path, line: bytes) -> None:
    run = RunDir(tmp_path)
    run.metrics.write_bytes(b'{"step": 1}\n' + line)
    run.discard_after(2)
    assert run.metrics.read_bytes() == b'{"step": 1}\n'  # it was being written as the run was cut off

    run.metrics.write_bytes(line + b'\n{"step": 1}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl:1: is no line of metrics; remove it"):
        run.discard_after(2)
