"""Referring expressions: one expression, one box. Each becomes a record of the task "refer", or those of an image the
objects of one record.

Two forms. Rows (JSONL, or a JSON array): an image, an expression and a `bbox`, whose order and space no file of this
kind declares, so `--boxes` and `--from-space` must. REFER's refs (RefCOCO, RefCOCO+, RefCOCOg) as JSON, an array of
`ann_id` and `sentences`, with `--instances` for the COCO file that holds the boxes, read as `coco` reads it.
Not carried: parsed or tokenised sentences, polygons. The pickle that REFER ships is never read: it could run code.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from coordcore import InputError
from coordcore_data.convert.coco import file_of, repeated_ids, shape_of
from coordcore_data.convert.coco_file import load
from coordcore_data.convert.core import Account, Found, Reading, Shape, SourceImage, corners
from coordcore_data.convert.ids import Id, Ids
from coordcore_data.convert.text import (
    UnreadableError,
    clean_path,
    json_lines,
    load_whole,
    loose_structure,
    parse_json,
    structure,
)

_IMAGE_KEYS = ("image", "img_path", "image_path", "file_name", "filename")
_EXPRESSION_KEYS = ("expression", "sent", "sentence", "phrase", "caption", "text")


class _Ref(msgspec.Struct):
    ann_id: Id
    image_id: Id
    sentences: list[Any]
    split: str | None = None


class _Row(msgspec.Struct):
    """bbox: as the row has it. width, height, split: None when it does not say."""

    bbox: list[float]
    width: int | float | None = None
    height: int | float | None = None
    split: str | None = None


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError for a file of another kind, and when what the file does not declare is not given."""
    if source.suffix in (".p", ".pkl", ".pickle"):
        raise InputError(f"{source}: a pickle can run code when it is read; save the refs as JSON")
    if reading.instances is not None:
        return _per(reading, _from_refs(source, reading.instances, account), account)
    if reading.boxes is None or reading.space not in ("pixel", "norm1"):
        raise InputError(
            f"{source}: rows do not say what their boxes are: give --boxes (xyxy, xywh, cxcywh or yxyx) and "
            "--from-space (pixel or norm1); or --instances FILE, if these are REFER's refs"
        )
    return _per(reading, _group(_rows(source, account), reading, account), account)


def _per(reading: Reading, images: Mapping[Any, SourceImage], account: Account) -> Found:
    """The images as they are, or one for each of their expressions, of which each is counted as an image."""
    if reading.per == "image":
        return Found(images=iter(images.values()), total=len(images))
    count = sum(len(image.shapes) for image in images.values())
    account.images.read += count - len(images)
    return Found(images=(_of(image, shape) for image in images.values() for shape in image.shapes), total=count)


def _of(image: SourceImage, shape: Shape) -> SourceImage:
    return msgspec.structs.replace(image, shapes=[shape], asked={"task": "refer"})


def _rows(source: Path, account: Account) -> Iterator[tuple[str, Any]]:
    """(where, row), of JSON lines or of a JSON array."""
    if source.suffix == ".json":
        content = load_whole(source)
        if not isinstance(content, list):
            raise InputError(f"{source}: expected an array of rows; is it a COCO file, or REFER's?")
        yield from ((f"row {index}", row) for index, row in enumerate(content))
        return
    for number, line in json_lines(source):
        try:
            yield f"line {number}", parse_json(line)
        except UnreadableError as error:
            account.objects.read += 1
            account.drop_object(error.reason, f"line {number}", error.detail)


def _group(rows: Iterable[tuple[str, Any]], reading: Reading, account: Account) -> dict[str, SourceImage]:
    images: dict[str, SourceImage] = {}
    named: dict[str, str] = {}
    for where, given in rows:
        expressions = _expressions(given)
        account.objects.read += max(len(expressions), 1)
        file = _first(given, _IMAGE_KEYS)
        try:
            row = loose_structure(given, _Row)
            problem = "" if len(row.bbox) == 4 else "bbox is not 4 numbers"
        except UnreadableError as error:
            problem = f"row not readable: {error.reason}"
        if not problem and not (isinstance(file, str) and file and expressions):
            problem = f"row without one of {', '.join(_IMAGE_KEYS)}, or one of {', '.join(_EXPRESSION_KEYS)}"
        if problem:
            account.drop_object(problem, where, count=max(len(expressions), 1))
            if isinstance(file, str) and file:
                named.setdefault(clean_path(file), where)
            continue
        path = clean_path(str(file))
        if path not in images:
            account.images.read += 1
            images[path] = SourceImage(
                file=path,
                width=row.width,
                height=row.height,
                shapes=[],
                fractions=reading.space == "norm1",
                split=row.split,
            )
        if (row.width, row.height) != (images[path].width, images[path].height):
            account.drop_object("size differs from that of the image's first row", where, count=len(expressions))
            continue
        if row.split != images[path].split:
            account.note("image in two splits: it goes to the first", path)
        box = corners(row.bbox, reading.boxes or "xyxy")
        images[path].shapes += [Shape(label=expression, box=box, name=where) for expression in expressions]
    _drop_unused(named, images, account)
    return images


def _drop_unused(named: Mapping[Any, str], images: Container[Any], account: Account) -> None:
    """Count the images of which no expression could be used. named: image -> where it was named first."""
    for image, where in named.items():
        if image not in images:
            account.images.read += 1
            account.drop_image("none of its expressions could be used", image, where)


def _expressions(row: Any) -> list[str | None]:
    given = _first(row, _EXPRESSION_KEYS)
    if isinstance(given, list):
        return [entry if isinstance(entry, str) else None for entry in given]
    return [given] if isinstance(given, str) else []


def _first(row: Any, keys: tuple[str, ...]) -> Any:
    return next((row[key] for key in keys if key in row), None) if isinstance(row, dict) else None


# --- REFER's refs ---------------------------------------------------------------------------------------------------


def _from_refs(source: Path, instances: Path, account: Account) -> dict[Id, SourceImage]:
    refs = load_whole(source)
    if not isinstance(refs, list):
        raise InputError(f"{source}: expected an array of refs, each with ann_id, image_id and sentences")
    of_instances = Account()  # whose objects are not those of the refs
    content = load(instances, False, of_instances)
    annotations = [annotation for annotation in content.annotations if annotation.id is not None]
    if twice := repeated_ids(content.images) or repeated_ids(annotations):
        raise InputError(f"{instances}: id {twice!r} occurs twice; the refs would be ambiguous")
    known = {item.id: item for item in content.images}
    boxes = {annotation.id: annotation for annotation in annotations}
    image_ids, annotation_ids = Ids(known), Ids(boxes)
    images: dict[Id, SourceImage] = {}
    named: dict[Id, str] = {}
    for index, given in enumerate(refs):
        where = f"refs[{index}]"
        try:
            ref = structure(given, _Ref)
        except UnreadableError as error:
            count = _count_sentences(given)
            account.objects.read += count
            account.drop_object(f"ref not readable: {error.reason}", where, count=count)
            continue
        sentences = [_sentence(sentence) for sentence in ref.sentences]
        account.objects.read += max(len(sentences), 1)
        image_id, ann_id = image_ids.find(ref.image_id), annotation_ids.find(ref.ann_id)
        other = ann_id is None or image_ids.find(boxes[ann_id].image_id) != image_id
        if image_id is None or ann_id is None or other or not sentences:
            reason = "ref without sentences" if not sentences else "ref to an image or box that the instances lack"
            account.drop_object(reason, where, ref.ann_id, count=max(len(sentences), 1))
            named.setdefault(ref.image_id if image_id is None else image_id, where)
            continue
        image = known[image_id]
        try:
            shape = shape_of(boxes[ann_id], image, None, Reading(), of_instances)
        except UnreadableError as error:
            account.drop_object(error.reason, where, ref.ann_id, error.detail, count=len(sentences))
            named.setdefault(image_id, where)
            continue
        if image.id not in images:
            account.images.read += 1
            images[image.id] = SourceImage(
                file=file_of(image),
                width=image.width,
                height=image.height,
                shapes=[],
                id=image.id,
                split=ref.split,
            )
        if ref.split != images[image.id].split:
            account.note("image in two splits: it goes to the first", file_of(image))
        images[image.id].shapes += [
            msgspec.structs.replace(shape, label=sentence, crowd=False, name=f"ann_id {ref.ann_id}")
            for sentence in sentences
        ]
    _drop_unused(named, images, account)
    return images


def _count_sentences(ref: Any) -> int:
    given = ref.get("sentences") if isinstance(ref, dict) else None
    return max(len(given), 1) if isinstance(given, list) else 1


def _sentence(given: Any) -> str | None:
    """The sentence of an entry of `sentences`: `sent` is REFER's cleaned form, on which its results are reported."""
    if isinstance(given, dict):
        given = given.get("sent", given.get("raw"))
    return given if isinstance(given, str) else None
