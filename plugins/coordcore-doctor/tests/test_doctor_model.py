"""The doctor's checks of tuner, optimizer and head, and the whole table of a healthy run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from doctor_support import copied, doctor_plugin, everything, examined, finding
from torch.nn import functional
from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLCausalLMOutputWithPast

from coordcore_doctor.examine import CHECKS
from coordcore_train.testing.tiny import tiny_qwen3vl


@pytest.fixture(scope="module", autouse=True)
def _plugin(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with doctor_plugin(tmp_path_factory.mktemp("plugin")):
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen3vl(tmp_path_factory.mktemp("tiny") / "base", padding_rows=40)


def states(findings: dict[str, Any]) -> dict[str, str]:
    return {name: found.state for name, found in findings.items()}


def test_a_healthy_run(base: Path, tmp_path: Path) -> None:
    found = everything(examined(tmp_path, base))
    assert states(found) == dict.fromkeys(CHECKS, "ok")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.toml", "scratch"]


def test_what_a_run_without_surgery_and_lora_has_no_use_for(base: Path, tmp_path: Path) -> None:
    found = everything(examined(tmp_path, base, surgery=None, tuner={"type": "full"}))
    assert states(found) == dict.fromkeys(CHECKS, "ok") | dict.fromkeys(
        ("target modules", "surgeries"), "not applicable"
    )


def test_a_missing_base_is_told_once(tmp_path: Path) -> None:
    found = everything(examined(tmp_path, tmp_path / "nowhere"))
    assert (found["base"].state, found["base"].seen) == ("error", f"no such folder: {tmp_path / 'nowhere'}")
    assert {found[name].state for name in list(CHECKS)[4:]} == {"not checked"}
    assert found["output head"].seen == "needs the base, see above"


def test_a_damaged_config_is_no_traceback(base: Path, tmp_path: Path) -> None:
    sick = copied(base, tmp_path)
    (sick / "config.json").write_text("{")
    found = everything(examined(tmp_path, sick))
    assert (found["base"].state, "not readable as JSON" in found["base"].seen) == ("error", True)


def test_without_an_example_every_check_says_something(base: Path, tmp_path: Path) -> None:
    found = everything(examined(tmp_path, base, data={"doctor_boxes": {"count": 0}}))
    assert list(found) == list(CHECKS)
    assert found["surgeries"].seen == "no example could be encoded, so that there is nothing to train a step on"


def test_a_target_that_is_no_module(base: Path, tmp_path: Path) -> None:
    item = examined(tmp_path, base, tuner={"target_modules": ["q_proj", "v_projj"]})
    found = finding("target modules", item)
    assert (found.state, found.cure) == ("error", "write 'v_proj'")
    assert found.seen == "tuner.target_modules: 'v_projj' is no module of this model"
    assert finding("optimizer groups", item).state == "ok"  # the others are still looked at


def test_a_hook_on_the_head_that_is_not_declared(base: Path, tmp_path: Path) -> None:
    found = everything(examined(tmp_path, base, surgery={"doctor_rows": {"declared": False}}))
    assert (found["target modules"].state, found["surgeries"].state) == ("ok", "error")
    assert "something changes the output head that no surgery declares with head_offset" in found["surgeries"].seen
    assert found["optimizer groups"].seen == "needs the trainer, see above"


def test_an_optimizer_that_forgets_a_parameter(base: Path, tmp_path: Path) -> None:
    found = everything(examined(tmp_path, base, optimizer={"doctor_optimizer": {"fault": "forgets"}}))
    assert found["optimizer groups"].state == "error"
    assert "is in 0 groups" in found["optimizer groups"].seen


def test_a_group_that_does_not_move(base: Path, tmp_path: Path) -> None:
    found = finding("optimizer groups", examined(tmp_path, base, optimizer={"doctor_optimizer": {"fault": "idle"}}))
    assert (found.state, found.seen.startswith("idle would not move")) == ("warning", True)


def test_a_parameter_of_a_surgery_without_gradient(base: Path, tmp_path: Path) -> None:
    found = finding("gradients", examined(tmp_path, base, surgery={"doctor_rows": {"idle": True}}))
    assert (found.state, "1 trainable tensors got no gradient" in found.seen) == ("error", True)
    assert found.cure == "freeze them, or give the loss a way to them"


def test_a_forward_that_passes_over_the_head_in_training(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fused(self: Any, **inputs: Any) -> Any:  # as Liger's: it reads the weight itself
        inputs.pop("labels", None)
        hidden = self.model(**inputs).last_hidden_state
        return Qwen3VLCausalLMOutputWithPast(logits=functional.linear(hidden, self.lm_head.weight))

    monkeypatch.setattr(Qwen3VLForConditionalGeneration, "forward", fused)
    found = everything(examined(tmp_path, base))
    assert (found["training step"].state, found["output head"].state) == ("error", "not checked")
    assert found["training step"].seen == "the model called its output head 0 times in one forward instead of once"
    assert found["training step"].cure == "a setting computes the loss past the head (check [train.swift])"


def test_a_forward_that_passes_over_the_head_without_gradients(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Qwen3VLForConditionalGeneration.forward

    def fused(self: Any, *args: Any, **inputs: Any) -> Any:
        output = forward(self, *args, **inputs)
        if not self.training:
            hidden = self.model(*args, **inputs).last_hidden_state
            output.logits = functional.linear(hidden[:, -output.logits.shape[1] :], self.lm_head.weight)
        return output

    monkeypatch.setattr(Qwen3VLForConditionalGeneration, "forward", fused)
    found = finding("output head", examined(tmp_path, base))
    assert (found.state, found.seen.startswith("the forward gives logits that differ")) == ("error", True)
    assert "Liger or its kin" in found.cure
