"""What the trainer needs of ranks that share a model, piece by piece; runs of two ranks are in tests/sharded."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy

from coordcore.errors import RunError
from coordcore.manifest import Manifest
from coordcore.manifest.sections import Launch, Model, Train, Tuner
from coordcore_train.swift.sharded import keep_precision, require_same_inputs, sharing, without_ties


def policy_of(given: Any, *, adapter: bool) -> Any:
    plugin = SimpleNamespace(mixed_precision_policy=given)
    keep_precision(SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin)), adapter=adapter)
    return plugin.mixed_precision_policy


def test_fsdp2_gathers_and_sums_up_in_the_precision_of_what_is_trained() -> None:
    """accelerate would have offsets in bfloat16, and gradients summed up in it."""
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16, output_dtype=torch.bfloat16)
    adapter, full = policy_of(half, adapter=True), policy_of(half, adapter=False)
    assert (adapter.param_dtype, adapter.reduce_dtype, adapter.output_dtype) == (None, None, None)
    assert (full.param_dtype, full.reduce_dtype, full.output_dtype) == (torch.bfloat16, torch.float32, None)
    assert policy_of(None, adapter=True) is None  # float32
    keep_precision(SimpleNamespace(state=SimpleNamespace()), adapter=True)  # no FSDP


def test_ranks_of_which_one_has_no_picture_do_not_wait_for_each_other() -> None:
    text, picture = {"input_ids": 0, "targets": 0}, {"targets": 0, "pixel_values": 0, "input_ids": 0}
    rows: list[torch.Tensor] = []

    def gather(row: torch.Tensor) -> torch.Tensor:
        rows.append(row)
        return torch.cat([rows[0], row])

    require_same_inputs([text, picture], gather)
    require_same_inputs([dict(reversed(text.items())), picture], gather)
    with pytest.raises(RunError, match="a batch of one rank has pictures and that of another has none"):
        require_same_inputs([picture, text], gather)


def test_a_tied_tensor_is_saved_once() -> None:
    model: Any = nn.Linear(1, 1)
    state = {"embed": torch.zeros(1), "head": torch.zeros(1), "other": torch.zeros(1)}
    assert without_ties(model, state) == state
    model.all_tied_weights_keys = {"head": "embed"}
    assert list(without_ties(model, state) or ()) == ["embed", "other"]
    # Of an adapter neither is there, or the head alone.
    assert list(without_ties(model, {"head": torch.zeros(1)}) or ()) == ["head"]
    assert without_ties(model, None) is None


def test_nothing_of_sharding_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The merge of the same process loads models of its own."""
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    monkeypatch.setenv("FSDP_VERSION", "the user's")
    launch = Launch(fsdp="fsdp2", nproc_per_node=2)
    manifest = Manifest(name="m", model=Model(base="b"), launch=launch, train=Train(), tuner=Tuner(), selected=())
    with sharing(manifest):
        os.environ["ACCELERATE_USE_FSDP"] = "True"
    assert "ACCELERATE_USE_FSDP" not in os.environ
    assert os.environ["FSDP_VERSION"] == "the user's"
