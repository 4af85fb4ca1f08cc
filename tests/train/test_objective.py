"""The objective against a plain float64 reference, and usable on a plain transformers model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from coordcore.coords import CoordVocab
from coordcore.errors import InputError, RunError
from coordcore.protocols import AddedRows
from coordcore.testing.closeness import assert_close_to_scale
from coordcore_train import objective as module_under_test
from coordcore_train.checkpoint.folder import read_vocab
from coordcore_train.objective import CallableHead, LinearHead, Objective, loss_in_forward, make_targets
from coordcore_train.objective.targets import scope_counts

ROWS, TOKENS, HIDDEN, TEXT = 3, 24, 16, 50
FIRST = TEXT  # the coord tokens follow the text tokens
VOCAB = CoordVocab(ids=tuple(range(FIRST, FIRST + 1000)))
IDS = torch.tensor(VOCAB.ids)
SIZE = FIRST + 1000 + 6


@attrs.frozen
class Term:
    """A loss term from one function per part."""

    scope: Any
    parts: Mapping[str, Callable[[Any], Tensor]]
    weights: Mapping[str, float]
    needs: frozenset[Any] = frozenset()

    def __call__(self, positions: Any) -> Mapping[str, Tensor]:
        return {name: part(positions) for name, part in self.parts.items()}


def bin_ce(positions: Any) -> Tensor:
    return cross_entropy(positions.logits, positions.bins, reduction="none")


def gate(positions: Any) -> Tensor:
    return positions.full_lse - positions.logits.logsumexp(-1)


def token_ce(positions: Any) -> Tensor:
    return cross_entropy(positions.logits, positions.labels, reduction="none")


def expected_distance(positions: Any) -> Tensor:
    """Of one position [n] or the four of a box [m, 4], in bins."""
    bins = torch.arange(1000, dtype=positions.logits.dtype)
    distance = (positions.logits.softmax(-1) @ bins - positions.values).abs()
    return distance.mean(-1) if distance.dim() == 2 else distance


COORD = Term("coord", {"ce": bin_ce, "gate": gate}, {"ce": 1.0, "gate": 0.5}, frozenset({"full_lse"}))
DISTANCE = Term("coord", {"mae": expected_distance}, {"mae": 0.0})
TEXT_CE = Term("text", {"ce": token_ce}, {"ce": 2.0}, frozenset({"logits"}))
TOKEN_CE = Term("token", {"ce": token_ce}, {"ce": 0.25}, frozenset({"logits"}))
BOX = Term("box", {"corners": expected_distance}, {"corners": 0.01})
EVERY = [("coord", COORD), ("distance", DISTANCE), ("text", TEXT_CE), ("token", TOKEN_CE), ("box", BOX)]


@attrs.frozen
class Batch:
    hidden: Tensor
    labels: Tensor
    values: Tensor
    corners: Tensor

    def rows(self, rows: slice) -> Batch:
        return Batch(self.hidden[rows], self.labels[rows], self.values[rows], self.corners[rows])

    def targets(self) -> dict[str, Tensor]:
        return make_targets(self.labels, VOCAB, values=self.values, corners=self.corners)


def batch(*, coord: bool = True, text: bool = True) -> Batch:
    """Three rows of unequal answers: the first two hold a box each, the last ends in a polygon of six values."""
    random = torch.Generator().manual_seed(7)
    hidden = torch.randn(ROWS, TOKENS, HIDDEN, generator=random)
    labels = torch.full((ROWS, TOKENS), -100)
    values = torch.full(labels.shape, torch.nan)
    corners = torch.full(labels.shape, -1)
    for row, (start, count) in enumerate([(5, 4), (12, 4), (3, 6)]):
        if text:
            labels[row, start - 2 : start + count + 3 + row] = torch.randint(0, TEXT, (), generator=random)
        place = slice(start, start + count)
        bins = torch.randint(0, 1000, (count,), generator=random)
        labels[row, place] = bins + FIRST if coord else -100
        if coord and row != 1:  # the second box knows nothing finer than its bins
            values[row, place] = bins + 0.25
        if coord and count == 4:
            corners[row, place] = torch.arange(4)
    return Batch(hidden, labels, values, corners)


def linear(*, bias: bool = False) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Linear(HIDDEN, SIZE, bias=bias)


def offset(ids: Tensor = IDS) -> AddedRows:
    rows = 0.1 * torch.randn(len(ids), HIDDEN, generator=torch.Generator().manual_seed(4))
    return AddedRows(ids=ids, rows=nn.Parameter(rows))


def reference(batch: Batch, head: nn.Linear, added: AddedRows | None = None) -> dict[str, tuple[Tensor, int]]:
    """Part name -> (sum, count), position by position in float64, from the whole [B, T, V] logits."""
    logits = batch.hidden.double() @ head.weight.double().T
    if head.bias is not None:
        logits = logits + head.bias.double()
    if added is not None:
        logits = logits.index_add(-1, added.ids, batch.hidden.double() @ added.rows.double().T)
    zero = batch.hidden.double().sum() * 0
    sums = {"coord/ce": zero, "coord/gate": zero, "distance/mae": zero, "text/ce": zero, "token/ce": zero}
    boxes, corner_distances = zero, []
    coords = texts = 0
    grid = torch.arange(1000, dtype=torch.float64)
    for row in range(batch.labels.shape[0]):
        for column in range(batch.labels.shape[1] - 1):
            label = int(batch.labels[row, column + 1])
            if label == -100:
                continue
            whole = logits[row, column]
            nll = whole.logsumexp(-1) - whole[label]
            sums["token/ce"] = sums["token/ce"] + nll
            if label < FIRST:
                texts += 1
                sums["text/ce"] = sums["text/ce"] + nll
                continue
            coords += 1
            own = whole[IDS]
            value = float(batch.values[row, column + 1])
            value = label - FIRST if value != value else value
            distance = (own.softmax(-1) @ grid - value).abs()
            sums["coord/ce"] = sums["coord/ce"] + own.logsumexp(-1) - whole[label]
            sums["coord/gate"] = sums["coord/gate"] + whole.logsumexp(-1) - own.logsumexp(-1)
            sums["distance/mae"] = sums["distance/mae"] + distance
            if batch.corners[row, column + 1] >= 0:
                corner_distances.append(distance)
    for start in range(0, len(corner_distances), 4):
        boxes = boxes + sum(corner_distances[start : start + 4]) / 4
    counts = {"coord": coords, "distance": coords, "text": texts, "token": coords + texts}
    found = {name: (total, counts[name.split("/")[0]]) for name, total in sums.items()}
    return {**found, "box/corners": (boxes, len(corner_distances) // 4)}


def reference_loss(sums: Mapping[str, tuple[Tensor, int]]) -> Tensor:
    weights = {f"{owner}/{part}": weight for owner, term in EVERY for part, weight in term.weights.items()}
    return sum((weights[name] * total / max(count, 1) for name, (total, count) in sums.items()), torch.tensor(0.0))


def rounding(sums: Mapping[str, tuple[Tensor, int]]) -> float:
    """What float32 may take from a sum: the gate is a small difference of numbers as large as the cross-entropies."""
    return 8 * torch.finfo(torch.float32).eps * sums["token/ce"][0].item()


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("added", [None, offset(), offset(IDS.flip(0)), offset(IDS[100:300])])
@pytest.mark.parametrize("wrapped", [False, True])
def test_sums_loss_and_gradients_are_those_of_the_reference(bias: bool, added: AddedRows | None, wrapped: bool) -> None:
    item, head = batch(), linear(bias=bias)
    hidden = item.hidden.clone().requires_grad_()
    expected = reference(attrs.evolve(item, hidden=hidden), head, added)
    trained = [hidden, *head.parameters(), *([] if added is None else [added.rows])]
    gradients = torch.autograd.grad(reference_loss(expected), trained)
    output = Objective(EVERY, VOCAB)(
        hidden, CallableHead(head, added) if wrapped else LinearHead(head, added), item.targets()
    )
    actual = dict(zip((part.name for part in Objective(EVERY, VOCAB).parts), output.sums.tolist(), strict=True))
    assert actual == pytest.approx(
        {name: total.item() for name, (total, _) in expected.items()}, rel=1e-5, abs=rounding(expected)
    )
    assert output.loss.item() == pytest.approx(reference_loss(expected).item(), rel=1e-5)
    for found, wanted in zip(torch.autograd.grad(output.loss, trained), gradients, strict=True):
        assert_close_to_scale(found, wanted.to(found.dtype), ulps=32.0)


@pytest.mark.parametrize(("owner", "term"), EVERY)
def test_a_term_alone_gives_what_it_gives_among_others(owner: str, term: Term) -> None:
    item, head = batch(), LinearHead(linear())
    together = Objective(EVERY, VOCAB)
    sums = dict(
        zip((part.name for part in together.parts), together(item.hidden, head, item.targets()).sums, strict=True)
    )
    alone = Objective([(owner, term)], VOCAB)
    expected = [sums[part.name].item() for part in alone.parts]
    assert alone(item.hidden, head, item.targets()).sums.tolist() == pytest.approx(
        expected, rel=1e-5, abs=rounding(reference(item, linear()))
    )


def test_global_counts_make_two_micro_batches_one_batch() -> None:
    item, head = batch(), LinearHead(linear())
    run = Objective(EVERY, VOCAB)
    whole = run(item.hidden, head, item.targets())
    counts = run.count(item.targets())
    halves = [item.rows(slice(0, 1)), item.rows(slice(1, 3))]
    outputs = [run(half.hidden, head, half.targets(), counts) for half in halves]
    assert (outputs[0].loss + outputs[1].loss).item() == pytest.approx(whole.loss.item(), rel=1e-5)
    assert (outputs[0].sums + outputs[1].sums).tolist() == pytest.approx(
        whole.sums.tolist(), rel=1e-5, abs=rounding(reference(item, linear()))
    )


@pytest.mark.parametrize(("coord", "text"), [(False, True), (True, False), (False, False)])
def test_a_batch_without_a_scope_charges_nothing_for_it(coord: bool, text: bool) -> None:
    item, head = batch(coord=coord, text=text), linear()
    hidden = item.hidden.clone().requires_grad_()
    output = Objective(EVERY, VOCAB)(hidden, LinearHead(head, offset()), item.targets())
    assert output.loss.item() == pytest.approx(reference_loss(reference(item, head, offset())).item(), rel=1e-5)
    output.loss.backward()
    assert hidden.grad is not None
    assert bool(hidden.grad.any()) is (coord or text)


def test_a_diagnostic_costs_no_gradient() -> None:
    item = batch()
    hidden = item.hidden.clone().requires_grad_()
    output = Objective([("distance", DISTANCE)], VOCAB)(hidden, LinearHead(linear()), item.targets())
    output.loss.backward()
    assert hidden.grad is not None
    assert (output.loss.item(), output.sums[0].item() > 0, bool(hidden.grad.any())) == (0.0, True, False)


def test_nan_comes_through() -> None:
    item = batch()
    broken = Term("coord", {"ce": lambda positions: bin_ce(positions) * torch.nan}, {"ce": 1.0})
    output = Objective([("broken", broken)], VOCAB)(item.hidden, LinearHead(linear()), item.targets())
    assert (bool(output.loss.isnan()), bool(output.sums.isnan().all())) == (True, True)


def test_terms_see_float32_for_bfloat16_hidden_states() -> None:
    item, head = batch(), linear().bfloat16()
    seen: set[torch.dtype] = set()

    def looking(positions: Any) -> Tensor:
        seen.add(positions.logits.dtype)
        return bin_ce(positions)

    terms = [("text", TEXT_CE), ("looking", Term("coord", {"ce": looking}, {"ce": 1.0}))]
    with torch.autocast("cpu", torch.bfloat16):
        output = Objective(terms, VOCAB)(item.hidden.bfloat16(), LinearHead(head, offset()), item.targets())
    rounded = attrs.evolve(item, hidden=item.hidden.bfloat16())
    expected = reference(rounded, head, offset())
    assert (seen, output.loss.dtype) == ({torch.float32}, torch.float32)
    # Products of bfloat16 numbers are summed in float32.
    assert output.sums.tolist() == pytest.approx([expected[n][0].item() for n in ("text/ce", "coord/ce")], rel=1e-5)


def test_terms_without_a_vocabulary() -> None:
    labels = torch.tensor([[-100, 4, 9, -100, 2]])
    hidden = batch().hidden[:1, :5]
    head = linear()
    output = Objective([("token", TOKEN_CE), ("text", TEXT_CE)], None)(
        hidden, LinearHead(head), make_targets(labels, None)
    )
    expected = cross_entropy(head(hidden[0, [0, 1, 3]]), torch.tensor([4, 9, 2]), reduction="sum").item()
    assert output.sums.tolist() == pytest.approx([expected, expected], rel=1e-5)


# --- targets ----------------------------------------------------------------------------------------------------------


def test_targets_predict_the_next_label() -> None:
    labels = torch.tensor([[-100, 3, FIRST + 7, 5], [-100, -100, FIRST, -100]])
    values = torch.tensor([[torch.nan, torch.nan, 7.4, torch.nan], [torch.nan] * 4])
    targets = make_targets(labels, VOCAB, values=values)
    assert {key: tensor.tolist() for key, tensor in targets.items()} == {
        "coord_index": [1, 5],
        "bins": [7, 0],
        "values": [pytest.approx(7.4), 0.0],
        "boxes": [],
        "text_index": [0, 2],
        "text_labels": [3, 5],
        "grid": [[[]] * 4] * 2,
    }
    assert scope_counts(targets) == {"coord": 2, "text": 2, "token": 4, "box": 0}


def test_no_shift_crosses_the_boundary_of_packed_examples() -> None:
    # Two examples in one row; the second starts at column 3, with the -100 of its prompt.
    targets = make_targets(torch.tensor([[-100, 3, FIRST + 7, -100, 4]]), VOCAB)
    assert (targets["text_index"].tolist(), targets["coord_index"].tolist()) == ([0, 3], [1])


def test_a_label_in_the_first_column_has_no_position() -> None:
    targets = make_targets(torch.tensor([[5, -100], [FIRST, -100]]), VOCAB)
    assert scope_counts(targets) == {"coord": 0, "text": 0, "token": 0, "box": 0}


@pytest.mark.parametrize("corners", [[0, 1, 2], [0, 1, 2, 3, 0], [0, 1, 3, 2], [1, 2, 3, 0]])
def test_corners_that_are_no_boxes_are_refused(corners: list[int]) -> None:
    labels = torch.tensor([[-100, *(FIRST + k for k in range(len(corners)))]])
    message = f"box corners must come as 0, 1, 2, 3 for each box (or 1, 0, 3, 2), got {corners} ..."
    with pytest.raises(InputError, match=re.escape(message)):
        make_targets(labels, VOCAB, corners=torch.tensor([[-1, *corners]]))


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "vocab", "message"),
    [
        (
            [("huber", Term("pixel", {}, {"a": 1.0}))],
            VOCAB,
            "loss.huber: scope must be one of coord, text, token, box, got 'pixel'",
        ),
        (
            [("huber", Term("coord", {}, {}))],
            VOCAB,
            "loss.huber: a term must name at least one part in its weights, got none",
        ),
        (
            [("huber", COORD)],
            None,
            "loss.huber: scope 'coord' needs coord tokens, and the base checkpoint has none; "
            "add a [vocab] section to expand it",
        ),
        (
            [("iou", BOX)],
            None,
            "loss.iou: scope 'box' needs coord tokens, and the base checkpoint has none; "
            "add a [vocab] section to expand it",
        ),
        (
            [("mix", TEXT_CE), ("mix", TOKEN_CE)],
            VOCAB,
            "loss part 'mix/ce' is returned by two terms; give one of them another name",
        ),
    ],
)
def test_terms_that_cannot_be_used(terms: list[Any], vocab: CoordVocab | None, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Objective(terms, vocab)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("part", "function", "message"),
    [
        (
            "other",
            bin_ce,
            "loss.huber: the term's weights name the parts ['ce'], but it returned ['other']; make them the same",
        ),
        (
            "ce",
            lambda positions: bin_ce(positions).mean(),
            "loss.huber: part 'ce' must have one value per position, shape (14,), got (); do not reduce it",
        ),
        ("ce", lambda _: 0.5, "loss.huber: part 'ce' must be a floating-point tensor, got float"),
        (
            "ce",
            lambda positions: positions.logits.argmax(-1),
            "loss.huber: part 'ce' must be a floating-point tensor, got torch.int64",
        ),
    ],
)
def test_terms_that_return_something_else(part: str, function: Callable[[Any], Tensor], message: str) -> None:
    item = batch()
    run = Objective([("huber", Term("coord", {part: function}, {"ce": 1.0}))], VOCAB)
    with pytest.raises(RunError) as caught:
        run(item.hidden, LinearHead(linear()), item.targets())
    assert str(caught.value) == message


@pytest.mark.parametrize("sizes", [{"chunk_rows": 0}, {"chunk_rows": -1}, {"chunk_columns": 2.5}])
def test_chunks_of_less_than_one_are_refused(sizes: Any) -> None:
    ((name, size),) = sizes.items()
    with pytest.raises(InputError, match=rf"{name} must be a whole number of at least 1, or None, got {size}"):
        Objective([("text", TEXT_CE)], VOCAB, **sizes)


def test_a_negative_label_is_no_row_from_the_end() -> None:
    with pytest.raises(InputError, match="a label is -1; labels are token ids, or -100 where nothing is supervised"):
        make_targets(torch.tensor([[3, -1]]), VOCAB)


def test_hidden_states_of_other_positions_than_the_labels_are_refused() -> None:
    item = batch()
    with pytest.raises(InputError, match=r"states \(3, 23, 16\) and labels \(3, 24\) are of different positions"):
        Objective(EVERY, VOCAB)(item.hidden[:, 1:], LinearHead(linear()), item.targets())


def test_targets_with_coord_tokens_need_an_objective_that_knows_them() -> None:
    item = batch()
    with pytest.raises(InputError, match="the targets hold coord tokens, and the objective was made without a vocab"):
        Objective([("text", TEXT_CE)], None)(item.hidden, LinearHead(linear()), item.targets())


def test_a_head_without_rows_for_the_coord_tokens_is_refused() -> None:
    item = batch()
    head = nn.Linear(HIDDEN, FIRST + 500)
    with pytest.raises(InputError, match=rf"head has {FIRST + 500} rows, and a coord token has id {FIRST + 999}"):
        Objective(EVERY, VOCAB)(item.hidden, LinearHead(head), item.targets())


@pytest.mark.parametrize("config", [{"logits_scaling": 8.0}, {"logit_scale": 0.0625}])
def test_a_model_that_changes_its_logits_behind_the_head_is_refused(config: dict[str, float]) -> None:
    class Capped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(**config)

    ((name, value),) = config.items()
    with (
        pytest.raises(InputError, match=rf"Capped: config.{name} = {value} changes the logits behind the output head"),
        loss_in_forward(Capped(), Objective([("text", TEXT_CE)], VOCAB), {}),
    ):
        pass


def test_a_soft_cap_behind_the_head_is_part_of_the_loss() -> None:
    """As Gemma has it, `cap * tanh(logits / cap)`: loss and gradients are those of the model's own logits."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=FIRST + 1000,
        hidden_size=HIDDEN,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.5,
        final_logit_softcapping=1.5,
    )
    model: Any = Gemma3ForCausalLM(config)
    ids = torch.tensor([[1, 2, FIRST + 7, 3, FIRST + 900, 4]])
    targets = make_targets(ids, VOCAB)
    objective = Objective([("text", TEXT_CE)], VOCAB)
    with loss_in_forward(model, objective, targets) as outputs:
        through = model(ids, use_cache=False).logits.sum()
    through.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()

    logits = model(ids, use_cache=False).logits[0, :-1]
    is_text = ids[0, 1:] < FIRST
    expected = TEXT_CE.weights["ce"] * torch.nn.functional.cross_entropy(logits[is_text], ids[0, 1:][is_text])
    expected.backward()

    assert config.final_logit_softcapping == 1.5
    assert logits.abs().max() > 1.4  # the cap matters
    assert len(outputs) == 1
    assert_close_to_scale(through, expected, ulps=64.0, what="the loss")
    for name, parameter in model.named_parameters():
        assert_close_to_scale(gradients[name], parameter.grad, ulps=256.0, what=name)


# --- without a trainer ------------------------------------------------------------------------------------------------


def test_the_example_of_the_module_runs_on_a_plain_model(coord_base: Path) -> None:
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(coord_base)
    vocab = read_vocab(coord_base)
    labels = torch.tensor([[-100, 72, vocab.ids[3], vocab.ids[900], 65]])
    names: dict[str, Any] = {
        "make_targets": make_targets,
        "LinearHead": LinearHead,
        "objective": Objective([("text", TEXT_CE), ("coord", COORD)], vocab),
        "model": model,
        "vocab": vocab,
        "labels": labels,
        "hidden_states": model.model(input_ids=labels.clamp(min=0)).last_hidden_state,
    }
    example = re.findall(r"^    (.*)$", module_under_test.__doc__ or "", flags=re.MULTILINE)
    exec("\n".join(example), names)
    logits = model(input_ids=labels.clamp(min=0)).logits
    text = cross_entropy(logits[0, [0, 3]], torch.tensor([72, 65]))
    assert names["output"].sums[0].item() == pytest.approx(2 * text.item(), rel=1e-5)
    assert all(parameter.grad is not None for parameter in model.model.language_model.layers.parameters())
