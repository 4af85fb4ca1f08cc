"""The component `[eval.detection]`: predicts the examples held out and evaluates. Torch-free until it is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from coordcore import BuildContext, Component, InputError, Problem
from coordcore.coords import DEFAULT_COORDS
from coordcore_detection.evaluate.config import DetectionConfig, problems

if TYPE_CHECKING:
    from coordcore import Example
    from coordcore.manifest import Manifest
    from coordcore.protocols import Evaluation, EvaluationResult, ExampleSource
    from coordcore.records.answers import Format
    from coordcore_detection.evaluate.evaluation import Evaluated
    from coordcore_detection.evaluate.synonyms import Synonyms
    from coordcore_detection.evaluate.truth import TruthImage
    from coordcore_detection.evaluate.truth_sources import Chosen
    from coordcore_detection.predict.predictions import Header, Row

PREDICTIONS = "predictions.jsonl"
SHOWN = (
    *("AP", "AP50", "agnostic_AP50", "F1", "mean_iou", "ece", "oracle_AP"),
    *("shape_AP", "shape_AP50", "point_accuracy", "point_F1", "point_distance"),
    *("refer_accuracy_50", "named_absent_found"),
)


@attrs.frozen(kw_only=True, eq=False)
class Asked:
    """What a checkpoint answered to the examples held out.

    whole: all examples. truth: those that are measured. groups: group -> places of the measured ones in `whole`. rows:
    of each, in its order.
    """

    whole: Sequence[TruthImage]
    truth: Chosen
    groups: Mapping[str, Sequence[int]]
    header: Header
    rows: Sequence[Row]


@attrs.frozen(kw_only=True)
class DetectionEvaluator:
    """The `Evaluator` of `[eval.detection]`. Leaves predictions, evaluation.json and report; continues the former.

    In three steps, for other evaluators: `asked` asks the model, `evaluated` measures, `result` writes what it found.
    """

    config: DetectionConfig
    form: Format

    def __call__(self, evaluation: Evaluation, /) -> EvaluationResult:
        from coordcore_detection.evaluate import synonyms

        asked = self.asked(evaluation)
        return self.result(
            evaluation, asked, None if self.config.synonyms is None else synonyms.read(self.config.synonyms)
        )

    def asked(self, evaluation: Evaluation) -> Asked:
        """Ask about what can be measured, but for what lies answered in the output folder."""
        from coordcore_detection.evaluate.truth_sources import measured, truth_from_examples

        whole = truth_from_examples(
            evaluation.examples,
            evaluation.quantisation,
            evaluation.vocab.format if evaluation.vocab else DEFAULT_COORDS,
            self.form,
        )
        # Looked for before the model is asked: a mixture may hold out conversations beside records.
        truth, left_out = measured(whole, self.config.images)
        if left_out:
            count = len(truth) + len(left_out)
            evaluation.log(f"note: {len(left_out)} of {count} examples are not measured, the first: {left_out[0]}")
        header, rows = self._predicted(evaluation, truth)
        groups = _groups(evaluation.examples, truth.places)
        return Asked(whole=whole, truth=truth, groups=groups, header=header, rows=rows)

    def result(
        self,
        evaluation: Evaluation,
        asked: Asked,
        synonyms: Synonyms | None = None,
        proposed_by: Mapping[str, Any] | None = None,
    ) -> EvaluationResult:
        """Measure the whole and each group, tell of it and write it. synonyms, proposed_by: as `evaluate` has them."""
        from coordcore.protocols import EvaluationResult
        from coordcore_detection.evaluate import tables
        from coordcore_detection.evaluate.truth_sources import Chosen

        evaluated = self.evaluated(asked, asked.truth, synonyms, proposed_by)
        for note in [*evaluated.result.caveats, *evaluated.result.notes]:
            evaluation.log(f"note: {note}")
        for line in tables.task_lines(evaluated.result):
            evaluation.log(line)
        metrics = found(evaluated)
        for group, places in asked.groups.items():
            of_group = found(self.evaluated(asked, Chosen(asked.whole, places), synonyms, proposed_by))
            metrics |= {f"{name}@{group}": value for name, value in of_group.items()}
        return EvaluationResult(
            metrics=metrics,
            shown=[name for name in SHOWN if name in metrics],
            files=write_files(evaluated, evaluation.output, asked.truth, evaluation.run_dir),
        )

    def evaluated(
        self,
        asked: Asked,
        truth: Chosen,
        synonyms: Synonyms | None = None,
        proposed_by: Mapping[str, Any] | None = None,
    ) -> Evaluated:
        """Measure the answers to some of the images that were asked about."""
        from coordcore_detection.evaluate.evaluation import evaluate
        from coordcore_detection.evaluate.truth_sources import example_key

        keys = {example_key(place) for place in truth.places}
        return evaluate(
            truth,
            asked.header,
            [row for row in asked.rows if row.image in keys],
            max_detections=self.config.max_detections,
            synonyms=synonyms,
            proposed_by=proposed_by,
            radius=self.config.radius,
        )

    def _predicted(self, evaluation: Evaluation, truth: Chosen) -> tuple[Header, list[Row]]:
        """Ask about the images and write predictions.jsonl, but for batches that it holds already."""
        from coordcore_detection.evaluate import distributions
        from coordcore_detection.evaluate.truth_sources import example_key
        from coordcore_detection.predict import asking, continuing, prediction_files
        from coordcore_detection.predict.proposing import proposer_of

        # Boxes and polygons are allowed in any case; an example of each kind is enough to allow the others.
        kinds: set[str] = set()
        limits: dict[str, int] = {}
        for example in (evaluation.examples[place] for place in truth.places):
            kinds |= _kinds(example)
            if example.max_pixels is not None:
                limits[example.group] = max(example.max_pixels, limits.get(example.group, 0))
        settings = self.config.settings().also_for(kinds)
        loaded = asking.load(evaluation.checkpoint, evaluation.device, quantisation=evaluation.quantisation)
        if settings.tolerance is not None:
            loaded = loaded._replace(proposer=proposer_of(evaluation.checkpoint, loaded))
        header = asking.header(evaluation.checkpoint, loaded, settings)
        if limits:  # images were seen in another size than those of the same records without a source
            header.decoding["max_pixels"] = limits
        path = evaluation.output / PREDICTIONS
        try:
            rows = prediction_files.resume(path, header)
        except InputError as error:
            evaluation.log(f"predicts anew: {error}")
            path.unlink()
            distributions.beside(path).unlink(missing_ok=True)
            rows = []
        keys = [example_key(place) for place in truth.places]
        done = continuing.finished(path, header, rows, keys, settings.batch_size)
        rows = list(done.values())
        left = [index for index, key in enumerate(keys) if key not in done]
        evaluation.log(f"asks about {len(left)} images")
        watch = distributions.Distributions(distributions.beside(path), keys, done)
        with prediction_files.appending(path, header) as add:
            for row in asking.predict(
                loaded.model,
                loaded.processor,
                (truth[index] for index in left),  # drawn or decoded only now
                settings,
                vocab=loaded.vocab,
                quantisation=loaded.quantisation,
                max_pixels=loaded.max_pixels,
                form=loaded.format,
                log=evaluation.log,
                watch=watch,
                proposer=loaded.proposer,
            ):
                watch.save()
                add(row)
                rows.append(row)
        return header, continuing.put_in_order(path, header, rows, keys)


def _groups(examples: ExampleSource, places: Sequence[int]) -> dict[str, list[int]]:
    """Group -> which of the examples at `places` are of it; nothing where the first is of none, as then all are."""
    groups: dict[str, list[int]] = {}
    if places and examples[places[0]].group:
        for place in places:
            groups.setdefault(examples[place].group, []).append(place)
    return groups


def found(evaluated: Evaluated) -> dict[str, float]:
    """The metrics that have a value, those of tasks too, by name."""
    from coordcore_detection.evaluate import results

    values = evaluated.result.metrics | results.task_figures(evaluated.result)
    return {name: value for name, value in values.items() if value is not None}


def _kinds(example: Example) -> set[str]:
    """The kinds of geometry that an answer may have; a question for points has none where nothing is there."""
    return {geometry.kind for geometry in example.geometries} | ({"point"} if example.task == "point" else set())


def write_files(evaluated: Evaluated, output: Path, truth: Sequence[TruthImage], run_dir: Path) -> list[Path]:
    """Write what an evaluation leaves in its folder, next to the predictions; returns what a person should open."""
    from coordcore_detection.evaluate import distributions, results
    from coordcore_detection.report.write import write_report

    results.write(evaluated.result, output / results.FILE)
    report = write_report(
        output,
        evaluated.result,
        evaluated=evaluated,
        truth=truth,
        recorded=distributions.beside(output / PREDICTIONS),
        run_dir=run_dir,
    )
    return [report]


def _build(config: DetectionConfig, context: BuildContext) -> DetectionEvaluator:
    return DetectionEvaluator(config=config, form=context.format)


def _check(config: DetectionConfig, run: Manifest) -> Iterator[Problem]:
    return problems(config, f"eval.{COMPONENT.name}", run)


COMPONENT = Component(
    name="detection",
    config=DetectionConfig,
    build=_build,
    check=_check,
    summary="predicts the examples held out: AP, F1, IoU, calibration, and the ceiling of the quantisation",
)
