"""Open Images: a CSV file with a box in each row, in fractions of the image.

The source is a file of boxes, such as `validation-annotations-bbox.csv`, or a folder with some of them. `IsGroupOf`
marks a crowd. Labels are machine ids such as /m/011k07; their names are in `class-descriptions-boxable.csv`, which lies
beside the boxes or is given with `--classes`. Labels that are no machine ids are their own names. The file of an image
is its id and .jpg. Rows of an image need not stand together.
Open Images looks for some categories on each image only, and lists no image without a box: none of them is empty.
Sizes come from the image files in `--image-root`, or in the folder `images`.
Not carried: IsOccluded, IsTruncated, IsDepiction, IsInside, masks, labels of whole images.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

from coordcore import InputError
from coordcore.records.source import open_source
from coordcore_data.convert.core import Account, Found, Reading, Shape, SourceImage
from coordcore_data.convert.sizes import IMAGE_SUFFIXES
from coordcore_data.convert.text import clean_path, files_below, number

_COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
_BOXES = re.compile(r"(?:.*-)?([A-Za-z]+)-annotations-bbox\.csv(\.gz)?")
_MACHINE_ID = re.compile(r"/[mgt]/\w+")


@attrs.frozen(kw_only=True)
class _Part:
    """One file of boxes. rows: how many each image has."""

    path: Path
    split: str | None
    rows: dict[str, int]


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError, while the images are read too, for a file that is no CSV of boxes, and without class names."""
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    files = [source] if source.is_file() else [path for path in files_below(source) if _BOXES.fullmatch(path.name)]
    if not files:
        raise InputError(f"{source}: holds no *-annotations-bbox.csv; name the file with the boxes")
    parts = [_Part(path=path, split=_split(path), rows=_count(path)) for path in files]
    described = reading.classes or _descriptions(files)
    names = read_descriptions(described) if described is not None else None
    images = None
    if reading.images is None:
        images = next((item for item in (source / "images", files[0].parent.parent / "images") if item.is_dir()), None)
    total = sum(len(part.rows) for part in parts)
    return Found(images=_images(parts, names, images, account), total=total)


def _split(path: Path) -> str | None:
    found = _BOXES.fullmatch(path.name)
    return found[1] if found else None


def _descriptions(files: list[Path]) -> Path | None:
    """The one file of class names beside the boxes."""
    found = sorted(files[0].parent.glob("*class-descriptions*.csv"))
    boxable = [path for path in found if "boxable" in path.name] or found
    return boxable[0] if len(boxable) == 1 else None


def read_descriptions(path: Path) -> dict[str, str]:
    """Machine id -> name: two columns, with or without the header of version 7. Raises InputError."""
    names: dict[str, str] = {}
    with _rows(path) as rows:
        for line, row in rows:
            if len(row) != 2 or not row[0]:
                raise InputError(f"{path}:{line}: {row} is no machine id and its name, as in /m/011k07,Tortoise")
            if row != ["LabelName", "DisplayName"] and names.setdefault(row[0], row[1]) != row[1]:
                raise InputError(f"{path}:{line}: {row[0]} is {names[row[0]]!r} before, and now {row[1]!r}")
    if not names:
        raise InputError(f"{path}: holds no class names, as in /m/011k07,Tortoise")
    return names


@contextmanager
def _rows(path: Path) -> Iterator[Iterator[tuple[int, list[str]]]]:
    """(line, fields) of a CSV file without its blank lines. Raises InputError, inside too, for what is none."""
    try:
        with open_source(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            try:
                yield ((reader.line_num, row) for row in reader if row)
            except csv.Error as error:
                raise InputError(f"{path}:{reader.line_num}: not CSV: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8: {error.reason} at byte {error.start}; save the file as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error


def _columns(path: Path, rows: Iterator[tuple[int, list[str]]]) -> dict[str, int]:
    """Where each column stands, all of them. Raises InputError without those of boxes."""
    _, header = next(rows, (0, []))
    places = {name.strip(): index for index, name in enumerate(header)}
    if len(places) < len(header):
        raise InputError(f"{path}: its first line names a column twice: {','.join(header)}")
    missing = [name for name in _COLUMNS if name not in places]
    if missing:
        raise InputError(
            f"{path}: its first line has no {', '.join(missing)}; boxes of Open Images have the columns "
            f"{','.join(_COLUMNS)}"
        )
    return places


def _count(path: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    with _rows(path) as rows:
        at = _columns(path, rows)["ImageID"]
        for line, row in rows:
            if len(row) <= at:
                raise InputError(f"{path}:{line}: {len(row)} fields, too few; is the file cut off?")
            counts[row[at]] = counts.get(row[at], 0) + 1
    return counts


def _images(
    parts: list[_Part], names: Mapping[str, str] | None, images: Path | None, account: Account
) -> Iterator[SourceImage]:
    """names: of machine ids, None without a file of them. images: where the files are, None for --image-root."""
    for part in parts:
        # Of images that are read in part; where the rows of each stand together, of one at a time.
        shapes: dict[str, list[Shape]] = {}
        seen: dict[str, int] = {}
        with _rows(part.path) as rows:
            columns = _columns(part.path, rows)
            for line, row in rows:
                account.objects.read += 1
                identity = row[columns["ImageID"]]
                seen[identity] = seen.get(identity, 0) + 1
                found = shapes.setdefault(identity, [])
                name = f"{part.path}:{line}"
                shape = _shape(row, columns, names, name)
                if isinstance(shape, str):
                    account.drop_object(shape, name, ",".join(row))
                else:
                    found.append(shape)
                if seen[identity] == part.rows[identity]:
                    account.images.read += 1
                    yield _image(identity, shapes.pop(identity), seen.pop(identity), part.split, images)


def _image(identity: str, shapes: list[Shape], rows: int, split: str | None, images: Path | None) -> SourceImage:
    stem = clean_path(identity)
    named = Path(stem).suffix.lower() in IMAGE_SUFFIXES
    file = stem if named or not stem else f"{stem}.jpg"
    return SourceImage(
        file=file,
        stem=stem,
        width=None,
        height=None,
        shapes=shapes,
        fractions=True,
        path=images / file if images is not None else None,
        lost=rows - len(shapes),
        split=split,
    )


def _shape(row: list[str], columns: Mapping[str, int], names: Mapping[str, str] | None, name: str) -> Shape | str:
    """The shape of a row, or why there is none. Raises InputError for a machine id where no names are given."""
    if len(row) != len(columns):
        return f"not the {len(columns)} fields that the first line names"
    label = row[columns["LabelName"]]
    group = row[columns["IsGroupOf"]].strip() if "IsGroupOf" in columns else "0"
    try:
        x1, x2, y1, y2 = (float(number(row[columns[key]].strip())) for key in _COLUMNS[2:])
    except ValueError:
        return "XMin, XMax, YMin, YMax are not four numbers"
    if names is None and _MACHINE_ID.fullmatch(label):
        raise InputError(
            f"{name}: LabelName: {label} is a machine id, and no file of names lies beside: "
            "--classes class-descriptions-boxable.csv"
        )
    if names is not None and label not in names:
        return "LabelName without a name in the file of class names"
    shown = label if names is None else names[label]
    return Shape(label=shown, box=(x1, y1, x2, y2), crowd=group in ("1", "true", "True"), name=name)
