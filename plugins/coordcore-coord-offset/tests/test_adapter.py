"""The arithmetic: what is added where, how it is rounded, and its gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coordcore_coord_offset import CoordOffsetAdapter


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


@pytest.mark.parametrize("shape", [(0,), (2, 0), (1,), (1, 1)])
def test_no_token_and_one_token(shape: tuple[int, ...]) -> None:
    adapter = _adapter([5, 3])
    embeddings = torch.ones(*shape, 16, dtype=torch.float64)
    added = adapter.add_to_embeddings(embeddings, torch.full(shape, 3))
    assert torch.equal(added, embeddings + adapter.embed_offset[1])


@pytest.mark.parametrize("offset_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_embeddings_have_the_bits_of_merged_rows(
    coord_ids: list[int], tokens: Tensor, dtype: torch.dtype, offset_dtype: torch.dtype
) -> None:
    adapter = _adapter(coord_ids).to(offset_dtype)
    matrix = torch.randn(96, 16).to(dtype)
    merged = matrix.index_copy(0, adapter.coord_ids, (matrix[coord_ids] + adapter.embed_offset).to(dtype))
    assert torch.equal(adapter.add_to_embeddings(matrix[tokens], tokens), merged[tokens])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_tokens_keep_every_bit_next_to_broken_offsets(coord_ids: list[int], dtype: torch.dtype) -> None:
    adapter = _adapter(coord_ids).float()
    adapter.embed_offset.data.fill_(torch.nan)
    plain = torch.tensor([one for one in range(96) if one not in coord_ids])
    embeddings = torch.tensor([-0.0, 0.0, 1e-40, torch.inf], dtype=dtype).repeat(len(plain), 4)
    added = adapter.add_to_embeddings(embeddings, plain)
    assert torch.equal(added.view(torch.uint8), embeddings.view(torch.uint8))


def test_the_gradient_at_other_tokens_does_not_reach_the_offsets(coord_ids: list[int]) -> None:
    adapter = _adapter(coord_ids)
    added = adapter.add_to_embeddings(torch.zeros(96, 16, dtype=torch.float64), torch.arange(96))
    upstream = torch.full_like(added, torch.nan)
    upstream[coord_ids] = 1.0
    added.backward(upstream)
    assert torch.equal(adapter.embed_offset.grad, torch.ones(20, 16, dtype=torch.float64))


def test_embeddings_that_take_a_gradient_get_it_as_it_is(coord_ids: list[int], tokens: Tensor) -> None:
    """`enable_input_require_grads` makes a leaf of them, which also must not be changed in place."""
    embeddings = torch.zeros(*tokens.shape, 16, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(*tokens.shape, 16, dtype=torch.float64)
    _adapter(coord_ids).add_to_embeddings(embeddings, tokens).backward(upstream)
    assert torch.equal(embeddings.grad, upstream)


@pytest.mark.parametrize("offset_dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_of_many_tokens_is_summed_in_float32(offset_dtype: torch.dtype) -> None:
    """In bfloat16 a sum of ones stops at 256."""
    adapter = _adapter([7]).to(offset_dtype)
    tokens = torch.full((1000,), 7)
    embeddings = torch.zeros(1000, 16, dtype=torch.bfloat16)
    adapter.add_to_embeddings(embeddings, tokens).sum(0).backward(torch.ones(16, dtype=torch.bfloat16))
    assert torch.equal(adapter.embed_offset.grad, torch.full((1, 16), 1000, dtype=offset_dtype))


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
