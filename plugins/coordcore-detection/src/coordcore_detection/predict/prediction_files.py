"""Reading, writing and continuing prediction files. Torch-free."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from coordcore.errors import InputError
from coordcore.files import require_regular
from coordcore.records.geometry import misordered
from coordcore_detection.predict.answer_files import read_bytes
from coordcore_detection.predict.predictions import VERSION, Box, Header, Row

NO_IMAGE = "image"
"""`Unread.at` of an image that the model could not be shown."""

_FAR = 1e9
"""Pixels, beyond any image. Areas of what reaches further would be infinite."""

_ROUNDING = 1e-6
"""Of scores that another writer has rounded to float32."""

_BEGINNING = b'{"predictions":'
_HEADERS = msgspec.json.Decoder(Header)
_ROWS = msgspec.json.Decoder(Row)


def read(path: Path) -> tuple[Header, list[Row]]:
    """The header and the rows of a prediction file, gzip's too. Raises InputError with the line of what is wrong."""
    return parse(path, read_bytes(path))


def parse(path: Path, data: bytes) -> tuple[Header, list[Row]]:
    """The same of the content of `path`."""
    header, rows, cut = _parse(path, data)
    if cut:
        raise InputError(f"{path}: the last line is cut off; continue with the `coordcore predict` that wrote it")
    return header, rows


def resume(path: Path, header: Header) -> list[Row]:
    """The rows to keep of a file that an earlier call began: [] where there is none. Mends a line that was cut off.

    Rows of images that could not be opened are dropped, so that they are tried again.
    Raises InputError when the file was made under another contract than `header`, or is no prediction file.
    """
    if not path.exists():
        return []
    try:
        found, rows, cut = _read(path)
    except _CutHeaderError:
        write(path, header, [])
        return []
    _require_same(path, found, header)
    kept = [row for row in rows if not any(item.at == NO_IMAGE for item in row.unread)]
    if cut or len(kept) < len(rows):
        write(path, header, kept)
    return kept


def glimpse(path: Path, header: Header) -> list[Row]:
    """The rows of a file that another process may be writing, or removing: [] where there is none yet, or no more.

    Raises InputError as `resume`.
    """
    try:
        found, rows, _ = _parse(path, path.read_bytes())
    except (FileNotFoundError, _CutHeaderError):
        return []
    _require_same(path, found, header)
    return rows


def _require_same(path: Path, found: Header, header: Header) -> None:
    header = _HEADERS.decode(msgspec.json.encode(header))  # as a file gives it back, with lists for tuples
    differ = [
        f"{name} {_show(getattr(found, name))} there, {_show(getattr(header, name))} now"
        for name in header.__struct_fields__
        if getattr(found, name) != getattr(header, name)
    ]
    if differ:
        raise InputError(
            f"{path}: was made under another contract ({'; '.join(differ)}); continue it as it was begun, "
            "write to another file, or replace it with --overwrite"
        )


def write(path: Path, header: Header, rows: Iterable[Row]) -> None:
    """Write a whole file; it appears when all rows are there."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.unlink(missing_ok=True)  # of a call that was killed here: rows would be added to its rows
    try:
        with appending(beside, header) as add:
            for row in rows:
                add(row)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def appending(path: Path, header: Header) -> Iterator[Any]:
    """Gives a function that adds one row to the file, and begins the file with `header` if it is new.

    Rows are on the disk at the latest when the block ends, however it ends.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file: BinaryIO
        with path.open("ab") as file:
            if not file.tell():
                file.write(msgspec.json.encode(header) + b"\n")

            def add(row: Row) -> None:
                file.write(msgspec.json.encode(row) + b"\n")
                file.flush()

            yield add
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error


class _CutHeaderError(InputError):
    """The file ends within its first line: the header was never written."""


def _read(path: Path) -> tuple[Header, list[Row], bool]:
    """The same of a file that is to be continued: of what lies there, nothing is unpacked."""
    try:
        require_regular(path)
        return _parse(path, path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error


def _parse(path: Path, data: bytes) -> tuple[Header, list[Row], bool]:
    """The header, the rows, and whether a last line without its end was left out."""
    lines = data.split(b"\n")
    rest = lines.pop()
    if not lines:
        ours = rest.startswith(_BEGINNING) or _BEGINNING.startswith(rest)
        raise (_CutHeaderError if ours else InputError)(f"{path}: is no prediction file: it has no header line")
    header = _decode(_HEADERS, lines[0], path, 1, "header")
    if header.predictions != VERSION:
        raise InputError(
            f"{path}:1: has prediction format {header.predictions}, this coordcore-detection reads {VERSION}; "
            "predict again"
        )
    rows = [_row(line, path, number) for number, line in enumerate(lines[1:], start=2)]
    return header, rows, bool(rest)


def _row(line: bytes, path: Path, number: int) -> Row:
    try:
        row = _ROWS.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        found = _without_scores(line)
        if found is None:
            raise _wrong(path, number, "row", error) from error
        row = found
    for index, box in enumerate(row.boxes):
        if wrong := _fault(box):
            raise InputError(f"{path}:{number}: boxes[{index}].{wrong}")
    return row


def _fault(box: Box) -> str:
    """What is wrong with a box, and the cure; "" for one that can be measured."""
    for name, pixels in (("box", box.box), ("points", box.points or ())):
        if beyond := [value for value in pixels if not -_FAR <= value <= _FAR]:
            return f"{name}: {beyond[0]:g} is no pixel of any image; write pixels of the upright image"
    if order := misordered(box.box):
        return f"box: {order}; write x1, y1, x2, y2 with x1 <= x2 and y1 <= y2"
    for name, score in (("score", box.score), *((f"scores.{name}", score) for name, score in box.scores.items())):
        if not (-_ROUNDING <= score <= 1 + _ROUNDING or math.isnan(score)):
            return f"{name}: {score!r} lies outside 0..1; divide it by the highest there can be, or write null for none"
    return ""


def _without_scores(line: bytes) -> Row | None:
    """A row in which a score is null, as msgspec writes NaN, or NaN, as Python does; None for a row that is wrong."""
    try:
        given = json.loads(line)
        for box in given["boxes"]:
            if box["score"] is None:
                box["score"] = math.nan
            box["scores"] = {
                name: math.nan if score is None else score for name, score in box.get("scores", {}).items()
            }
        return msgspec.convert(given, Row)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None


def _decode(decoder: Any, line: bytes, path: Path, number: int, what: str) -> Any:
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(path, number, what, error) from error


def _wrong(path: Path, number: int, what: str, error: Exception) -> InputError:
    why = "nested too deep" if isinstance(error, RecursionError) else _show(str(error).lower())
    return InputError(f"{path}:{number}: is no {what} of a prediction file ({why}); `coordcore predict` writes one")


def _show(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:199] + "…"
