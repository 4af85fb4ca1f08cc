"""Which positions of a batch are supervised, and with what: made once per batch, on the CPU, beside the collator."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from coordcore.coords import CoordVocab
from coordcore.errors import InputError
from coordcore.protocols import Scope

SCOPES: tuple[Scope, ...] = ("coord", "text", "token", "box")
IGNORE = -100


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
    positions: coord_index, bins, values [n]; boxes [m, 4] into the coord positions; text_index, text_labels [n]; and
    grid [B, T, 0], which holds nothing but says of which positions.
    Runs on the CPU beside the collator: the shapes then tell the counts, and the accelerator never has to.
    Raises InputError for another negative label than -100, and when the corners do not come in fours.
    """
    columns = labels.shape[1]
    supervised = labels[:, 1:] != IGNORE
    row, column = supervised.nonzero(as_tuple=True)
    index = row * columns + column
    target = labels[row, column + 1]
    if len(target) and int(target.min()) < 0:
        raise InputError(
            f"a label is {int(target.min())}; labels are token ids, or {IGNORE} where nothing is supervised"
        )
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
        "grid": labels.new_empty(*labels.shape, 0),
    }


def count_targets(targets: Mapping[str, Tensor]) -> list[int]:
    """Positions per scope, in the order of SCOPES. Reads shapes only: no device synchronisation."""
    coord, text = len(targets["coord_index"]), len(targets["text_index"])
    return [coord, text, coord + text, len(targets["boxes"])]
