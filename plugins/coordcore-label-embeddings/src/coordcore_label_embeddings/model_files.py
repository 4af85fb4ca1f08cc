"""The folder of a text embedding model: what can be said of it by its files, and what identifies it. Torch-free."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coordcore import InputError

POOLING = "1_Pooling/config.json"
FIRST, MEAN = "pooling_mode_cls_token", "pooling_mode_mean_tokens"

_TOKENIZER = ("tokenizer.json", "*vocab*", "*.model", "*.codes")
_SETTINGS = (
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    POOLING,
)


def pooling(folder: Path) -> str | None:
    """How the folder says that the states of a text become one: `FIRST`, `MEAN`, None where it says nothing.

    Raises InputError for a folder that holds no model, or Python of its own, or says that embeddings are made in
    another way.
    """
    from coordcore_train.checkpoint.code import require_no_code

    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} holds no config.json; name the folder of a text embedding model")
    require_no_code(folder, trusted=False)
    _require_no_more_modules(folder)
    return _pooled(folder)


def identity(folder: Path) -> str:
    """SHA-256 of the files that an embedding depends on: weights, tokenizer and their settings, wherever they lie.

    Raises InputError as `files`, and for a file that cannot be read.
    """
    digest = hashlib.sha256()
    for file in files(folder):
        try:
            with file.open("rb") as content:
                held = hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {(error.strerror or str(error)).lower()}") from error
        digest.update(f"{file.relative_to(folder).as_posix()} {held}\n".encode())
    return digest.hexdigest()


def files(folder: Path) -> list[Path]:
    """The files that an embedding depends on, by name. Raises InputError where weights or tokenizer are missing, and
    for safetensors whose header or index is damaged.
    """
    from coordcore_train.checkpoint.weights import weight_files, weights_entry

    pickled = [] if weights_entry(folder) is not None else sorted(folder.glob("*.bin"))
    weights = pickled or [*weight_files(folder).values()]
    tokenizer = [file for pattern in _TOKENIZER for file in folder.glob(pattern) if file.is_file()]
    if not tokenizer:
        raise InputError(f"{folder}: holds no tokenizer (tokenizer.json, vocab.txt); download the whole folder")
    settings = [folder / name for name in _SETTINGS if (folder / name).is_file()]
    return sorted({*weights, *tokenizer, *settings})


def faults(folder: Path) -> Iterator[str]:
    """What `pooling` and `files` refuse of a folder, the first of it: for a look before it is used."""
    try:
        pooling(folder)
        files(folder)
    except InputError as error:
        yield str(error)


def _require_no_more_modules(folder: Path) -> None:
    """Raise InputError for a folder of sentence-transformers whose embeddings are changed once more, as by a Dense."""
    file = folder / "modules.json"
    if not file.is_file():
        return
    said = _json(file)
    types = [str(item.get("type")) for item in said if isinstance(item, dict)] if isinstance(said, list) else []
    for name in types:
        if name.rpartition(".")[2] not in ("Transformer", "Pooling", "Normalize"):
            raise InputError(
                f"{file}: has the module {name}, which coordcore-label-embeddings does not know; name another model"
            )


def _pooled(folder: Path) -> str | None:
    file = folder / POOLING
    if not file.is_file():
        return None
    said = _json(file)
    given = said.items() if isinstance(said, dict) else ()
    modes: list[str] = [key for key, value in given if key.startswith("pooling_mode_") and value is True]
    if modes not in ([FIRST], [MEAN]):
        raise InputError(
            f"{file}: pools by {', '.join(modes) or 'nothing'}; coordcore-label-embeddings knows the mean and the first"
        )
    return modes[0]


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: is no JSON ({error})") from error
