"""Which of the known names a label means, by a text embedding model: a proposal for a table of synonyms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from coordcore import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BATCH = 64
_POOLING = "1_Pooling/config.json"


@attrs.frozen(kw_only=True)
class Meant:
    """A label, the name whose embedding lies nearest, and the cosine between the two."""

    label: str
    name: str
    cosine: float


def nearest(labels: Sequence[str], names: Sequence[str], vectors: Floats) -> list[Meant]:
    """For each label the nearest of the names, the first of equals. vectors: [labels + names, width], of length 1."""
    cosines = vectors[: len(labels)] @ vectors[len(labels) :].T
    best = cosines.argmax(axis=1)
    return [
        Meant(label=label, name=names[at], cosine=float(cosines[row, at]))
        for row, (label, at) in enumerate(zip(labels, best, strict=True))
    ]


def embed(folder: Path, texts: Sequence[str]) -> Floats:
    """[texts, width]: the embedding of each text, scaled to length 1.

    folder: an encoder as transformers saves it. The last hidden states are averaged over the tokens of a text, or the
    first is taken where the folder says so as sentence-transformers does (`1_Pooling/config.json`). Raises InputError
    for a folder that holds no such model, or Python of its own.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    from coordcore_train.checkpoint.code import require_no_code

    if not (folder / "config.json").is_file():
        raise InputError(f"--model: {folder} holds no config.json; name the folder of a text embedding model")
    require_no_code(folder, trusted=False)
    first = _takes_the_first(folder)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"--model: {folder}: transformers cannot load it: {error}") from error
    if getattr(model.config, "is_encoder_decoder", False) or tokenizer.pad_token is None:
        raise InputError(
            f"--model: {folder}: a {model.config.model_type} makes no embeddings of texts this way; it takes an "
            "encoder with a padding token, such as a BERT"
        )
    parts = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            rows = tokenizer(list(texts[start : start + BATCH]), padding=True, truncation=True, return_tensors="pt")
            states = model(**rows).last_hidden_state.double()
            if first:
                parts.append(states[:, 0])
                continue
            shown = rows["attention_mask"].unsqueeze(-1)
            parts.append((states * shown).sum(1) / shown.sum(1).clamp(min=1))
    vectors = torch.cat(parts)
    return np.asarray((vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-12)).numpy())


def _takes_the_first(folder: Path) -> bool:
    file = folder / _POOLING
    if not file.is_file():
        return False
    try:
        said = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: is no JSON ({error})") from error
    modes = [key for key, value in said.items() if key.startswith("pooling_mode_") and value is True]
    if modes not in (["pooling_mode_cls_token"], ["pooling_mode_mean_tokens"]):
        raise InputError(f"{file}: pools by {', '.join(modes) or 'nothing'}; this command knows the mean and the first")
    return modes == ["pooling_mode_cls_token"]
