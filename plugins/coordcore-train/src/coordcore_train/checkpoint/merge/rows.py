"""Writing the rows that surgeries add to embedding and head, proven against their live hooks. Imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coordcore.protocols import AddedRows
from coordcore_train.checkpoint.merge import NotStreamedError
from coordcore_train.checkpoint.merge.layers import relative_difference, require_equal
from coordcore_train.checkpoint.merge.layout import Place, as_bytes, read
from coordcore_train.checkpoint.tensorfile import WeightFile
from coordcore_train.surgery.arithmetic import add_to_weight, is_same
from coordcore_train.surgery.matrices import embedding_scale
from coordcore_train.surgery.rows import LiveRows


@attrs.frozen(kw_only=True)
class Rows:
    """The rows that change in one matrix, ascending `ids` [k], and what is added to them, surgery by surgery."""

    ids: Tensor
    offsets: tuple[AddedRows, ...]

    def added(self, rows: Tensor) -> Tensor:
        """`rows` [k, H] of the matrix with the offsets added: each sum rounded once to their dtype."""
        rows = rows.clone()
        for offset in self.offsets:
            add_to_weight(rows, AddedRows(ids=torch.searchsorted(self.ids, offset.ids), rows=offset.rows))
        return rows

    def runs(self) -> list[tuple[int, int]]:
        """The ids as (first, end) of consecutive ones."""
        ids = self.ids.tolist()
        starts = [i for i, id_ in enumerate(ids) if i == 0 or ids[i - 1] != id_ - 1]
        return [(ids[i], ids[end - 1] + 1) for i, end in zip(starts, [*starts[1:], len(ids)], strict=True)]


def changed_rows(surgeries: Sequence[Any], model: nn.Module) -> dict[str, Rows]:
    """The rows that the live surgeries change, under "embedding" and "head", where they change any there."""
    found: dict[str, list[AddedRows]] = {"embedding": [], "head": []}
    for surgery in surgeries:
        assert isinstance(surgery, LiveRows)  # `make_live` sees to it
        for role, offset in (("embedding", surgery.embedding_offset(model)), ("head", surgery.head_offset(model))):
            if offset is not None:
                found[role].append(offset)
    return {
        role: Rows(ids=_union(offset.ids for offset in offsets), offsets=tuple(offsets))
        for role, offsets in found.items()
        if offsets
    }


def same_rows(rows: dict[str, Rows]) -> bool:
    """Whether embedding and head get the same rows, so that tied matrices may stay tied."""
    first, second = (rows[role].offsets if role in rows else () for role in ("embedding", "head"))
    return len(first) == len(second) and all(map(is_same, first, second))


@torch.no_grad()
def check_rows(model: Any, rows: dict[str, Rows], places: dict[str, Place]) -> float:
    """Compare the live hooks on embedding and head with the rows that will be written; the largest difference.

    Both modules run with the base's own rows, read from its file. Raises RunError for more than rounding.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(embedding, nn.Embedding) or type(head) is not nn.Linear:
        raise NotStreamedError("a surgery replaces the embedding or the output head")
    scale = embedding_scale(embedding)
    ids = _union(row.ids for row in rows.values())
    everywhere = {role: Rows(ids=ids, offsets=rows[role].offsets if role in rows else ()) for role in places}

    before = _read(places["embedding"], everywhere["embedding"].runs())
    after = everywhere["embedding"].added(before)
    with _forward(embedding, before if scale is None else before * scale.to(before.dtype)):
        live = embedding(ids)
    served = after if scale is None else after * scale.to(after.dtype)
    differences = {"embedding": relative_difference(served, live)}

    before = _read(places["head"], everywhere["head"].runs())
    after = everywhere["head"].added(before)
    hidden = torch.randn(4, before.shape[1], generator=torch.Generator().manual_seed(0)).to(before.dtype)
    logits = torch.zeros(4, head.weight.shape[0], dtype=before.dtype).index_copy(1, ids, hidden @ before.T)
    with _forward(head, logits):
        live = head(hidden)[:, ids]
    differences["head"] = relative_difference(hidden @ after.T, live)

    for role, difference in differences.items():
        require_equal(f"the {role} with the surgeries' rows", difference, places[role].dtype)
    return max(differences.values())


@contextmanager
def _forward(module: Any, output: Tensor) -> Iterator[None]:
    """Let the module's own computation give `output`, so that only its hooks run."""
    module.forward = lambda _input: output.clone()
    try:
        yield
    finally:
        del module.forward


def write_rows(output: WeightFile, place: Place, rows: Rows) -> None:
    """Write the rows that change over those of a matrix that was copied as it is."""
    width, done = place.spec.size // place.spec.shape[0], 0
    after = rows.added(_read(place, rows.runs()))
    for first, stop in rows.runs():
        output.rewrite(place.spec.name, as_bytes(after[done : done + stop - first]), first * width)
        done += stop - first


def _read(place: Place, runs: list[tuple[int, int]]) -> Tensor:
    return torch.cat([read(place.source.rows(*run), place.dtype) for run in runs])


def _union(ids: Iterable[Tensor]) -> Tensor:
    union: Tensor = torch.cat(list(ids)).unique()  # type: ignore[no-untyped-call]  # torch's
    return union
