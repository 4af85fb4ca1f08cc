"""Embeddings of short texts by an encoder, and which of them lie nearest. Torch-free until something is embedded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from coordcore import InputError
from coordcore_label_embeddings import model_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BATCH = 64


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
    first is taken where the folder says so as sentence-transformers does (`1_Pooling/config.json`). A text that is
    longer than the model reads is cut. Raises InputError for a folder that holds no such model, or a damaged one, or
    Python of its own.
    """
    import torch

    pooling = model_files.pooling(folder)
    tokenizer, model = _loaded(folder)
    _require_encoder(folder, model, tokenizer, said=pooling is not None)
    most = min(tokenizer.model_max_length, _places(model.config))
    parts = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            rows = tokenizer(
                list(texts[start : start + BATCH]),
                padding=True,
                padding_side="right",  # whatever the folder says: places count from the first token
                truncation=True,
                max_length=most,
                return_tensors="pt",
            )
            states = model(**rows).last_hidden_state.double()
            if pooling == model_files.FIRST:
                parts.append(states[:, 0])
                continue
            shown = rows["attention_mask"].unsqueeze(-1)
            parts.append((states * shown).sum(1) / shown.sum(1).clamp(min=1))
    vectors = torch.cat(parts)
    for text, vector in zip(texts, vectors, strict=True):
        if not vector.isfinite().all():
            raise InputError(
                f"{folder}: the embedding of {text!r:.80} holds NaN or infinity; its weights are damaged: "
                "download it again"
            )
    return np.asarray((vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-12)).numpy())


def _loaded(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model. Raises InputError where a file is missing or damaged, or a weight is not there."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any
        model, found = AutoModel.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # of tokenizers and safetensors, whose errors have no class in common
        raise InputError(f"{folder}: transformers cannot load it: {error}") from error
    files = sorted({*tokenizer.vocab_files_names.values()})
    if not any((folder / name).is_file() for name in files):
        raise InputError(f"{folder}: holds no tokenizer ({', '.join(files)}); download the whole folder")
    missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)  # which is not used
    if missing:
        raise InputError(
            f"{folder}: its files lack {len(missing)} weights of a {model.config.model_type}, as {missing[0]};"
            " download it again, or name the folder of a text embedding model"
        )
    return tokenizer, model.eval()


def _require_encoder(folder: Path, model: Any, tokenizer: Any, *, said: bool) -> None:
    """Raise InputError for a model whose states say nothing of a text as a whole. said: its folder says they do."""
    import torch

    kind = model.config.model_type
    cure = "it takes an encoder with a padding token, such as a BERT"
    if getattr(model.config, "is_encoder_decoder", False) or tokenizer.pad_token is None:
        raise InputError(f"{folder}: a {kind} makes no embeddings of texts this way; {cure}")
    try:
        with torch.inference_mode():
            first = model(input_ids=torch.tensor([[0, 1], [0, 2]])).last_hidden_state[:, 0]
    except Exception as error:  # one that wants a picture, a sound ...
        raise InputError(f"{folder}: a {kind} does not read texts alone ({error}); {cure}") from error
    if not said and torch.allclose(first[0], first[1]):
        raise InputError(
            f"{folder}: a {kind} reads forwards only, and its folder does not say that it embeds texts "
            f"({model_files.POOLING}); {cure}"
        )


def _places(config: Any) -> int:
    """Tokens that a model reads. Two less than it has places: some, as RoBERTa, count from behind padding's."""
    return max(1, getattr(config, "max_position_embeddings", 512) - 2)
