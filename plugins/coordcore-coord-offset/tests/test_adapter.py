"""The arithmetic: what is added where, its gradients, and what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from coordcore_coord_offset import CoordOffsetAdapter, install_coord_offset_adapter


def _adapter(coord_ids: list[int], *, tie_head: bool = True) -> CoordOffsetAdapter:
    adapter = CoordOffsetAdapter(torch.tensor(coord_ids), 16, tie_head=tie_head).double()
    for table in adapter.parameters():
        nn.init.normal_(table)
    return adapter


def test_each_coord_token_gets_the_offset_of_its_bin(coord_ids: list[int], tokens: Tensor) -> None:
    adapter = _adapter(coord_ids)
    expected = torch.zeros(*tokens.shape, 16, dtype=torch.float64)
    for place in torch.cartesian_prod(*map(torch.arange, tokens.shape)).tolist():
        token = int(tokens[tuple(place)])
        if token in coord_ids:
            expected[tuple(place)] = adapter.embed_offset[coord_ids.index(token)]
    assert torch.equal(adapter.add_to_embeddings(torch.zeros_like(expected), tokens), expected)


def test_embeddings_handed_in_are_not_changed(coord_ids: list[int], tokens: Tensor) -> None:
    embeddings = torch.zeros(*tokens.shape, 16, dtype=torch.float64)
    _adapter(coord_ids).add_to_embeddings(embeddings, tokens)
    assert not embeddings.any()


def test_int32_and_strided_token_ids_are_read(coord_ids: list[int], tokens: Tensor) -> None:
    adapter = _adapter(coord_ids)
    embeddings = torch.zeros(2, 4, 16, dtype=torch.float64)
    expected = adapter.add_to_embeddings(embeddings, tokens[:, ::2].contiguous())
    assert torch.equal(adapter.add_to_embeddings(embeddings, tokens.int()[:, ::2]), expected)


def test_a_batch_without_coord_tokens_keeps_the_offsets_in_the_graph(coord_ids: list[int]) -> None:
    adapter = _adapter(coord_ids)
    plain = torch.tensor([[next(one for one in range(96) if one not in coord_ids)]])
    adapter.add_to_embeddings(torch.zeros(1, 1, 16, dtype=torch.float64), plain).sum().backward()
    assert adapter.embed_offset.grad is not None
    assert not adapter.embed_offset.grad.any()


def _dense(
    adapter: CoordOffsetAdapter, embedding: Tensor, head: Tensor, tokens: Tensor, mix: Tensor
) -> tuple[Tensor, Tensor]:
    """The same with whole matrices: ids -> embeddings -> hidden -> logits."""
    embeddings = F.embedding(tokens, embedding.index_add(0, adapter.coord_ids, adapter.embed_offset))
    return embeddings, F.linear(embeddings @ mix, head.index_add(0, adapter.coord_ids, adapter.head_rows))


@pytest.mark.parametrize("tie_head", [True, False])
def test_values_and_gradients_are_those_of_whole_matrices(coord_ids: list[int], tokens: Tensor, tie_head: bool) -> None:
    torch.manual_seed(0)
    adapter = _adapter(coord_ids, tie_head=tie_head)
    embedding, head = torch.randn(2, 96, 16, dtype=torch.float64)
    mix = torch.randn(16, 16, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 8, 96, dtype=torch.float64)
    wanted = [*adapter.parameters(), mix]

    dense = _dense(adapter, embedding, head, tokens, mix)
    embeddings = adapter.add_to_embeddings(F.embedding(tokens, embedding), tokens)
    hidden = embeddings @ mix
    logits = adapter.add_to_logits(F.linear(hidden, head), hidden)

    torch.testing.assert_close((embeddings, logits), dense, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad((logits.log_softmax(-1) * weight).sum(), wanted),
        torch.autograd.grad((dense[1].log_softmax(-1) * weight).sum(), wanted),
        rtol=0,
        atol=1e-11,
    )


class _Sizes(TorchDispatchMode):
    """Counts freshly allocated tensors by number of elements."""

    def __init__(self) -> None:
        super().__init__()
        self.fresh: Counter[int] = Counter()
        # Kept alive, so that a freed address is not taken for one that was seen.
        self._seen: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for one in tree_leaves((args, kwargs)):
            self._is_new(one)
        output = func(*args, **(kwargs or {}))
        self.fresh.update(one.numel() for one in tree_leaves(output) if self._is_new(one))
        return output

    def _is_new(self, one: Any) -> bool:
        if not isinstance(one, Tensor):
            return False
        address = one.untyped_storage().data_ptr()
        new = address not in self._seen
        self._seen.setdefault(address, one)
        return new


def test_forward_and_backward_allocate_no_second_logits_and_no_second_matrix(
    load: Callable[..., Any], coord_ids: list[int]
) -> None:
    model = load(tied=True)
    adapter = install_coord_offset_adapter(model, coord_ids)
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()
    tokens = torch.arange(31)[None]
    upstream = torch.ones(1, 31, 96)
    with _Sizes() as sizes:
        logits = head(embed(tokens))
        logits.backward(upstream)
    assert adapter.embed_offset.grad is not None
    assert (sizes.fresh[31 * 96], sizes.fresh[96 * 16]) == (1, 0)
