"""`coordcore calibrate`: from raw scores to probabilities of being right."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from coordcore.options import SpaceName
from coordcore_detection.commands.options import OutsideName, Score, SynonymFile, held_against


class Method(StrEnum):
    """How the scores are fitted."""

    ISOTONIC = "isotonic"
    TEMPERATURE = "temperature"


def command(
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS", help="What `coordcore predict` wrote.")],
    records: Annotated[Path, typer.Argument(metavar="RECORDS", help="The record file that was predicted.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where the calibration goes.")],
    method: Annotated[
        Method, typer.Option(help="Any rising curve, or two numbers: temperature and bias.")
    ] = Method.ISOTONIC,
    score: Annotated[Score | None, typer.Option(help="The score to fit, instead of the predictions' own.")] = None,
    iou: Annotated[float, typer.Option(min=0.05, max=1.0, help="IoU from which on a box is right.")] = 0.5,
    space: Annotated[SpaceName, typer.Option(help="What the numbers of RECORDS are.")] = SpaceName.BIN,
    outside: Annotated[
        OutsideName, typer.Option(help="A true box that reaches over its image: an error, or clipped.")
    ] = OutsideName.ERROR,
    synonyms: SynonymFile = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it is there.")] = False,
) -> None:
    """Fit the scores of PREDICTIONS to RECORDS, a split that the model was not trained on."""
    from coordcore.errors import printable
    from coordcore.files import require_writable
    from coordcore.quantisation import Quantisation
    from coordcore_detection.evaluate import calibration
    from coordcore_detection.evaluate import synonyms as synonym_files
    from coordcore_detection.evaluate.gather import Account
    from coordcore_detection.evaluate.truth_sources import truth_from_records
    from coordcore_detection.predict import prediction_files

    require_writable(output, predictions, records, overwrite=overwrite)
    header, rows = prediction_files.read(predictions)
    quantisation = Quantisation.from_dict(header.quantisation, source=f"{predictions}:1: quantisation")
    truth = truth_from_records(
        records, space=space.value, quantisation=quantisation, question="", outside=outside.value
    )
    account = Account()
    with held_against(predictions, records):
        fitted = calibration.fit_to_predictions(
            truth,
            header,
            rows,
            method=method.value,
            score=score.value if score else header.score,
            iou=iou,
            account=account,
            synonyms=None if synonyms is None else synonym_files.read(synonyms),
        )
    calibration.write(fitted, output)
    typer.echo(f"{output}: {method} calibration of {fitted.score}, {fitted.right} of {fitted.boxes} boxes right")
    for note in account.notes:
        typer.echo(f"note: {printable(note)}")
