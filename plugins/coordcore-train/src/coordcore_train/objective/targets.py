"""Which positions of a batch are supervised, and with what: made once per batch, on the CPU, beside the collator."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from coordcore.coords import CoordVocab
from coordcore.errors import InputError
from coordcore.protocols import Origin, Scope, Targets

Where = slice | Tensor
SCOPES: tuple[Scope, ...] = ("coord", "text", "token", "box")
IGNORE = -100


def make_targets(
    labels: Tensor,
    vocab: CoordVocab | None,
    *,
    values: Tensor | None = None,
    corners: Tensor | None = None,
    examples: Tensor | None = None,
    sizes: Tensor | None = None,
    groups: Tensor | None = None,
) -> dict[str, Tensor]:
    """Select and shift the supervised positions of a batch: position t predicts label t + 1.

    labels: [B, T] int64, -100 where nothing is supervised. Packed rows start with -100, so no shift crosses a boundary.
    values: [B, T] float32, the real-valued target in bin units at coord labels, NaN where only the bin is known.
    corners: [B, T] int64, 0..3 at the x1, y1, x2, y2 labels of a box, -1 elsewhere; y may come before its x.
    examples: [B, T] int64, the example that each label belongs to. sizes: [B, T, 4] float32, width and height of its
    image and of its object, NaN where unknown. For terms that ask where a position comes from: where only one of
    them is given, the examples are the rows and the sizes unknown.
    groups: [G, B, T] bool, whether a label belongs to each of the groups that losses are summed for.

    Returns plain tensors, so that data loaders and trainers can move them; indices are into the flattened [B*T]
    positions: coord_index, bins, values [n]; boxes [m, 4] into the coord positions; text_index, text_labels [n]; and
    grid [B, T, 0], which holds nothing but says of which positions. With `examples` or `sizes`: coord_examples,
    text_examples [n], coord_sizes, text_sizes [n, 4]. With `groups`: coord_groups, text_groups [G, n].
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
        numbers = torch.arange(len(order)) % 4
        y_first = len(order) > 0 and int(order[0]) == 1
        if len(order) % 4 or not torch.equal(order, numbers ^ y_first):
            raise InputError(
                f"box corners must come as 0, 1, 2, 3 for each box (or 1, 0, 3, 2), got {order[:8].tolist()} ..."
            )
        boxes = member.view(-1, 4)[:, [1, 0, 3, 2]] if y_first else member.view(-1, 4)
    targets = {
        "coord_index": index[is_coord],
        "bins": coord_bins,
        "values": coord_values,
        "boxes": boxes,
        "text_index": index[~is_coord],
        "text_labels": target[~is_coord],
        "grid": labels.new_empty(*labels.shape, 0),
    }
    if examples is not None or sizes is not None:
        example = row if examples is None else examples[row, column + 1]
        size = torch.full((len(row), 4), torch.nan) if sizes is None else sizes[row, column + 1]
        targets |= {"coord_examples": example[is_coord], "text_examples": example[~is_coord]}
        targets |= {"coord_sizes": size[is_coord], "text_sizes": size[~is_coord]}
    if groups is not None:
        member = groups[:, row, column + 1]
        targets |= {"coord_groups": member[:, is_coord], "text_groups": member[:, ~is_coord]}
    return targets


def scope_counts(targets: Mapping[str, Tensor]) -> dict[Scope, int]:
    """Positions per scope. Reads shapes only: no device synchronisation."""
    coord, text = len(targets["coord_index"]), len(targets["text_index"])
    return {"coord": coord, "text": text, "token": coord + text, "box": len(targets["boxes"])}


def groups_of(targets: Mapping[str, Tensor]) -> dict[Scope, Tensor]:
    """[G, n] bool per scope, whether each of its positions belongs to each group; nothing where there are no groups."""
    if "coord_groups" not in targets:
        return {}
    coord, text = targets["coord_groups"], targets["text_groups"]
    boxes = coord[:, targets["boxes"][:, 0]]
    return {"coord": coord, "text": text, "token": torch.cat([coord, text], 1), "box": boxes}


def origin_of(targets: Mapping[str, Tensor], coord: Where | None, text: Where | None) -> Origin | None:
    """Where the positions come from, coord ones before text ones; None when the targets do not tell.

    coord, text: which of them, by a slice or an index; None for none.
    """
    if "coord_examples" not in targets:
        return None
    chosen = [(kind, where) for kind, where in (("coord", coord), ("text", text)) if where is not None]
    sizes = torch.cat([targets[f"{kind}_sizes"][where] for kind, where in chosen])
    return Origin(
        example=torch.cat([targets[f"{kind}_examples"][where] for kind, where in chosen]),
        image_size=sizes[:, :2],
        object_size=sizes[:, 2:],
    )


def without_origin(targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The targets without what only `origin_of` reads."""
    return {key: tensor for key, tensor in targets.items() if not key.endswith(("_examples", "_sizes"))}


def targets_of(scope: Scope, targets: Mapping[str, Tensor], ids: Tensor) -> Targets:
    """All positions of one scope, as `position_weights` sees them. ids: [K] the coord tokens."""
    coord_labels = ids[targets["bins"]] if len(ids) else targets["bins"]
    if scope == "box":
        boxes = targets["boxes"]
        labels, bins, values = (item[boxes] for item in (coord_labels, targets["bins"], targets["values"]))
        origin = origin_of(targets, boxes[:, 0], None)
    else:
        bare = targets["text_labels"]
        whole = {
            "coord": (coord_labels, targets["bins"], targets["values"]),
            "text": (bare, torch.full_like(bare, -1), torch.full(bare.shape, torch.nan)),
        }
        kinds = ("coord", "text") if scope == "token" else (scope,)
        labels, bins, values = (torch.cat(columns) for columns in zip(*(whole[kind] for kind in kinds), strict=True))
        coord, text = (slice(None) if kind in kinds else None for kind in ("coord", "text"))
        origin = origin_of(targets, coord, text)
    if origin is None:
        raise InputError("a loss weighs positions by where they come from; give make_targets `examples` or `sizes`")
    return Targets(labels=labels, bins=bins, values=values, origin=origin)
