"""Chat rows for training, as ms-swift reads them: `messages` and `images`, boxes in `objects` or in the answer's text.

`objects` holds `ref` and `bbox` lists, pixels ("real", its default) or fractions ("norm1"). The messages say what
belongs together: in their order, each `<ref-object>` stands for the next ref and each `<bbox>` for the next box. A box
belongs to the ref beside it in its message, or to the only one in the message that it answers. Without `<bbox>`, the
n-th ref names the n-th box, and a single one all. A box of two numbers is a point and goes under `metadata.points`. A
row of several images becomes one record for each, by `image_id`.

Boxes that are written into the answer's text are read as `--from-space` declares them. An answer of `[]` is the only
one that says "nothing is there", where every answer of the row is one. Of an image that has boxes in another row, or
may have them in one that was not read, it says so of what was asked for alone, and its row is dropped. Rows that could
mean several things are dropped too.
`conversations` (ShareGPT, LLaVA), and `query` with `response`, are read as `messages`.
Not carried: what is said, but for the refs of a question that is answered with nothing (`metadata.asked`). Sizes come
from the image files, since the rows have none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import msgspec

from coordcore import InputError
from coordcore.coords import ints_to_tokens
from coordcore.records.answers import parse_answer
from coordcore_data.convert.chat import Turn, boxes_in, located, pictures, turns
from coordcore_data.convert.core import Account, Found, Reading, Shape, SourceImage
from coordcore_data.convert.text import UnreadableError, clean_path, count_in, json_rows, structure

_PLACEHOLDER = re.compile(r"<ref-object>|<bbox>")
_REFS = "row whose refs do not match its boxes"
_UNCLEAR = "row that does not say which ref a box belongs to"
_DENIAL = re.compile(r"\W*(?:no|not|none|nothing|false|there (?:is|are) (?:no|not|none))\b|\s*\[\s*\]", re.IGNORECASE)


class _Objects(msgspec.Struct):
    bbox: list[Any] = []
    ref: list[str | None] = []
    bbox_type: Literal["real", "norm1"] | None = None
    image_id: list[int] | None = None


class _Row(msgspec.Struct):
    images: list[Any] | str | None = None
    image: list[Any] | str | None = None
    objects: _Objects | None = None
    messages: Any = None
    conversations: Any = None
    history: Any = None
    query: Any = None
    response: Any = None


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError when the file cannot be opened. reading.space: what numbers in the text of answers are."""
    if reading.boxes not in (None, "xyxy"):
        raise InputError(f"{source}: boxes of answers are read as two corners: --boxes xyxy, not {reading.boxes}")
    unread: set[str] = set()
    found = list(_images(source, reading.images or source.parent, reading, account, unread))
    boxed = {image.file for image in found if image.shapes or image.lost}
    for image in found:
        if not image.shapes and not image.undeclared and image.file in boxed | unread:
            how = "has boxes in" if image.file in boxed else "may have boxes in"
            image.undeclared = f"answered with nothing, but the image {how} another row"
    return Found(images=iter(found), total=len(found))


def _images(source: Path, folder: Path, reading: Reading, account: Account, unread: set[str]) -> Iterator[SourceImage]:
    """unread: gets the image files of rows that could not be read."""
    for where, line in json_rows(source):
        found: Any = None
        try:
            found = line()
            row = structure(found, _Row)
        except UnreadableError as error:
            count = count_in(found, "objects", "bbox")
            account.images.read += 1
            account.objects.read += count
            account.drop_image(error.reason, where, error.detail, objects=count)
            continue
        yield from _of_row(row, where, folder, reading, account, unread)


@attrs.frozen
class _Box:
    label: str | None
    values: Any
    owner: int
    name: str


def _of_row(
    row: _Row, where: str, folder: Path, reading: Reading, account: Account, unread: set[str]
) -> Iterator[SourceImage]:
    given = row.images if row.images is not None else row.image
    listed = [given] if isinstance(given, str) else given or pictures(row)
    paths = [one.get("path") if isinstance(one, dict) else one for one in listed]
    files = [one for one in paths if isinstance(one, str) and one]
    objects = row.objects or _Objects()
    account.images.read += max(len(paths), 1)
    boxes, written = [], 0
    try:
        if not files or len(files) < len(paths):
            raise UnreadableError("row without the path of an image file")
        said = turns(row)
        boxes = _in_objects(objects, said, where)
        texts = [
            (turn.answer, boxes_in(turn)) for turn in said if turn.answer is not None and "<bbox>" not in turn.answer
        ]
        written = sum(len(found.objects) for _, found in texts)
        if written and (boxes or len(files) > 1):
            several = "of an answer about several images" if len(files) > 1 else "of an answer, and boxes in objects"
            raise UnreadableError(f"boxes in the text {several}: which belong where is not said")
        for text, found in texts:
            for item in found.objects:
                if item.kind != "bbox_2d":
                    raise UnreadableError("polygons in the text of the answer: not read")
                boxes.append(_Box(item.desc, located(item, text, reading), 0, f"{item.at} on {where}"))
    except UnreadableError as error:
        count = len(objects.bbox) + written
        account.objects.read += count
        unread.update(map(clean_path, files))
        for index in range(max(len(paths), 1)):
            account.drop_image(error.reason, where, error.detail, objects=0 if index else count)
        return
    account.objects.read += len(boxes)
    asked = [ref for ref in dict.fromkeys(objects.ref) if ref]
    undeclared = (
        "image without boxes, in a row that has boxes" if boxes else _undeclared(said, [one for _, one in texts])
    )
    for image in _sorted(boxes, files, account):
        image.path = folder / image.file
        image.file = clean_path(image.file)
        image.fractions = objects.bbox_type == "norm1" if objects.bbox else reading.space != "pixel"
        if not objects.bbox and reading.space == "bin" and reading.quantisation is not None:
            image.inset = reading.quantisation.inset
        image.undeclared = undeclared
        image.metadata = {"asked": asked} if asked and not boxes else {}
        yield image


def _undeclared(said: Sequence[Turn], texts: Sequence[Any]) -> str:
    """Why a row without boxes does not say that nothing is there, "" where it does."""
    answers = sum(turn.answer is not None for turn in said)
    if texts and len(texts) == answers and all(found.empty for found in texts):
        return ""
    if any(found.empty for found in texts):
        return "answered with nothing, and with something that is not read"
    return "answer without boxes that is not []" if any(turn.answer for turn in said) else "row without an answer"


def _sorted(boxes: Sequence[_Box], files: Sequence[str], account: Account) -> list[SourceImage]:
    """The images of a row with their boxes as shapes."""
    images = [SourceImage(file=file, width=None, height=None, shapes=[]) for file in files]
    seen: set[tuple[Any, ...]] = set()
    for box in boxes:
        if not 0 <= box.owner < len(files):
            account.drop_object("image_id of an image that the row does not have", box.name, box.owner)
            for image in images:
                image.lost += 1
            continue
        image = images[box.owner]
        try:
            values: list[float] = structure(box.values, list[float])
        except UnreadableError:
            values = []
        if (said := (box.owner, box.label, *values)) in seen and values:
            account.drop_object("box that its row holds twice", box.name)  # in a later turn, for instance
            continue
        seen.add(said)
        if len(values) == 4:
            x1, y1, x2, y2 = values
            image.shapes.append(Shape(label=box.label, box=(x1, y1, x2, y2), name=box.name))
        elif len(values) == 2:
            image.shapes.append(Shape(label=box.label, points=values, name=box.name))
        else:
            account.drop_object("bbox that is neither 4 numbers nor 2", box.name)
            image.lost += 1
    return images


def _in_objects(objects: _Objects, said: Sequence[Turn], where: str) -> list[_Box]:
    """The boxes of `objects` under their refs. Raises UnreadableError for what could mean several things."""
    count = len(objects.bbox)
    # As ms-swift does: boxes without an image_id are on the first image.
    owners = [*(objects.image_id or []), *[0] * count][:count]
    labels = _labels(objects, said) if count else []
    return [
        _Box(label, bbox, owner, f"box {index} on {where}")
        for index, (label, bbox, owner) in enumerate(zip(labels, objects.bbox, owners, strict=True))
    ]


def _labels(objects: _Objects, said: Sequence[Turn]) -> list[str | None]:
    """The label of each box."""
    count, refs = len(objects.bbox), objects.ref
    text = "".join(turn.question + (turn.answer or "") for turn in said)
    boxes_placed, refs_placed = text.count("<bbox>"), text.count("<ref-object>")
    if boxes_placed not in (0, count):
        raise UnreadableError("row with another number of <bbox> than of boxes")
    if not boxes_placed or (refs and not refs_placed):
        if len(refs) not in (1, count):
            raise UnreadableError(_REFS)
        return refs * count if len(refs) == 1 else refs
    if refs_placed != len(refs):
        raise UnreadableError("row with another number of <ref-object> than of refs")
    labels: dict[int, str | None] = {}
    next_ref = next_box = 0
    for turn in said:
        sides = []
        for message in (turn.question, turn.answer or ""):
            sides.append(_Side(message, refs, next_ref, next_box))
            next_ref, next_box = next_ref + len(sides[-1].refs), next_box + len(sides[-1].boxes)
        asked, answered = sides
        named = re.fullmatch(r"(?:RB+)*", "".join(asked.order))
        if asked.boxes and asked.refs and (not named or _DENIAL.match(turn.answer or "")):
            raise UnreadableError("row that asks whether a box is of a ref: what its answer means is not read")
        labels |= asked.pair(answered.refs) | answered.pair(asked.refs)
    return [labels[index] for index in range(count)]


class _Side:
    """One message and what its placeholders stand for. order: "R" for a ref and "B" for a box, as they come."""

    def __init__(self, message: str, refs: Sequence[str | None], next_ref: int, next_box: int) -> None:
        self.order = ["R" if found[0] == "<ref-object>" else "B" for found in _PLACEHOLDER.finditer(message)]
        self.refs = list(refs[next_ref : next_ref + self.order.count("R")])
        self.boxes = list(range(next_box, next_box + self.order.count("B")))
        self.message = message

    def pair(self, others: Sequence[str | None]) -> dict[int, str | None]:
        """Box -> ref. others: the refs of the other message. Raises UnreadableError."""
        if not self.boxes:
            return {}
        if found := self._as_lists():
            return found
        known = set(self.refs or others)
        if len(known) == 1:
            return dict.fromkeys(self.boxes, known.pop())
        order = "".join(self.order)
        if not self.refs or not re.fullmatch(r"(?:RB+)+|(?:B+R)+", order):
            raise UnreadableError(_UNCLEAR)
        groups = re.findall("B+", order)
        boxes = iter(self.boxes)
        return {next(boxes): ref for group, ref in zip(groups, self.refs, strict=True) for _ in group}

    def _as_lists(self) -> dict[int, str | None]:
        """The same where the message is a list of objects, which has one reading; empty where it is none."""
        refs, boxes = iter(self.refs), iter(self.boxes)

        def fill(found: re.Match[str]) -> str:
            if found[0] == "<ref-object>":
                return json.dumps(next(refs) or "", ensure_ascii=False)[1:-1]
            number = next(boxes)
            return f"[{', '.join(ints_to_tokens([number // 1000, number % 1000, 999, 999]))}]"

        read = parse_answer(_PLACEHOLDER.sub(fill, self.message))
        pairs = {item.bins[0] * 1000 + item.bins[1]: item.desc for item in read.objects if len(item.bins) == 4}
        return dict(pairs) if sorted(pairs) == self.boxes else {}
