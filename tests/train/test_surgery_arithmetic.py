"""The arithmetic: what is added where, how it is rounded, and its gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coordcore.protocols import AddedRows
from coordcore_train.surgery.arithmetic import add_to_embeddings, add_to_logits


@pytest.fixture(params=["in order", "scattered"])
def coord_ids(request: pytest.FixtureRequest) -> list[int]:
    """20 ids in bin order."""
    if request.param == "in order":
        return list(range(60, 80))
    return [11, 95, 7, 60, 61, 30, 5, 88, 87, 86, 40, 42, 41, 70, 13, 90, 22, 21, 20, 50]


@pytest.fixture
def tokens(coord_ids: list[int]) -> Tensor:
    """[2, 8] token ids, those of rows among others, some of them twice."""
    plain = [number for number in range(5, 96) if number not in coord_ids][:5]
    return torch.tensor(
        [
            [plain[0], coord_ids[0], coord_ids[7], plain[1], coord_ids[7], coord_ids[19], plain[2], coord_ids[3]],
            [plain[3], plain[4], coord_ids[5], coord_ids[6], coord_ids[5], coord_ids[4], plain[0], plain[1]],
        ]
    )


class Table(nn.Module):
    """Rows of an embedding, and of a head where it has its own."""

    def __init__(self, ids: list[int], own_head: bool) -> None:
        super().__init__()
        self.ids = torch.tensor(ids)
        self.rows = nn.Parameter(torch.zeros(len(ids), 16))
        self.head_rows = nn.Parameter(torch.zeros(len(ids), 16)) if own_head else self.rows

    def add_to_embeddings(self, embeddings: Tensor, tokens: Tensor) -> Tensor:
        return add_to_embeddings(embeddings, tokens, AddedRows(ids=self.ids, rows=self.rows))

    def add_to_logits(self, logits: Tensor, hidden: Tensor) -> Tensor:
        return add_to_logits(logits, hidden, AddedRows(ids=self.ids, rows=self.head_rows))


def _table(coord_ids: list[int], *, own_head: bool = False) -> Table:
    table = Table(coord_ids, own_head).double()
    for rows in table.parameters():
        nn.init.normal_(rows)
    return table


def test_each_coord_token_gets_the_offset_of_its_bin(coord_ids: list[int], tokens: Tensor) -> None:
    table = _table(coord_ids)
    expected = torch.zeros(*tokens.shape, 16, dtype=torch.float64)
    for place in torch.cartesian_prod(*map(torch.arange, tokens.shape)).tolist():
        token = int(tokens[tuple(place)])
        if token in coord_ids:
            expected[tuple(place)] = table.rows[coord_ids.index(token)]
    assert torch.equal(table.add_to_embeddings(torch.zeros_like(expected), tokens), expected)


def test_embeddings_handed_in_are_not_changed(coord_ids: list[int], tokens: Tensor) -> None:
    embeddings = torch.zeros(*tokens.shape, 16, dtype=torch.float64)
    _table(coord_ids).add_to_embeddings(embeddings, tokens)
    assert not embeddings.any()


def test_int32_and_strided_token_ids_are_read(coord_ids: list[int], tokens: Tensor) -> None:
    table = _table(coord_ids)
    embeddings = torch.zeros(2, 4, 16, dtype=torch.float64)
    expected = table.add_to_embeddings(embeddings, tokens[:, ::2].contiguous())
    assert torch.equal(table.add_to_embeddings(embeddings, tokens.int()[:, ::2]), expected)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (1,), (1, 1)])
def test_no_token_and_one_token(shape: tuple[int, ...]) -> None:
    table = _table([5, 3])
    embeddings = torch.ones(*shape, 16, dtype=torch.float64)
    added = table.add_to_embeddings(embeddings, torch.full(shape, 3))
    assert torch.equal(added, embeddings + table.rows[1])


@pytest.mark.parametrize("row_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_embeddings_have_the_bits_of_merged_rows(
    coord_ids: list[int], tokens: Tensor, dtype: torch.dtype, row_dtype: torch.dtype
) -> None:
    table = _table(coord_ids).to(row_dtype)
    matrix = torch.randn(96, 16).to(dtype)
    merged = matrix.index_copy(0, table.ids, (matrix[coord_ids] + table.rows).to(dtype))
    assert torch.equal(table.add_to_embeddings(matrix[tokens], tokens), merged[tokens])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_tokens_keep_every_bit_next_to_broken_offsets(coord_ids: list[int], dtype: torch.dtype) -> None:
    table = _table(coord_ids).float()
    table.rows.data.fill_(torch.nan)
    plain = torch.tensor([number for number in range(96) if number not in coord_ids])
    embeddings = torch.tensor([-0.0, 0.0, 1e-40, torch.inf], dtype=dtype).repeat(len(plain), 4)
    added = table.add_to_embeddings(embeddings, plain)
    assert torch.equal(added.view(torch.uint8), embeddings.view(torch.uint8))


def test_the_gradient_at_other_tokens_does_not_reach_the_offsets(coord_ids: list[int]) -> None:
    table = _table(coord_ids)
    added = table.add_to_embeddings(torch.zeros(96, 16, dtype=torch.float64), torch.arange(96))
    upstream = torch.full_like(added, torch.nan)
    upstream[coord_ids] = 1.0
    added.backward(upstream)
    assert torch.equal(table.rows.grad, torch.ones(20, 16, dtype=torch.float64))


def test_embeddings_that_take_a_gradient_get_it_as_it_is(coord_ids: list[int], tokens: Tensor) -> None:
    """`enable_input_require_grads` makes a leaf of them, which also must not be changed in place."""
    embeddings = torch.zeros(*tokens.shape, 16, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(*tokens.shape, 16, dtype=torch.float64)
    _table(coord_ids).add_to_embeddings(embeddings, tokens).backward(upstream)
    assert torch.equal(embeddings.grad, upstream)


@pytest.mark.parametrize("row_dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_of_many_tokens_is_summed_in_float32(row_dtype: torch.dtype) -> None:
    """In bfloat16 a sum of ones stops at 256."""
    table = _table([7]).to(row_dtype)
    tokens = torch.full((1000,), 7)
    embeddings = torch.zeros(1000, 16, dtype=torch.bfloat16)
    table.add_to_embeddings(embeddings, tokens).sum(0).backward(torch.ones(16, dtype=torch.bfloat16))
    assert torch.equal(table.rows.grad, torch.full((1, 16), 1000, dtype=row_dtype))


def test_a_batch_without_coord_tokens_keeps_the_offsets_in_the_graph(coord_ids: list[int]) -> None:
    table = _table(coord_ids)
    plain = torch.tensor([[next(number for number in range(96) if number not in coord_ids)]])
    table.add_to_embeddings(torch.zeros(1, 1, 16, dtype=torch.float64), plain).sum().backward()
    assert table.rows.grad is not None
    assert not table.rows.grad.any()


def _dense(table: Table, embedding: Tensor, head: Tensor, tokens: Tensor, mix: Tensor) -> tuple[Tensor, Tensor]:
    """The same with whole matrices: ids -> embeddings -> hidden -> logits."""
    embeddings = F.embedding(tokens, embedding.index_add(0, table.ids, table.rows))
    return embeddings, F.linear(embeddings @ mix, head.index_add(0, table.ids, table.head_rows))


@pytest.mark.parametrize("own_head", [False, True])
def test_values_and_gradients_are_those_of_whole_matrices(coord_ids: list[int], tokens: Tensor, own_head: bool) -> None:
    torch.manual_seed(0)
    table = _table(coord_ids, own_head=own_head)
    embedding, head = torch.randn(2, 96, 16, dtype=torch.float64)
    mix = torch.randn(16, 16, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 8, 96, dtype=torch.float64)
    wanted = [*table.parameters(), mix]

    dense = _dense(table, embedding, head, tokens, mix)
    embeddings = table.add_to_embeddings(F.embedding(tokens, embedding), tokens)
    hidden = embeddings @ mix
    logits = table.add_to_logits(F.linear(hidden, head), hidden)

    torch.testing.assert_close((embeddings, logits), dense, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad((logits.log_softmax(-1) * weight).sum(), wanted),
        torch.autograd.grad((dense[1].log_softmax(-1) * weight).sum(), wanted),
        rtol=0,
        atol=1e-11,
    )
