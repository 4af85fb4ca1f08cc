"""Writing chat rows of ms-swift: a question, an answer, and the boxes that `<bbox>` stands for in both.

A row asks what its record asks, in the usual words of its task where the record has none of its own. Objects are
answered as a JSON list, `[{"bbox_2d": <bbox>, "label": "<ref-object>"}]` (`point_2d` for points), and none as `[]`.
Rows hold boxes and points: images with other shapes are dropped and counted. A box of the task "point" is answered
with its middle, as training reads it. No text holds a placeholder, which a record's cannot. Not carried: metadata,
summaries, crowd regions and points under metadata, which no answer says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

import attrs
import msgspec

from coordcore.records.asking import INCOMPLETE, question_of
from coordcore.records.record import Record
from coordcore.tasks import TASKS
from coordcore_data.convert.core import Account
from coordcore_data.convert.rules import FinalImage, FinalObject
from coordcore_data.convert.text import UnreadableError
from coordcore_data.convert.write import fractions

_KEYS = {"bbox_2d": "bbox_2d", "point": "point_2d"}


@attrs.define
class SwiftWriter:
    """One JSONL file of rows. in_fractions: boxes are 0..1 (`norm1`), else pixels (`real`)."""

    file: BinaryIO
    in_fractions: bool
    account: Account
    images: int = 0

    def add(self, image: FinalImage, path: str) -> None:
        """Write a row."""
        count = len(image.objects) + len(image.crowd) + len(image.points)
        try:
            row, said = self._row(image, path)
        except UnreadableError as error:
            self.account.drop_image(error.reason, path, error.detail, objects=count)
            return
        for what, shapes in (
            ("crowd region, which no answer says", image.crowd),
            ("points, which --geometry point or own writes as objects", image.points),
            ("of a category that is not asked for, since not all of its objects are marked", image.objects[said:]),
        ):
            if shapes:
                self.account.drop_object(what, path, count=len(shapes))
        self.file.write(msgspec.json.encode(row) + b"\n")
        self.images += 1
        self.account.images.written += 1
        self.account.objects.written += said

    def finish(self) -> None:
        """Rows are written as they come."""

    def _row(self, image: FinalImage, path: str) -> tuple[dict[str, Any], int]:
        """The row, and how many objects it holds: the first of the image's. Raises UnreadableError."""
        record = Record(images=[path], width=image.width, height=image.height, **image.asked)
        task = TASKS[record.task or "detect"]
        if kind := next((item.kind for item in image.objects if item.kind not in _KEYS), None):
            raise UnreadableError(f"{kind}, which a chat row cannot hold: --geometry box writes the box around it")
        categories = record.categories
        if record.task == "named" and categories is None:
            unsure = image.metadata.get(INCOMPLETE) or ()
            image.objects.sort(key=lambda item: item.desc in unsure)
            categories = list(dict.fromkeys(item.desc for item in image.objects if item.desc not in unsure))
            if not (categories or record.question):
                raise UnreadableError('the task "named", and no category to ask for; write `categories`')
        said = [item for item in image.objects if categories is None or item.desc in categories]
        if record.task == "point":
            for item in said:
                self._point(item, path)
        question = question_of(record, None, categories=tuple(categories or ()), box="<bbox>")
        answer = record.answer if task.is_text else _listed(said)
        row: dict[str, Any] = {
            "messages": [{"role": "user", "content": f"<image>{question}"}, {"role": "assistant", "content": answer}],
            "images": [path],
        }
        if said:
            row["objects"] = {
                "ref": [] if task.is_text else [item.desc for item in said],
                "bbox": [self._values(item, image) for item in said],
                "bbox_type": "norm1" if self.in_fractions else "real",
            }
        return row, len(said)

    def _point(self, item: FinalObject, path: str) -> None:
        """Make the middle of a box of it."""
        if item.kind == "bbox_2d":
            x1, y1, x2, y2 = item.values
            item.kind, item.values = "point", [(x1 + x2) / 2, (y1 + y2) / 2]
            self.account.note('box of the task "point": its middle is written', path)

    def _values(self, item: FinalObject, image: FinalImage) -> Sequence[float]:
        return fractions(item.values, image.width, image.height) if self.in_fractions else item.values


def _listed(objects: Sequence[FinalObject]) -> str:
    entries = [f'{{"{_KEYS[item.kind]}": <bbox>, "label": "<ref-object>"}}' for item in objects]
    return f"[{', '.join(entries)}]"
