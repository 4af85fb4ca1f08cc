"""The base of a run without its weights: its config and, where they are there, its other small files. Imports torch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from coordcore.components import COORD_TOKENS
from coordcore.coords import CoordVocab, MissingCoordTokensError
from coordcore.errors import InputError
from coordcore.manifest.sections import Manifest
from coordcore_train.checkpoint.base import resolve_base
from coordcore_train.checkpoint.code import require_no_code
from coordcore_train.checkpoint.expand import ROW_MULTIPLE, add_tokens, update_config
from coordcore_train.checkpoint.folder import (
    copy_files,
    preset_hint,
    read_json,
    read_vocab,
    read_vocab_size,
    write_json,
)

_TOKENIZER = "tokenizer.json"


@attrs.frozen(kw_only=True)
class WeightlessBase:
    """folder: what the base is as it trains, without weights. vocab: its coord tokens, None where the run has none.

    readable: whether its tokenizer is there, so that examples can be encoded. notes: what had to be assumed.
    """

    folder: Path
    vocab: CoordVocab | None
    readable: bool
    notes: tuple[str, ...] = ()


@contextmanager
def weightless(manifest: Manifest) -> Iterator[WeightlessBase]:
    """The base that `[model] base` names, with the coord tokens that `[vocab]` adds, in a folder for this context.

    Of the checkpoint `config.json` is enough. Raises InputError where that is missing, for a base without coord tokens
    that needs some, and for Python in it that `[model]` does not trust.
    """
    name = manifest.model.base
    base = resolve_base(name)
    if base is None:
        raise InputError(
            f"model.base: {name} is not in the local hub cache; its config is enough for a plan: hf download {name} "
            "config.json --local-dir DIR, and --set model.base=DIR"
        )
    _require_whole(base / "config.json")
    require_no_code(base, trusted=manifest.model.trust_remote_code)
    with tempfile.TemporaryDirectory(prefix="coordcore-plan-") as scratch:
        # Called as the base: ms-swift tells some templates of one model type apart by the name of the folder.
        folder = Path(scratch).resolve() / base.resolve().name
        folder.mkdir()
        copy_files(base, folder)
        try:
            has_tokenizer = (base / _TOKENIZER).is_file()
            yield _with_tokens(manifest, base, folder) if has_tokenizer else _by_config(manifest, folder)
        except InputError as error:
            # Whoever reads it knows the base, and not the folder, which is gone by then.
            raise InputError(str(error).replace(str(folder), str(base))) from error


def _require_whole(path: Path) -> None:
    """Raise InputError where transformers would put a model of its own in the place of what is not said."""
    from transformers import CONFIG_MAPPING

    config = read_json(path)
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise InputError(f"{path}: names no model_type; take the config.json of the checkpoint")
    parts = CONFIG_MAPPING[kind].sub_configs if kind in CONFIG_MAPPING else {}
    flat = "hidden_size" in config  # the language model's, as Qwen2.5-VL was first published
    for part in ("text_config", "vision_config"):
        if part in parts and part not in config and not (flat and part == "text_config"):
            message = f"a {kind} model has a {part}, which is missing; take the config.json of the checkpoint"
            raise InputError(f"{path}: {message}")


def _with_tokens(manifest: Manifest, base: Path, folder: Path) -> WeightlessBase:
    coords = manifest.coords.format
    try:
        vocab: CoordVocab | None = read_vocab(folder, coords)
    except MissingCoordTokensError:
        if manifest.vocab is not None:
            vocab, _, _ = add_tokens(folder, coords)
            rows = _rows(folder)
            update_config(folder, rows, _grown(rows, vocab.ids[-1] + 1))
        elif COORD_TOKENS in manifest.capabilities():
            raise InputError(
                f"model.base: {base} has no coord tokens; add a [vocab] section{preset_hint(base)}"
            ) from None
        else:
            vocab = None
    return WeightlessBase(folder=folder, vocab=vocab, readable=True)


def _by_config(manifest: Manifest, folder: Path) -> WeightlessBase:
    """Without a tokenizer nobody knows how many rows are free: as many as there are tokens are added."""
    coords, rows = manifest.coords.format, _rows(folder)
    if manifest.vocab is None and COORD_TOKENS not in manifest.capabilities():
        return WeightlessBase(folder=folder, vocab=None, readable=False)
    last = rows
    note = f"model.base has no {_TOKENIZER}: the last {coords.bins} of its {rows} rows are taken for the coord tokens"
    if manifest.vocab is not None:
        last = rows + coords.bins
        update_config(folder, rows, _grown(rows, last))
        note = f"model.base has no {_TOKENIZER}: {coords.bins} rows are added to its {rows}, as if none were free"
    if last < coords.bins:
        raise InputError(f"{folder.name}/config.json: vocab_size is {rows}, and coords.bins is {coords.bins}")
    vocab = CoordVocab(ids=range(last - coords.bins, last), format=coords)
    return WeightlessBase(folder=folder, vocab=vocab, readable=False, notes=(note,))


def _rows(folder: Path) -> int:
    """`vocab_size`, which transformers has a default for: then it is written down."""
    rows = read_vocab_size(folder)
    if rows is None:
        from huggingface_hub.errors import StrictDataclassError
        from transformers import AutoConfig

        path = folder / "config.json"
        config = read_json(path)
        try:
            rows = int(AutoConfig.from_pretrained(folder).get_text_config().vocab_size)
        except (ValueError, AttributeError, TypeError, StrictDataclassError) as error:
            raise InputError(
                f"config.json of the base: says no vocab_size, and transformers knows none of a "
                f"{config.get('model_type')!r} model; take the config.json of the checkpoint"
            ) from error
        inner = config.get("text_config")
        (inner if isinstance(inner, dict) else config)["vocab_size"] = rows
        write_json(path, config)
    return rows


def _grown(rows: int, needed: int) -> int:
    """The rows after an expansion, as `coordcore expand` counts them."""
    return rows if needed <= rows else -(-needed // ROW_MULTIPLE) * ROW_MULTIPLE
