"""The objective: loss terms over one batch, checked once, charged chunk by chunk (`chunks`).

A training step, in order:

1. Batch: each example is encoded by the run's template and aligned with its geometries (`swift/template`, `align`).
2. Targets: beside the collator, labels become indices, bins and boxes (`targets`); the trainer sums the step's counts.
3. Hidden states: the model's forward runs up to its output head, where `in_forward` has put the objective.
4. Objective: in that forward, chunk by chunk, logits, the terms' losses, their sums over the counts, and gradients.
5. Backward and step: the gradients kept in 4 go on into the model; clipping, optimizer, log (`swift/trainer`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from coordcore.coords import CoordVocab
from coordcore.errors import InputError
from coordcore.protocols import AddedRows, LossTerm, Scope
from coordcore_train.objective.chunks import Batch, Settings, weights_key
from coordcore_train.objective.dense import Dense
from coordcore_train.objective.heads import Head, LinearHead
from coordcore_train.objective.streamed import Streamed
from coordcore_train.objective.streaming import Excluded
from coordcore_train.objective.targets import groups_of, scope_counts, targets_of, without_origin
from coordcore_train.objective.terms import option_of, position_weights, require_term, weights_at


@attrs.frozen(kw_only=True)
class Part:
    """One part of one term: what is logged and weighted under one name.

    weighed: whether its positions may count differently. scheduled: whether its weight follows the training.
    """

    name: str
    scope: Scope
    weight: float
    weighed: bool
    scheduled: bool

    @property
    def trains(self) -> bool:
        """Whether the loss holds it, at some step."""
        return self.weight > 0 or self.scheduled


@attrs.frozen(kw_only=True)
class ObjectiveOutput:
    """loss: scalar. sums: [P] float64, the detached sum over positions of each part, in the order of `parts`.

    group_sums: [G, P] float64, the same over the positions of each group of the targets.
    """

    loss: Tensor
    sums: Tensor
    group_sums: Tensor


class Objective:
    """Loss terms over one batch: `loss = sum over parts of weight * (sum over positions) / denominator`.

    A part's denominator is the number of its positions, or the sum of their weights where the term weighs them.

    `terms`: (component name, term) pairs. `parts` lists what they return, `<component>/<part>`.
    `chunk_rows`: positions projected at a time. `chunk_columns`: vocabulary rows at a time. By device when None. They
    bound the memory, [chunk_rows, chunk_columns] float32, and change no result but its rounding.
    Raises InputError for two parts of one name, a term without parts, a coord or box term without a vocabulary, needs
    that its scope does not have, and chunks of less than one.
    """

    def __init__(
        self,
        terms: Sequence[tuple[str, LossTerm]],
        vocab: CoordVocab | None,
        *,
        chunk_rows: int | None = None,
        chunk_columns: int | None = None,
    ) -> None:
        for name, size in (("chunk_rows", chunk_rows), ("chunk_columns", chunk_columns)):
            if size is not None and (not isinstance(size, int) or size < 1):
                raise InputError(f"{name} must be a whole number of at least 1, or None, got {size!r}")
        self.terms = tuple(terms)
        self.vocab = vocab
        self.chunk_rows = chunk_rows
        self.chunk_columns = chunk_columns
        self._cpu_ids = torch.empty(0, dtype=torch.int64) if vocab is None else vocab.ids_tensor()
        self._ids = self._cpu_ids
        self._last_id = -1 if vocab is None else max(vocab.ids)
        self._excluded = Excluded(() if vocab is None else vocab.ids)
        self._offset_bins: tuple[Tensor, Tensor | None] | None = None
        parts: list[Part] = []
        for owner, term in self.terms:
            require_term(owner, term, has_coord_tokens=vocab is not None)
            weighed, scheduled = option_of(term, "position_weights"), option_of(term, "weights_at")
            for name, weight in term.weights.items():
                parts.append(
                    Part(
                        name=f"{owner}/{name}",
                        scope=term.scope,
                        weight=float(weight),
                        weighed=weighed is not None,
                        scheduled=scheduled is not None,
                    )
                )
        names = [part.name for part in parts]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"loss part {name!r} is returned by two terms; give one of them another name")
        self.parts = tuple(parts)
        self._sees_origin = any("origin" in term.needs for _, term in self.terms)

    def __call__(
        self,
        hidden: Tensor,
        head: Head,
        targets: Mapping[str, Tensor],
        counts: Sequence[float] | None = None,
        weights: Sequence[float] | None = None,
    ) -> ObjectiveOutput:
        """Project the supervised positions only, charge them, and take the gradients there and then.

        hidden: [B, T, H] or [N, H]. targets: from `make_targets` (and `weigh`), on the same device.
        counts: the denominator of each part: `count` summed over micro-batches and ranks; this batch's own when None. A
            part without positions contributes zero.
        weights: the weight of each part, from `weights_at`; those that the terms state when None.

        The loss can be differentiated once (no gradient of a gradient); where no tensor of the head is in training,
        repeatedly if the graph is retained. Takes part in the graph even without a single position, so that every
        rank has a backward pass.

        Raises InputError when hidden states, head, targets and vocabulary do not belong together.
        """
        self._require_matching(hidden, head, targets)
        counts = self.count(targets) if counts is None else counts
        weights = [part.weight for part in self.parts] if weights is None else weights
        by_part = zip(self.parts, weights, counts, strict=True)
        scales = {part.name: weight / (count if count > 0 else 1) for part, weight, count in by_part}
        output: ObjectiveOutput = self._charge(hidden, head, targets, scales)
        return output

    @property
    def reads_origin(self) -> bool:
        """Whether a term reads where positions come from, so that the targets must tell."""
        return self._sees_origin or any(part.weighed for part in self.parts)

    def weigh(self, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`targets` with the weights of the positions of every part whose term gives some. On the CPU, once per batch.

        Where positions come from is left out unless a term reads that in its positions too.

        Raises RunError, with the term's name, for weights that are not one finite number >= 0 per position.
        """
        weighed = dict(targets)
        for owner, term in self.terms:
            if option_of(term, "position_weights") is not None:
                seen = targets_of(term.scope, targets, self._cpu_ids)
                for name, weights in position_weights(owner, term, seen).items():
                    weighed[weights_key(f"{owner}/{name}")] = weights
        return weighed if self._sees_origin else without_origin(weighed)

    def count(self, targets: Mapping[str, Tensor]) -> list[float]:
        """The denominator of each part in this batch, in the order of `parts`: positions, or the sum of their weights.

        targets: on the CPU where terms weigh positions; else only shapes are read.
        """
        counts = scope_counts(targets)
        return [
            float(targets[weights_key(part.name)].double().sum()) if part.weighed else float(counts[part.scope])
            for part in self.parts
        ]

    def count_groups(self, targets: Mapping[str, Tensor]) -> Tensor:
        """[G, P] float64: the denominators as `count` has them, over the positions of each group of the targets."""
        groups = groups_of(targets)
        counted = [
            groups[part.scope].double() @ targets[weights_key(part.name)].double()
            if part.weighed
            else groups[part.scope].sum(1).double()
            for part in self.parts
            if groups
        ]
        return torch.stack(counted, 1) if counted else torch.zeros(0, len(self.parts), dtype=torch.float64)

    def is_charged(self, counts: Sequence[float]) -> bool:
        """Whether a batch with these denominators, from `count`, trains anything."""
        return any(part.trains and count > 0 for part, count in zip(self.parts, counts, strict=True))

    def weights_at(self, step: int, total_steps: int) -> list[float]:
        """The weight of each part, in the order of `parts`, when `step` of `total_steps` steps are done.

        Raises RunError for a schedule that does not give one finite number >= 0 for each of its parts.
        """
        return [weight for owner, term in self.terms for weight in weights_at(owner, term, step, total_steps)]

    # A compiled model calls it as it is: it is made of chunks whose number is data.
    @torch.compiler.disable
    def _charge(
        self, hidden: Tensor, head: Head, targets: Mapping[str, Tensor], scales: Mapping[str, float]
    ) -> ObjectiveOutput:
        hidden = hidden.reshape(-1, hidden.shape[-1])
        with torch.inference_mode(False):  # kept for training, whatever this call is for
            self._ids = self._ids.to(hidden.device)  # copied once, not at every step
        tensors = [hidden, *head.parameters]
        batch = Batch(
            settings=Settings(
                terms=self.terms,
                scales=scales,
                ids=self._ids,
                excluded=self._excluded,
                chunk_rows=self.chunk_rows,
                chunk_columns=self.chunk_columns,
                offset_bins=self._bins_of(head.offset),
            ),
            head=head,
            targets=targets,
            hidden=hidden.detach(),
            wanted=[torch.is_grad_enabled() and tensor.requires_grad for tensor in tensors],
        )
        loss, sums, group_sums = _GradientsInForward.apply(batch, *tensors)
        return ObjectiveOutput(loss=loss, sums=sums, group_sums=group_sums)

    def _require_matching(self, hidden: Tensor, head: Head, targets: Mapping[str, Tensor]) -> None:
        """Raise InputError for what would be computed without a word, and wrongly. Reads shapes only."""
        grid = targets["grid"].shape[:-1]
        if hidden.shape[:-1].numel() != grid.numel():
            raise InputError(
                f"hidden states {tuple(hidden.shape)} and labels {tuple(grid)} are of different positions; "
                "make the targets from the labels of the same, uncut batch"
            )
        if any(part.weighed and weights_key(part.name) not in targets for part in self.parts):
            raise InputError("a loss weighs positions; call `targets = objective.weigh(targets)` before they are moved")
        if self._sees_origin and "coord_examples" not in targets:
            raise InputError("a loss reads where positions come from; give make_targets `examples` or `sizes`")
        if self.vocab is None:
            if len(targets["coord_index"]):
                raise InputError("the targets hold coord tokens, and the objective was made without a vocabulary")
        elif isinstance(head, LinearHead) and len(head.module.weight) <= self._last_id:
            raise InputError(
                f"the output head has {len(head.module.weight)} rows, and a coord token has id {self._last_id}; "
                "expand the checkpoint with `coordcore expand`"
            )

    def _bins_of(self, offset: AddedRows | None) -> Tensor | None:
        """The bins of an offset's ids, None where one of them is no coord token. Read from the device once."""
        if offset is None or self.vocab is None:
            return None
        if self._offset_bins is None or self._offset_bins[0] is not offset.ids:
            bins = self.vocab.bins(offset.ids.cpu())
            inside = bool((bins >= 0).all())
            self._offset_bins = (offset.ids, bins.to(offset.ids.device) if inside else None)
        return self._offset_bins[1]


class _GradientsInForward(torch.autograd.Function):
    """The loss of a batch; its gradients are known when `forward` returns, and only scaled in `backward`.

    The gradient of a head in training is as large as the head: a second one, scaled, would be the most memory of the
    step. It is scaled where it is and handed on, which can be done once.
    """

    @staticmethod
    def forward(ctx: Any, batch: Batch, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(tensors[0].device.type, enabled=False):
            run(batch)
        ctx.hands_on = batch.trains_head_itself
        if ctx.hands_on:
            ctx.gradients = batch.gradients
        else:
            ctx.save_for_backward(*batch.gradients)
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        ctx.mark_non_differentiable(batch.sums, batch.group_sums)
        return batch.loss, batch.sums, batch.group_sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_loss: Tensor, *_by_sums: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.hands_on:
            gradients, ctx.gradients = ctx.gradients, None
            if gradients is None:
                raise RuntimeError(
                    "the gradient of an output head in training is handed on by the first backward pass; "
                    "compute the loss again for another one"
                )
            scaled = [None if item is None else item.mul_(by_loss) for item in gradients]
        else:
            scaled = [None if item is None else item * by_loss for item in ctx.saved_tensors]
        return None, *(None if item is None else item.to(dtype) for item, dtype in zip(scaled, ctx.dtypes, strict=True))


def run(batch: Batch) -> None:
    """Charge every term, each through the cheaper of the two ways that fit it (`streamed`, `dense`)."""
    terms, head = batch.settings.terms, batch.head
    others, boxes = (
        [item for item in terms if item[1].scope != "box"],
        [item for item in terms if item[1].scope == "box"],
    )
    if isinstance(head, LinearHead) and (head.offset is None or batch.settings.offset_bins is not None):
        # Terms of one scope stay together, so that its positions are projected once.
        whole = {term.scope for _, term in others if _reads_logits(term)}
        streamed = Streamed(batch, head)
        streamed.run([other for other in others if other[1].scope not in whole])
        Dense(batch).run([other for other in others if other[1].scope in whole])
        streamed.run_boxes(boxes)
        streamed.finish()
    else:
        dense = Dense(batch)
        dense.run(others)
        dense.run_boxes(boxes)
    batch.fill()


def _reads_logits(term: LossTerm) -> bool:
    return "logits" in term.needs
