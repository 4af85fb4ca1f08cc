"""What a file or folder is, by its first bytes, keys and names: for refusals, which say what reads it instead."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from coordcore import InputError
from coordcore.records.source import open_source
from coordcore_data.convert.known import (
    BY_SUFFIX,
    HEADERS,
    KEYS,
    MAGIC,
    NOT_THIS,
    PREDICTIONS,
    TO_COCO,
    TO_LINES,
    UNPACK,
    VIA,
    Seen,
)
from coordcore_data.convert.sizes import IMAGE_SUFFIXES
from coordcore_data.convert.text import UnreadableError, parse_json

_HEAD = 2**20
_WHOLE = 2**26
"""Bytes. The beginning that is looked at; larger JSON files are not read as a whole for a refusal."""


@contextmanager
def named(source: Path, source_format: str) -> Iterator[None]:
    """Every refusal inside also says what `source` is, where that is something else than the format reads."""
    try:
        yield
    except InputError as error:
        seen = sniff(source)
        if seen is None or source_format in seen.formats:
            raise
        raise InputError(f"{error}\n{source}: looks like {seen}") from error


def sniff(path: Path) -> Seen | None:
    """What a file or folder is, None when it is nothing known, or cannot be read."""
    try:
        return _folder(path) if path.is_dir() else _file(path)
    except (OSError, InputError):
        return None


def _folder(folder: Path) -> Seen | None:
    files = [path for path in sorted(folder.rglob("*"))[:10_000] if path.is_file() and not _is_clutter(path.name)]
    suffixes = {path.suffix.lower() for path in files}
    if not files:
        return Seen("a folder without files", cure="name the file or folder with the annotations")
    if suffixes <= IMAGE_SUFFIXES:
        return Seen(f"a folder of {len(files)} pictures without annotations", cure="name where the annotations lie")
    if any(path.name in ("data.yaml", "dataset.yaml", "obj.data") for path in files):
        return Seen("a YOLO data set", ("yolo",))
    if any(path.name == "dataset_dict.json" or path.suffix == ".arrow" for path in files):
        return Seen("a Hugging Face data set on disk", cure=TO_LINES)
    kinds = [(path, seen) for path in _one_of_each(files) if (seen := _file(path)) is not None]
    for path, seen in sorted(kinds, key=lambda kind: not kind[1].formats):  # what can be read before what cannot
        if seen.formats in (("voc",), ("labelme",), ("yolo",), ("dota",), ("openimages",)):
            return Seen(f"a folder with {seen.what}", seen.formats)
        where = f"a folder with {seen.what}, {path.relative_to(folder).as_posix()}"
        return Seen(where, cure=f"name that file, --from {seen.formats[0]}" if seen.formats else seen.cure)
    return None


def _is_clutter(name: str) -> bool:
    """Whether a file says nothing of what its folder holds: systems leave some, and readmes."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini") or name.lower().startswith("readme")


def _one_of_each(files: list[Path]) -> list[Path]:
    """The first file of every suffix that is no picture's."""
    first: dict[str, Path] = {}
    for path in files:
        if path.suffix.lower() not in IMAGE_SUFFIXES and path.name != "classes.txt":
            first.setdefault(path.suffix.lower(), path)
    return list(first.values())


def _file(path: Path) -> Seen | None:
    with open_source(path) as file:  # which opens no pipe
        head = file.read(_HEAD)
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    seen = _bytes(head, path) or _text(head, path)
    if seen is not None and packed:
        return attrs.evolve(seen, what=f"a gzip file that holds {seen.what}")
    return seen or (Seen("a gzip file", cure=UNPACK) if packed else None)


def _bytes(head: bytes, path: Path) -> Seen | None:
    if not head.strip():
        return Seen("an empty file", cure="was it written to its end?")
    if seen := BY_SUFFIX.get(path.suffix.lower()):
        return seen
    if head[4:8] == b"ftyp":
        return Seen("a video, or a picture (HEIC, AVIF)", cure=NOT_THIS)
    for magic, seen in MAGIC:
        if head.lower().startswith(magic.lower()):
            return seen
    if head[257:262] == b"ustar":
        return Seen("a tar archive", cure=UNPACK)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return Seen("a Python pickle, which can run code when it is read", cure="save what it holds as JSON")
    # TFRecord: the length of a record, its checksum, the record.
    if ".tfrecord" in path.name or (len(head) > 16 and head[4:8] == b"\0\0\0\0" and b"image/" in head):
        return Seen("a TFRecord file", cure=f"{TO_COCO}, where it was made")
    return None


def _text(head: bytes, path: Path) -> Seen | None:
    try:
        text = head.decode("utf-8-sig", "ignore" if len(head) == _HEAD else "strict").lstrip()
    except UnicodeDecodeError:
        text = head.decode("utf-16", "ignore").lstrip() if head[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
    if text[:1] in ("{", "["):
        return _json(head, text, path)
    if text[:1] == "<":
        return _xml(text)
    lines = [line for line in text.splitlines()[:20] if line.strip()]
    if not lines:
        return None
    if path.suffix.lower() in (".yaml", ".yml") and re.search(r"^names\s*:", text, re.MULTILINE):
        return Seen("a data.yaml of YOLO", ("yolo",))
    header = {name.strip() for name in next(csv.reader(lines[:1]), [])}
    for keys, seen in HEADERS:
        if keys <= header:
            return seen
    return _lines(lines)


def _lines(lines: list[str]) -> Seen | None:
    if lines[0].startswith("# PASCAL Annotation"):
        return Seen("PASCAL annotations of 2005 (text)", cure="write them as VOC's XML, or as ODVG or COCO")
    rows = [line.split() for line in lines if not line.startswith(("imagesource:", "gsd:"))]
    if rows and all(len(row) in (15, 16) and not _is_number(row[0]) and all(map(_is_number, row[1:])) for row in rows):
        return Seen("KITTI labels", cure=f"{TO_COCO}, or write them as ODVG rows")
    if rows and all(len(row) >= 5 and all(map(_is_number, row)) for row in rows):
        scores = all(len(row) == 6 for row in rows)
        return (
            Seen("YOLO's labels with a confidence: predictions", cure=PREDICTIONS.cure)
            if scores
            else Seen("YOLO labels", ("yolo",))
        )
    if rows and all(len(row) in (9, 10) and all(map(_is_number, row[:8])) for row in rows):
        return Seen("DOTA labels: four corners and a label", ("dota",))
    if all(Path(line.strip()).suffix.lower() in IMAGE_SUFFIXES for line in lines):
        return Seen("a list of image paths", cure="YOLO's data.yaml names it, --from yolo reads that")
    table = [line.split(",") for line in lines if not line.startswith(("imagesource:", "gsd:"))]
    if table and all(len(row) in (9, 10) and all(map(_is_number, row[:8])) and not _is_number(row[8]) for row in table):
        return Seen("DOTA labels, with commas: four corners and a label", ("dota",))
    if all(line.count(",") >= 8 and all(map(_is_number, line.split(",")[:8])) for line in lines):
        return Seen("MOTChallenge boxes (CSV)", cure=f"{TO_COCO}, or write its rows as ODVG")
    if all(line.count(",") == 5 for line in lines):
        return Seen("a table of boxes (CSV)", cure="write its rows as ODVG or COCO")
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _xml(text: str) -> Seen | None:
    root = re.search(r"<([A-Za-z][\w.-]*)", text)
    known = {
        "annotation": Seen("a Pascal VOC file", ("voc",)),
        "annotations": Seen("a CVAT file", ("cvat",)),
        "dataset": Seen("a dlib data set (XML)", cure=TO_COCO),
        "html": Seen("a web page", cure="was a download refused? Fetch the file again"),
        "PcGts": Seen("a PAGE-XML file", cure=TO_COCO),
    }
    return known.get(root[1]) if root else None


def _json(head: bytes, text: str, path: Path) -> Seen | None:
    try:
        with open_source(path) as file:
            whole = head if len(head) < _HEAD else file.read(_WHOLE)
        content = parse_json(whole)
    except UnreadableError:
        try:
            content = parse_json(text.split("\n", 1)[0].encode())  # JSON lines
        except UnreadableError:
            return None
    return _content(content)


def _content(content: Any) -> Seen | None:
    first = next((part for part in content if isinstance(part, dict)), None) if isinstance(content, list) else content
    if not isinstance(first, dict):
        return None
    if seen := _of_keys(first):
        return seen
    values = [value for value in first.values() if isinstance(value, dict)]
    if values and "regions" in values[0]:
        return VIA
    listed = first.get("annotations", first.get("annotation"))
    if isinstance(listed, list):
        inner = next((item for item in listed if isinstance(item, dict)), {})
        if isinstance(inner.get("coordinates"), dict):
            return Seen("a CreateML file", ("createml",))
        if {"image", "annotations"} <= set(first):
            return Seen("annotations by image, in a form of some tool's own", cure=TO_COCO)
    regions = [item for value in first.values() if isinstance(value, list) for item in value if isinstance(item, dict)]
    if any(
        key in region
        for region in regions
        for key in ("rectanglelabels", "polygonlabels", "ellipselabels", "brushlabels")
    ):
        return Seen("a Label Studio export (JSON-MIN)", ("label_studio",))
    return None


def _of_keys(item: dict[str, Any]) -> Seen | None:
    for keys, seen in KEYS:
        if all(key.replace("~", " ") in item for key in keys):
            return seen
    return None
