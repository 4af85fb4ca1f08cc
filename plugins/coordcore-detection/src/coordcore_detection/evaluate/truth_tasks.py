"""What the records of a file ask, when a model is evaluated on them: first wordings, no epochs. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np

from coordcore.errors import InputError
from coordcore.quantisation import Quantisation, encode_boxes
from coordcore.records.annotations import Rules, read_annotations
from coordcore.records.asking import INCOMPLETE, asked_categories, question_of
from coordcore.records.record import Record, RecordError, labels_under
from coordcore.tasks import ABSENT, TASKS
from coordcore_detection.evaluate.truth import Boxes, TruthImage


@attrs.frozen(kw_only=True)
class Asking:
    """How a file is asked. prompts: by task; of one that has none, the usual prompt is asked. rules, quantisation: what
    numbers in the records are, and how the question says them; coord_tokens: False says the same bins in numbers."""

    prompts: Mapping[str, str]
    rules: Rules
    quantisation: Quantisation
    coord_tokens: bool = True

    def asked(self, image: TruthImage, record: Record, number: int, labels: tuple[str, ...]) -> TruthImage:
        """`image` with what its record asks, and what that makes of its boxes.

        number: of the record's line, from 1, which decides what is drawn. labels: of the records with the task "named".
        Raises RecordError where there is nothing to ask for.
        """
        task = record.task or "detect"
        categories = tuple(asked_categories(record, labels, ABSENT, f"{number}") if task == "named" else ())
        box = self._box(record) if task == "region" else ""
        question = question_of(record, self.prompts.get(task), categories=categories, box=box)
        messages = (*image.messages[:-1], {"role": "user", "content": f"<image>{question}"})
        unsure = labels_under(record, INCOMPLETE) if task == "named" else []
        is_text = TASKS[task].is_text
        told = not is_text and task != "point"
        kept = np.array([told and label not in unsure for label in image.labels], dtype=bool)
        places = {old: new for new, old in enumerate(np.flatnonzero(kept).tolist())}
        return attrs.evolve(
            image,
            messages=messages,
            task=task,
            question=record.question,
            categories=categories,
            answer=record.answer or "",
            labels=tuple(label for label, keep in zip(image.labels, kept, strict=True) if keep),
            boxes=image.boxes[kept],
            crowd=image.crowd[kept],
            areas=None if image.areas is None else image.areas[kept],
            outlines={places[index]: outline for index, outline in image.outlines.items() if index in places},
            points=tuple(point for point in image.points if not is_text and point[0] not in unsure),
            targets=_targets(image) if task == "point" else (),
            kinds=image.kinds if told else frozenset() if is_text else frozenset({"point"}),
        )

    def _box(self, record: Record) -> str:
        """The place of a record's one object as a question says it, in every answer format."""
        item = next(item for item in read_annotations(record, self.rules) if not item.crowd)
        bins = item.values
        if self.rules.space != "bin":
            size = (record.width, record.height) if self.rules.space == "pixel" else (1, 1)
            bins = _encoded(item.kind, item.values, size, self.quantisation, item.path)
        coords, whole = self.rules.coords, [int(k) for k in bins]
        said = [coords.written[k] for k in coords.arranged(whole)] if self.coord_tokens else map(str, whole)
        return f"[{', '.join(said)}]"


def _targets(image: TruthImage) -> tuple[tuple[str, Boxes], ...]:
    found = zip(image.labels, image.boxes, image.crowd, strict=True)
    return tuple((label, box) for label, box, crowd in found if not crowd)


def _encoded(
    kind: str, values: tuple[float, ...], size: tuple[int, int], quantisation: Quantisation, path: str
) -> tuple[float, ...]:
    """The bins of a geometry that may reach over the edge of its image, as training writes them."""
    if kind == "bbox_2d":
        bins = encode_boxes([values], *size, quantisation=quantisation, outside="clip").bins[0]
    else:
        try:
            bins = quantisation.encode(values, size * (len(values) // 2), outside="clip")
        except InputError as error:
            raise RecordError(path, str(error)) from error
    found: tuple[float, ...] = tuple(bins.tolist())
    return found


def read_prompts(given: Sequence[str]) -> dict[str, str]:
    """`--prompt TASK=TEXT` by task. Raises InputError for a task that has no prompt, or a text without its place."""
    prompts = {}
    for entry in given:
        name, is_there, text = entry.partition("=")
        known = [task for task, what in TASKS.items() if what.prompt and task != "detect"]
        if not is_there or name not in known:
            raise InputError(f"--prompt: {entry!r} does not begin with a task and '=': {', '.join(known)}")
        needs = f"{{{TASKS[name].placeholder}}}" if TASKS[name].placeholder else ""
        if not text.strip() or needs not in text:
            raise InputError(
                f"--prompt: {entry!r} lacks {needs or 'a text'}; write --prompt '{name}={TASKS[name].prompt}'"
            )
        prompts[name] = text
    return prompts
