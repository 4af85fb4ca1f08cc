"""Checks of the base on its files: coord tokens, ids and rows, rows without a token, tied matrices, what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from coordcore.coords import CoordVocab
from coordcore_doctor.examined import ExaminedRun
from coordcore_doctor.findings import Finding, error, not_applicable, ok, some, warning

if TYPE_CHECKING:
    from torch import Tensor

    from coordcore_train.checkpoint.weights import Matrix

EXPAND = "expand the original base with `coordcore expand BASE --output DIR`"
NO_TOKENS = "the run has no coord tokens"

AT_THE_MEAN = 0.01
"""Distance from the mean row, in standard deviations, that only an unwritten row has: transformers' resizing draws new
rows with 3e-5 of it, and the least that coordcore's initialisers leave is 0.02."""

LOUD = 2.0
"""Length of a row without a token, in the length of the longest row with one, from which on it may win."""

_ORDINARY = 4096
_BLOCK = 4096


def check_base(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether the base can be found, and expanded where the manifest asks for it."""
    base = run.expanded
    yield ok(name, str(base))


def check_tokens(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether every coord token is one ordinary token, in text and in what a server decodes."""
    vocab, tokenizer = run.vocab, run.tokenizer
    if vocab is None:
        yield not_applicable(name, NO_TOKENS)
        return
    tokens, bins = vocab.format.written, vocab.format.bins
    added = tokenizer.added_tokens_decoder
    special = [token for token, i in zip(tokens, vocab.ids, strict=True) if i in added and added[i].special]
    if special:
        seen = f"{len(special)} of {bins} are special ({some(special)}): they vanish from decoded answers"
        yield error(name, seen, f'set "special": false in tokenizer.json and tokenizer_config.json, or {EXPAND}')
    text = f"[{', '.join(tokens)}]{''.join(tokens)}{'a'.join(tokens)}a"  # as in an answer, side by side, within words
    counts = Counter(tokenizer(text, add_special_tokens=False)["input_ids"])
    split = sorted(set(range(bins)) - {k for k, i in enumerate(vocab.ids) if counts[i] == 3})
    if split:
        seen = f"{len(split)} of {bins} are read in pieces ({some([tokens[k] for k in split])})"
        yield error(name, seen, f"they must be added tokens, not normalised, not single_word; {EXPAND}")
    if not special and not split:
        yield ok(name, f"{bins} ordinary tokens, whole in text")


def check_ids(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether every coord id has a row in each matrix and in the config."""
    from coordcore_train.checkpoint.folder import read_vocab_size

    vocab = run.vocab
    if vocab is None:
        yield not_applicable(name, NO_TOKENS)
        return
    rows = {role: matrix.rows for role, matrix in run.matrices.items()}
    configured = read_vocab_size(run.base)
    if configured is not None:
        rows["config.json vocab_size"] = configured
    last = max(vocab.ids)
    outside = [f"{where} has {count}" for where, count in rows.items() if last >= count]
    if outside:
        seen = f"the last coord token is id {last}, but {', '.join(outside)} rows"
        yield error(name, seen, f"tokenizer and weights are not of one checkpoint: {EXPAND}")
    elif len(set(rows.values())) > 1:
        seen = ", ".join(f"{where} {count}" for where, count in rows.items())
        yield error(name, f"vocabulary sizes differ: {seen}", "fetch or expand the base again: these are two models'")
    else:
        yield ok(name, f"{vocab.ids[0]} .. {last} of {next(iter(rows.values()))} rows")


def check_coord_rows(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether all rows of coord tokens of each matrix were written.

    `resize_token_embeddings` leaves the padding rows that coord tokens fall into as they were, and gives all rows that
    are new practically the same values.
    """
    vocab = run.vocab
    if vocab is None:
        yield not_applicable(name, NO_TOKENS)
        return
    for role, matrix in run.matrices.items():
        if max(vocab.ids) >= matrix.rows:
            yield Finding(name=name, state="not checked", seen=f"{role} does not have them all")
        else:
            yield _rows_finding(name, role, matrix, vocab)


def _rows_finding(name: str, role: str, matrix: Matrix, vocab: CoordVocab) -> Finding:
    import torch

    bins, first = vocab.format.bins, min(vocab.ids)
    rows = _read(matrix, first, max(vocab.ids) + 1)[[i - first for i in vocab.ids]]
    cure = f"all {bins} rows must be written: {EXPAND}"
    for what, bad in (
        ("are not finite", ~rows.isfinite().all(1)),
        ("are zero", (rows == 0).all(1)),
    ):
        if bad.any():
            return error(name, f"{role}: {int(bad.sum())} rows {what} ({_bins(vocab, bad)})", cure)
    ordinary = _read(matrix, 0, min(matrix.rows, _ORDINARY, first or matrix.rows))
    if not (finite := ordinary.isfinite().all(1)).all():
        seen = f"{role}: {int((~finite).sum())} of the first {len(ordinary)} rows, of other tokens, are not finite"
        return error(name, seen, "download or save the base again")
    distinct = len(torch.unique(rows, dim=0))
    if distinct < bins:
        return error(name, f"{role}: {distinct} distinct rows for {bins} tokens", cure)
    if len(ordinary) < 2:
        return ok(name, f"{role}: {bins} distinct rows")
    # Rows that resizing made are most of the 1000 (Qwen3-VL: 733), and lie at the mean of all that was there before.
    centre = torch.median(rows, dim=0).values
    spread = ordinary.std(0).clamp(min=1e-12)
    distance = ((rows - centre) / spread).square().mean(1).sqrt()
    still = distance < AT_THE_MEAN
    if still.all():
        return warning(name, f"{role}: the {bins} rows are practically one, all bins start alike", EXPAND)
    if int(still.sum()) > bins // 4:
        seen = f"{role}: {int(still.sum())} rows are practically one, the others ({_bins(vocab, ~still)}) are not"
        return error(name, f"{seen}: they lie in padding rows that nobody wrote", cure)
    return ok(name, f"{role}: {bins} distinct rows, {distance.mean():.2g} standard deviations apart")


def check_padding_rows(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether rows behind the last token could outdo those of tokens."""
    last = max(run.tokenizer.get_vocab().values())
    for role, matrix in run.matrices.items():
        count = matrix.rows - last - 1
        if count <= 0:
            yield ok(name, f"{role}: every row has its token")
            continue
        norms = _norms(matrix, last + 1, matrix.rows)
        usual = float(_norms(matrix, 0, min(last + 1, _ORDINARY)).max())
        cure = "set those rows to the mean of the others, and save the base anew"
        if not norms.isfinite().all():
            yield error(name, f"{role}: {int((~norms.isfinite()).sum())} of {count} are not finite", cure)
        elif (ratio := float(norms.max()) / usual) > LOUD:
            seen = f"{role}: {count} rows belong to no token, and are up to {ratio:.1f} times as long as a token's"
            yield warning(name, f"{seen}: the model may write ids that mean nothing", cure)
        else:
            yield ok(name, f"{role}: {count} behind the last token, none much longer than a token's")


def check_tie(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether config and files agree that embedding and head are one matrix or two."""
    from coordcore_train.checkpoint.folder import read_json, text_config

    config, matrices = read_json(run.base / "config.json"), run.matrices
    said = {
        where: part["tie_word_embeddings"]
        for where, part in (("config.json", config), ("its text_config", text_config(config)))
        if "tie_word_embeddings" in part
    }
    if len(set(said.values())) > 1:
        seen = ", ".join(f"{where} says {value}" for where, value in said.items())
        yield error(name, f"tie_word_embeddings: {seen}", "write the value of the original base in both places")
        return
    tied = next(iter(said.values()), "head" not in matrices)
    head = matrices.get("head")
    if tied and head is not None and not _equal(matrices["embedding"], head):
        seen = f"config.json ties the head to the embedding, but {head.name} is stored and differs: it would be dropped"
        yield error(name, seen, "set tie_word_embeddings = false in config.json and its text_config")
    elif not tied and head is None:
        seen = "config.json says tie_word_embeddings = false, and there is no lm_head.weight: the head would be random"
        yield error(name, seen, "set tie_word_embeddings = true in config.json and its text_config, or fetch the head")
    else:
        yield ok(name, "one matrix is embedding and head" if tied else "embedding and head are two matrices")


def check_weights(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether the files hold every tensor of the model, in its shape; by their headers, no weight is read."""
    tensors = run.tensors
    if isinstance(tensors, int):
        yield ok(name, f"{tensors} tensors, all that the model has")
    else:
        yield not_applicable(name, f"looked at when the model is loaded: {tensors}")


def _bins(vocab: CoordVocab, which: Tensor) -> str:
    return some([vocab.format.written[k] for k in which.nonzero().flatten().tolist()], 2)


def _read(matrix: Matrix, first: int, stop: int) -> Tensor:
    """Rows of a matrix as float32; nothing else of the file is read."""
    from safetensors import safe_open

    with safe_open(matrix.file, framework="pt") as file:
        rows: Any = file.get_slice(matrix.name)[first:stop]
    return rows.float()


def _norms(matrix: Matrix, first: int, stop: int) -> Tensor:
    import torch

    steps = range(first, stop, _BLOCK)
    return torch.cat([_read(matrix, start, min(start + _BLOCK, stop)).norm(dim=1) for start in steps])


def _equal(first: Matrix, other: Matrix) -> bool:
    if (first.rows, first.columns) != (other.rows, other.columns):
        return False
    steps: Sequence[int] = range(0, first.rows, _BLOCK)
    ends = ((start, min(start + _BLOCK, first.rows)) for start in steps)
    return all(bool((_read(first, *end) == _read(other, *end)).all()) for end in ends)
