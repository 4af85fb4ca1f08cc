"""Hidden states, an output head, labels and loss terms to one loss with per-part sums.

Shape legend: B rows, T tokens, N = B*T flattened positions, n selected positions, m boxes, K bins, V vocabulary rows,
H hidden size.

The objective needs neither ms-swift nor a trainer:

    targets = make_targets(labels, vocab)                     # once per batch, on the CPU
    head = LinearHead(model.lm_head)
    output = objective(hidden_states, head, targets)          # hidden_states [B, T, H] from the decoder
    output.loss.backward()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor, nn

from coordcore.coords import CoordVocab
from coordcore.protocols import BoxPositions, CoordPositions, HeadOffset, LossTerm, Scope, TextPositions
from coordcore.records import InputError, RunError

SCOPES: tuple[Scope, ...] = ("coord", "text", "token", "box")
IGNORE = -100


# --- targets --------------------------------------------------------------------------------------------------------


def make_targets(
    labels: Tensor,
    vocab: CoordVocab | None,
    *,
    values: Tensor | None = None,
    corners: Tensor | None = None,
) -> dict[str, Tensor]:
    """Select and shift the supervised positions of a batch: position t predicts label t + 1.

    labels: [B, T] int64, -100 where nothing is supervised. Packed rows start with -100, so no shift crosses a boundary.
    values: [B, T] float32, the real-valued target in bin units at coord labels, NaN where only the bin is known.
    corners: [B, T] int64, 0..3 at the x1, y1, x2, y2 labels of a box, -1 elsewhere.

    Returns plain tensors, so that data loaders and trainers can move them; indices are into the flattened [B*T]
    positions: coord_index, bins, values [n]; boxes [m, 4] into the coord positions; text_index, text_labels [n].
    Runs on the CPU beside the collator: the shapes then tell the counts, and the accelerator never has to.
    Raises InputError when the corners do not come in fours.
    """
    columns = labels.shape[1]
    supervised = labels[:, 1:] != IGNORE
    row, column = supervised.nonzero(as_tuple=True)
    index = row * columns + column
    target = labels[row, column + 1]
    bins = vocab.bins(target) if vocab is not None else torch.full_like(target, -1)
    is_coord = bins >= 0
    coord_bins = bins[is_coord]
    if values is None:
        coord_values = coord_bins.float()
    else:
        coord_values = values[row, column + 1][is_coord]
        coord_values = torch.where(coord_values.isnan(), coord_bins.float(), coord_values)
    boxes = torch.empty(0, 4, dtype=torch.int64)
    if corners is not None:
        corner = corners[row, column + 1][is_coord]
        member = (corner >= 0).nonzero().squeeze(-1)
        order = corner[member]
        if not torch.equal(order, torch.arange(len(order)) % 4) or len(order) % 4:
            raise InputError(f"box corners must come as 0, 1, 2, 3 for each box, got {order[:8].tolist()} ...")
        boxes = member.view(-1, 4)
    return {
        "coord_index": index[is_coord],
        "bins": coord_bins,
        "values": coord_values,
        "boxes": boxes,
        "text_index": index[~is_coord],
        "text_labels": target[~is_coord],
    }


def count_targets(targets: Mapping[str, Tensor]) -> list[int]:
    """Positions per scope, in the order of SCOPES. Reads shapes only: no device synchronisation."""
    coord, text = len(targets["coord_index"]), len(targets["text_index"])
    return [coord, text, coord + text, len(targets["boxes"])]


# --- the head -------------------------------------------------------------------------------------------------------


class Head(Protocol):
    """How hidden states [n, H] become logits."""

    def full(self, hidden: Tensor) -> Tensor:
        """[n, V] float32."""
        ...

    def columns(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """[n, K] float32, the columns `ids` of the full logits."""
        ...


def _add_offset(logits: Tensor, hidden: Tensor, offset: HeadOffset) -> Tensor:
    return logits.index_add(-1, offset.ids, hidden.float() @ offset.rows.float().T)


@attrs.frozen
class LinearHead:
    """A plain `nn.Linear` head, its weight read at call time (FSDP and ZeRO gather it only then)."""

    module: nn.Linear
    offset: HeadOffset | None = None

    def full(self, hidden: Tensor) -> Tensor:
        logits = nn.functional.linear(hidden, self.module.weight, self.module.bias).float()
        return logits if self.offset is None else _add_offset(logits, hidden, self.offset)

    def columns(self, hidden: Tensor, ids: Tensor) -> Tensor:
        bias = None if self.module.bias is None else self.module.bias[ids]
        logits = nn.functional.linear(hidden, self.module.weight[ids], bias).float()
        if self.offset is None:
            return logits
        if torch.equal(self.offset.ids, ids):
            return logits + hidden.float() @ self.offset.rows.float().T
        return self.full(hidden)[:, ids]


@attrs.frozen
class CallableHead:
    """Any other head (LoRA on it, quantised, replaced): called whole."""

    project: Callable[[Tensor], Tensor]
    offset: HeadOffset | None = None

    def full(self, hidden: Tensor) -> Tensor:
        logits = self.project(hidden).float()
        return logits if self.offset is None else _add_offset(logits, hidden, self.offset)

    def columns(self, hidden: Tensor, ids: Tensor) -> Tensor:
        return self.full(hidden)[:, ids]


# --- the objective --------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Part:
    """One part of one term: what is logged and weighted under one name."""

    name: str
    scope: Scope
    weight: float


@attrs.frozen(kw_only=True)
class ObjectiveOutput:
    """loss: scalar. sums: [P] float64, the detached sum over positions of each part, in the order of `parts`."""

    loss: Tensor
    sums: Tensor


class Objective:
    """Loss terms over one batch: `loss = sum over parts of weight * (sum over positions) / count`.

    `terms`: (component name, term) pairs. `parts` lists what they return, `<component>/<part>`.
    Raises InputError for two parts of one name, a term without parts, or a coord or box term without a vocabulary.
    """

    def __init__(self, terms: Sequence[tuple[str, LossTerm]], vocab: CoordVocab | None) -> None:
        self.terms = tuple(terms)
        self.vocab = vocab
        self._ids = torch.empty(0, dtype=torch.int64) if vocab is None else vocab.ids_tensor()
        parts: list[Part] = []
        for owner, term in self.terms:
            if term.scope not in SCOPES:
                raise InputError(f"loss.{owner}: scope must be one of {', '.join(SCOPES)}, got {term.scope!r}")
            if not term.weights:
                raise InputError(f"loss.{owner}: a term must name at least one part in its weights, got none")
            if vocab is None and term.scope in ("coord", "box"):
                raise InputError(
                    f"loss.{owner}: scope {term.scope!r} needs coord tokens, and the base checkpoint has none; "
                    "add a [vocab] section to expand it"
                )
            for name, weight in term.weights.items():
                parts.append(Part(name=f"{owner}/{name}", scope=term.scope, weight=float(weight)))
        names = [part.name for part in parts]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"loss part {name!r} is returned by two terms; give one of them another name")
        self.parts = tuple(parts)

    def __call__(
        self,
        hidden: Tensor,
        head: Head,
        targets: Mapping[str, Tensor],
        counts: Sequence[float] | None = None,
    ) -> ObjectiveOutput:
        """Project the supervised positions only, and charge them.

        hidden: [B, T, H] or [N, H]. targets: from `make_targets`, on the same device.
        counts: positions per scope (SCOPES order) to divide by: global counts over micro-batches and ranks; this
            batch's own when None. A scope without positions contributes zero.
        """
        hidden = hidden.reshape(-1, hidden.shape[-1])
        counts = count_targets(targets) if counts is None else counts
        with torch.autocast(hidden.device.type, enabled=False):
            returned = self._returned(hidden, head, targets)
        divisor = dict(zip(SCOPES, counts, strict=True))
        # Attached to the graph even without a single position, so that every rank takes part in the backward pass.
        loss = hidden[:0].float().sum()
        sums = []
        for part in self.parts:
            total = returned[part.name].sum()
            sums.append(total.detach().double())
            if part.weight:
                loss = loss + total * (part.weight / max(divisor[part.scope], 1))
        return ObjectiveOutput(loss=loss, sums=torch.stack(sums))

    def _returned(self, hidden: Tensor, head: Head, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Part name -> [n] losses, each scope's logits computed once and shared by its terms."""
        scopes = {term.scope for _, term in self.terms}
        positions: dict[Scope, Any] = {}
        ids = self._ids = self._ids.to(hidden.device)  # copied once, not at every step
        if scopes & {"coord", "box"}:
            coord_hidden = hidden[targets["coord_index"]]
            lse = None
            if any(term.scope == "coord" and term.full_lse for _, term in self.terms):
                full = head.full(coord_hidden)
                logits, lse = full[:, ids], full.logsumexp(-1)
            else:
                logits = head.columns(coord_hidden, ids)
            positions["coord"] = CoordPositions(
                logits=logits, bins=targets["bins"], values=targets["values"], full_lse=lse
            )
            boxes = targets["boxes"]
            positions["box"] = BoxPositions(
                logits=logits[boxes], bins=targets["bins"][boxes], values=targets["values"][boxes]
            )
        if "text" in scopes:
            positions["text"] = TextPositions(
                logits=head.full(hidden[targets["text_index"]]), labels=targets["text_labels"], coord_ids=ids
            )
        if "token" in scopes:
            labels = targets["text_labels"]
            if self.vocab is not None:
                labels = torch.cat([labels, ids[targets["bins"]]])
            index = torch.cat([targets["text_index"], targets["coord_index"]])
            positions["token"] = TextPositions(logits=head.full(hidden[index]), labels=labels, coord_ids=ids)
        sizes = dict(zip(SCOPES, count_targets(targets), strict=True))
        returned: dict[str, Tensor] = {}
        for owner, term in self.terms:
            losses = term(positions[term.scope])
            if set(losses) != set(term.weights):
                raise RunError(
                    f"loss.{owner}: the term's weights name the parts {sorted(term.weights)}, "
                    f"but it returned {sorted(losses)}; make them the same"
                )
            for name, values in losses.items():
                if values.shape != (sizes[term.scope],):
                    raise RunError(
                        f"loss.{owner}: part {name!r} must have one value per position, shape "
                        f"({sizes[term.scope]},), got {tuple(values.shape)}; do not reduce it"
                    )
                returned[f"{owner}/{name}"] = values.float()
        return returned
