"""Predictions against ground truth: one call, every metric, and an account of what did not fit. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import attrs
import numpy as np

from coordcore.quantisation import Quantisation
from coordcore.records.geometry import overlaps
from coordcore_detection.evaluate import metrics, points, resampling, results
from coordcore_detection.evaluate.average_precision import THRESHOLD_AT, AveragePrecision, average_precision
from coordcore_detection.evaluate.contract import contract, same_labels
from coordcore_detection.evaluate.gather import Account, Truth, by_image, some, was_seen
from coordcore_detection.evaluate.matching import (
    LVIS_MAX_DETECTIONS,
    MAX_DETECTIONS,
    Bools,
    Flat,
    Floats,
    Matches,
    match,
    outline_overlaps,
)
from coordcore_detection.evaluate.metrics import AGNOSTIC
from coordcore_detection.evaluate.polygons import has_area
from coordcore_detection.evaluate.radius import RADIUS, Radius
from coordcore_detection.evaluate.results import OUTLINE, Detail, Result
from coordcore_detection.evaluate.synonyms import Synonyms
from coordcore_detection.evaluate.tasks import MEASURES, by_task
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.predictions import Header, Row


@attrs.frozen(kw_only=True, eq=False)
class Evaluated:
    """A result with the boxes it was computed from, crowd regions included.

    place: of each image of the result, where it stood in the ground truth that was given. labels: by id. crowd: [m] of
    the true boxes. scores: [n] of the predicted ones, finite. by_label, agnostic: [n] matches; their `pair` is an index
    into `truth`. by_shape: the same two by what outlines share, where the truth has any; those of boxes elsewhere.
    answers: [I] what was answered to each image; its regions are the predicted boxes, in their order.
    """

    result: Result
    place: tuple[int, ...]
    labels: tuple[str, ...]
    truth: Flat
    crowd: Bools
    predicted: Flat
    scores: Floats
    by_label: Matches
    agnostic: Matches
    by_shape: tuple[Matches, Matches]
    answers: tuple[Row | None, ...]


def evaluate(
    truth: Iterable[TruthImage],
    header: Header,
    rows: Iterable[Row],
    *,
    max_detections: int | None = None,
    synonyms: Synonyms | None = None,
    proposed_by: Mapping[str, Any] | None = None,
    radius: str = RADIUS,
) -> Evaluated:
    """Measure `rows`, predictions under `header`, against `truth`.

    max_detections: how many boxes of an image (and label) AP and AR look at, those of highest score. None: COCO's 100,
    or LVIS's 300 of an image where the truth is federated, as it is when an image says which labels are absent or
    incomplete in it. synonyms: labels must be the same text to be the same, once each is the name it stands for.
    proposed_by: from what the table follows beside the truth, such as a model; the contract names it then.
    radius: within which a predicted point finds a true one, as `Radius` reads it.
    Where the truth has polygons or quads, overlap is also measured between outlines. Points have no box: they are
    measured apart from all else.
    The order of `truth` and of `rows` changes nothing. Counted and said in the result's notes: images without a
    prediction (as empty answers), predictions of images that the ground truth does not have (left out), one row several
    times (it counts once), boxes without a score (ranked last, left out of the calibration), boxes that are none, such
    as x2 < x1 (they overlap nothing), images with more true boxes than AP looks at.
    Raises InputError when there is no image, none of the predicted ones is known, a size differs, or an image has two
    rows that differ.
    """
    # Images that were drawn or decoded are not held; of what was asked, the questions alone that may list categories.
    images = [
        attrs.evolve(item, open=_closed, messages=item.messages[-1:] if item.categories else ()) for item in truth
    ]
    rows = list(rows)

    def measure(images: Sequence[TruthImage], rows: Sequence[Row]) -> Evaluated:
        return _evaluate(images, header, rows, max_detections=max_detections, synonyms=synonyms, radius=radius)

    # Answers in text have no boxes; where all are, the whole is empty.
    spoken = {image.key for image in images if image.is_text}
    kept = [index for index, image in enumerate(images) if image.key not in spoken] or [*range(len(images))]
    if len(kept) < len(images):
        given = [row for row in rows if row.image not in spoken]
        evaluated = measure([images[index] for index in kept], given)
        evaluated = attrs.evolve(evaluated, place=tuple(kept[index] for index in evaluated.place))
    else:
        evaluated = measure(images, rows)
    if proposed_by is not None:
        evaluated.result.contract["labels"] = same_labels(synonyms or {}, proposed_by)
    tasks = by_task(images, rows, synonyms or {}, radius, measure)
    if tasks:
        evaluated.result.tasks = tasks
        evaluated.result.contract["tasks"] = {name: MEASURES[name] for name in tasks}
    return evaluated


def _closed() -> NoReturn:
    raise RuntimeError("the images of an evaluation are not looked at")


def _evaluate(
    truth: Sequence[TruthImage],
    header: Header,
    rows: Sequence[Row],
    *,
    max_detections: int | None,
    synonyms: Synonyms | None,
    radius: str,
) -> Evaluated:
    """`evaluate` without the figures of each task."""
    quantisation = Quantisation.from_dict(header.quantisation, source="the predictions' header: quantisation")
    within = Radius.read(radius)
    known = Truth(truth, quantisation, synonyms)
    limit = max_detections or (LVIS_MAX_DETECTIONS if known.federated else MAX_DETECTIONS)
    account = Account()
    answers = by_image(known, rows, account)
    predicted, scores = known.predicted(answers, account)
    ap, by_box = _measured(known, predicted, scores, limit)
    by_label, agnostic = by_box
    detail = _detail(known, answers, predicted, scores, by_label, agnostic)
    outlined: dict[str, float | None] = {}
    by_shape = by_box
    if known.outlined:
        outlined, by_shape = _by_outline(known, answers, predicted, scores, limit, detail)
    pointed = _of_points(known, answers, within, detail, account)
    sums = metrics.weighted(
        metrics.per_image(results.images(detail), results.found(detail.by_label), results.found(detail.agnostic)),
        np.ones((1, len(known.keys))),
    )
    distorted = caveats(known, account)
    _explain(known, predicted, by_label, quantisation, limit, account)
    values = _ap_metrics(ap, _oracle(known, limit)) | {name: value[0] for name, value in metrics.ratios(sums).items()}
    values |= outlined | pointed
    result = Result(
        evaluation=results.VERSION,
        checkpoint=header.checkpoint,
        contract=contract(
            header,
            known.description(),
            max_detections=limit,
            federated=known.federated,
            areas=known.flat.areas is not None,
            synonyms=known.synonyms,
            radius=within.text if pointed else None,
        ),
        metrics={name: None if value is None or np.isnan(value) else float(value) for name, value in values.items()},
        counts=account.counts | {"images": len(known.keys), "true_boxes": int((~known.crowd).sum())},
        notes=account.notes,
        caveats=distorted,
        labels=_label_table(known, predicted, ap[True]),
        calibration={
            name: metrics.calibration_table(sums[f"{prefix}calibration"][0])
            for name, prefix in (("by_label", ""), ("agnostic", AGNOSTIC))
        },
        curves={"by_label": ap[True].curve, "agnostic": ap[False].curve},
        detail=detail,
    )
    return Evaluated(
        result=result,
        place=tuple(known.place),
        labels=tuple(known.labels),
        truth=known.flat,
        crowd=known.crowd,
        predicted=predicted,
        scores=scores,
        by_label=by_label,
        agnostic=agnostic,
        by_shape=by_shape,
        answers=tuple(answers),
    )


def _explain(
    truth: Truth, predicted: Flat, by_label: Matches, quantisation: Quantisation, limit: int, account: Account
) -> None:
    """Notes on what the numbers cannot say."""
    real = ~truth.crowd
    account.counts["predicted_boxes"] = len(predicted)
    without = len(truth.keys) - len(np.unique(truth.flat.image[real]))
    account.counts["images_without_truth"] = without
    judged = " where its label was looked for" if truth.federated else ""
    if not real.any() and not truth.points and not truth.targets:
        account.notes.append(
            f"the ground truth holds no boxes: AP, recall and IoU have no value; every box is a mistake{judged}"
        )
    elif without and real.any():
        account.notes.append(f"{without} images have no true boxes: what is predicted there is a mistake{judged}")
    new = predicted.label >= truth.true_labels
    names = list(truth.labels)[truth.true_labels :]
    account.count(
        "boxes_of_unknown_labels",
        int(new.sum()),
        f"{new.sum()} predicted boxes have labels that no true box has ({some(names)}): AP by label leaves them out, "
        "as COCO's does; precision, F1 and the class-agnostic metrics count them"
        + (" in images where they were looked for" if truth.federated else ""),
    )
    flat = (truth.flat.boxes[real, 2:] <= truth.flat.boxes[real, :2]).any(1)
    account.count(
        "flat_true_boxes", int(flat.sum()), f"{flat.sum()} true boxes have no area: no prediction can match them"
    )
    if truth.outlined:
        lines = sum(
            not has_area(outline)
            for image in truth.images
            for index, outline in image.outlines.items()
            if not image.crowd[index]
        )
        account.count(
            "flat_true_outlines",
            lines,
            f"{lines} true polygons and quads have no area: no prediction can match them by outline (shape_...)",
        )
    per_image = np.bincount(truth.flat.image[real], minlength=len(truth.keys))
    full = np.flatnonzero(per_image > limit)
    account.count(
        "images_of_many_boxes",
        len(full),
        f"{len(full)} images have more than {limit} true boxes, up to {per_image.max()} "
        f"({some([truth.images[index].key for index in full])}), but AP and AR look at the best {limit} predicted ones "
        + (
            "of an image, as LVIS's do; "
            if truth.federated
            else "of an image and label (of an image, where labels are not looked at), as COCO's do; "
        )
        + f"--max-detections {per_image.max()} (max_detections of [eval.detection]) looks at more",
    )
    if truth.federated:
        unjudged = truth.unjudged(predicted)
        spared = int((unjudged & (by_label.of_all_sizes()[0] == 0)).sum())
        account.count(
            "unjudged_boxes",
            spared,
            f"{spared} predicted boxes that found no true box of their label count as no mistakes: nobody looked for "
            "it in their image, or not for all of its objects (metadata.absent_categories and incomplete_categories)",
        )
    if truth.merged:
        listed = f"({some(list(truth.merged))})"
        account.notes.append(f"{len(truth.merged)} labels of the ground truth {listed} were taken for their synonyms")
    if truth.in_bins and real.any():
        account.notes.append(
            f"the ground truth holds bins of {quantisation}: what quantising cost is not in these records, "
            "and the ceiling is that of bins scored against themselves"
        )


def caveats(truth: Truth, account: Account) -> list[str]:
    """What must stand beside every AP because it distorts it, one sentence each."""
    federated = sum(image.federated for image in truth.images)
    account.counts["federated_images"] = federated
    silent = len(truth.images) - federated
    if not federated or not silent:
        return []
    return [
        f"{federated} of {len(truth.images)} images say which labels are absent or incomplete in them, as LVIS's do; "
        f"the other {silent} say nothing and are measured the same way: predicted boxes of labels that are not marked "
        "there count as no mistakes, so that AP is too high where everything is marked"
    ]


def _detail(
    truth: Truth,
    answers: Sequence[Row | None],
    predicted: Flat,
    scores: Floats,
    by_label: Matches,
    agnostic: Matches,
) -> Detail:
    real = ~truth.crowd
    rows = [row for row in answers if row is not None]
    given = [box for row in rows for box in row.regions]
    hits = _hits(truth, predicted, scores)
    return Detail(
        images=list(truth.keys),
        labels=list(truth.labels),
        truth_image=truth.flat.image[real].tolist(),
        truth_label=truth.flat.label[real].tolist(),
        unread=[row is not None and was_seen(row) and bool(row.unread) for row in answers],
        unfinished=[row is not None and row.stopped != "end" for row in answers],
        image=predicted.image.tolist(),
        label=predicted.label.tolist(),
        score=[box.score if np.isfinite(box.score) else None for box in given],
        duplicate=[box.duplicate for box in given],
        by_label=results.outcome(by_label, hits[0]),
        agnostic=results.outcome(agnostic, hits[1]),
    )


def _by_outline(
    truth: Truth, answers: Sequence[Row | None], predicted: Flat, scores: Floats, limit: int, detail: Detail
) -> tuple[dict[str, float | None], tuple[Matches, Matches]]:
    """AP and the like by how far outlines overlap, and the matches. detail: is told what became of each box."""
    outlines = truth.outlines()
    flat = attrs.evolve(truth.flat, outlines=outlines)
    boxes = attrs.evolve(predicted, outlines=truth.predicted_outlines(answers, predicted.boxes))
    ap, matches = _measured(truth, boxes, scores, limit, flat)
    hits = _hits(truth, boxes, scores, flat)
    detail.by_outline, detail.agnostic_by_outline = (
        results.outcome(found, hit) for found, hit in zip(matches, hits, strict=True)
    )
    best = _best(truth, truth.grid_outlines())
    oracle = _measured(truth, best, np.ones(len(best)), limit, flat)[0]
    values: dict[str, float | None] = {}
    for by_label, prefix in ((True, ""), (False, AGNOSTIC)):
        for name in ("AP", *(f"AP{percent}" for percent in THRESHOLD_AT)):
            values[f"{prefix}{OUTLINE}{name}"] = ap[by_label].metrics[name]
            values[f"oracle_{prefix}{OUTLINE}{name}"] = oracle[by_label].metrics[name]
    ratios = resampling.outline_ratios(detail, np.ones((1, len(truth.keys))))
    return values | {name: float(value[0]) for name, value in ratios.items()}, matches


def _of_points(
    truth: Truth, answers: Sequence[Row | None], radius: Radius, detail: Detail, account: Account
) -> dict[str, float | None]:
    """The metrics of points, where there are any. detail: is told the sums of each image."""
    predicted = sum(len(row.boxes) - len(row.regions) for row in answers if row is not None)
    if not truth.points and not truth.targets and not predicted:
        return {}
    account.counts |= {"true_points": truth.points, "predicted_points": predicted}
    sums = points.per_image(truth.on_images(answers), radius)
    detail.points = {name: column.tolist() for name, column in sums.items()}
    ratios = points.ratios(metrics.weighted(sums, np.ones((1, len(truth.keys)))))
    return {name: float(value[0]) for name, value in ratios.items()}


def _hits(truth: Truth, predicted: Flat, scores: Floats, flat: Flat | None = None) -> tuple[Bools, Bools]:
    """[I], with and without labels: whether the box of highest score reaches IoU .5 with the image's only true box."""
    real = np.flatnonzero(~truth.crowd)
    images, first, count = np.unique(truth.flat.image[real], return_index=True, return_counts=True)
    only = np.full(len(truth.keys), -1)
    only[images[count == 1]] = real[first[count == 1]]
    order = np.lexsort((-scores, predicted.image))  # stable: of equal scores, the first of the answer
    images, first = np.unique(predicted.image[order], return_index=True)
    top = order[first][only[images] >= 0]
    target = only[predicted.image[top]]
    if flat is None:
        near = overlaps(truth.flat.boxes[target], truth.crowd[target], predicted.boxes[top]) >= 0.5
    else:
        near = outline_overlaps(flat, truth.crowd, predicted, top, target) >= 0.5
    by_label, agnostic = np.zeros((2, len(truth.keys)), dtype=bool)
    agnostic[predicted.image[top]] = near
    by_label[predicted.image[top]] = near & (predicted.label[top] == truth.flat.label[target])
    return by_label, agnostic


def _measured(
    truth: Truth, predicted: Flat, scores: Floats, limit: int, flat: Flat | None = None
) -> tuple[dict[bool, AveragePrecision], tuple[Matches, Matches]]:
    """AP with and without labels, and the matches of both. flat: the truth with its outlines."""
    unjudged = truth.unjudged(predicted)
    sides = (flat or truth.flat, truth.crowd, predicted, scores)
    matches = {way: match(*sides, by_label=way, limit=limit, unjudged=unjudged) for way in (True, False)}
    ap = {
        way: average_precision(*sides, matches[way], by_label=way, frequency=truth.frequency if way else None)
        for way in (True, False)
    }
    return ap, (matches[True], matches[False])


def _oracle(truth: Truth, limit: int) -> dict[bool, AveragePrecision]:
    """The ceiling: the truth, quantised, scored against itself; with and without labels."""
    best = _best(truth)
    return _measured(truth, best, np.ones(len(best)), limit)[0]


def _best(truth: Truth, outlines: Sequence[Floats] | None = None) -> Flat:
    real = ~truth.crowd
    return Flat(
        image=truth.flat.image[real],
        label=truth.flat.label[real],
        boxes=truth.on_grid[real],
        outlines=None if outlines is None else [outlines[index] for index in np.flatnonzero(real).tolist()],
    )


def _ap_metrics(ap: dict[bool, AveragePrecision], oracle: dict[bool, AveragePrecision]) -> dict[str, float | None]:
    """AP and AR with and without labels, and the ceiling of every AP."""
    values: dict[str, float | None] = {}
    for by_label, prefix in ((True, ""), (False, AGNOSTIC)):
        values |= {prefix + name: value for name, value in ap[by_label].metrics.items()}
        ceilings = oracle[by_label].metrics.items()
        values |= {f"oracle_{prefix}{name}": value for name, value in ceilings if name.startswith("AP")}
    return values


def _label_table(truth: Truth, predicted: Flat, ap: AveragePrecision) -> list[dict[str, Any]]:
    true_boxes = np.bincount(truth.flat.label[~truth.crowd], minlength=len(truth.labels))
    boxes = np.bincount(predicted.label, minlength=len(truth.labels))
    table = []
    for name, label in truth.labels.items():
        values = ap.by_label.get(label, (None, None))
        counts = {"true_boxes": int(true_boxes[label]), "predicted_boxes": int(boxes[label])}
        table.append({"label": name, **counts, "AP": values[0], "AP50": values[1]})
    return sorted(table, key=lambda row: -row["true_boxes"])
