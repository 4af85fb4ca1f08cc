"""The component: found by its entry point, torch-free until it is built, and a RowSurgery once it is."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from coordcore import COORD_TOKENS, BuildContext, InputError
from coordcore.protocols import ModelFacts, RowSurgery
from coordcore.testing.closeness import assert_close_to_scale
from coordcore_coord_offset import CoordOffsetConfig, CoordOffsetSurgery, plugin
from coordcore_train.surgery.rows import LiveRows

[COMPONENT] = plugin.coordcore_surgeries()


def _context(vocab: Any) -> BuildContext:
    return BuildContext(run_dir=Path("run"), seed=0, quantisation=Any, vocab=vocab)


def test_the_entry_point_names_the_module_of_the_hook() -> None:
    [found] = entry_points(group="coordcore.v1", name="coord_offset")
    assert found.load() is plugin


def test_importing_the_plugin_imports_no_torch() -> None:
    code = "import sys, coordcore_coord_offset.plugin; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_the_component_says_what_it_changes_and_needs() -> None:
    config = CoordOffsetConfig()
    assert (COMPONENT.name, COMPONENT.claims(config), COMPONENT.requires(config)) == (
        "coord_offset",
        ["embed_tokens", "lm_head"],
        [COORD_TOKENS],
    )


def test_settings_reach_the_surgery() -> None:
    surgery = COMPONENT.build(CoordOffsetConfig(tie_head=False, dtype="bfloat16"), _context(SimpleNamespace(ids=(1,))))
    assert isinstance(surgery, RowSurgery)
    assert (surgery.tie_head, surgery.dtype) == (False, torch.bfloat16)


def test_a_base_without_coord_tokens_is_bad_input() -> None:
    with pytest.raises(InputError, match=r"the base .* has no coord tokens; add a \[vocab\] section"):
        COMPONENT.build(CoordOffsetConfig(), _context(None))
    facts = ModelFacts(vocab=None, vocabulary_size=96, hidden_size=16, dtype=torch.float32)
    with pytest.raises(InputError, match="the base has no coord tokens; expand it first"):
        CoordOffsetSurgery().module(facts)


@pytest.mark.parametrize("tie_head", [True, False])
def test_a_surgery_lives_from_install_to_merge(
    load: Callable[..., Any],
    coord_ids: list[int],
    tokens: torch.Tensor,
    randomise: Callable[[nn.Module], None],
    tie_head: bool,
) -> None:
    surgery = LiveRows(CoordOffsetSurgery(tie_head=tie_head))
    base = load()
    surgery.install(base, SimpleNamespace(ids=tuple(coord_ids)))
    model = get_peft_model(
        base, LoraConfig(target_modules=["q_proj"], modules_to_save=list(surgery.modules_to_save))
    ).eval()
    surgery.rebind(model)
    surgery.verify(model)
    randomise(model)
    live = model(input_ids=tokens).logits

    offsets = surgery.parameters(model)["offset"]
    assert all(offset.requires_grad for offset in offsets)
    head = surgery.head_offset(model)
    assert head.ids.tolist() == coord_ids
    assert head.rows is offsets[0 if tie_head else 1]

    merged = model.merge_and_unload()
    surgery.merge(merged)
    exact = copy.deepcopy(merged).double()(input_ids=tokens).logits
    assert_close_to_scale(merged(input_ids=tokens).logits, live, exact, what="the logits")


def test_verify_finds_offsets_that_were_cast_with_the_model(load: Callable[..., Any], coord_ids: list[int]) -> None:
    surgery = LiveRows(CoordOffsetSurgery())
    model = load()
    surgery.install(model, SimpleNamespace(ids=tuple(coord_ids)))
    model.to(torch.bfloat16)
    with pytest.raises(RuntimeError, match=r"was made in torch.float32 but is torch.bfloat16; do not cast the model"):
        surgery.verify(model)
