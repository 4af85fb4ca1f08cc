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
from coordcore.files import require_regular
from coordcore_data.convert.packed import open_source
from coordcore_data.convert.sizes import IMAGE_SUFFIXES
from coordcore_data.convert.text import UnreadableError, parse_json

_HEAD = 2**20
_WHOLE = 2**26
"""Bytes. The beginning that is looked at; larger JSON files are not read as a whole for a refusal."""


@attrs.frozen
class Seen:
    """what: "a Label Studio export (JSON)". formats: those that read it. cure: what to do where none does."""

    what: str
    formats: tuple[str, ...] = ()
    cure: str = ""

    def __str__(self) -> str:
        cure = f"--from {' or '.join(self.formats)} reads it" if self.formats else self.cure
        return f"{self.what}; {cure}"


_TO_COCO = "export it as COCO, and use --from coco"
_UNPACK = "unpack it, and name what it holds"
_TO_LINES = "write its rows as JSON lines"
_NOT_THIS = "name the file with the annotations"

_MAGIC: tuple[tuple[bytes, Seen], ...] = (
    (b"PAR1", Seen("a Parquet file", cure="write its rows as JSON lines (pandas: to_json(lines=True))")),
    (b"ARROW1", Seen("an Arrow file", cure=_TO_LINES)),
    (b"\xff\xff\xff\xff", Seen("an Arrow stream, as Hugging Face data sets are kept", cure=_TO_LINES)),
    (b"\x89HDF", Seen("an HDF5 file", cure=_TO_LINES)),
    (b"\x93NUMPY", Seen("a NumPy array", cure="write its boxes as JSON lines, with their images and labels")),
    (b"MATLAB 5.0", Seen("a MATLAB file", cure="write its boxes as JSON lines, with their images and labels")),
    (b"SQLite format 3", Seen("an SQLite data base", cure="export its rows as JSON lines")),
    (b"PK\3\4", Seen("a zip archive", cure=_UNPACK)),
    (b"7z\xbc\xaf", Seen("a 7z archive", cure=_UNPACK)),
    (b"Rar!", Seen("a RAR archive", cure=_UNPACK)),
    (b"BZh", Seen("a bzip2 file", cure=_UNPACK)),
    (b"\xfd7zXZ", Seen("an xz file", cure=_UNPACK)),
    (b"\x28\xb5\x2f\xfd", Seen("a Zstandard file", cure=_UNPACK)),
    (b"%PDF", Seen("a PDF document", cure=_NOT_THIS)),
    (b"\x89PNG", Seen("a picture", cure=_NOT_THIS)),
    (b"\xff\xd8\xff", Seen("a picture", cure=_NOT_THIS)),
    (b"GIF8", Seen("a picture", cure=_NOT_THIS)),
    (b"RIFF", Seen("a picture (WebP), a sound or a video", cure=_NOT_THIS)),
    (b"II*\0", Seen("a picture", cure=_NOT_THIS)),
    (b"MM\0*", Seen("a picture", cure=_NOT_THIS)),
    (b"version https://git-lfs", Seen("a Git LFS pointer, not the file", cure="fetch it: git lfs pull")),
    (b"<!DOCTYPE html", Seen("a web page", cure="was a download refused? Fetch the file again")),
    (b"<html", Seen("a web page", cure="was a download refused? Fetch the file again")),
)

_COCO = Seen("a COCO file", ("coco",))
_LABEL_STUDIO = Seen("a Label Studio export", ("label_studio",))
_CHAT = Seen("chat rows, as ms-swift, LLaVA or ShareGPT have them", ("swift",))
_RECORDS = Seen("records of coordcore", ("records",))
_VIA = Seen("a project of the VGG Image Annotator (VIA)", cure=f"{_TO_COCO} (Annotation > Export as COCO)")
_PREDICTIONS = Seen("predictions, not annotations: boxes with scores", cure="convert the annotations they belong to")
_ANSWERS = Seen("answers of a model", cure="`coordcore eval` scores them; they are no annotations")
_LABELBOX = Seen("a Labelbox export", cure=f"{_TO_COCO} (Labelbox's own converter, labelbox.data.serialization)")

_BY_SUFFIX = {
    ".npz": Seen("NumPy arrays", cure="write their boxes as JSON lines, with their images and labels"),
    ".xlsx": Seen("a spreadsheet", cure="write its rows as JSON lines, or as ODVG or COCO"),
    **dict.fromkeys((".pt", ".pth", ".safetensors"), Seen("the weights of a model", cure=_NOT_THIS)),
    **dict.fromkeys(
        (".pkl", ".pickle"),
        Seen("a Python pickle, which can run code when it is read", cure="save what it holds as JSON"),
    ),
}
"""What the first bytes alone do not tell: zip archives of a kind, and formats without a mark."""

_KEYS: tuple[tuple[frozenset[str], Seen], ...] = tuple(
    (frozenset(keys.split()), seen)
    for keys, seen in (
        ("images annotations categories", _COCO),
        ("images annotations", _COCO),
        (
            "image_id category_id bbox score",
            Seen("COCO results: a detector's boxes with scores", cure=_PREDICTIONS.cure),
        ),
        ("image_id category_id segmentation score", Seen("COCO results: a detector's masks", cure=_PREDICTIONS.cure)),
        ("image boxes stopped", Seen("predictions of coordcore", cure="`coordcore eval` scores them")),
        ("image_id category_id keypoints score", Seen("COCO results: key points", cure=_PREDICTIONS.cure)),
        (
            "image_id category_id bbox",
            Seen("the annotations of a COCO file alone", cure="put them beside its images and categories"),
        ),
        ("images categories", Seen("a COCO file without annotations", cure="name the one that has them")),
        ("predictions", _PREDICTIONS),
        ("detections", _PREDICTIONS),
        ("_via_img_metadata", _VIA),
        ("project file metadata view", Seen("a VIA 3 project", cure=_VIA.cure)),
        ("filename size regions", _VIA),
        ("filename regions", _VIA),
        ("data_row projects", _LABELBOX),
        ("data_row", _LABELBOX),
        ("Labeled~Data Label", _LABELBOX),
        ("items categories", Seen("a Datumaro data set", cure="write it as COCO: datum convert -f coco")),
        ("data annotations", _LABEL_STUDIO),
        ("data completions", _LABEL_STUDIO),
        ("data predictions", _LABEL_STUDIO),
        ("annotation_id annotator", Seen("a Label Studio export (JSON-MIN)", ("label_studio",))),
        ("response messages", _ANSWERS),
        ("messages", _CHAT),
        ("conversations", _CHAT),
        ("query response", _CHAT),
        (
            "prefix suffix",
            Seen(
                "PaliGemma rows, or Florence's", cure="write their <loc> tokens as pixels (PaliGemma's: y first, 1024)"
            ),
        ),
        ("instruction output", Seen("rows of Alpaca's kind", cure="write them as messages, and use --from swift")),
        ("images width height objects", _RECORDS),
        (
            "conversion images objects files",
            Seen("an account of coordcore data convert", cure="name the file beside it"),
        ),
        ("filename detection", Seen("ODVG rows", ("odvg",))),
        ("filename grounding", Seen("ODVG rows", ("odvg",))),
        ("ann_id sentences", Seen("REFER's refs", cure="--from refcoco --instances FILE reads them")),
        ("bbox expression", Seen("referring expressions", ("refcoco",))),
        ("shapes imagePath", Seen("a LabelMe file", ("labelme",))),
        ("shapes version flags", Seen("a LabelMe file", ("labelme",))),
        ("size objects tags", Seen("a Supervisely annotation", cure=_TO_COCO)),
        ("item annotations", Seen("a V7 Darwin file", cure=_TO_COCO)),
        ("dataset image annotations", Seen("a V7 Darwin file", cure=_TO_COCO)),
        ("metadata instances", Seen("a SuperAnnotate file", cure=_TO_COCO)),
        ("asset regions", Seen("a VoTT asset", cure=_TO_COCO)),
        ("assets tags", Seen("a VoTT project", cure=_TO_COCO)),
        ("data_units label_hash", Seen("an Encord export", cure=_TO_COCO)),
        ("task_id response", Seen("a Scale export", cure=_TO_COCO)),
        ("image_id regions", Seen("Visual Genome's regions", cure="write them as rows for --from refcoco")),
        ("source-ref", Seen("a SageMaker Ground Truth manifest", cure=f"{_TO_COCO}, or write ODVG rows")),
        ("boundingBoxAnnotations", Seen("a Vertex AI data set", cure=f"{_TO_COCO}, or write ODVG rows")),
        ("name labels attributes", Seen("BDD100K labels", cure="write them as COCO: bdd100k.label.to_coco")),
        ("file_name objects", Seen("rows of a Hugging Face image folder", cure="write their boxes as ODVG rows")),
        ("image objects", Seen("rows of a Hugging Face data set", cure="write their boxes as ODVG rows")),
        ("response", _ANSWERS),
    )
)
"""Keys of an object, or of the first object of a list -> what it is; "~" is a blank."""

_HEADERS: tuple[tuple[frozenset[str], Seen], ...] = (
    (
        frozenset(("ImageID", "XMin")),
        Seen("boxes of Open Images (CSV)", cure=f"{_TO_COCO}, with FiftyOne for instance"),
    ),
    (frozenset(("ImageID", "LabelName")), Seen("labels of Open Images (CSV)", cure=_TO_COCO)),
    (frozenset(("region_shape_attributes",)), Seen("a VIA export (CSV)", cure=_VIA.cure)),
    (frozenset(("filename", "xmin", "ymax")), Seen("a table of boxes (CSV)", cure="write its rows as ODVG or COCO")),
    (frozenset(("image_id", "bbox")), Seen("a table of boxes (CSV)", cure="write its rows as ODVG or COCO")),
    *(
        (frozenset(("annotator", key)), Seen("a Label Studio export (CSV)", cure="export it as JSON"))
        for key in ("annotation_id", "lead_time")
    ),
)


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
        return Seen("a Hugging Face data set on disk", cure=_TO_LINES)
    kinds = [(path, seen) for path in _one_of_each(files) if (seen := _file(path)) is not None]
    for path, seen in sorted(kinds, key=lambda kind: not kind[1].formats):  # what can be read before what cannot
        if seen.formats in (("voc",), ("labelme",), ("yolo",)):
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
    require_regular(path)
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with open_source(path) as file:
        head = file.read(_HEAD)
    seen = _bytes(head, path) or _text(head, path)
    if seen is not None and packed:
        return attrs.evolve(seen, what=f"a gzip file that holds {seen.what}")
    return seen or (Seen("a gzip file", cure=_UNPACK) if packed else None)


def _bytes(head: bytes, path: Path) -> Seen | None:
    if not head.strip():
        return Seen("an empty file", cure="was it written to its end?")
    if seen := _BY_SUFFIX.get(path.suffix.lower()):
        return seen
    if head[4:8] == b"ftyp":
        return Seen("a video, or a picture (HEIC, AVIF)", cure=_NOT_THIS)
    for magic, seen in _MAGIC:
        if head.lower().startswith(magic.lower()):
            return seen
    if head[257:262] == b"ustar":
        return Seen("a tar archive", cure=_UNPACK)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return Seen("a Python pickle, which can run code when it is read", cure="save what it holds as JSON")
    # TFRecord: the length of a record, its checksum, the record.
    if ".tfrecord" in path.name or (len(head) > 16 and head[4:8] == b"\0\0\0\0" and b"image/" in head):
        return Seen("a TFRecord file", cure=f"{_TO_COCO}, where it was made")
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
    for keys, seen in _HEADERS:
        if keys <= header:
            return seen
    return _lines(lines)


def _lines(lines: list[str]) -> Seen | None:
    if lines[0].startswith("# PASCAL Annotation"):
        return Seen("PASCAL annotations of 2005 (text)", cure="write them as VOC's XML, or as ODVG or COCO")
    rows = [line.split() for line in lines if not line.startswith(("imagesource:", "gsd:"))]
    if rows and all(len(row) in (15, 16) and not _is_number(row[0]) and all(map(_is_number, row[1:])) for row in rows):
        return Seen("KITTI labels", cure=f"{_TO_COCO}, or write them as ODVG rows")
    if rows and all(len(row) >= 5 and all(map(_is_number, row)) for row in rows):
        scores = all(len(row) == 6 for row in rows)
        return (
            Seen("YOLO's labels with a confidence: predictions", cure=_PREDICTIONS.cure)
            if scores
            else Seen("YOLO labels", ("yolo",))
        )
    if rows and all(len(row) in (9, 10) and all(map(_is_number, row[:8])) for row in rows):
        return Seen("DOTA labels: four corners and a label", cure=f"{_TO_COCO}, or as YOLO OBB labels")
    if all(Path(line.strip()).suffix.lower() in IMAGE_SUFFIXES for line in lines):
        return Seen("a list of image paths", cure="YOLO's data.yaml names it, --from yolo reads that")
    if all(line.count(",") >= 8 and all(map(_is_number, line.split(",")[:8])) for line in lines):
        return Seen("MOTChallenge boxes (CSV)", cure=f"{_TO_COCO}, or write its rows as ODVG")
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
        "dataset": Seen("a dlib data set (XML)", cure=_TO_COCO),
        "html": Seen("a web page", cure="was a download refused? Fetch the file again"),
        "PcGts": Seen("a PAGE-XML file", cure=_TO_COCO),
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
    first = next((one for one in content if isinstance(one, dict)), None) if isinstance(content, list) else content
    if not isinstance(first, dict):
        return None
    if seen := _of_keys(first):
        return seen
    values = [value for value in first.values() if isinstance(value, dict)]
    if values and "regions" in values[0]:
        return _VIA
    listed = first.get("annotations", first.get("annotation"))
    if isinstance(listed, list):
        inner = next((one for one in listed if isinstance(one, dict)), {})
        if isinstance(inner.get("coordinates"), dict):
            return Seen("a CreateML file", cure=_TO_COCO)
        if {"image", "annotations"} <= set(first):
            return Seen("annotations by image, in a form of some tool's own", cure=_TO_COCO)
    regions = [one for value in first.values() if isinstance(value, list) for one in value if isinstance(one, dict)]
    if any(
        key in one for one in regions for key in ("rectanglelabels", "polygonlabels", "ellipselabels", "brushlabels")
    ):
        return Seen("a Label Studio export (JSON-MIN)", ("label_studio",))
    return None


def _of_keys(item: dict[str, Any]) -> Seen | None:
    for keys, seen in _KEYS:
        if all(key.replace("~", " ") in item for key in keys):
            return seen
    return None
