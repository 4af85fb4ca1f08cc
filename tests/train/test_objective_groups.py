"""Sums and denominators of groups of examples: what the objective tells of each beside the whole batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch
from test_objective import EVERY, VOCAB, batch, linear, token_ce
from torch import Tensor

from coordcore.errors import InputError
from coordcore.protocols import Targets
from coordcore.records.example import Example
from coordcore_train.checkpoint.origin import Origin
from coordcore_train.objective import CallableHead, LinearHead, Objective, make_targets
from coordcore_train.swift.template import to_row
from coordcore_train.swift.trainer import CoordTrainer

OF_ROWS = torch.tensor([[True, False, False], [False, True, True]])
"""Two groups: the first row, and the two others."""


@attrs.frozen
class Weighed:
    """Text cross entropy whose positions count by their label."""

    scope: Any = "text"
    weights: Any = attrs.field(factory=lambda: {"ce": 1.0})
    needs: frozenset[Any] = frozenset({"logits"})

    def __call__(self, positions: Any) -> dict[str, Tensor]:
        return {"ce": token_ce(positions)}

    def position_weights(self, targets: Targets) -> dict[str, Tensor]:
        return {"ce": targets.labels.float() / 10}


TERMS = [*EVERY, ("weighed", Weighed())]


def grouped(objective: Objective, labels: Tensor, **more: Any) -> dict[str, Tensor]:
    groups = OF_ROWS[:, :, None].expand(2, *labels.shape)
    return objective.weigh(make_targets(labels, VOCAB, examples=torch.zeros_like(labels), groups=groups, **more))


@pytest.mark.parametrize("as_called", [False, True])
def test_a_group_has_the_sums_and_denominators_of_its_positions_alone(as_called: bool) -> None:
    whole, objective = batch(), Objective(TERMS, VOCAB, chunk_rows=7)
    head = linear()
    called = CallableHead(head, trained=[head.weight]) if as_called else LinearHead(head)
    values = {"values": whole.values, "corners": whole.corners}
    targets = grouped(objective, whole.labels, **values)
    output = objective(whole.hidden, called, targets)
    counts = objective.count_groups(targets)

    for group, rows in enumerate(OF_ROWS):
        labels = whole.labels.masked_fill(~rows[:, None], -100)
        corners = whole.corners.masked_fill(~rows[:, None], -1)
        alone = grouped(objective, labels, values=whole.values, corners=corners)
        assert counts[group].tolist() == pytest.approx(objective.count(alone))
        assert output.group_sums[group].tolist() == pytest.approx(
            objective(whole.hidden, called, alone).sums.tolist(), rel=1e-5
        )
    assert counts.sum(0).tolist() == pytest.approx(objective.count(targets))
    assert (counts > 0).all()


def test_groups_change_no_number_of_the_batch() -> None:
    whole, objective = batch(), Objective(EVERY, VOCAB)
    hidden = whole.hidden.requires_grad_()
    found = []
    for groups in (None, OF_ROWS[:, :, None].expand(2, *whole.labels.shape)):
        output = objective(
            hidden, LinearHead(linear()), make_targets(whole.labels, VOCAB, corners=whole.corners, groups=groups)
        )
        [gradient] = torch.autograd.grad(output.loss, hidden)
        found.append((output.loss.item(), output.sums.tolist(), gradient))
    assert found[0][:2] == found[1][:2]
    assert found[0][2].equal(found[1][2])


def test_nan_of_a_group_stays_in_it() -> None:
    whole, objective = batch(), Objective(EVERY, VOCAB)
    whole.hidden[0] = torch.nan
    groups = OF_ROWS[:, :, None].expand(2, *whole.labels.shape)
    targets = make_targets(whole.labels, VOCAB, corners=whole.corners, groups=groups)
    output = objective(whole.hidden, LinearHead(linear()), targets)
    assert output.group_sums.isnan().all(1).tolist() == [True, False]
    assert output.group_sums[1].isfinite().all()


def test_an_example_of_no_named_group_is_refused() -> None:
    example = Example(messages=(), source="rows.jsonl:7", group="refcoco")
    with pytest.raises(InputError, match=r"^rows.jsonl:7: its group is 'refcoco', and its builder names coco, own;"):
        to_row(example, groups=["coco", "own"])


def trainer(sums: list[float], seen: list[float], *, rank: int = 0, ranks: int = 1) -> Any:
    """What `CoordTrainer` has of two parts and two groups."""
    parts = [SimpleNamespace(name="text_ce/ce", weight=1.0), SimpleNamespace(name="coord/ce", weight=0.5)]
    return SimpleNamespace(
        _tr_loss=torch.tensor(0.0),
        _globalstep_last_logged=4,
        moved=True,
        sums={"train": torch.tensor(sums, dtype=torch.float64)},
        seen={"train": torch.tensor(seen, dtype=torch.float64)},
        args=SimpleNamespace(world_size=ranks, process_index=rank, device="cpu"),
        state=SimpleNamespace(global_step=6),
        plan=SimpleNamespace(
            fingerprint="ab",
            groups=("coco", "captions"),
            objective=SimpleNamespace(parts=parts, is_charged=lambda counts: any(counts)),
        ),
    )


SUMS, SEEN = [10.0, 8.0, 6.0, 8.0, 4.0, 0.0], [4.0, 2.0, 3.0, 2.0, 1.0, 0.0]


def test_the_metrics_of_a_group_are_means_over_its_positions() -> None:
    made = trainer(SUMS, SEEN)
    [whole, *of_groups], is_charged = CoordTrainer._reduced(made, "train")
    assert (whole, is_charged) == ({"text_ce/ce": 2.5, "coord/ce": 4.0}, True)
    assert CoordTrainer._of_groups(made, of_groups, [1.0, 0.5]) == {
        "loss@coco": 2.0 + 0.5 * 4.0,
        "text_ce/ce@coco": 2.0,
        "coord/ce@coco": 4.0,
        "loss@captions": 4.0,
        "text_ce/ce@captions": 4.0,
    }
    assert not made.sums["train"].any()


def test_a_group_that_was_not_seen_has_no_metrics() -> None:
    made = trainer([*SUMS[:4], 0.0, 0.0], [*SEEN[:4], 0.0, 0.0])
    [_, *of_groups], _ = CoordTrainer._reduced(made, "train")
    assert not [name for name in CoordTrainer._of_groups(made, of_groups, [1.0, 0.5]) if name.endswith("@captions")]


def test_ranks_add_up_their_groups() -> None:
    made = trainer(SUMS, SEEN, ranks=2)
    made.accelerator = SimpleNamespace(reduce=lambda state, reduction: state + state)
    alone = trainer(SUMS, SEEN)
    assert CoordTrainer._reduced(made, "train") == CoordTrainer._reduced(alone, "train")


def test_a_checkpoint_carries_the_sums_of_groups() -> None:
    origin = CoordTrainer.origin(trainer(SUMS, SEEN))
    assert origin == Origin(fingerprint="ab", moved=True, steps=2, sums=((0.0, *SUMS, *SEEN),))
    continued = trainer([0.0] * 6, [0.0] * 6)
    CoordTrainer.continue_from(continued, origin)
    assert (continued.sums["train"].tolist(), continued.seen["train"].tolist()) == (SUMS, SEEN)


def test_a_checkpoint_without_sums_of_groups_is_gone_on_from() -> None:
    """Of a run that an older version began."""
    origin = Origin(fingerprint="ab", moved=True, steps=2, sums=((0.0, *SUMS[:2], *SEEN[:2]),))
    continued = trainer([0.0] * 6, [0.0] * 6)
    CoordTrainer.continue_from(continued, origin)
    assert continued.sums["train"].tolist() == [*SUMS[:2], *[0.0] * 4]
    assert continued.seen["train"].tolist() == [*SEEN[:2], *[0.0] * 4]
