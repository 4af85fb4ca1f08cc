"""The objective as an ms-swift loss, for a trainer that has the logits already."""

from __future__ import annotations

from typing import Any

from swift.loss import BaseLoss
from torch import Tensor

from coordcore.engine.active import active_plan
from coordcore.objective import SCOPES, CallableHead, count_targets, make_targets

LOSS = "coordcore"


class CoordLoss(BaseLoss):  # type: ignore[misc]
    """`loss_type = "coordcore"`. CoordTrainer computes the same inside the forward, without [B, T, V] logits."""

    def __call__(
        self, outputs: Any, labels: Tensor, *, num_items_in_batch: Any = None, loss_scale: Any = None, **kwargs: Any
    ) -> Tensor:
        plan = active_plan()
        logits: Tensor = outputs.logits
        targets = {key: tensor.to(logits.device) for key, tensor in make_targets(labels.cpu(), plan.vocab).items()}
        counts: list[float] = list(count_targets(targets))
        if num_items_in_batch is not None:
            # The stock trainer knows the number of supervised tokens only; other scopes keep their share of it.
            share = float(num_items_in_batch) / max(counts[SCOPES.index("token")], 1)
            counts = [count * share for count in counts]
        return plan.objective(logits, CallableHead(lambda hidden: hidden), targets, counts).loss
