"""From the images of `coordcore predict` to the rows of its file: all of them, or the share of one process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import track

from coordcore_detection.commands.asked import Asked
from coordcore_detection.commands.options import told
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict import continuing, prediction_files, shares
from coordcore_detection.predict.predictions import Header, Row
from coordcore_detection.predict.settings import PredictSettings


def of_all(
    model: Asked,
    truth: Sequence[TruthImage],
    settings: PredictSettings,
    output: Path,
    header: Header,
    *,
    in_order: bool,
) -> list[Row]:
    """Ask about what `output` does not hold yet, and return all its rows. in_order: they are put into that of `truth`
    where all are there."""
    in_order |= shares.gather(output, header)
    with shares.held(output, header) as rows:
        continuing.require_same_questions(output, rows, truth)
        known = {row.image for row in rows}
        left = [image for image in truth if image.key not in known]
        if rows:
            typer.echo(f"{output}: holds {len(truth) - len(left)} of {len(truth)} images already", err=True)
        rows += _written(model, left, settings, output, header)
        keys = [image.key for image in truth]
        if in_order and {row.image for row in rows} == set(keys):
            rows = continuing.put_in_order(output, header, rows, keys)
    return rows


def of_share(
    model: Asked,
    truth: Sequence[TruthImage],
    settings: PredictSettings,
    output: Path,
    header: Header,
    share: shares.Share,
) -> list[Row] | None:
    """Ask about a share of the images, in a file of its own; return all rows of `output`, where this process was the
    last and its caller is to say so."""
    shares.require_free(output)
    known = shares.answered(output, header)
    continuing.require_same_questions(output, list(known.values()), truth)
    left = shares.left(truth, known, settings.batch_size, share)
    file = share.file(output)
    with shares.held(file, header):
        for _ in _written(model, left, settings, file, header):
            pass
    rows = shares.together(output, header, [image.key for image in truth], share)
    started_by_us = shares.OURS in os.environ
    if rows is None and not started_by_us:
        typer.echo(f"{file}: this share is answered; {output} is there when all are", err=True)
    return None if started_by_us else rows


def _written(
    model: Asked, images: Sequence[TruthImage], settings: PredictSettings, file: Path, header: Header
) -> Iterator[Row]:
    """The rows of the images, each when it is in the file."""
    console = Console(stderr=True)

    def log(line: str) -> None:
        console.print(told(line), markup=False, highlight=False, soft_wrap=True)

    answers = model.answers(images, log, settings)
    with prediction_files.appending(file, header) as add:
        for row in track(answers, description="predict", total=len(images), console=console, transient=True):
            add(row)
            yield row
