"""What a loss term may ask of the objective: weights of positions, their origin, schedules; and what it may not do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from coordcore import FunctionTerm
from coordcore.coords import CoordVocab
from coordcore.errors import InputError, RunError
from coordcore_train.objective import CallableHead, LinearHead, Objective, make_targets

HIDDEN, TEXT = 12, 40
VOCAB = CoordVocab(ids=tuple(range(TEXT, TEXT + 1000)))
IDS = torch.tensor(VOCAB.ids)
IMAGES = torch.tensor([[640.0, 480.0], [torch.nan, torch.nan], [100.0, 200.0], [32.0, 32.0]])
BOXES = (2, 1, 3, 0)  # of each example; its words are one more than its boxes


@attrs.frozen
class Batch:
    """Four examples, one a row. sizes: [B, T, 4]; the k-th box of an example is 10 * (k + 1) pixels wide and high."""

    hidden: Tensor
    labels: Tensor
    corners: Tensor
    sizes: Tensor

    def rows(self, rows: slice) -> Batch:
        return Batch(self.hidden[rows], self.labels[rows], self.corners[rows], self.sizes[rows])

    def targets(self, objective: Objective) -> dict[str, Tensor]:
        return objective.weigh(make_targets(self.labels, VOCAB, corners=self.corners, sizes=self.sizes))


def batch() -> Batch:
    random = torch.Generator().manual_seed(5)
    labels = torch.full((4, 20), -100)
    corners, sizes = torch.full_like(labels, -1), torch.full((4, 20, 4), torch.nan)
    for row, boxes in enumerate(BOXES):
        coord, text = slice(2, 2 + 4 * boxes), slice(2 + 4 * boxes, 3 + 5 * boxes)
        labels[row, coord] = torch.randint(0, 1000, (4 * boxes,), generator=random) + TEXT
        labels[row, text] = torch.randint(0, TEXT, (boxes + 1,), generator=random)
        corners[row, coord] = torch.arange(4).repeat(boxes)
        sizes[row, :, :2] = IMAGES[row]
        known = 1.0 if bool(IMAGES[row].isfinite().all()) else torch.nan
        sizes[row, coord, 2:] = known * 10 * (torch.arange(4 * boxes) // 4 + 1.0)[:, None]
    return Batch(torch.randn(4, 20, HIDDEN, generator=random), labels, corners, sizes)


def head() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        return nn.Linear(HIDDEN, TEXT + 1000, bias=False)


def bin_ce(seen: Any) -> Tensor:
    loss = cross_entropy(seen.logits.flatten(0, -2), seen.bins.flatten(), reduction="none").view(seen.bins.shape)
    return loss.mean(-1) if loss.dim() == 2 else loss


def text_ce(seen: Any) -> Tensor:
    return seen.lse - seen.label_logits


def whole_ce(seen: Any) -> Tensor:
    return cross_entropy(seen.logits, seen.labels, reduction="none")


def by_example(targets: Any) -> Tensor:
    """Every example counts the same, however many positions it has."""
    return 1 / torch.bincount(targets.origin.example)[targets.origin.example]


def small_only(targets: Any) -> Tensor:
    """Objects of less than 15 x 15 pixels; those of unknown size are left out."""
    return (targets.origin.object_size.prod(-1) < 15**2).float()


def one_term(fn: Callable[[Any], Tensor], scope: Any, weigh: Any, **options: Any) -> list[tuple[str, FunctionTerm]]:
    return [("mine", FunctionTerm(fn=fn, scope=scope, weigh=weigh, **options))]


CASES: dict[str, list[tuple[str, FunctionTerm]]] = {
    "coord": one_term(bin_ce, "coord", by_example),
    "coord, small": one_term(bin_ce, "coord", small_only),
    "box": one_term(bin_ce, "box", by_example),
    "box, small": one_term(bin_ce, "box", small_only),
    "text": one_term(text_ce, "text", by_example),
    "token": one_term(text_ce, "token", by_example),
    "token, whole": one_term(whole_ce, "token", by_example, needs={"logits"}),
    "text, whole": one_term(whole_ce, "text", by_example, needs={"logits"}),
}


def reference(case: str, whole: Batch, weight: nn.Linear) -> Tensor:
    """The weighted mean, position by position in float64."""
    logits = (whole.hidden.double() @ weight.weight.double().T)[:, :-1]
    labels, (scope, *rest) = whole.labels[:, 1:], case.split(", ")
    is_coord = labels >= TEXT
    nll = cross_entropy(logits.flatten(0, 1), labels.flatten().clamp(min=0), reduction="none").view(labels.shape)
    within = logits[..., IDS].log_softmax(-1).gather(-1, (labels - TEXT).clamp(min=0)[..., None]).squeeze(-1)
    values = -within if scope in ("coord", "box") else nll
    chosen = {"coord": is_coord, "box": is_coord, "text": (labels >= 0) & ~is_coord, "token": labels >= 0}[scope]
    if rest == ["small"]:
        weights = (whole.sizes[:, 1:, 2] == 10).double() * chosen
    else:
        weights = chosen.double() / chosen.sum(1, keepdim=True).clamp(min=1)
    return (weights * values).sum() / weights.sum()


# --- weights of positions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cuts", [(4,), (1, 4), (1, 2, 3, 4), (3, 4)])
@pytest.mark.parametrize("chunk_rows", [1, 5, None])
def test_a_weighed_loss_is_the_same_for_every_split(case: str, cuts: tuple[int, ...], chunk_rows: int | None) -> None:
    whole, weight = batch(), head().double()
    run = Objective(CASES[case], VOCAB, chunk_rows=chunk_rows)
    hidden = whole.hidden.double().requires_grad_()
    shares = [
        attrs.evolve(whole, hidden=hidden).rows(slice(first, end)) for first, end in zip((0, *cuts), cuts, strict=False)
    ]
    targets = [share.targets(run) for share in shares]
    counts = [sum(column) for column in zip(*(run.count(target) for target in targets), strict=True)]
    outputs = [
        run(share.hidden, LinearHead(weight), target, counts) for share, target in zip(shares, targets, strict=True)
    ]
    exact = whole.hidden.double().requires_grad_()
    expected = reference(case, attrs.evolve(whole, hidden=exact), weight)
    loss = torch.stack([output.loss for output in outputs]).sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    mean = sum(output.sums for output in outputs) / torch.tensor(counts, dtype=torch.float64)
    assert mean.item() == pytest.approx(expected.item(), rel=1e-6)
    (gradient,), (truth,) = torch.autograd.grad(loss, hidden), torch.autograd.grad(expected, exact)
    assert (gradient - truth).abs().max() <= 1e-6 * truth.abs().max()


@pytest.mark.parametrize("case", CASES)
def test_a_head_that_is_called_weighs_the_same(case: str) -> None:
    whole, weight = batch(), head()
    run = Objective(CASES[case], VOCAB)
    loss = run(whole.hidden, CallableHead(weight), whole.targets(run)).loss
    assert loss.item() == pytest.approx(reference(case, whole, weight).item(), rel=1e-6)


def test_a_part_that_is_not_named_counts_every_position_once() -> None:
    class Two(FunctionTerm):
        @property
        def weights(self) -> Mapping[str, float]:
            return {"small": 1.0, "all": 1.0}

        @property
        def position_weights(self) -> Any:
            return lambda targets: {"small": small_only(targets)}

        def __call__(self, positions: Any) -> Mapping[str, Tensor]:
            return {"small": bin_ce(positions), "all": bin_ce(positions)}

    whole = batch()
    run = Objective([("mine", Two(fn=bin_ce))], VOCAB)
    assert run.count(whole.targets(run)) == [8.0, 24.0]


def test_nothing_to_count_costs_nothing() -> None:
    whole = batch().rows(slice(1, 2))  # of unknown size
    run = Objective(CASES["coord, small"], VOCAB)
    targets = whole.targets(run)
    output = run(whole.hidden, LinearHead(head()), targets)
    assert (run.count(targets), output.loss.item()) == ([0.0], 0.0)


def test_weights_and_origins_move_only_where_they_are_asked_for() -> None:
    whole = batch()
    plain = Objective([("mine", FunctionTerm(fn=bin_ce))], VOCAB)
    weighed = Objective(CASES["coord"], VOCAB)
    bare = set(make_targets(whole.labels, VOCAB, corners=whole.corners))
    assert (plain.reads_origin, weighed.reads_origin) == (False, True)
    assert set(weighed.weigh(make_targets(whole.labels, VOCAB, sizes=whole.sizes))) - bare == {"weights/mine/loss"}


@pytest.mark.parametrize(
    ("weigh", "message"),
    [
        (
            lambda targets: torch.ones(3),
            r"loss.mine: .* part 'loss' one finite number >= 0 per position, shape \(24,\)",
        ),
        (lambda targets: -torch.ones(24), "got shape .24,., values .-1.0"),
        (lambda targets: targets.origin.object_size[:, 0], "sizes that are unknown are NaN: say with torch.where"),
    ],
)
def test_weights_that_are_none(weigh: Any, message: str) -> None:
    whole = batch()
    with pytest.raises(RunError, match=message):
        whole.targets(Objective(one_term(bin_ce, "coord", weigh), VOCAB))


def test_targets_that_were_not_weighed_are_refused() -> None:
    whole = batch()
    with pytest.raises(InputError, match=r"call `targets = objective.weigh\(targets\)` before they are moved"):
        Objective(CASES["coord"], VOCAB)(whole.hidden, LinearHead(head()), make_targets(whole.labels, VOCAB))


# --- where a position comes from --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["coord", "text", "token", "box"])
@pytest.mark.parametrize("called", [False, True])
def test_positions_tell_their_example_and_sizes(scope: Any, called: bool) -> None:
    whole, weight = batch(), head()
    seen: list[Any] = []

    def looking(positions: Any) -> Tensor:
        seen.append(positions.origin)
        return text_ce(positions) if scope in ("text", "token") else bin_ce(positions)

    run = Objective([("mine", FunctionTerm(fn=looking, scope=scope, needs={"origin"}))], VOCAB, chunk_rows=5)
    run(whole.hidden, CallableHead(weight) if called else LinearHead(weight), whole.targets(run))
    example = torch.cat([item.example for item in seen])
    image, size = (torch.cat([getattr(item, name) for item in seen]) for name in ("image_size", "object_size"))
    words = torch.tensor([row for row, boxes in enumerate(BOXES) for _ in range(boxes + 1)])
    boxes = torch.tensor([row for row, boxes in enumerate(BOXES) for _ in range(boxes)])
    coords = boxes.repeat_interleave(4)
    expected = {"coord": coords, "text": words, "token": torch.cat([coords, words]), "box": boxes}[scope]
    assert example.tolist() == expected.tolist()
    assert torch.equal(image.nan_to_num(-1), IMAGES[example].nan_to_num(-1))
    wide = [10.0, 20.0, -1.0, 10.0, 20.0, 30.0]
    found = {"coord": [item for item in wide for _ in range(4)], "text": [-1.0] * len(words), "box": wide}
    found["token"] = found["coord"] + found["text"]
    assert size[:, 0].nan_to_num(-1).tolist() == found[scope]


# --- what was not asked for -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "read"), [("coord", "full_lse"), ("text", "logits"), ("token", "logits"), ("box", "origin")]
)
def test_what_was_not_asked_for_is_named_with_the_cure(scope: Any, read: str) -> None:
    whole = batch()
    run = Objective([("mine", FunctionTerm(fn=lambda seen: getattr(seen, read), scope=scope))], VOCAB)
    with pytest.raises(RunError) as caught:
        run(whole.hidden, LinearHead(head()), make_targets(whole.labels, VOCAB, corners=whole.corners))
    assert str(caught.value) == (
        f'loss.mine: it reads positions.{read}, which it did not ask for; add "{read}" to its needs'
    )


@pytest.mark.parametrize(("scope", "needs"), [("coord", {"logits"}), ("text", {"full_lse"}), ("box", "origin")])
def test_needs_that_a_scope_does_not_have(scope: Any, needs: Any) -> None:
    with pytest.raises(InputError, match=f"loss.mine: a term of scope '{scope}' may need .*origin, got '"):
        Objective([("mine", FunctionTerm(fn=bin_ce, scope=scope, needs=needs))], VOCAB)


# --- weights that follow the step -------------------------------------------------------------------------------------


def test_a_schedule_weighs_the_part() -> None:
    whole = batch()
    run = Objective([("mine", FunctionTerm(fn=bin_ce, weight=3.0, schedule=lambda step, total: step / total))], VOCAB)
    targets = make_targets(whole.labels, VOCAB)

    def loss(weights: list[float] | None) -> float:
        return run(whole.hidden, LinearHead(head()), targets, weights=weights).loss.item()

    assert [run.weights_at(step, 10) for step in (0, 5, 9)] == [[0.0], [1.5], [3.0 * 0.9]]
    assert loss(run.weights_at(5, 10)) == pytest.approx(loss(None) / 2)
    assert loss(run.weights_at(0, 10)) == 0.0


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf")])
def test_a_schedule_that_gives_no_weight(factor: float) -> None:
    run = Objective([("mine", FunctionTerm(fn=bin_ce, schedule=lambda step, total: factor))], VOCAB)
    with pytest.raises(
        RunError, match=r"loss.mine: weights_at\(3, 10\) must give a finite weight >= 0 for each of loss"
    ):
        run.weights_at(3, 10)


# --- terms that train nothing, or harm others -------------------------------------------------------------------------


@pytest.mark.parametrize("called", [False, True])
def test_a_detached_part_with_a_weight_is_refused(called: bool) -> None:
    whole, weight = batch(), head()
    run = Objective([("mine", FunctionTerm(fn=lambda seen: bin_ce(seen).detach()))], VOCAB)
    targets = make_targets(whole.labels, VOCAB)
    with pytest.raises(
        RunError, match=r"loss\.mine: part 'loss' has a weight but no gradient, so it would train nothing"
    ):
        run(whole.hidden, CallableHead(weight) if called else LinearHead(weight), targets)
    with torch.no_grad():  # an evaluation
        assert run(whole.hidden, LinearHead(weight), targets).loss > 0


def test_a_detached_diagnostic_is_fine() -> None:
    whole = batch()
    run = Objective([("mine", FunctionTerm(fn=lambda seen: bin_ce(seen).detach(), weight=0.0))], VOCAB)
    assert run(whole.hidden.requires_grad_(), LinearHead(head()), make_targets(whole.labels, VOCAB)).sums > 0


@pytest.mark.parametrize("name", ["logits", "bins", "values", "full_lse"])
@pytest.mark.parametrize("called", [False, True])
def test_a_term_that_changes_what_others_read_is_refused(name: str, called: bool) -> None:
    def spoiling(seen: Any) -> Tensor:
        loss = bin_ce(seen)
        with torch.no_grad():
            getattr(seen, name).add_(1)
        return loss

    whole, weight = batch(), head()
    run = Objective([("mine", FunctionTerm(fn=spoiling, needs={"full_lse"}))], VOCAB)
    with pytest.raises(RunError, match=rf"loss.mine: the term changed positions.{name} in place"):
        run(whole.hidden, CallableHead(weight) if called else LinearHead(weight), make_targets(whole.labels, VOCAB))
