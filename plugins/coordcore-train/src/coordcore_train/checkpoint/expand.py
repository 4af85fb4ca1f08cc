"""Give a checkpoint the coord tokens: tokenizer, embedding rows, config. Works on files; no model is built."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import attrs
import torch

from coordcore.coords import DEFAULT_COORDS, CoordFormat, CoordVocab
from coordcore.errors import InputError, RunError
from coordcore.files import own_cache_folder, whole_folder
from coordcore.quantisation import DEFAULT_QUANTISATION, Quantisation
from coordcore_train.checkpoint.code import require_no_code
from coordcore_train.checkpoint.folder import (
    copy_files,
    read_added_tokens,
    read_json,
    text_config,
    write_checkpoint_info,
    write_json,
)
from coordcore_train.checkpoint.initialise import Initialiser, coord_rows, mean_row
from coordcore_train.checkpoint.weights import Matrix, RowBlock, copy_weights, vocabulary_matrices

ROW_MULTIPLE = 64
"""A matrix that must grow grows to a multiple of this: odd vocabulary sizes miss the GPU's fast matrix products."""

_HASHED_WHOLE = 1 << 26
_TOKEN_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}


@attrs.frozen(kw_only=True)
class ExpandReport:
    """What `expand` did. `tied` says that one matrix serves as embedding and output head."""

    output: Path
    vocab: CoordVocab
    initialiser: Initialiser
    seed: int
    quantisation: Quantisation
    rows_before: int
    rows_after: int
    tied: bool


def expand(
    base: Path,
    output: Path,
    *,
    initialiser: Initialiser = "digits",
    seed: int = 0,
    quantisation: Quantisation = DEFAULT_QUANTISATION,
    coords: CoordFormat = DEFAULT_COORDS,
    overwrite: bool = False,
) -> ExpandReport:
    """Write the checkpoint `base` to `output`, with the tokens of `coords`, by default
    `<|coord_0|>` .. `<|coord_999|>`.

    The tokens are added as ordinary tokens: special ones vanish from what a server decodes. The embedding matrix (and
    the output head, where the checkpoint stores one) grows as needed and never shrinks; the row of every token is
    written, also where padding rows were free. Tied models stay tied, untied ones untied, every dtype stays. Every
    other file is copied; `coordcore.json` records the tokens, their ids and the quantisation.

    initialiser: "digits" (default), "mean" or "smooth"; see `coordcore_train.checkpoint.initialise.coord_rows`.
    Raises InputError, and leaves no folder, when `base` is no safetensors checkpoint, is quantised or has coord
    tokens already, or names Python to run, and when `output` exists and `overwrite` is false.
    """
    base, output = Path(base), Path(output)
    require_no_code(base, trusted=False)
    inside, outside = output.resolve(), base.resolve()
    if inside == outside or inside in outside.parents or outside in inside.parents:
        raise InputError(f"{output}: lies in or around the base {base}; choose a folder beside it")
    with whole_folder(output, if_exists="replace" if overwrite else "error") as scratch:
        report = _expand_into(base, scratch, initialiser, seed, quantisation, coords, trusted=False)
    return attrs.evolve(report, output=output)


def cached_expansion(
    base: Path,
    cache_dir: Path | None = None,
    *,
    initialiser: Initialiser = "digits",
    seed: int = 0,
    quantisation: Quantisation = DEFAULT_QUANTISATION,
    coords: CoordFormat = DEFAULT_COORDS,
    trusted: bool = False,
) -> Path:
    """The folder of `expand(base, ...)`, made once and found again by the content of `base` and the settings.

    cache_dir: `expanded` in the cache folder (`coordcore.files.own_cache_folder`) when None. trusted: whether Python
    that the base names may run, to read its tokenizer. Several processes may ask at the same time: each writes beside,
    the first to rename wins. Raises as `expand`.
    """
    base = Path(base).resolve()
    if cache_dir is None:
        cache_dir = own_cache_folder() / "expanded"
    key = _content_key(base, [initialiser, seed, quantisation.as_dict(), attrs.asdict(coords)])
    target = Path(cache_dir) / f"{base.name}-{key[:16]}"
    cure = "COORDCORE_CACHE names another place for the cache"
    try:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with whole_folder(target, if_exists="keep") as scratch:
                _expand_into(base, scratch, initialiser, seed, quantisation, coords, trusted=trusted)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InputError(f"{target.parent}: the expanded base cannot be kept there: {why}; {cure}") from error
    except RunError as error:  # no room
        raise RunError(f"{error}; {cure}") from error
    return target


def _expand_into(
    base: Path,
    folder: Path,
    initialiser: Initialiser,
    seed: int,
    quantisation: Quantisation,
    coords: CoordFormat,
    *,
    trusted: bool,
) -> ExpandReport:
    if initialiser not in get_args(Initialiser):
        raise InputError(f"unknown initialiser {initialiser!r}; available: {', '.join(get_args(Initialiser))}")
    config = read_json(base / "config.json")
    if "quantization_config" in config or "quantization_config" in text_config(config):
        raise InputError(f"{base}: holds quantised weights; expand the original checkpoint and quantise afterwards")
    if quantisation.bins != coords.bins:
        raise InputError(f"{quantisation} has {quantisation.bins} bins, the coord tokens {coords} are {coords.bins}")
    _require_no_coord_tokens(base, coords)
    matrices = vocabulary_matrices(base)
    rows = _common_rows(base, config, matrices)

    copy_files(base, folder)
    vocab, digits, known = add_tokens(folder, coords)
    first = vocab.ids[0]
    if first > rows:
        raise InputError(f"{base}: the tokenizer has ids up to {first - 1}, the matrix {rows} rows; not one checkpoint")
    needed = first + coords.bins
    rows_after = rows if needed <= rows else -(-needed // ROW_MULTIPLE) * ROW_MULTIPLE
    blocks = {
        matrix.name: _row_block(matrix, first, rows_after, digits, initialiser, seed, coords.bins)
        for matrix in matrices.values()
    }
    update_config(folder, rows, rows_after)
    write_checkpoint_info(folder, quantisation=quantisation, vocab=vocab)
    with ThreadPoolExecutor(max_workers=1) as beside:  # the kernel copies, Python reads the tokenizer
        verified = beside.submit(_verify_tokenizer, base, folder, vocab, rows_after, known, trusted=trusted)
        copy_weights(base, folder, blocks)
        verified.result()
    return ExpandReport(
        output=folder,
        vocab=vocab,
        initialiser=initialiser,
        seed=seed,
        quantisation=quantisation,
        rows_before=rows,
        rows_after=rows_after,
        tied=_tied(config, matrices),
    )


def _require_no_coord_tokens(base: Path, coords: CoordFormat) -> None:
    if not (base / "tokenizer.json").exists():
        raise InputError(
            f"{base}: has no tokenizer.json; load and save its tokenizer once with transformers.AutoTokenizer"
        )
    count = len(read_added_tokens(base).keys() & coords.bin_of.keys())
    if count == coords.bins:
        raise InputError(f"{base}: has the {count} coord tokens already; use it as it is")
    if count:
        raise InputError(f"{base}: has {count} of the {coords.bins} coord tokens; expand a base that has none of them")


def _common_rows(base: Path, config: dict[str, Any], matrices: dict[str, Matrix]) -> int:
    """Rows of the vocabulary matrices, which must agree with each other and with the config."""
    if "head" not in matrices and not _tied(config, matrices):
        raise InputError(f"{base}: config.json says tie_word_embeddings = false, but there is no lm_head.weight")
    rows = {matrix.name: matrix.rows for matrix in matrices.values()}
    configured = text_config(config).get("vocab_size")
    if configured is not None:
        rows["config.json vocab_size"] = configured
    if len(set(rows.values())) != 1:
        found = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise InputError(f"{base}: vocabulary sizes differ: {found}; these files are not of one checkpoint")
    return matrices["embedding"].rows


def _tied(config: dict[str, Any], matrices: dict[str, Matrix]) -> bool:
    said = config.get("tie_word_embeddings", text_config(config).get("tie_word_embeddings"))
    return "head" not in matrices if said is None else bool(said)


def add_tokens(folder: Path, coords: CoordFormat) -> tuple[CoordVocab, list[int], dict[str, int]]:
    """Add the tokens to the tokenizer files in `folder`; their ids, those of the digits 0 .. 9, and what was there.

    The files are edited rather than saved anew by a library: nothing but the new tokens changes in them.
    """
    from tokenizers import AddedToken, Tokenizer

    path = folder / "tokenizer.json"
    with _loads_tokenizer(path):
        tokenizer = Tokenizer.from_file(str(path))
    # Asked for by name: where the tokenizer puts a space before a text, encoding a digit gives that space as well.
    known = tokenizer.get_vocab()
    if missing := [digit for digit in "0123456789" if digit not in known]:
        raise InputError(
            f"{path}: digits are not single tokens: {', '.join(missing)}; coordcore expects a byte-level tokenizer"
        )
    digits = [known[digit] for digit in "0123456789"]
    tokens = coords.written
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in tokens])
    ids = {token: tokenizer.token_to_id(token) or 0 for token in tokens}
    first = ids[tokens[0]]
    if known.keys() & ids.keys() or list(ids.values()) != list(range(first, first + coords.bins)):
        raise InputError(f"{path}: has some coord tokens in its base vocabulary; expand a base that has none of them")

    data = read_json(path)
    data["added_tokens"] += [{"id": token_id, "content": token, **_TOKEN_FLAGS} for token, token_id in ids.items()]
    write_json(path, data)
    legacy = folder / "added_tokens.json"
    if legacy.exists():
        write_json(legacy, {**read_json(legacy), **ids})
    settings = folder / "tokenizer_config.json"
    data = read_json(settings) if settings.exists() else {}
    if "added_tokens_decoder" in data:
        added = {str(token_id): {"content": token, **_TOKEN_FLAGS} for token, token_id in ids.items()}
        data["added_tokens_decoder"] |= added
        write_json(settings, data)
    return CoordVocab(ids=ids.values(), format=coords), digits, known


def _row_block(
    matrix: Matrix, first: int, rows_after: int, digits: list[int], initialiser: Initialiser, seed: int, bins: int
) -> RowBlock:
    """The coord rows of one matrix, and the mean row for padding rows behind them that are new."""
    from safetensors import safe_open

    with safe_open(matrix.file, framework="pt") as file:
        known = file.get_tensor(matrix.name)[:first]
    block = coord_rows(known, known[digits], initialiser, seed, bins)
    # Padding rows become the mean of them all.
    if not (known.isfinite().all() and block.isfinite().all()):
        raise InputError(f"{matrix.file}: {matrix.name} holds values that are not finite; the checkpoint is damaged")
    # Rounding to the checkpoint's dtype is the last chance for two rows to become one.
    distinct = len(torch.unique(block.to(known.dtype), dim=0))
    if distinct != bins:
        raise InputError(
            f"{matrix.file}: initialiser {initialiser} gives {distinct} distinct rows of {bins} for {matrix.name}; "
            "choose another one, or a base that is trained"
        )
    if rows_after > matrix.rows:
        padding = mean_row(known).expand(rows_after - first - bins, -1)
        block = torch.cat([block, padding])
    data = block.to(known.dtype).contiguous().view(torch.uint8).numpy().tobytes()
    return RowBlock(first=first, rows=len(block), data=data)


def update_config(folder: Path, rows: int, rows_after: int) -> None:
    """Set `vocab_size` of the language model, and wherever else the config repeats it."""
    path = folder / "config.json"
    config = read_json(path)
    text = text_config(config)
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        if part is text or part.get("vocab_size") == rows:
            part["vocab_size"] = rows_after
    write_json(path, config)


def _verify_tokenizer(
    base: Path, folder: Path, vocab: CoordVocab, rows: int, known: dict[str, int], *, trusted: bool
) -> None:
    """Read the result as transformers does: the ids we wrote, and every old token where it was.

    known: the vocabulary that the base's tokenizer.json holds. Only where transformers makes another one of the result
    is the base read as well.
    """
    from transformers import AutoTokenizer

    def load(folder: Path) -> Any:
        with _loads_tokenizer(base):
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trusted)

    new = load(folder)
    found = CoordVocab.from_tokenizer(new, vocab.format, embedding_rows=rows, config_vocab_size=rows)
    kept = {token: token_id for token, token_id in new.get_vocab().items() if token not in vocab.format.bin_of}
    if found != vocab or (kept != known and kept != load(base).get_vocab()):
        raise InputError(
            f"{base}: tokenizer.json and the other tokenizer files disagree about ids; "
            "load and save the tokenizer once with transformers.AutoTokenizer"
        )


@contextmanager
def _loads_tokenizer(path: Path) -> Iterator[None]:
    """Turn what tokenizers and transformers raise for files that are none, which has no class of its own."""
    try:
        yield
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(f"{path}: the tokenizer cannot be loaded: {why}; download or save it again") from error


def _content_key(base: Path, settings: list[Any]) -> str:
    """A digest of everything that goes into an expansion of `base`."""
    from coordcore import __version__

    digest = hashlib.sha256(json.dumps([__version__, settings]).encode())
    for path in sorted(path for path in base.rglob("*") if path.is_file()):
        name = path.relative_to(base).as_posix()
        if any(part.startswith(".") for part in Path(name).parts):
            continue
        digest.update(f"\n{name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            if path.stat().st_size <= _HASHED_WHOLE:
                digest.update(hashlib.file_digest(file, "sha256").digest())
                continue
            # Gigabytes: samples over the whole file, and the time of writing in case a change falls between them.
            digest.update(str(path.stat().st_mtime_ns).encode())
            for at in range(0, path.stat().st_size, path.stat().st_size // 64):
                file.seek(at)
                digest.update(file.read(1 << 16))
    return digest.hexdigest()
