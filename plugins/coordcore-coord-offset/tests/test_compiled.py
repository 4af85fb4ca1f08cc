"""A compiled model with offsets computes what it computes as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from coordcore_coord_offset import install_coord_offset_adapter


def test_a_compiled_model_has_the_logits_and_the_gradient(
    load: Callable[..., Any], coord_ids: list[int], tokens: torch.Tensor, randomise: Callable[[torch.nn.Module], None]
) -> None:
    model = load()
    adapter = install_coord_offset_adapter(model, coord_ids)
    randomise(model)
    found = []
    # Without generated code, which takes a C++ compiler: it is the tracing that failed.
    for run in (model, torch.compile(model, backend="aot_eager")):
        adapter.embed_offset.grad = None
        logits = run(input_ids=tokens, use_cache=False).logits
        logits.square().mean().backward()
        found.append((logits.detach(), adapter.embed_offset.grad))
    for expected, actual in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)
