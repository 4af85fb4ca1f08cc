"""A batch in chunks of positions, and what its chunks add up to.

Shape legend: N flattened positions, n positions of one chunk, K bins, V vocabulary rows, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from coordcore.errors import InputError, RunError
from coordcore.guard import told
from coordcore.protocols import LossTerm, Scope
from coordcore_train.objective.heads import Head
from coordcore_train.objective.streaming import Excluded, accumulating
from coordcore_train.objective.targets import groups_of
from coordcore_train.objective.terms import losses_of

Terms = Sequence[tuple[str, LossTerm]]


@attrs.frozen(kw_only=True)
class Settings:
    """What holds for a whole batch.

    scales: part name -> weight / denominator. ids: [K] int64 on the device. offset_bins: [k] the bins of the head's
    offset rows, None when there are none or some are no coord rows. chunk_rows, chunk_columns: by device when None.
    """

    terms: Terms
    scales: Mapping[str, float]
    ids: Tensor
    excluded: Excluded
    chunk_rows: int | None
    chunk_columns: int | None
    offset_bins: Tensor | None


@attrs.frozen(kw_only=True)
class Chunk:
    """Positions that go through the terms together: a stretch of the coord positions and one of the text positions."""

    coord: slice
    text: slice

    @classmethod
    def between(cls, first: int, end: int, coord: int) -> Chunk:
        """Positions `first` to `end`, counted over `coord` coord positions and then the text positions."""
        return cls(
            coord=slice(min(first, coord), min(end, coord)), text=slice(max(first - coord, 0), max(end - coord, 0))
        )

    @property
    def rows(self) -> dict[Scope, slice]:
        """The chunk's place among all positions of a scope; "token" has the coord positions first."""
        coord, text = self.coord, self.text
        return {"coord": coord, "text": text, "token": slice(coord.start + text.start, coord.stop + text.stop)}


def chunks(coord: int, text: int, rows: int) -> Iterator[Chunk]:
    """`coord` and then `text` positions in the fewest chunks of at most `rows`, of nearly equal size."""
    total = coord + text
    count = -(-total // rows)
    for number in range(count):
        yield Chunk.between(total * number // count, total * (number + 1) // count, coord)


class Batch:
    """Sums up loss, sums and gradients over the chunks of a batch.

    wanted: whether the hidden states and each of `head.parameters` need a gradient. At the end: loss (scalar), sums
    [P] float64 and, of each group of the targets, group_sums [G, P] float64, and gradients, None where not wanted.
    """

    def __init__(
        self, *, settings: Settings, head: Head, targets: Mapping[str, Tensor], hidden: Tensor, wanted: Sequence[bool]
    ) -> None:
        self.settings, self.head, self.targets, self.hidden, self.wanted = settings, head, targets, hidden, wanted
        self.dtype = accumulating(hidden.dtype)
        # The objective computes without it, but a head that is called whole computes as the model does.
        self.autocast = torch.is_autocast_enabled(hidden.device.type)
        self.loss = hidden.new_zeros((), dtype=self.dtype)
        self.sums = hidden.new_zeros(len(settings.scales), dtype=torch.float64)
        self.groups = groups_of(targets)
        self.group_sums = self.sums.new_zeros(len(targets.get("coord_groups", ())), len(self.sums))
        self.gradients: list[Tensor | None] = [None] * len(wanted)
        if wanted[0]:
            # Each position is in few chunks. float16 would lose small gradients before the loss scale reaches them.
            dtype = torch.float32 if hidden.dtype == torch.float16 else hidden.dtype
            self.gradients[0] = torch.zeros_like(hidden, dtype=dtype)
        self._part = {name: number for number, name in enumerate(settings.scales)}

    @property
    def trains_head_itself(self) -> bool:
        """Whether a tensor of the head is in training, and not only the rows that are added to it."""
        added = None if self.head.offset is None else self.head.offset.rows
        return any(
            wanted and tensor is not added for wanted, tensor in zip(self.wanted[1:], self.head.parameters, strict=True)
        )

    def charge(
        self,
        terms: Terms,
        positions: Mapping[Scope, Any],
        rows: Mapping[Scope, slice],
        inputs: Sequence[Tensor],
    ) -> list[Tensor | None]:
        """Add a chunk's losses to the sums; the gradients of its share of the loss by `inputs`, None where unused.

        positions: what the terms see. rows: which of all positions of a scope these are.
        """
        total = None
        trains = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
        for owner, term in terms:
            losses = _losses_of(owner, term, positions[term.scope])
            chosen = rows[term.scope]
            count = chosen.stop - chosen.start
            for name, values in losses.items():
                if not isinstance(values, Tensor) or not values.is_floating_point():
                    got = str(values.dtype) if isinstance(values, Tensor) else type(values).__name__
                    raise RunError(f"loss.{owner}: part {name!r} must be a floating-point tensor, got {got}")
                if values.shape != (count,):
                    raise RunError(
                        f"loss.{owner}: part {name!r} must have one value per position, shape ({count},), "
                        f"got {tuple(values.shape)}; do not reduce it"
                    )
                part = f"{owner}/{name}"
                values = values.to(self.dtype)
                weights = self.targets.get(weights_key(part))
                values = values if weights is None else values * weights[chosen]
                value = values.sum()
                self.sums[self._part[part]] += value.detach()
                if self.groups:
                    of_group = torch.where(self.groups[term.scope][:, chosen], values.detach(), 0)
                    self.group_sums[:, self._part[part]] += of_group.sum(1)
                scale = self.settings.scales[part]
                if scale:
                    if trains and count and not values.requires_grad:
                        raise RunError(
                            f"loss.{owner}: part {name!r} has a weight but no gradient, so it would train nothing; "
                            "compute it from the logits without detach() or no_grad(), or give it weight 0"
                        )
                    self.loss += value.detach() * scale
                    total = value * scale if total is None else total + value * scale
        if total is None or not total.requires_grad:
            return [None] * len(inputs)
        return list(torch.autograd.grad(total, inputs, allow_unused=True))

    def add(self, place: int, gradient: Tensor | None) -> None:
        """Add a share to `gradients[place]`, unless that is not wanted. Several shares are summed in float32.

        The first share is kept and added to in place: it must be a tensor that nobody else holds.
        """
        if gradient is None or not self.wanted[place]:
            return
        before = self.gradients[place]
        if before is not None:
            gradient = before.to(accumulating(before.dtype)).add_(gradient)
        self.gradients[place] = gradient

    def add_to_hidden(self, index: Tensor, gradient: Tensor | None) -> None:
        """Add the gradient [n, H] of the positions `index` [n], which are distinct."""
        total = self.gradients[0]
        if total is not None and gradient is not None:
            total.index_add_(0, index, gradient.to(total.dtype))

    def fill(self) -> None:
        """Zeros for what no chunk has touched, so that every rank has the same gradients."""
        for place, tensor in enumerate(self.head.parameters, start=1):
            if self.wanted[place] and self.gradients[place] is None:
                self.gradients[place] = torch.zeros_like(tensor)


def _losses_of(owner: str, term: LossTerm, seen: Any) -> Mapping[str, Tensor]:
    """`losses_of`, and RunError with the section for whatever the term raises, but for what the machine lacks."""
    try:
        return losses_of(owner, term, seen)
    except (InputError, RunError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        cure = "it must take any positions, in any number and order"
        raise RunError(f"loss.{owner}: the term raised {told(error)}; {cure}") from error


def weights_key(part: str) -> str:
    """Where the targets hold the position weights of a part, if it has any."""
    return f"weights/{part}"
