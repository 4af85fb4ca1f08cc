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
_FIRST, _MEAN = "pooling_mode_cls_token", "pooling_mode_mean_tokens"


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

    from coordcore_train.checkpoint.code import require_no_code

    if not (folder / "config.json").is_file():
        raise InputError(f"--model: {folder} holds no config.json; name the folder of a text embedding model")
    require_no_code(folder, trusted=False)
    _require_no_more_modules(folder)
    pooling = _pooling(folder)
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
            if pooling == _FIRST:
                parts.append(states[:, 0])
                continue
            shown = rows["attention_mask"].unsqueeze(-1)
            parts.append((states * shown).sum(1) / shown.sum(1).clamp(min=1))
    vectors = torch.cat(parts)
    for text, vector in zip(texts, vectors, strict=True):
        if not vector.isfinite().all():
            raise InputError(
                f"--model: {folder}: the embedding of {text!r:.80} holds NaN or infinity; its weights are damaged: "
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
        raise InputError(f"--model: {folder}: transformers cannot load it: {error}") from error
    files = sorted({*tokenizer.vocab_files_names.values()})
    if not any((folder / name).is_file() for name in files):
        raise InputError(f"--model: {folder}: holds no tokenizer ({', '.join(files)}); download the whole folder")
    missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)  # which is not used
    if missing:
        raise InputError(
            f"--model: {folder}: its files lack {len(missing)} weights of a {model.config.model_type}, as {missing[0]};"
            " download it again, or name the folder of a text embedding model"
        )
    return tokenizer, model.eval()


def _require_encoder(folder: Path, model: Any, tokenizer: Any, *, said: bool) -> None:
    """Raise InputError for a model whose states say nothing of a text as a whole. said: its folder says they do."""
    import torch

    kind = model.config.model_type
    cure = "it takes an encoder with a padding token, such as a BERT"
    if getattr(model.config, "is_encoder_decoder", False) or tokenizer.pad_token is None:
        raise InputError(f"--model: {folder}: a {kind} makes no embeddings of texts this way; {cure}")
    try:
        with torch.inference_mode():
            first = model(input_ids=torch.tensor([[0, 1], [0, 2]])).last_hidden_state[:, 0]
    except Exception as error:  # one that wants a picture, a sound ...
        raise InputError(f"--model: {folder}: a {kind} does not read texts alone ({error}); {cure}") from error
    if not said and torch.allclose(first[0], first[1]):
        raise InputError(
            f"--model: {folder}: a {kind} reads forwards only, and its folder does not say that it embeds texts "
            f"({_POOLING}); {cure}"
        )


def _places(config: Any) -> int:
    """Tokens that a model reads. Two less than it has places: some, as RoBERTa, count from behind padding's."""
    return max(1, getattr(config, "max_position_embeddings", 512) - 2)


def _require_no_more_modules(folder: Path) -> None:
    """Raise InputError for a folder of sentence-transformers whose embeddings are changed once more, as by a Dense."""
    file = folder / "modules.json"
    if not file.is_file():
        return
    said = _json(file)
    types = [str(item.get("type")) for item in said if isinstance(item, dict)] if isinstance(said, list) else []
    for name in types:
        if name.rpartition(".")[2] not in ("Transformer", "Pooling", "Normalize"):
            raise InputError(f"{file}: has the module {name}, which this command does not know; name another model")


def _pooling(folder: Path) -> str | None:
    """What the folder says of it, if it says anything."""
    file = folder / _POOLING
    if not file.is_file():
        return None
    said = _json(file)
    given = said.items() if isinstance(said, dict) else ()
    modes: list[str] = [key for key, value in given if key.startswith("pooling_mode_") and value is True]
    if modes not in ([_FIRST], [_MEAN]):
        raise InputError(f"{file}: pools by {', '.join(modes) or 'nothing'}; this command knows the mean and the first")
    return modes[0]


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: is no JSON ({error})") from error
