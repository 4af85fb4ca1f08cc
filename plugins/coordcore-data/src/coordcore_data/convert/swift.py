"""Chat rows for training, as ms-swift reads them: `messages` and `images`, boxes in `objects` or in the answer's text.

`objects` holds `ref` and `bbox` lists, pixels ("real", its default) or fractions ("norm1"). The messages say what
belongs together: in their order, each `<ref-object>` stands for the next ref and each `<bbox>` for the next box. A box
belongs to the ref beside it in its message, or to the only one in the message that it answers. Without `<bbox>`, the
n-th ref names the n-th box, and a single one all. A box of two numbers is a point and goes under `metadata.points`. A
row of several images becomes one record for each, by `image_id`. What stands in a thought (`<think>`) is no answer: its
placeholders take their refs and boxes, which name nothing and are dropped.

Boxes, points, polygons and quads that are written into the answer's text are read as `--from-space` declares them. An
answer of `[]` is the only one that says "nothing is there", where every answer of the row is one. Of an image that has
boxes in another row, or may have them in one that was not read, it says so of what was asked for alone: its row is
dropped unless that is a phrase or categories. Rows that could mean several things are dropped too.
`conversations` (ShareGPT, LLaVA), and `query` with `response`, are read as `messages`.

A row of one question that is answered with boxes, or with nothing, asks for what its one `<ref-object>` names: a record
of the task "refer", or "point" where the answer is points; or for what it says in the words of `SwiftWriter`. Any other
question is carried where the rows of its image ask different ones, and else counted: its record asks the usual one.

A row of one question that is answered in words alone becomes a record of the task "chat", "caption" or "region"
(`chat_texts`). Of all other rows what is said is not carried, but for the refs of a question that is answered with
nothing (`metadata.asked`). For COCO files, which list an image once, no question is. Sizes come from the image files,
since the rows have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import msgspec

from coordcore import InputError
from coordcore_data.convert.chat import Turn, boxes_in, located, pictures, turns
from coordcore_data.convert.chat_asked import Question, asked_by, asked_once
from coordcore_data.convert.chat_texts import AS_THEY_ARE, REGION, asked_in_words, is_about_a_box
from coordcore_data.convert.core import TURNED, Account, Found, Reading, Shape, SourceImage
from coordcore_data.convert.placeholders import asked_for, labels_of, without_thoughts
from coordcore_data.convert.text import UnreadableError, clean_path, count_in, json_rows, loose_structure, structure

_NOT_ASKED = "question: not carried, its record asks the usual one"
_IN_WORDS = "answer without boxes that is not []"

_OUTLINES = {"poly": "polygon", "quad": TURNED}
"""Kind in an answer -> what it was, for the account."""


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
    system: Any = None
    label: Any = None


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError when the file cannot be opened. reading.space: what numbers in the text of answers are."""
    if reading.boxes not in (None, "xyxy"):
        raise InputError(f"{source}: boxes of answers are read as two corners: --boxes xyxy, not {reading.boxes}")
    unread: set[str] = set()
    found = list(_images(source, reading.images or source.parent, reading, account, unread))
    boxed = {image.file for image, _ in found if image.shapes or image.lost}
    for image, _ in found:
        if not image.shapes and not image.undeclared and not image.asked and image.file in boxed | unread:
            how = "has boxes in" if image.file in boxed else "may have boxes in"
            image.undeclared = f"answered with nothing, but the image {how} another row"
    _ask(found, reading, account)
    return Found(images=(image for image, _ in found), total=len(found))


def _ask(found: Sequence[tuple[SourceImage, _Asked]], reading: Reading, account: Account) -> None:
    """Let the records of an image ask their own questions where these differ; the others are counted."""
    questions: dict[str, set[str]] = {}
    for image, asked in found:
        if asked.said:
            questions.setdefault(image.file, set()).add(asked.said)
    for image, asked in found:
        question = asked.question
        dropped = image.undeclared and not image.shapes
        if image.asked or dropped or not asked.said or (question and question.is_usual):
            continue
        if question and reading.per != "image" and len(questions[image.file]) > 1:
            image.asked = {"question": question.text}
        else:
            account.note(_NOT_ASKED, asked.where, repr(asked.said[:60]))


def _images(
    source: Path, folder: Path, reading: Reading, account: Account, unread: set[str]
) -> Iterator[tuple[SourceImage, _Asked]]:
    """Each image with what its row asks. unread: gets the image files of rows that could not be read."""
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
    """owner: the index of its image. draft: whether it stands in a thought. outline: what its corners draw, if any."""

    label: str | None
    values: Any
    owner: int
    name: str
    draft: bool = False
    outline: str | None = None


@attrs.frozen
class _Asked:
    """What a row asks for that is answered with boxes, or with nothing. said: all of it, "" of a row in words.

    question: None where a record cannot ask it.
    """

    said: str
    question: Question | None
    where: str


def _of_row(
    row: _Row, where: str, folder: Path, reading: Reading, account: Account, unread: set[str]
) -> Iterator[tuple[SourceImage, _Asked]]:
    given = row.images if row.images is not None else row.image
    listed = [given] if isinstance(given, str) else given or pictures(row)
    paths = [entry.get("path") if isinstance(entry, dict) else entry for entry in listed]
    files = [path for path in paths if isinstance(path, str) and path]
    objects = row.objects or _Objects()
    account.images.read += max(len(paths), 1)
    boxes, written, words = [], 0, {}
    try:
        if not files or len(files) < len(paths):
            raise UnreadableError(
                "row without the path of an image file"
                if paths or not row.messages
                else f"row without an image, which every record has; {AS_THEY_ARE}"
            )
        if row.label is False:
            raise UnreadableError("answer that its row calls rejected (label false)")
        said = turns(row)
        if is_about_a_box(said, objects.ref, len(objects.bbox)):
            words = asked_in_words(said, objects.ref, len(files))
            boxes = [_Box(REGION, objects.bbox[0], 0, f"box 0 on {where}")]
        else:
            boxes = _in_objects(objects, said, where)
        texts = [
            (turn.answer, boxes_in(turn, reading.coords))
            for turn in said
            if turn.answer is not None and "<bbox>" not in without_thoughts(turn.answer)
        ]
        written = sum(len(found.objects) for _, found in texts)
        if written and (not all(box.draft for box in boxes) or len(files) > 1):
            several = "of an answer about several images" if len(files) > 1 else "of an answer, and boxes in objects"
            raise UnreadableError(f"boxes in the text {several}: which belong where is not said")
        for text, found in texts:
            for item in found.objects:
                if item.kind == "point" and not reading.points:
                    raise UnreadableError("points in the text of the answer: --geometry point reads them")
                values = located(item, text, reading)
                boxes.append(_Box(item.desc, values, 0, f"{item.at} on {where}", outline=_OUTLINES.get(item.kind)))
    except UnreadableError as error:
        count = len(objects.bbox) + written
        account.objects.read += count
        unread.update(map(clean_path, files))
        for index in range(max(len(paths), 1)):
            account.drop_image(error.reason, where, error.detail, objects=0 if index else count)
        return
    account.objects.read += len(boxes)
    boxed = not all(box.draft for box in boxes)
    undeclared = (
        "image without boxes, in a row that has boxes" if boxed else _undeclared(said, [entry for _, entry in texts])
    )
    if undeclared == _IN_WORDS and not objects.bbox:
        try:
            words, undeclared = asked_in_words(said, objects.ref, len(files)), ""
        except UnreadableError as error:
            undeclared = error.reason
    if words:
        account.note(f'answer in words: a record of the task "{words["task"]}"', where)
        if row.system or any(turn.question != turn.user for turn in said):
            account.note("system message: not carried; `system` of [data.coord_jsonl] says one to all", where)
    question = None if words else asked_once(said, objects.ref, len(files))
    asks = "" if words else question.text if question else " ".join(turn.user for turn in said).strip()
    for image in _sorted(boxes, files, account):
        image.path = folder / image.file
        image.file = clean_path(image.file)
        image.fractions = objects.bbox_type == "norm1" if boxed and not written else reading.space != "pixel"
        if written and reading.space == "bin" and reading.quantisation is not None:
            image.inset = reading.quantisation.inset
        image.undeclared = undeclared
        image.asked = words
        if question is not None and reading.per != "image" and (image.shapes or not undeclared):
            image.asked = asked_by(question, image.shapes)
        if image.asked and not words:
            account.note(f'question: a record of the task "{image.asked["task"]}"', where)
        asked = [] if boxed or image.asked else asked_for(objects.ref, said)
        image.metadata = {"asked": asked} if asked else {}
        yield image, _Asked(asks, question, where)


def _undeclared(said: Sequence[Turn], texts: Sequence[Any]) -> str:
    """Why a row without boxes does not say that nothing is there, "" where it does."""
    answers = sum(turn.answer is not None for turn in said)
    if texts and len(texts) == answers and all(found.empty for found in texts):
        return ""
    if any(found.empty for found in texts):
        return "answered with nothing, and with something that is not read"
    return _IN_WORDS if any(turn.answer for turn in said) else "row without an answer"


def _sorted(boxes: Sequence[_Box], files: Sequence[str], account: Account) -> list[SourceImage]:
    """The images of a row with their boxes as shapes."""
    images = [SourceImage(file=file, width=None, height=None, shapes=[]) for file in files]
    seen: set[tuple[Any, ...]] = set()
    for box in boxes:
        if box.draft:
            account.drop_object("box in a thought, which is no answer", box.name)
            continue
        if not 0 <= box.owner < len(files):
            account.drop_object("image_id of an image that the row does not have", box.name, box.owner)
            for image in images:
                image.lost += 1
            continue
        image = images[box.owner]
        try:
            values: list[float] = loose_structure(box.values, list[float])
        except UnreadableError:
            values = []
        if (said := (box.owner, box.label, *values)) in seen and values:
            account.drop_object("box that its row holds twice", box.name)  # in a later turn, for instance
            continue
        seen.add(said)
        if box.outline is not None:
            image.shapes.append(Shape(label=box.label, poly=values, was=box.outline, name=box.name))
        elif len(values) == 4:
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
    labels = labels_of(count, objects.ref, said) if count else {}
    return [
        _Box(labels.get(index), bbox, owner, f"box {index} on {where}", draft=index not in labels)
        for index, (bbox, owner) in enumerate(zip(objects.bbox, owners, strict=True))
    ]
