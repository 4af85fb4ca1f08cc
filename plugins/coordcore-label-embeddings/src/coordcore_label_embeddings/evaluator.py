"""The component `[eval.label_embeddings]`: detection, with labels matched by meaning. Torch-free until it is called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from attrs.validators import ge, le

from coordcore import BuildContext, Component, InputError, Problem, option
from coordcore_detection.evaluate.config import DetectionConfig, problems
from coordcore_detection.evaluate.evaluator import DetectionEvaluator, found
from coordcore_label_embeddings import __version__, model_files

if TYPE_CHECKING:
    from coordcore.manifest import Manifest
    from coordcore.protocols import Evaluation, EvaluationResult
    from coordcore.records.answers import Format
    from coordcore_detection.evaluate.synonyms import Synonyms
    from coordcore_label_embeddings.embedding import Meant

TABLE = "synonyms.toml"
BY_TEXT = "by_text.json"
LABELLED = ("AP", "AP50", "F1", "mean_iou", "shape_AP", "shape_AP50", "point_F1")
"""The metrics that are told by equal text, too, as `text_AP` and so on."""


@attrs.frozen(kw_only=True)
class LabelEmbeddingsConfig(DetectionConfig):
    """`[eval.label_embeddings]`: `[eval.detection]`, but a predicted label that no record has counts as the nearest."""

    model: Path = option(
        exists=True,
        help="folder of a text embedding model (a BERT or the like), as transformers or sentence-transformers saves it",
    )
    least: float = option(
        default=0.8, validator=[ge(-1.0), le(1.0)], help="cosine from which on a label counts as the nearest true one"
    )


@attrs.frozen(kw_only=True)
class LabelEmbeddingsEvaluator:
    """The `Evaluator` of `[eval.label_embeddings]`.

    Leaves what that of `[eval.detection]` does, the table that was used (`TABLE`) and the evaluation by equal text
    (`BY_TEXT`), both of the same answers. A table of synonyms goes before the model, which is asked about none of its
    labels.
    """

    config: LabelEmbeddingsConfig
    form: Format

    def __call__(self, evaluation: Evaluation, /) -> EvaluationResult:
        from coordcore_detection.evaluate import results, synonyms
        from coordcore_detection.evaluate.truth_sources import measured
        from coordcore_label_embeddings import proposal

        least = self.config.least
        given: Synonyms = {} if self.config.synonyms is None else synonyms.read(self.config.synonyms)
        with _named():
            identity = model_files.identity(self.config.model)  # before the hours of the answers
        detection = DetectionEvaluator(config=self.config, form=self.form)
        asked = detection.asked(evaluation)
        by_text = detection.evaluated(asked, asked.truth, given)
        results.write(by_text.result, evaluation.output / BY_TEXT)
        # Records beyond `images` are not asked about, and have their labels all the same.
        every = asked.truth if self.config.images is None else measured(asked.whole, None)[0]
        with _named():
            meant = _nearest(self.config.model, *proposal.unknown_and_known(every, asked.rows, given))
        table = evaluation.output / TABLE
        header = f"# by the text embedding model of SHA-256 {identity}, least = {least}\n"
        results.write_text(header + proposal.table(meant, least, given), table)
        if meant:
            taken = f"{sum(item.cosine >= least for item in meant)} of {len(meant)} labels that no record has"
            evaluation.log(f"{taken} count as the nearest that one has: {table}")
        rule = {
            "model_sha256": identity,
            "least": least,
            **({"synonyms": {name: list(others) for name, others in given.items()}} if given else {}),
            "version": __version__,
        }
        result = detection.result(evaluation, asked, proposal.merged(meant, least, given), rule)
        text = {f"text_{name}": value for name, value in found(by_text).items() if name in LABELLED}
        return attrs.evolve(
            result, metrics={**result.metrics, **text}, shown=[*result.shown, *text], files=[*result.files, table]
        )


def _nearest(model: Path, labels: Sequence[str], names: Sequence[str]) -> list[Meant]:
    from coordcore_label_embeddings.embedding import embed, nearest

    # Without either there is nothing to ask, and no model is loaded.
    return nearest(labels, names, embed(model, [*labels, *names])) if labels and names else []


@contextmanager
def _named() -> Iterator[None]:
    """Name the key in what is wrong with the model."""
    try:
        yield
    except InputError as error:
        raise InputError(f"eval.{COMPONENT.name}.model: {error}") from error


def _build(config: LabelEmbeddingsConfig, context: BuildContext) -> LabelEmbeddingsEvaluator:
    return LabelEmbeddingsEvaluator(config=config, form=context.format)


def _check(config: LabelEmbeddingsConfig, run: Manifest) -> Iterator[Problem]:
    """Also a folder that is no text embedding model, or lacks files, as far as that shows without reading weights."""
    section = f"eval.{COMPONENT.name}"
    yield from problems(config, section, run)
    if config.model.exists():
        yield from (Problem(path=f"{section}.model", message=fault) for fault in model_files.faults(config.model))


COMPONENT = Component(
    name="label_embeddings",
    config=LabelEmbeddingsConfig,
    build=_build,
    check=_check,
    summary="as detection, but labels that no record has count as the nearest one by a text embedding model",
)
