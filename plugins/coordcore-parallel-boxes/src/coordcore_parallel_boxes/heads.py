"""The heads, the file that holds them, and whether they belong to a model. Imports torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_bytes
from torch import Tensor, nn

from coordcore.coords import CoordVocab
from coordcore.errors import InputError
from coordcore.files import require_regular, whole_folder

FOLDER = "parallel_boxes"
"""In a checkpoint, and the name of the entry point that knows it. Servers read every `*.safetensors` that lies beside a
model's own as part of it, so the file lies in a folder of its own."""

FILE = "heads.safetensors"
FORMAT = "1"
CORNERS = 3
"""The coordinates of a box behind its first, as it is written."""

_CURE = "train them for this checkpoint: coordcore heads RUN --overwrite"


class Heads(nn.Module):
    """From the hidden states at a place to a distribution over the bins for each further corner of the box.

    hidden [n, L, H] -> normalised, L * H -> R -> R -> 3 * H, multiplied with the model's own rows for the coord tokens:
    (L + 3) H R numbers of its own or so, and no other table of bins.
    """

    def __init__(self, layers: Sequence[int], hidden_size: int, rank: int, rows: Tensor) -> None:
        """layers: whose states it sees. rows: [K, H], the output head's rows of the bins, which are not trained."""
        super().__init__()
        self.layers = tuple(layers)
        self.digest = ""
        self.down = nn.Linear(len(self.layers) * hidden_size, rank)
        self.between = nn.Linear(rank, rank)
        self.up = nn.Linear(rank, CORNERS * hidden_size)
        self._rows = rows.float()

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, 3, K] float32."""
        seen = F.layer_norm(hidden.float(), hidden.shape[-1:]).flatten(1)
        inner = F.gelu(self.between(F.gelu(self.down(seen))))
        states: Tensor = self.up(inner)
        return states.view(*states.shape[:-1], CORNERS, -1) @ self._rows.T

    def forward(self, hidden: Tensor) -> Tensor:
        """[n, 3] int64: the most likely bins."""
        return self.logits(hidden).argmax(-1)


def layers_of(model: Any) -> tuple[int, ...]:
    """The hidden states that heads see: in the middle, at three quarters, and what the output head sees."""
    count = model.config.get_text_config().num_hidden_layers
    return tuple(dict.fromkeys((count // 2, 3 * count // 4, count)))


def coord_rows(model: Any, vocab: CoordVocab) -> Tensor:
    """[K, H] float32: the rows of the output head that the coord tokens have. Raises InputError for other heads."""
    weight = getattr(model.get_output_embeddings(), "weight", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.ndim != 2:
        raise InputError(f"{type(model).__name__}: its output head is no plain matrix, whose rows the heads need")
    return weight.detach()[vocab.ids_tensor(weight.device)].float()


def fingerprint(model: Any) -> str:
    """Tells two checkpoints apart: of 64 numbers of every weight. The same on any device and in any dtype that holds
    them."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        flat = weight.detach().flatten()
        # In whole numbers: those of float32 do not reach the end of a large matrix.
        picked = flat[torch.arange(min(64, len(flat)), device=flat.device) * (len(flat) - 1) // 63]
        digest.update(f"{name} {tuple(weight.shape)}".encode() + picked.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def require_place(checkpoint: Path, *, overwrite: bool) -> None:
    """Raise InputError where `save` would, before heads are trained."""
    if (checkpoint / FOLDER).exists() and not overwrite:
        raise InputError(f"{checkpoint / FOLDER} exists; replace it with --overwrite")
    if not os.access(checkpoint, os.W_OK):
        raise InputError(f"{checkpoint}: must be writable, since heads lie in it; allow that, or copy the run")


def save(heads: Heads, checkpoint: Path, model: Any, vocab: CoordVocab, *, overwrite: bool) -> Path:
    """Write heads beside the checkpoint that `model` was loaded from; returns the file."""
    said = {
        "layers": list(heads.layers),
        "hidden_size": heads.down.in_features // len(heads.layers),
        "rank": heads.between.in_features,
        "bins": len(vocab.ids),
        "order": vocab.format.order,
        "model": fingerprint(model),
    }
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in heads.state_dict().items()}
    with whole_folder(checkpoint / FOLDER, if_exists="replace" if overwrite else "error") as folder:
        # Not by `save_file`, whose files nobody else may read.
        (folder / FILE).write_bytes(as_bytes(tensors, metadata={"format": FORMAT, "heads": json.dumps(said)}))
    return checkpoint / FOLDER / FILE


def load(folder: Path, model: Any, vocab: CoordVocab) -> Heads:
    """The heads in a checkpoint's folder `parallel_boxes`, on the device of `model`, which was loaded from it.

    Raises InputError for a file that is missing or damaged, and for heads of another model.
    """
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; {_CURE}")
    try:
        require_regular(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        said = json.loads(metadata.get("heads", "null"))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())}; {_CURE}") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: format {metadata.get('format')!r} is not {FORMAT!r}; {_CURE}")
    if not isinstance(said, dict):
        raise InputError(f"{path}: does not say of which model its heads are; {_CURE}")
    rows = coord_rows(model, vocab)
    has = {"hidden_size": rows.shape[1], "bins": len(vocab.ids), "order": vocab.format.order}
    for name, value in has.items():
        if said.get(name) != value:
            raise InputError(f"{path}: is of a model with {name} {said.get(name)!r}, this one has {value!r}; {_CURE}")
    if said.get("model") != fingerprint(model):
        raise InputError(f"{path}: was trained for other weights than those it lies beside; {_CURE}")
    try:
        heads = Heads(said["layers"], rows.shape[1], said["rank"], rows)
        heads.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{path}: holds other tensors than it says: {' '.join(str(error).split())}; {_CURE}"
        ) from error
    count = model.config.get_text_config().num_hidden_layers
    if beyond := [layer for layer in heads.layers if type(layer) is not int or not 0 <= layer <= count]:
        raise InputError(f"{path}: reads the hidden states {beyond[0]!r} of a model that has {count} layers; {_CURE}")
    heads.digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return heads.to(rows.device).eval().requires_grad_(False)
