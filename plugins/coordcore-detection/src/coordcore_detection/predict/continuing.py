"""Continuing predictions that were interrupted so that they end as if they had not been. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from coordcore.errors import InputError
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict import prediction_files
from coordcore_detection.predict.boxes import with_question
from coordcore_detection.predict.predictions import Header, Row


def require_same_questions(path: Path, rows: Sequence[Row], images: Sequence[TruthImage]) -> None:
    """Raise InputError where a row of `path` answers another question than its record asks now."""
    known = {image.key: image for image in images}
    for row in rows:
        if row.image not in known:
            continue
        asks = with_question(msgspec.structs.replace(row, question=msgspec.UNSET), known[row.image]).question
        if row.question != asks:
            was, now = (
                "the run's question" if asked is msgspec.UNSET else repr(asked) for asked in (row.question, asks)
            )
            raise InputError(
                f"{path}: {row.image}: was asked {was}, and its record now asks {now}; predict into another file, or "
                "give --overwrite"
            )


def finished(path: Path, header: Header, rows: Sequence[Row], keys: Sequence[str], batch_size: int) -> dict[str, Row]:
    """Key -> row of the batches of `keys` that `rows`, the content of `path`, hold whole; other rows leave the file.

    What an image is answered depends, in the last digits, on the others of its batch: a batch is asked whole or not at
    all.
    """
    known = {row.image: row for row in rows}
    kept: dict[str, Row] = {}
    for begin in range(0, len(keys), batch_size):
        batch = keys[begin : begin + batch_size]
        if all(key in known for key in batch):
            kept |= {key: known[key] for key in batch}
    if len(kept) < len(rows):
        prediction_files.write(path, header, kept.values())
    return kept


def put_in_order(path: Path, header: Header, rows: Sequence[Row], keys: Sequence[str]) -> list[Row]:
    """The rows in the order of `keys`, in the file too."""
    known = {row.image: row for row in rows}
    ordered = [known[key] for key in keys]
    if [row.image for row in rows] != list(keys):
        prediction_files.write(path, header, ordered)
    return ordered
