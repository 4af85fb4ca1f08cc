"""A surgery of the free form that was written from the documentation trains; each wrong line in it is found."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import support  # noqa: F401 - puts the fakes on the path
import torch
import written_plugins
from safetensors.torch import load_file

from coordcore import Component, RunError
from coordcore.testing import logged, train_briefly
from coordcore.testing.surgery_checks import CHECKS, subjects
from coordcore_train.surgery.proof import prove

RIGHT = (Path(__file__).parent / "cases/head_lowrank.py").read_text(encoding="utf-8")
_number = count()


@pytest.fixture
def lowrank(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Component]:
    """The surgery as an installed plugin, with one of its texts replaced."""
    text = RIGHT
    for old, new in getattr(request, "param", {}).items():
        assert old in text
        text = text.replace(old, new)
    package = f"head_lowrank_{next(_number)}"
    with written_plugins.installed(tmp_path / "site", package, {"plugin.py": text}):
        [component] = import_module(f"{package}.plugin").coordcore_surgeries()
        yield component


def train(folder: Path) -> Path:
    return train_briefly(
        folder, loss=["text_ce", "fake_bins"], surgery="head_lowrank", tuner={"type": "lora"}, train={"steps": 3}
    )


def failures(component: Component) -> dict[str, str]:
    """The checks of the kit that a surgery does not pass, with what they say."""
    found = {}
    for check in CHECKS:
        try:
            check(component)
        except AssertionError as error:
            found[check.__name__] = str(error)
    return found


def test_it_passes_the_kit_and_trains(lowrank: Component, tmp_path: Path) -> None:
    assert failures(lowrank) == {}
    run = train(tmp_path)
    losses = logged(run, "loss")
    assert losses[-1] < losses[0]
    assert "lm_head.weight" in load_file(run / "merged" / "model.safetensors")


LOSS_LINES = """            if output.dim() == 0 or output.shape[-1] != head.weight.shape[0]:
                return output  # the loss, where lm_head.forward is replaced (decision 0001)
"""
SKIPS = "return output  # the loss, where lm_head.forward is replaced (decision 0001)"
AT_THE_START = {
    "does not skip the loss": ({LOSS_LINES: ""}, r"with the loss in place of its logits the model fails \(IndexError"),
    "rows without gradient": ({"rows=module.rows)": "rows=module.rows.detach())"}, "head carry no gradient"),
    "alters the loss": ({SKIPS: "return output * 0.5"}, r"objective's loss is \S+, but the model's forward returns"),
}


@pytest.mark.parametrize(("lowrank", "message"), AT_THE_START.values(), ids=AT_THE_START.keys(), indirect=["lowrank"])
def test_what_would_train_another_model_stops_at_the_start(lowrank: Component, tmp_path: Path, message: str) -> None:
    with pytest.raises(RunError, match=rf"^surgery\.head_lowrank: .*{message}"):
        train(tmp_path)
    assert not list((tmp_path / "run" / "checkpoints").glob("checkpoint-*"))
    assert "check_surgery_objective" in failures(lowrank)
    for subject in subjects(lowrank, None):  # and by the head alone, of a model that has not reached its accelerator
        with pytest.raises(RunError, match=rf"^surgery\.head_lowrank: .*{message}"):
            prove(
                subject.wrapped(),
                {"surgery.head_lowrank": subject.surgery},
                subject.vocab,
                device=torch.device("cuda"),
            )


TIES = """        model.config.tie_word_embeddings = False
        model.config.text_config.tie_word_embeddings = False
"""
BY_THE_KIT = {
    "says tied beside a head of its own": (
        {TIES: ""},
        "check_surgery_merges_plain",
        "tie_word_embeddings of .* is True, but the head has a weight of its own",
    ),
    "says so in one config": (
        {"        model.config.text_config.tie_word_embeddings = False\n": ""},
        "check_surgery_merges_plain",
        "tie_word_embeddings of Qwen3VLTextConfig is True, but the head has a weight of its own",
    ),
    "leaves its hook": (
        {"        self.handle.remove()\n        self.handle = None\n        delattr": "        delattr"},
        "check_surgery_merges_plain",
        "merge left a hook on lm_head",
    ),
    "starts anywhere": (
        {"torch.randn(rank, hidden, generator=generator)": "torch.randn(rank, hidden)"},
        "check_surgery_starts_the_same",
        "starts with other values of coord_lowrank.b under another random seed",
    ),
}


@pytest.mark.parametrize(
    ("lowrank", "check", "message"), BY_THE_KIT.values(), ids=BY_THE_KIT.keys(), indirect=["lowrank"]
)
def test_what_the_kit_finds(lowrank: Component, check: str, message: str) -> None:
    import re

    assert re.search(message, failures(lowrank)[check])


def test_the_random_state_and_the_model_are_left_alone(coord_base: Path) -> None:
    from engine_fakes import FakeRows
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    from coordcore_train.checkpoint.folder import read_vocab
    from coordcore_train.surgery.rows import LiveRows

    vocab, surgery = read_vocab(coord_base), LiveRows(FakeRows())
    model = AutoModelForImageTextToText.from_pretrained(coord_base)
    surgery.install(model, vocab)
    wrapped = get_peft_model(
        model, LoraConfig(target_modules=["q_proj"], lora_dropout=0.5, modules_to_save=[*surgery.modules_to_save])
    ).eval()
    surgery.rebind(wrapped)
    before = {name: value.clone() for name, value in wrapped.state_dict().items()}
    state = torch.get_rng_state()
    assert prove(wrapped, {"surgery.fake_rows": surgery}, vocab) is None
    assert torch.equal(torch.get_rng_state(), state)
    assert [name for name, value in wrapped.state_dict().items() if not torch.equal(value, before[name])] == []
    assert not [name for name, parameter in wrapped.named_parameters() if parameter.grad is not None]
    assert not any(module.training for module in wrapped.modules())
    assert prove(wrapped, {"surgery.fake_rows": surgery}, vocab, device=torch.device("cuda")) == (
        "the model is not on cuda yet; its output head alone was compared"
    )


def test_a_model_that_does_something_behind_its_head_is_found(
    coord_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForImageTextToText, Qwen3VLForConditionalGeneration

    forward = Qwen3VLForConditionalGeneration.forward

    def scaled(self: Any, *args: Any, **inputs: Any) -> Any:
        output = forward(self, *args, **inputs)
        output.logits = output.logits * 2 if output.logits.shape[-1] > 1 else output.logits
        return output

    monkeypatch.setattr(Qwen3VLForConditionalGeneration, "forward", scaled)
    model = AutoModelForImageTextToText.from_pretrained(coord_base)
    with pytest.raises(RunError, match=r"^the model: .* differ by .*: the model changes its logits behind"):
        prove(model, {}, None)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("tuner", ["lora", "full"])
def test_rounding_is_no_difference(tmp_path: Path, dtype: str, tuner: str) -> None:
    from engine_fakes import FakeRows
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    from coordcore_train.checkpoint.folder import read_vocab
    from coordcore_train.surgery.rows import LiveRows
    from coordcore_train.testing.tiny import tiny_qwen3vl

    base = tiny_qwen3vl(tmp_path, hidden_size=256, heads=8, layers=4, initializer_range=0.1, dtype=dtype)
    vocab, surgery = read_vocab(base), LiveRows(FakeRows())
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=getattr(torch, dtype))
    surgery.install(model, vocab)
    if tuner == "lora":
        model = get_peft_model(model, LoraConfig(target_modules="all-linear", modules_to_save=["row_offset"]))
        surgery.rebind(model)
    assert prove(model, {"surgery.fake_rows": surgery}, vocab) is None


def test_rows_that_training_alone_has_stop_the_run(coord_base: Path) -> None:
    import attrs
    from engine_fakes import FakeRows
    from transformers import AutoModelForImageTextToText

    from coordcore_train.checkpoint.folder import read_vocab
    from coordcore_train.surgery.rows import LiveRows

    class TwoFaced(FakeRows):
        def head_rows(self, module: Any) -> Any:
            added = super().head_rows(module)
            return attrs.evolve(added, rows=added.rows * (2 if module.training else 1))

    vocab, surgery = read_vocab(coord_base), LiveRows(TwoFaced())
    model = AutoModelForImageTextToText.from_pretrained(coord_base)
    surgery.install(model, vocab)
    with pytest.raises(
        RunError, match=r"^surgery\.two_faced: the rows it adds to the head are others in training than"
    ):
        prove(model, {"surgery.two_faced": surgery}, vocab)
