"""The memory of the objective: what `objective.streamed` and `objective.dense` make. Torch-free.

Shape legend: N positions of a batch, n of a chunk, K bins, V vocabulary rows, H hidden size.
"""

from __future__ import annotations

import attrs

_FLOAT32 = 4
_DENSE = 2**25  # elements of an [n, V] tensor, as `dense._ELEMENTS_ACCELERATOR`
_DENSE_COPIES = 5  # of [n, V]: logits, their gradient, a softmax, and what the terms keep
_TERM_COPIES = 6  # of [n, K]: the same of the coord columns


@attrs.frozen(kw_only=True)
class ObjectiveShape:
    """What the objective's memory depends on.

    size, gradient: bytes of a number of the hidden states and the head, and of the gradient of the former. offsets:
    numbers of the rows that a surgery adds to the head. dense: whether a term or the head needs whole logits.
    trains_head: whether the head's own weight gets a gradient.
    """

    positions: int
    hidden: int
    vocabulary: int
    bins: int
    offsets: int
    size: int
    gradient: int
    dense: bool
    trains_head: bool


@attrs.frozen(kw_only=True)
class Chunks:
    """rows: positions of a chunk. block: logits of a block of vocabulary rows. parts: whether coord rows are cut up."""

    rows: int
    block: int
    parts: bool


def accelerator_chunks(shape: ObjectiveShape) -> Chunks:
    """Those of `streamed._rows` and `streaming._ACCELERATOR_BLOCK`."""
    return Chunks(rows=min(max(2**23 // shape.hidden, 512), 4096), block=3 * 2**23, parts=shape.size == 2)


def cpu_chunks(_shape: ObjectiveShape) -> Chunks:
    """Those of `streamed._ROWS_CPU` and `streaming._CPU_BLOCK`, for float32."""
    return Chunks(rows=256, block=256 * 4096, parts=False)


@attrs.frozen(kw_only=True)
class ObjectiveMemory:
    """Bytes. kept: until the backward pass, the gradients. working: at most at a time, while it charges its chunks."""

    kept: int
    working: int


def objective_memory(shape: ObjectiveShape, chunks: Chunks) -> ObjectiveMemory:
    """At most: as if every position were supervised."""
    rows, head = min(shape.positions, chunks.rows), 0
    if shape.trains_head:
        head = shape.vocabulary * shape.hidden * shape.size
    # The coord rows and their gradient; the rows once more in three bfloat16 parts.
    table = shape.bins * shape.hidden * (2 * _FLOAT32 + (6 if chunks.parts else 0))
    # Hidden states and label rows as they are; the softmax's mean row, the gradient, and a product in float32.
    chunk = rows * shape.hidden * (2 * shape.size + 4 * _FLOAT32)
    columns = rows * shape.bins * _FLOAT32 * _TERM_COPIES
    block = min(chunks.block, rows * shape.vocabulary) * (_FLOAT32 + shape.size)
    whole = min(_DENSE, shape.positions * shape.vocabulary) * _FLOAT32 * _DENSE_COPIES if shape.dense else 0
    return ObjectiveMemory(
        kept=shape.positions * shape.hidden * shape.gradient + shape.offsets * _FLOAT32 + head,
        working=table + chunk + columns + max(block, whole) + head,
    )
