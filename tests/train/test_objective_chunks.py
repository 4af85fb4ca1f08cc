"""The objective in chunks against float64 autograd over whole logits: values, gradients, memory, and no waiting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from coordcore.coords import CoordVocab
from coordcore.errors import RunError
from coordcore.protocols import AddedRows
from coordcore.testing.closeness import assert_close_to_scale
from coordcore_train.objective import CallableHead, LinearHead, Objective, make_targets, streamed, streaming

HIDDEN, TEXT, AFTER = 12, 40, 9
IDS = torch.arange(TEXT, TEXT + 1000)
VOCAB = CoordVocab(ids=tuple(IDS.tolist()))
SIZE = TEXT + 1000 + AFTER


@attrs.frozen
class Term:
    scope: Any
    weights: Mapping[str, float]
    needs: frozenset[Any] = frozenset()

    def __call__(self, seen: Any) -> Mapping[str, Tensor]:
        return {name: PARTS[name](seen) for name in self.weights}


def mean_bin(seen: Any) -> Tensor:
    return (seen.logits.softmax(-1) * torch.arange(1000)).sum(-1)


PARTS: dict[str, Any] = {
    "ce": lambda seen: cross_entropy(seen.logits, seen.bins, reduction="none"),
    "gate": lambda seen: seen.full_lse - seen.logits.logsumexp(-1),
    "mae": lambda seen: (mean_bin(seen) - seen.values).abs() / 100,
    "text": lambda seen: seen.lse - seen.label_logits,
    "text_gate": lambda seen: seen.lse - seen.text_lse,
    "mass": lambda seen: (seen.coord_lse - seen.lse).exp() + seen.coord_logits.square().mean(-1),
    "whole": lambda seen: cross_entropy(seen.logits, seen.labels, reduction="none"),
    "box": lambda seen: (mean_bin(seen) - seen.values).abs().amax(-1) / 100,
}

TERMS: dict[str, list[tuple[str, Term]]] = {
    "coord columns": [("a", Term("coord", {"ce": 1.0, "mae": 0.5}))],
    "gates": [
        ("a", Term("coord", {"ce": 1.0, "gate": 0.7}, frozenset({"full_lse"}))),
        ("b", Term("text", {"text": 1.0, "text_gate": 0.3, "mass": 0.1})),
    ],
    "gate off": [("a", Term("coord", {"ce": 1.0})), ("b", Term("text", {"text": 1.0}))],
    "token": [("a", Term("token", {"text": 1.0, "mass": 0.1})), ("b", Term("coord", {"mae": 0.5}))],
    "boxes": [("a", Term("box", {"box": 1.0})), ("b", Term("text", {"text": 0.2}))],
    "logits": [
        ("a", Term("text", {"whole": 1.0, "text_gate": 0.1}, frozenset({"logits"}))),
        ("b", Term("token", {"text": 0.5})),
        ("c", Term("coord", {"gate": 1.0}, frozenset({"full_lse"}))),
        ("d", Term("box", {"box": 1.0})),
    ],
}


@attrs.frozen
class Case:
    """hidden [N, H], targets, head, offset: everything trainable that should be."""

    hidden: Tensor
    targets: dict[str, Tensor]
    head: nn.Linear
    offset: AddedRows | None

    @property
    def trained(self) -> list[Tensor]:
        return [item for item in (self.hidden, *LinearHead(self.head, self.offset).parameters) if item.requires_grad]

    def to(self, dtype: torch.dtype) -> Case:
        """The same numbers in another precision."""
        head = nn.Linear(HIDDEN, SIZE, bias=self.head.bias is not None, dtype=dtype)
        head.load_state_dict(self.head.state_dict())
        head.requires_grad_(self.head.weight.requires_grad)
        offset = None
        if self.offset is not None:
            offset = AddedRows(ids=self.offset.ids, rows=nn.Parameter(self.offset.rows.detach().to(dtype)))
        return Case(self.hidden.detach().to(dtype).requires_grad_(), self.targets, head, offset)


def make(
    *,
    boxes: int = 5,
    text: int = 17,
    bias: bool = False,
    trains_head: bool = False,
    offset_ids: Tensor | None = IDS,
    scale: float = 1.0,
) -> Case:
    """`boxes` boxes and `text` words in one row; some bins and labels twice."""
    random = torch.Generator().manual_seed(1)
    bins = torch.randint(0, 1000, (boxes, 4), generator=random)
    bins[1:2] = bins[:1]
    labels = torch.full((1, 3 + 4 * boxes + text + 4), -100)
    corners, values = torch.full_like(labels, -1), torch.full(labels.shape, torch.nan)
    labels[0, 3 : 3 + 4 * boxes] = bins.flatten() + TEXT
    corners[0, 3 : 3 + 4 * boxes] = torch.arange(4).repeat(boxes)
    values[0, 3 : 3 + 4 * boxes] = bins.flatten() + 0.3
    words = torch.cat([torch.arange(TEXT), torch.arange(TEXT + 1000, SIZE)])
    labels[0, 3 + 4 * boxes : -4] = words[torch.randint(0, len(words), (text,), generator=random)]
    hidden = torch.randn(labels.shape[1], HIDDEN, generator=random)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        head = nn.Linear(HIDDEN, SIZE, bias=bias).requires_grad_(trains_head)
        head.weight.data.mul_(scale)
        rows = None if offset_ids is None else nn.Parameter(0.1 * torch.randn(len(offset_ids), HIDDEN))
    offset = None if rows is None else AddedRows(ids=offset_ids, rows=rows)
    targets = make_targets(labels, VOCAB, values=values, corners=corners)
    return Case(hidden.requires_grad_(), targets, head, offset)


def plain(case: Case, terms: list[tuple[str, Term]]) -> Tensor:
    """The loss as anybody would write it: whole logits, autograd."""
    from coordcore.protocols import BoxPositions, CoordPositions, TextPositions

    logits = case.hidden @ case.head.weight.T
    if case.head.bias is not None:
        logits = logits + case.head.bias
    if case.offset is not None:
        logits = logits.index_add(1, case.offset.ids, case.hidden @ case.offset.rows.T)
    t = case.targets
    on_coord, on_text = logits[t["coord_index"]], logits[t["text_index"]]
    coord = CoordPositions(logits=on_coord[:, IDS], bins=t["bins"], values=t["values"], full_lse=on_coord.logsumexp(-1))
    box = BoxPositions(logits=coord.logits[t["boxes"]], bins=t["bins"][t["boxes"]], values=t["values"][t["boxes"]])
    text = TextPositions(logits=on_text, labels=t["text_labels"], coord_ids=IDS)
    both = torch.cat([on_text, on_coord])
    token = TextPositions(logits=both, labels=torch.cat([t["text_labels"], IDS[t["bins"]]]), coord_ids=IDS)
    seen = {"coord": coord, "box": box, "text": text, "token": token}
    total = logits.sum() * 0
    for _, term in terms:
        for name, values in term(seen[term.scope]).items():
            total = total + term.weights[name] * values.sum() / max(len(values), 1)
    return total


def assert_as_exact(actual: list[Tensor], single: list[Tensor], exact: list[Tensor], *, slack: float = 4.0) -> None:
    """Each of `actual` is as near to float64 as plain float32 autograd is, within a factor."""
    for found, plainly, truth in zip(actual, single, exact, strict=True):
        error, allowed = (found - truth).abs().max(), (plainly - truth).abs().max()
        assert error <= slack * allowed + 2e-6 * truth.abs().max()


# --- values and gradients ---------------------------------------------------------------------------------------------


@pytest.fixture(params=[streamed._KEPT, 0], ids=["again", "kept"])
def logits_of_a_trained_head(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed again for the gradient of the head, as so many positions are, or kept for it, as few are."""
    monkeypatch.setattr(streamed, "_KEPT", request.param)


@pytest.mark.usefixtures("logits_of_a_trained_head")
@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("sizes", [(1, 64), (3, 7), (7, 1049), (512, None)])
def test_chunks_change_no_gradient(terms: str, sizes: tuple[int, int | None]) -> None:
    case = make(bias=True, trains_head=True)
    run = Objective(TERMS[terms], VOCAB, chunk_rows=sizes[0], chunk_columns=sizes[1])
    loss = run(case.hidden, LinearHead(case.head, case.offset), case.targets).loss
    single, double = plain(case, TERMS[terms]), plain(exact := case.to(torch.float64), TERMS[terms])
    actual, expected, truth = (
        [value.detach(), *torch.autograd.grad(value, item.trained, materialize_grads=True)]
        for value, item in ((loss, case), (single, case), (double, exact))
    )
    assert_as_exact(actual, expected, truth)


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("trains_head", [False, True])
@pytest.mark.parametrize("offset_ids", [None, IDS[200:300].flip(0), torch.tensor([1, 2, 700])])
def test_frozen_and_trained_heads_with_any_offset(terms: str, trains_head: bool, offset_ids: Tensor | None) -> None:
    case = make(trains_head=trains_head, offset_ids=offset_ids)
    loss = Objective(TERMS[terms], VOCAB)(case.hidden, LinearHead(case.head, case.offset), case.targets).loss
    single, double = plain(case, TERMS[terms]), plain(exact := case.to(torch.float64), TERMS[terms])
    actual, expected, truth = (
        [value.detach(), *torch.autograd.grad(value, item.trained, materialize_grads=True)]
        for value, item in ((loss, case), (single, case), (double, exact))
    )
    assert_as_exact(actual, expected, truth)


@pytest.mark.usefixtures("logits_of_a_trained_head")
@pytest.mark.parametrize("terms", TERMS)
def test_float64_stays_float64(terms: str) -> None:
    case = make(bias=True, trains_head=True).to(torch.float64)
    loss = Objective(TERMS[terms], VOCAB, chunk_rows=5, chunk_columns=100)(
        case.hidden, LinearHead(case.head, case.offset), case.targets
    ).loss
    expected = plain(case, TERMS[terms])
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    for found, wanted in zip(
        torch.autograd.grad(loss, case.trained),
        torch.autograd.grad(expected, case.trained, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("logits_of_a_trained_head")
@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(terms: str, dtype: torch.dtype) -> None:
    case = make(trains_head=True).to(dtype)
    loss = Objective(TERMS[terms], VOCAB, chunk_rows=6)(
        case.hidden, LinearHead(case.head, case.offset), case.targets
    ).loss
    expected = plain(wide := case.to(torch.float64), TERMS[terms])
    assert (loss.dtype, loss.item()) == (torch.float32, pytest.approx(expected.item(), rel=1e-5))
    gradients = torch.autograd.grad(loss, case.trained)
    for found, truth in zip(
        gradients, torch.autograd.grad(expected, wide.trained, materialize_grads=True), strict=True
    ):
        assert found.dtype == dtype
        # Rounded to the dtype where it is handed on, once or twice.
        assert (found - truth).abs().max() <= 2 * torch.finfo(dtype).eps * truth.abs().max()


@pytest.mark.parametrize(("boxes", "text"), [(0, 0), (1, 0), (0, 1), (1, 1), (0, 30), (9, 0)])
@pytest.mark.parametrize("terms", TERMS)
def test_few_positions_and_none(boxes: int, text: int, terms: str) -> None:
    case = make(boxes=boxes, text=text, trains_head=True)
    loss = Objective(TERMS[terms], VOCAB, chunk_rows=4)(
        case.hidden, LinearHead(case.head, case.offset), case.targets
    ).loss
    single, double = plain(case, TERMS[terms]), plain(exact := case.to(torch.float64), TERMS[terms])
    actual, expected, truth = (
        [value.detach(), *torch.autograd.grad(value, item.trained, materialize_grads=True)]
        for value, item in ((loss, case), (single, case), (double, exact))
    )
    assert_as_exact(actual, expected, truth)


@pytest.mark.usefixtures("logits_of_a_trained_head")
@pytest.mark.parametrize("scale", [0.0, 3e4])
def test_extreme_logits_stay_finite(scale: float) -> None:
    case = make(scale=scale, trains_head=True)
    loss = Objective([*TERMS["gates"][:1], ("t", Term("text", {"text": 1.0, "text_gate": 1.0}))], VOCAB)(
        case.hidden, LinearHead(case.head, case.offset), case.targets
    ).loss
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, case.trained))


@pytest.mark.parametrize("terms", ["gates", "logits"])
def test_nan_in_gives_nan_out(terms: str) -> None:
    case = make()
    hidden = case.hidden.detach().clone()
    hidden[case.targets["text_index"][0], 3] = math.nan
    output = Objective(TERMS[terms], VOCAB, chunk_rows=4)(hidden, LinearHead(case.head, case.offset), case.targets)
    assert output.loss.isnan()


@pytest.mark.usefixtures("logits_of_a_trained_head")
def test_a_masked_row_of_the_bias_is_no_nan() -> None:
    case = make(bias=True, trains_head=True)
    with torch.no_grad():
        case.head.bias[:3] = -math.inf  # a whole block of three
    loss = Objective(TERMS["gates"][:1], VOCAB, chunk_columns=3)(
        case.hidden, LinearHead(case.head, case.offset), case.targets
    ).loss
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, case.trained))


def test_backward_can_be_repeated() -> None:
    case = make()
    loss = Objective(TERMS["gates"], VOCAB)(case.hidden, LinearHead(case.head, case.offset), case.targets).loss
    first = torch.autograd.grad(loss, case.trained, retain_graph=True)
    second = torch.autograd.grad(3 * loss, case.trained)
    for item, other in zip(first, second, strict=True):
        assert_close_to_scale(other, 3 * item)


@pytest.mark.parametrize(("text", "times"), [(3, 1), (4, 2)])
def test_the_logits_of_few_positions_are_computed_once(text: int, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few: where all their logits are a quarter of the head's gradient at most."""
    case = make(boxes=0, text=text, trains_head=True, offset_ids=None)
    calls, logits = [], streaming.Block.logits
    monkeypatch.setattr(streaming.Block, "logits", lambda block, hidden: (calls.append(1), logits(block, hidden))[1])
    Objective(TERMS["gates"], VOCAB)(case.hidden, LinearHead(case.head), case.targets)
    assert len(calls) == times


@pytest.mark.parametrize("head", [LinearHead, CallableHead])
def test_the_gradient_of_a_trained_head_is_handed_on_once(head: Any) -> None:
    case = make(trains_head=True)
    objective, arguments = Objective(TERMS["gates"], VOCAB), (case.hidden, head(case.head, case.offset), case.targets)
    plain = torch.autograd.grad(objective(*arguments).loss, case.trained)
    loss = objective(*arguments).loss
    scaled = torch.autograd.grad(3 * loss, case.trained, retain_graph=True)
    for item, other in zip(plain, scaled, strict=True):
        assert_close_to_scale(other, 3 * item)
    with pytest.raises(RuntimeError, match="handed on by the first backward pass; compute the loss again"):
        torch.autograd.grad(loss, case.trained)


def test_the_gradient_of_a_trained_head_is_not_copied() -> None:
    """What `.grad` holds is the tensor that the objective has filled: another one would take as much memory again."""
    case = make(trains_head=True)
    loss = Objective(TERMS["gates"], VOCAB)(case.hidden, LinearHead(case.head, case.offset), case.targets).loss
    filled = loss.grad_fn.gradients[1].data_ptr()
    (loss / 2).backward()
    assert case.head.weight.grad.data_ptr() == filled


def test_without_gradients_the_same_loss() -> None:
    case = make()
    run, head = Objective(TERMS["logits"], VOCAB), LinearHead(case.head, case.offset)
    trained = run(case.hidden, head, case.targets)
    with torch.no_grad():
        evaluated = run(case.hidden, head, case.targets)
    assert (evaluated.loss.item(), evaluated.loss.requires_grad) == (trained.loss.item(), False)
    assert evaluated.sums.tolist() == trained.sums.tolist()


# --- heads ------------------------------------------------------------------------------------------------------------


def test_a_called_head_trains_its_own_parameters() -> None:
    case = make(trains_head=True)
    loss = Objective(TERMS["gates"], VOCAB)(case.hidden, CallableHead(case.head, case.offset), case.targets).loss
    exact = case.to(torch.float64)
    assert_as_exact(
        list(torch.autograd.grad(loss, case.trained)),
        list(torch.autograd.grad(plain(case, TERMS["gates"]), case.trained)),
        list(torch.autograd.grad(plain(exact, TERMS["gates"]), exact.trained)),
    )


def test_a_trainable_tensor_that_nobody_named_is_refused() -> None:
    case = make(trains_head=True)
    head = CallableHead(lambda hidden: case.head(hidden))
    with pytest.raises(RunError, match=r"reads a trainable tensor \(1049, 12\) .* name it in CallableHead\(trained="):
        Objective(TERMS["gates"], VOCAB)(case.hidden, head, case.targets)


def test_a_text_term_that_reads_what_it_said_it_would_not() -> None:
    case = make()
    message = 'loss.a: it reads positions.logits, which it did not ask for; add "logits" to its needs'
    with pytest.raises(RunError, match=message):
        Objective([("a", Term("text", {"whole": 1.0}))], VOCAB)(case.hidden, LinearHead(case.head), case.targets)


# --- memory and waiting -----------------------------------------------------------------------------------------------


class Watch(TorchDispatchMode):
    """The largest tensor any operation made, and the operations that make a host wait for a device."""

    WAITING = ("_local_scalar_dense", "nonzero", "equal", "item", "is_nonzero", "masked_select", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.waited = 0, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        boolean = name.startswith("index") and any(
            index is not None and index.dtype == torch.bool
            for index in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
            if isinstance(index, Tensor)
        )
        if name in self.WAITING or boolean:
            self.waited.append(name)
        for item in result if isinstance(result, list | tuple) else (result,):
            if isinstance(item, Tensor) and item.untyped_storage().data_ptr() != 0:
                self.largest = max(self.largest, item.untyped_storage().nbytes() // item.element_size())
        return result


@pytest.mark.parametrize("terms", ["gates", "gate off", "token", "boxes"])
def test_no_tensor_grows_with_positions_times_vocabulary(terms: str) -> None:
    largest = {}
    for boxes, text in ((8, 32), (64, 256)):
        case = make(boxes=boxes, text=text)
        head = LinearHead(case.head.requires_grad_(False), case.offset)
        run = Objective(TERMS[terms], VOCAB, chunk_rows=16, chunk_columns=128)
        with Watch() as watch:
            run(case.hidden, head, case.targets).loss.backward()
        largest[boxes] = watch.largest
    # The coord columns of a chunk, or the coord rows of the head; nothing of the whole vocabulary but its weight.
    assert largest == dict.fromkeys(largest, max(16 * 1000, SIZE * HIDDEN, 1000 * (HIDDEN + 1)))


@pytest.mark.parametrize("terms", TERMS)
def test_nothing_waits_for_the_device(terms: str) -> None:
    case = make(trains_head=True)
    run, head = Objective(TERMS[terms], VOCAB), LinearHead(case.head, case.offset)
    run(case.hidden, head, case.targets)  # the offset's ids are looked at once
    with Watch() as watch:
        run(case.hidden, head, case.targets).loss.backward()
    assert watch.waited == []


# --- heads that are called whole --------------------------------------------------------------------------------------


class Sum(nn.Module):
    """A weight in two trained parts, whose gradients are one tensor to autograd."""

    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.randn(SIZE, HIDDEN, generator=torch.Generator().manual_seed(5)))
        self.delta = nn.Parameter(torch.zeros(SIZE, HIDDEN))
        self.scaled = scaled

    def forward(self, hidden: Tensor) -> Tensor:
        logits = hidden @ (self.base + self.delta).T
        # The gradient of the sum is one number, expanded to the shape of the parameter.
        return logits * (1 + self.delta.sum()) if self.scaled else logits


@pytest.mark.parametrize("scaled", [False, True])
def test_parts_of_a_head_that_share_a_gradient_are_trained_once(scaled: bool) -> None:
    case, head = make(boxes=0, text=60, offset_ids=None), Sum(scaled)
    text = Term("text", {"text": 1.0})
    Objective([("a", text)], VOCAB)(case.hidden, CallableHead(head), case.targets).loss.backward()
    ours = [parameter.grad for parameter in head.parameters()]

    def plainly(head: Sum, hidden: Tensor) -> list[Tensor]:
        loss = cross_entropy(head(hidden[case.targets["text_index"]]), case.targets["text_labels"])
        return list(torch.autograd.grad(loss, list(head.parameters())))

    single = plainly(head, case.hidden)
    assert_as_exact(ours, single, plainly(head.double(), case.hidden.double()))


def test_offset_rows_that_the_head_owns_are_trained_once() -> None:
    case = make()
    assert case.offset is not None
    terms = TERMS["gates"]
    Objective(terms, VOCAB)(case.hidden, LinearHead(case.head, case.offset), case.targets).loss.backward()
    expected, case.offset.rows.grad = case.offset.rows.grad, None
    case.head.register_parameter("offset", case.offset.rows)
    Objective(terms, VOCAB)(case.hidden, CallableHead(case.head, case.offset), case.targets).loss.backward()
    assert_close_to_scale(case.offset.rows.grad, expected)


def test_a_head_that_is_called_computes_under_autocast_as_in_the_model() -> None:
    case = make(offset_ids=None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = Objective(TERMS["gates"], VOCAB)(case.hidden.bfloat16(), CallableHead(case.head), case.targets).loss
    assert loss.item() == pytest.approx(plain(case, TERMS["gates"]).item(), rel=0.02)


# --- odd heads and compilers ------------------------------------------------------------------------------------------


def test_a_vocabulary_of_coord_tokens_alone_trains_its_head() -> None:
    vocab = CoordVocab(ids=range(1000))
    head, hidden = nn.Linear(HIDDEN, 1000, bias=False), torch.randn(4, HIDDEN)
    targets = make_targets(torch.tensor([[-100, 5, 7, 900]]), vocab)
    terms = [("a", Term("coord", {"ce": 1.0, "gate": 1.0}, frozenset({"full_lse"})))]
    Objective(terms, vocab)(hidden, LinearHead(head), targets).loss.backward()
    (expected,) = torch.autograd.grad(cross_entropy(head(hidden[:3]), torch.tensor([5, 7, 900])), head.weight)
    assert_close_to_scale(head.weight.grad, expected)


def test_a_float16_head_keeps_small_gradients_for_the_loss_scale() -> None:
    case = make(trains_head=True, offset_ids=None)
    counts, scale = [1e6] * 5, 2.0**16
    (plain_loss,) = [Objective(TERMS["gates"], VOCAB)(case.hidden, LinearHead(case.head), case.targets, counts).loss]
    (expected,) = torch.autograd.grad(plain_loss * scale, case.head.weight)
    half = case.to(torch.float16)
    loss = Objective(TERMS["gates"], VOCAB)(half.hidden, LinearHead(half.head), half.targets, counts).loss
    (actual,) = torch.autograd.grad(loss * scale, half.head.weight)
    assert ((actual.float() - expected).norm() / expected.norm()).item() < 0.01


def test_a_compiled_function_may_call_it() -> None:
    case = make()
    run, head = Objective(TERMS["gates"], VOCAB), LinearHead(case.head, case.offset)

    def loss() -> Tensor:
        return run(case.hidden, head, case.targets).loss * 2

    assert torch.compile(loss, backend="eager")().item() == pytest.approx(loss().item(), rel=1e-5)
