"""`coordcore report`: the report of an evaluation, made anew from its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from coordcore_detection.evaluate.evaluation import Evaluated
    from coordcore_detection.evaluate.results import Result
    from coordcore_detection.evaluate.truth import TruthImage


def command(
    evaluation: Annotated[
        Path, typer.Argument(metavar="EVALUATION", help="A run folder, an evaluation's folder, or its file.")
    ],
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where it goes, instead of into the evaluation's folder.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report in DIR.")] = False,
) -> None:
    """Write the report of EVALUATION anew, with pictures where it lies in its run: report.html, and plots in report/.

    `coordcore eval --report DIR` writes one for predictions that belong to no run.
    """
    from coordcore import InputError
    from coordcore_detection.evaluate import distributions, results
    from coordcore_detection.evaluate.evaluator import PREDICTIONS
    from coordcore_detection.report.training import find_run
    from coordcore_detection.report.write import require_free, write_report

    if output is not None:
        require_free(output, overwrite=overwrite)
    file = results.file_in(evaluation)
    result = results.read(file)
    if output is None and file.name != results.FILE and (beside := file.with_name(results.FILE)).is_file():
        raise InputError(f"{file}: the report beside it is that of {beside.name}; write another with --output DIR")
    run = find_run(file.parent)
    evaluated: Evaluated | None = None
    truth: Sequence[TruthImage] = ()
    predictions = file.parent / PREDICTIONS
    if run is not None and predictions.is_file():
        truth, evaluated = _again(_held_out(run), predictions, result, file)
        result = evaluated.result
    page = write_report(
        output or file.parent,
        result,
        evaluated=evaluated,
        truth=truth,
        recorded=distributions.beside(predictions),
        run_dir=run or find_run(Path(result.checkpoint)),
    )
    typer.echo(str(page))


def _held_out(run: Path) -> Sequence[TruthImage]:
    """The images that the evaluator saw, from the run's data builder."""
    from coordcore_detection.extra import require_train

    require_train(f"{run}: the report of a run")
    from coordcore_train.run.quiet import quiet

    quiet()
    from coordcore import InputError
    from coordcore_detection.evaluate.truth_sources import truth_from_examples
    from coordcore_train.run.plan import load_run

    plan = load_run(run)
    examples = plan.data.validation()
    if examples is None:
        raise InputError(f"{run}: its data builder holds no example out any more; give the evaluation file alone")
    return truth_from_examples(examples, plan.quantisation, plan.coords, plan.format)


def _again(
    whole: Sequence[TruthImage], predictions: Path, result: Result, file: Path
) -> tuple[Sequence[TruthImage], Evaluated]:
    """The images that were asked about, and the evaluation with its boxes.

    Raises InputError when the run's data is no longer what was evaluated.
    """
    from coordcore import InputError
    from coordcore_detection.evaluate.contract import proposed_in, synonyms_in
    from coordcore_detection.evaluate.evaluation import evaluate
    from coordcore_detection.evaluate.radius import RADIUS
    from coordcore_detection.evaluate.truth_sources import Chosen, NotMeasuredError, example_key
    from coordcore_detection.predict import prediction_files

    changed = (
        f"{file}: was measured on other examples than its run holds out now; evaluate again, "
        "or copy the file elsewhere for a report without pictures"
    )
    header, rows = prediction_files.read(predictions)
    asked = {row.image for row in rows}  # all that were measured, texts too
    truth = Chosen(whole, [place for place in range(len(whole)) if example_key(place) in asked])
    try:
        evaluated = evaluate(
            truth,
            header,
            rows,
            max_detections=result.contract["max_detections"][-1],
            synonyms=synonyms_in(result.contract),
            proposed_by=proposed_in(result.contract),
            radius=result.contract.get("point_radius", RADIUS),
        )
    except NotMeasuredError as error:
        raise InputError(changed) from error
    if evaluated.result.contract["truth"] != result.contract["truth"]:
        raise InputError(changed)
    return truth, evaluated
