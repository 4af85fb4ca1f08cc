"""Records: one line of a JSONL file, one image and what is in it. Read strictly, or leniently with `LeftOut`.

docs/reference/records.md is the format. What the objects of a record say is read by `coordcore.records.annotations`.
"""

from __future__ import annotations

import codecs
import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import attrs
import msgspec

from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.errors import InputError
from coordcore.quantisation import Quantisation, quantisation, require_same
from coordcore.records.answers.write import reserved

# JSON numbers have no upper bound; these keep every later conversion to a float exact.
LARGEST = 2**53
Whole = Annotated[int, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=10**6)]
Real = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
Coordinates = list[Whole | Real | str]


class RecordError(InputError):
    """One mistake in one record.

    path: "objects[2].bbox_2d", "" for the record as a whole. message: with the value seen. reason: what equal mistakes
    of other records have in common, to count them by: without indices, and without the value seen.
    """

    def __init__(self, path: str, message: str, *, reason: str = "") -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path, self.message = path, message
        place = re.sub(r"\[\d+\]", "[...]", path)
        self.reason = f"{place}: {reason or message}" if place else reason or message


@attrs.define
class LeftOut:
    """What lenient reading leaves out of one record, each with the error that strict reading stops at.

    objects: whole objects. parts: what the record is right without: unknown keys, a byte order mark.
    """

    objects: list[RecordError] = attrs.Factory(list)
    parts: list[RecordError] = attrs.Factory(list)


def _either(name: str, value: Any, other: str, given: Any) -> Any:
    if value not in (None, given):
        raise ValueError(f"`{name}` and `{other}` say different things; they are one key, keep `{name}`")
    return given


class RecordObject(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One object as the file holds it. The three caches of `annotate_coord_tokens` may be there and are not read.

    point_2d: another name of `point`, as Qwen3-VL writes it.
    """

    desc: str
    bbox_2d: Coordinates | None = None
    poly: Coordinates | None = None
    poly_points: int | None = None
    point: Coordinates | None = None
    quad: Coordinates | None = None
    keypoints: Coordinates | None = None
    line: Any = None
    tokens_cache: Any = msgspec.field(name="_coord_tokens", default=None)
    ints_cache: Any = msgspec.field(name="_coord_token_ints", default=None)
    norm_cache: Any = msgspec.field(name="_coord_token_norm", default=None)
    point_2d: Coordinates | None = None

    def __post_init__(self) -> None:
        if self.point_2d is not None:  # asked here: calls for nothing would cost a twentieth of reading a file
            self.point = _either("point", self.point, "point_2d", self.point_2d)


class Record(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One record as the file holds it. Of lenient reading, LEFT_OUT stands where an object could not be read.

    prompt: another name of `question`.
    """

    images: list[str]
    width: Pixels
    height: Pixels
    objects: list[RecordObject] | None = None
    summary: str | None = None
    task: str | None = None
    question: str | None = None
    answer: str | None = None
    categories: list[str] | None = None
    metadata: dict[str, Any] | None = None
    enabled_cache: Any = msgspec.field(name="_coord_tokens_enabled", default=None)
    prompt: str | None = None

    def __post_init__(self) -> None:
        if self.prompt is not None:
            self.question = _either("question", self.question, "prompt", self.prompt)


LEFT_OUT = RecordObject(desc="")
Row = TypeVar("Row")

_DECODER = msgspec.json.Decoder(Record)
_KEYS: dict[type, list[str]] = {
    kind: [field.encode_name for field in msgspec.structs.fields(kind)] for kind in (Record, RecordObject)
}
_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_MEANT = {"expression": "question", "response": "answer", "label": "desc", "bbox": "bbox_2d"}


def parse_record(line: bytes, left_out: LeftOut | None = None) -> Record:
    """The record on one line of a JSONL file.

    Raises RecordError for the first mistake. With `left_out`, objects and parts that are wrong are put there instead,
    and only a line that no record is left of raises.
    """
    if not line.strip():
        raise RecordError("", "blank line; every line holds one record, remove it")
    if line.startswith(codecs.BOM_UTF8):
        mark = RecordError("", "starts with a byte order mark; save the file as UTF-8 without one")
        if left_out is None:
            raise mark
        left_out.parts.append(mark)
        line = line.removeprefix(codecs.BOM_UTF8)
    try:
        record = decode_line(line, _DECODER)
    except msgspec.ValidationError as error:
        wrong = _structural(str(error))
        rest = None if left_out is None else _rest(line, left_out)
        if rest is None:
            raise wrong from error
        record = rest
    if len(record.images) != 1:
        raise RecordError(
            "images", f"holds {len(record.images)} images; geometry refers to one image, so write one record for each"
        )
    if not record.images[0]:
        raise RecordError("images[0]", "empty path")
    return record


def decode_line(line: bytes, decoder: msgspec.json.Decoder[Row]) -> Row:
    """What stands on a line of JSON.

    Raises RecordError for a line that is none, msgspec's ValidationError for JSON of another type.
    """
    try:
        return decoder.decode(line)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        try:
            line.decode()  # which of the two errors says that it is not UTF-8 depends on msgspec's version
        except UnicodeDecodeError as wrong:
            raise RecordError("", f"not UTF-8 ({wrong.reason}); save the file as UTF-8") from wrong
        detail = _lower(str(error).removeprefix("JSON is malformed: "))
        raise RecordError("", f"not JSON: {detail}", reason="not JSON") from error
    except RecursionError as error:
        raise RecordError("", "not a record: nested too deep") from error


def parse_object(given: Any, path: str, left_out: LeftOut | None = None) -> RecordObject:
    """An object that is already in memory. Raises RecordError; `left_out` takes its unknown keys."""
    if left_out is not None and isinstance(given, dict):
        given = _known(given, RecordObject, path, left_out)
    item: RecordObject = _converted(given, RecordObject, path)
    return item


def parse_objects(record: Mapping[str, Any]) -> list[RecordObject]:
    """The objects of a record that is already in memory; its other keys are not read. Raises RecordError."""
    objects: list[RecordObject] = _converted(record, _Objects).objects
    return objects


def regions_under(record: Record, key: str) -> list[Any]:
    """The regions or points under a key of `metadata`, not yet read. Raises RecordError unless it is a list."""
    return _converted((record.metadata or {}).get(key), list[Any] | None, f"metadata.{key}") or []


def labels_under(record: Record, key: str) -> list[str]:
    """The labels under a key of `metadata`, none where it is not there. Raises RecordError for anything else."""
    return _converted((record.metadata or {}).get(key), list[str] | None, f"metadata.{key}") or []


def check_text(text: str, path: str, coords: CoordFormat = DEFAULT_COORDS) -> None:
    """Raise RecordError unless `text` has content and a tokenizer reads all of it as text."""
    if not text.strip():
        raise RecordError(path, "empty; write what is there")
    if found := reserved(text, coords):
        cure = "which the tokenizer or the template reads as a control token; reword it"
        raise RecordError(path, f"contains {found!r}, {cure}")


def check_declared(record: Record, ours: Quantisation, reader: str) -> None:
    """Bins mean something only under a convention: a record that declares one must declare `ours`.

    reader: whose that is, for the message. Raises RecordError.
    """
    declared = (record.metadata or {}).get("quantisation")
    if declared is None:
        return
    try:
        named = isinstance(declared, str)
        theirs = quantisation(declared) if named else Quantisation.from_dict(declared, source="the record's spec")
        require_same(theirs, ours, "the record", reader)
    except InputError as error:
        raise RecordError("metadata.quantisation", str(error)) from error


class _Objects(msgspec.Struct):
    objects: list[RecordObject]


def _rest(line: bytes, left_out: LeftOut) -> Record | None:
    """What is left of a record without its wrong objects and keys; None where it is not these that are wrong."""
    try:
        given = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(given, dict):
        return None
    count, objects = len(left_out.parts), given.get("objects")
    known = _known(given, Record, "", left_out) | ({"objects": []} if isinstance(objects, list) else {})
    record: Record = _converted(known, Record)
    kept: list[RecordObject] = []
    for index, item in enumerate(objects if isinstance(objects, list) else []):
        try:
            kept.append(parse_object(item, f"objects[{index}]", left_out))
        except RecordError as error:
            left_out.objects.append(error)
            kept.append(LEFT_OUT)
    record.objects = kept or record.objects
    return record if left_out.objects or len(left_out.parts) > count else None


def _converted(given: Any, kind: Any, path: str = "") -> Any:
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise _structural(str(error), path) from error


def _known(given: dict[str, Any], kind: type, path: str, left_out: LeftOut) -> dict[str, Any]:
    """`given` without the keys that `kind` does not have."""
    left_out.parts += [_unknown(path, key, kind) for key in given if key not in _KEYS[kind]]
    return {key: value for key, value in given.items() if key in _KEYS[kind]}


def _structural(message: str, base: str = "") -> RecordError:
    """msgspec's message with our path, wording and a suggestion for a misspelt key."""
    path = _join(base, place.group(1)) if (place := _PLACE.search(message)) else base
    message = _PLACE.sub("", message)
    if unknown := _UNKNOWN.fullmatch(message):
        return _unknown(path, unknown.group(1), RecordObject if "[" in path else Record)
    if missing := _MISSING.fullmatch(message):
        return RecordError(_join(path, missing.group(1)), "missing")
    return RecordError(path, _lower(message.replace("`", "")))


def _unknown(path: str, key: str, kind: type) -> RecordError:
    known = [name for name in _KEYS[kind] if not name.startswith("_") and name not in ("line", "prompt", "point_2d")]
    near = [_MEANT[key]] if _MEANT.get(key) in known else difflib.get_close_matches(key, known, n=1)
    cure = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return RecordError(_join(path, key), f"unknown key; {cure}")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key and not key.startswith("[") else path + key


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
