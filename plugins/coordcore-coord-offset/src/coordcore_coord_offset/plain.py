"""The offsets without coordcore's engine: in a plain transformers or PEFT model. Imports torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from coordcore import InputError
from coordcore_coord_offset.surgery import NAME, CoordOffsetAdapter, CoordOffsetSurgery
from coordcore_train.surgery.hooks import live_module
from coordcore_train.surgery.matrices import matrices_of, unwrapped
from coordcore_train.surgery.rows import LiveRows
from coordcore_train.surgery.saved import require_loaded

RECORD = "coord_offset.json"
"""The file beside a checkpoint that says which token ids its offsets belong to."""

_ROWS = LiveRows(CoordOffsetSurgery())  # whose functions depend on the adapter in the model alone


def install_coord_offset_adapter(
    model: nn.Module,
    coord_ids: Sequence[int] | Tensor,
    *,
    tie_head: bool = True,
    dtype: torch.dtype | None = None,
) -> CoordOffsetAdapter:
    """Give `model` trainable offsets on the rows `coord_ids` of its embedding and output head, and freeze both.

    model: a freshly loaded transformers model with `get_input_embeddings()` and `get_output_embeddings()`. The adapter
        becomes its submodule `coord_offset_adapter`. No logit changes: the offsets start at zero.
    coord_ids: K distinct vocabulary ids in bin order.
    tie_head: one [K, H] table for both matrices, whether or not they are tied themselves; False gives the head its own.
    dtype: of the offsets; float32 when None, also on a bfloat16 base.

    Raises InputError for ids outside the matrix or a matrix that cannot be merged into (quantised, wrapped by PEFT,
    in parts), RuntimeError when an adapter is already installed or PEFT has wrapped the model.
    """
    embedding = matrices_of(unwrapped(model)).embedding.weight
    ids = torch.tensor([int(id_) for id_ in coord_ids], dtype=torch.int64, device=embedding.device)
    adapter = CoordOffsetAdapter(ids, embedding.shape[1], tie_head=tie_head, dtype=dtype or torch.float32)
    LiveRows(CoordOffsetSurgery()).add(model, adapter)
    return adapter


def live_coord_offset_adapter(model: nn.Module) -> CoordOffsetAdapter:
    """The adapter whose offsets act on `model` at this moment.

    PEFT's `modules_to_save` keeps the adapter that was installed and one copy per PEFT adapter: this is the active
    copy, or the installed one inside `disable_adapter()`.

    Raises RuntimeError when none is installed.
    """
    live = live_module(model, NAME)
    assert isinstance(live, CoordOffsetAdapter)
    return live


def reattach_coord_offset_hooks(model: nn.Module) -> CoordOffsetAdapter:
    """Bind the hooks to the embedding and head that `model` uses now, and return the live adapter. Idempotent.

    Call it after anything that may have replaced one of them: PEFT, `resize_token_embeddings`, a loaded checkpoint.
    Hooks on modules that were replaced are removed.

    Raises RuntimeError when no adapter is installed, InputError when the embedding or head is wrapped or quantised.
    """
    _ROWS.rebind(model)
    return live_coord_offset_adapter(model)


def verify_coord_offsets(model: nn.Module) -> None:
    """Prove that the offsets act: change them, look at an embedding and a logit they belong to, restore them.

    Raises RuntimeError, with what was seen and the cure, when either does not follow or a matrix is trainable. The
    cure "bind it again" is `reattach_coord_offset_hooks`.
    """
    _ROWS.verify(model)


def merge_coord_offsets(model: nn.Module) -> None:
    """Add the offsets to the rows they belong to, and remove the adapter and its hooks.

    Sums are taken in the wider dtype and rounded once to that of the weight. A tied base stays tied with
    `tie_head=True`; where the head has offsets of its own, its head becomes a matrix of its own and
    `tie_word_embeddings` False in every config. The model is then an ordinary one that `save_pretrained` writes whole.

    Raises RuntimeError when no adapter is installed or PEFT still wraps it.
    """
    _ROWS.merge(model)


def save_offset_record(model: nn.Module, folder: Path | str) -> Path:
    """Write the ids of the live adapter, in bin order, to `folder/coord_offset.json` and return its path."""
    path = Path(folder) / RECORD
    ids = live_coord_offset_adapter(model).coord_ids.tolist()
    path.write_text(json.dumps({"coord_ids": ids}) + "\n", encoding="utf-8")
    return path


def check_saved_offsets(path: Path | str, model: nn.Module) -> None:
    """Check that the offsets in a checkpoint are the ones that act on `model`, into which it was loaded.

    PEFT drops saved offsets without a word when the base has no adapter, and leaves zeros without a word when the file
    has no offsets. `path` is a safetensors file or the folder of one (or of several shards). When `save_offset_record`
    wrote a record beside it, the ids must agree too.

    Raises InputError naming the file, what differs and the cure, RuntimeError when `model` has no adapter.
    """
    path = Path(path)
    adapter = live_coord_offset_adapter(model)
    record = (path if path.is_dir() else path.parent) / RECORD
    if record.exists():
        ids, live = json.loads(record.read_text(encoding="utf-8"))["coord_ids"], adapter.coord_ids.tolist()
        if ids != live:
            raise InputError(
                f"{record}: the saved offsets belong to token ids {ids[0]}..{ids[-1]}, the model's to "
                f"{live[0]}..{live[-1]}; load the base they were trained on"
            )
    require_loaded(path, NAME, adapter)
