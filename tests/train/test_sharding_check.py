"""What `coordcore check` knows of `launch.fsdp` and `launch.deepspeed`, and what ms-swift is given for them."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from coordcore.manifest import Manifest
from coordcore.manifest.sections import Launch, Model, Train, Tuner
from coordcore_train.swift import sharding

ONE = "spreads a run over several processes, and this one has one; set launch.nproc_per_node, or leave it out"
FSDP2: dict[str, Any] = {"fsdp": "fsdp2", "nproc_per_node": 2}
ZERO2: dict[str, Any] = {"deepspeed": "zero2", "nproc_per_node": 2}


def manifest(launch: dict[str, Any], **train: Any) -> Manifest:
    return Manifest(
        name="m", model=Model(base="base"), launch=Launch(**launch), train=Train(**train), tuner=Tuner(), selected=()
    )


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed, wherever these tests run, and a compiler."""
    monkeypatch.setattr(metadata, "version", lambda name: "1")
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def problems(launch: dict[str, Any], **train: Any) -> list[str]:
    return [str(problem) for problem in sharding.problems(manifest(launch, **train))]


@pytest.mark.parametrize("launch", [{}, FSDP2, *({**ZERO2, "deepspeed": f"zero{stage}"} for stage in range(4))])
def test_what_runs_has_no_problem(launch: dict[str, Any]) -> None:
    assert problems(launch, device="cpu") == []


@pytest.mark.parametrize("setting", [{"fsdp": "fsdp2"}, {"deepspeed": "zero2_offload"}])
def test_one_process_has_nothing_to_share(setting: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    [key] = setting
    assert problems(setting) == [f"launch.{key}: {ONE}"]
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert problems({**setting, "nproc_per_node": 8}) == [f"launch.{key}: {ONE}"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert problems(setting) == []


def test_deepspeed_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert problems(ZERO2) == [
        "launch.deepspeed: needs the package deepspeed, which is not installed here; pip install deepspeed, or set "
        'launch.fsdp = "fsdp2" instead, which comes with torch'
    ]
    assert problems(FSDP2) == []


def test_deepspeed_on_the_cpu_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    [problem] = problems(ZERO2, device="cpu")
    assert problem.endswith("compiles its communication with c++, which is not in PATH; install g++")
    assert problems(ZERO2, device="cuda") == []


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("fsdp", "{", "is no JSON: Expecting property name"),
        ("fsdp", "[]", "it must be a table of settings, got []"),
        ("fsdp", '{"fsdp_config": 3}', "fsdp_config must be a table of settings, got 3"),
        ("fsdp", '{"fsdp_config": {"fsdp_version": 1}}', "fsdp_version is 1: the losses are made for version 2"),
        ("fsdp", '{"fsdp_config": {"version": "1"}}', "version is '1': "),
        ("deepspeed", "[" * 100_000, "is no JSON"),
        ("deepspeed", "", "is no JSON"),
        ("deepspeed", '{"zero_optimization": null}', "zero_optimization must be a table of settings"),
        ("deepspeed", '{"zero_optimization": {"stage": "3"}}', "its zero_optimization.stage must be 0, 1, 2 or 3"),
        ("deepspeed", '{"optimizer": {}}', "its optimizer would stand in for that of [optimizer.<name>]"),
        ("deepspeed", '{"scheduler": {}}', "its scheduler would stand in for that of train.schedule"),
        (
            "deepspeed",
            '{"gradient_clipping": 5}',
            'its gradient_clipping is 5, and train.max_grad_norm is 1.0; write "auto"',
        ),
        ("deepspeed", '{"train_batch_size": 3}', "its train_batch_size is 3, and the batch of all processes is 2;"),
        ("deepspeed", '{"train_micro_batch_size_per_gpu": []}', "and train.batch_size is 1;"),
        ("deepspeed", '{"bf16": {"enabled": false}}', "its bf16.enabled is false, and model.dtype is bfloat16;"),
        ("deepspeed", '{"fp16": {"enabled": true}}', "its fp16.enabled is true, and model.dtype is bfloat16;"),
        ("deepspeed", '{"tensor_parallel": {"autotp_size": 2}}', "would split the output head"),
    ],
)
def test_a_file_of_settings_that_no_run_can_have(tmp_path: Path, key: str, text: str, message: str) -> None:
    file = tmp_path / "settings.json"
    file.write_text(text)
    [problem] = problems({key: str(file), "nproc_per_node": 2})
    assert problem.startswith(f"launch.{key}: ")
    assert message in problem


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_bytes(b"\xff\xfe{}")
    [problem] = problems({"deepspeed": str(file), "nproc_per_node": 2})
    assert "is no JSON" in problem


def test_zero3_cannot_evaluate_on_the_way() -> None:
    zero3 = {**ZERO2, "deepspeed": "zero3"}
    [problem] = problems(zero3, evaluate_checkpoints=True)
    assert problem.startswith("launch.deepspeed: train.evaluate_checkpoints loads the checkpoint on one rank")
    assert problems(ZERO2, evaluate_checkpoints=True) == []


@pytest.mark.parametrize("checkpointing", [False, True])
def test_fsdp2_recomputes_activations_when_the_manifest_says_so(checkpointing: bool) -> None:
    text = sharding.fsdp_settings(manifest(FSDP2, gradient_checkpointing=checkpointing))
    settings = json.loads(text or "")
    assert settings["fsdp_config"]["activation_checkpointing"] is checkpointing
    assert settings["fsdp_config"]["state_dict_type"] == "FULL_STATE_DICT"


def test_a_file_keeps_its_settings_but_for_what_is_saved(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    for name in ("state_dict_type", "fsdp_state_dict_type"):
        mine = {"fsdp": "full_shard", "fsdp_config": {"activation_checkpointing": True, name: "SHARDED_STATE_DICT"}}
        file.write_text(json.dumps(mine))
        settings = json.loads(sharding.fsdp_settings(manifest({"fsdp": str(file), "nproc_per_node": 2})) or "")
        assert settings["fsdp_config"] == {"activation_checkpointing": True, "state_dict_type": "FULL_STATE_DICT"}
    file.write_text('{"zero_optimization": {"stage": 3, "sub_group_size": 7}}')
    settings = json.loads(sharding.deepspeed_settings(manifest({"deepspeed": str(file), "nproc_per_node": 2})) or "")
    gathered = {"stage3_gather_16bit_weights_on_model_save": True}
    assert settings.pop("zero_optimization") == {"stage": 3, "sub_group_size": 7, **gathered}
    assert set(settings.values()) == {"auto"}
