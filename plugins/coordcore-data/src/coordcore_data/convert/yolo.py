"""Ultralytics YOLO: one text file per image, `class cx cy w h` or `class x1 y1 x2 y2 x3 y3 ...` in fractions.

The source is a `data.yaml` or CVAT's `obj.data` with its folders, a folder that holds one of them, or a folder of label
files beside `--image-root DIR`. An empty label file is YOLO's background image, and so is an image without one, as
Ultralytics documents; but not where a label file of its folder finds no image, or there is no label file at all.
Four points are how YOLO writes rotated boxes; they become a polygon like any other. `kpt_shape` in `data.yaml` says
that `class cx cy w h` is followed by keypoints, which are carried where asked for; without a visibility they are
visible, but for those below 0, which are not labelled, as in Ultralytics. Sizes come from the image files, since the
format has none.
Not carried: lines with a confidence (six numbers: predictions).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coordcore import InputError
from coordcore_data.convert.core import Account, Found, Reading, Shape, SourceImage, corners
from coordcore_data.convert.ids import text_of
from coordcore_data.convert.text import UnreadableError, is_file, load_unique, numbers, read_bytes
from coordcore_data.convert.yolo_sets import Pair, from_folder, from_obj_data, from_yaml, read_yaml

_NO_FILES = "no label file, nor one for any other image of its folder or list: the labels are elsewhere"
_NOT_JOINED = (
    "no label file, while label files of its folder or list find no image; write an empty one if nothing is there"
)


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError without class names or images."""
    given = read_classes(reading.classes) if reading.classes is not None else None
    if source.is_dir():
        source = _description(source) or source
    keypoints = None
    if source.is_dir():
        pairs = from_folder(source, reading.images)
        names = given or read_classes(_classes_near(source))
    elif source.suffix == ".data":
        pairs, listed = from_obj_data(source, reading.images, account)
        names = given or read_classes(listed)
    else:
        content = read_yaml(source)
        names = given or _names(content.get("names"), source)
        if content.get("nc", "") not in ("", str(len(names))):
            account.note("nc in data.yaml is not the number of its names", f"{content['nc']!r}, {len(names)} names")
        keypoints = _keypoints(content.get("kpt_shape"), source)
        pairs = from_yaml(source, content, account)
    return Found(images=_images(pairs, names, keypoints, reading.keypoints, account), total=len(pairs))


def _description(folder: Path) -> Path | None:
    """The one data.yaml or obj.data that a folder, or a folder in it, holds."""
    for pattern in ("data.y*ml", "dataset.y*ml", "obj.data", "*/data.y*ml", "*/obj.data", "*/*/data.y*ml"):
        found = list(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
    return None


def _classes_near(folder: Path) -> Path:
    for place in (folder, folder.parent):
        for name in ("classes.txt", "obj.names", "_darknet.labels"):
            if (place / name).is_file():
                return place / name
    raise InputError(f"{folder}: has no classes.txt; give the class names with --classes FILE, or a data.yaml")


def read_classes(path: Path) -> dict[str, str]:
    """Class number -> name: one name on each line, or JSON (a list, or an object by number). Raises InputError."""
    if path.suffix == ".json":
        return _names(load_unique(path), path)
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except UnreadableError as error:
        raise InputError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8; save the file as UTF-8") from error
    while lines and not lines[-1].strip():
        lines.pop()
    return _names(lines, path)


def _names(given: Any, path: Path) -> dict[str, str]:
    if isinstance(given, list):
        given = dict(enumerate(given))
    # Only scalars are turned into text: YAML aliases can nest a short file into gigabytes of it.
    if not isinstance(given, Mapping) or not given or not all(map(_is_scalar, (*given, *given.values()))):
        raise InputError(f"{path}: needs class names, as a list or by number")
    names: dict[str, str] = {}
    for number, name in given.items():
        if names.setdefault(text_of(number), str(name)) != str(name):
            first = names[text_of(number)]
            raise InputError(f"{path}: class {text_of(number)} has two names, {first!r} and {name!r}; keep one")
    return names


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, int, float))


def _keypoints(given: Any, path: Path) -> tuple[int, int] | None:
    """How many keypoints a line has, and how many numbers each of them is; None for a set without keypoints."""
    if given in (None, "", "~", "null"):
        return None
    if (
        isinstance(given, list)
        and len(given) == 2
        and all(isinstance(entry, str) and entry.isdecimal() for entry in given)
    ):
        count, values = map(int, given)
        if count and values in (2, 3):
            return count, values
    raise InputError(f"{path}: kpt_shape: {given!r} is not [number of keypoints, 2 or 3]")


def _images(
    pairs: list[Pair], names: Mapping[str, str], keypoints: tuple[int, int] | None, carries: bool, account: Account
) -> Iterator[SourceImage]:
    undeclared = _undeclared(pairs)
    for labels, images in _several(pairs).items():
        account.note("label file of several images: each gets its objects", labels.name, "->", *sorted(images))
    for pair in pairs:
        account.images.read += 1
        numbered: list[tuple[int, str]] = []
        there = is_file(pair.labels)
        if there:
            data = b""
            try:
                data = read_bytes(pair.labels)
                text = data.decode("utf-8-sig")
            except (UnreadableError, UnicodeDecodeError) as error:
                count = sum(1 for line in data.splitlines() if line.strip())
                account.objects.read += count
                detail = error.detail if isinstance(error, UnreadableError) else ""
                reason = error.reason if isinstance(error, UnreadableError) else "not UTF-8"
                account.drop_image(reason, pair.labels, detail, objects=count)
                continue
            numbered = [(at, line) for at, line in enumerate(text.splitlines(), 1) if line.strip()]
        elif not undeclared.get(pair.place):
            account.note("image without a label file: an empty record", pair.name)
        account.objects.read += len(numbered)
        shapes = []
        for number, line in numbered:
            shape = _shape(line, f"{pair.labels.name}:{number}", names, keypoints, carries)
            if isinstance(shape, str):
                account.drop_object(shape, f"{pair.labels.name}:{number}", repr(line))
            else:
                shapes.append(shape)
        if keypoints and shapes and not carries:
            account.note("keypoints: not carried without --keypoints, the box is", pair.name, count=len(shapes))
        yield SourceImage(
            file=pair.name,
            width=None,
            height=None,
            shapes=shapes,
            fractions=True,
            path=pair.image,
            lost=len(numbered) - len(shapes),
            undeclared="" if there else undeclared.get(pair.place, ""),
            split=pair.split,
        )


def _several(pairs: list[Pair]) -> dict[Path, set[str]]:
    """The label files that are those of several images, which YOLO names by the same path but for the suffix."""
    found: dict[Path, set[str]] = defaultdict(set)
    for pair in pairs:
        found[pair.labels].add(pair.name)
    return {labels: images for labels, images in found.items() if len(images) > 1 and is_file(labels)}


def _undeclared(pairs: list[Pair]) -> dict[Path, str]:
    """Folder or list -> why its images without a label file are not said to be empty."""
    files: dict[Path, int] = defaultdict(int)
    lone: dict[Path, int] = defaultdict(int)
    for pair in pairs:
        there = is_file(pair.labels)
        files[pair.place] += there
        lone[pair.place] += there and not is_file(pair.image)
    return {
        place: _NOT_JOINED if lone[place] else _NO_FILES for place, count in files.items() if lone[place] or not count
    }


def _shape(
    line: str, name: str, names: Mapping[str, str], keypoints: tuple[int, int] | None, carries: bool
) -> Shape | str:
    """The shape of a line, or why there is none. carries: whether with its keypoints."""
    # Between numbers a comma may stand; inside of one, "0,5", it is another country's point.
    apart = line.split() if len(line.split()) > 1 else line.split(",")
    parts = numbers(" ".join(apart)) if not any("," in part.rstrip(",") for part in apart) else None
    if parts is None or len(parts) < 5:
        return "not `class cx cy w h` or a polygon"
    places: list[float] = []
    if keypoints is not None:
        count, size = keypoints
        if len(parts) != 5 + count * size:
            return f"not the 5 + {count * size} numbers of a line that kpt_shape in data.yaml says{_cure(parts, count)}"
        parts, places = parts[:5], parts[5:]
        if carries and size == 3 and any(seen not in (0, 1, 2) for seen in places[2::3]):
            return "keypoint whose visibility is not 0, 1 or 2"
    elif len(parts) == 6:
        return "six numbers: a prediction with its confidence, no label"
    elif len(parts) % 2 == 0:
        return "polygon with an odd count of numbers"
    label = names.get(str(int(parts[0]))) if parts[0].is_integer() else None
    if label is None:
        return "class without a name"
    values = parts[1:]
    if min(values[2:] if len(values) == 4 else values) > 1:
        return "numbers above 1, which are no fractions: divide pixels by the width and height of the image"
    if len(values) == 4:
        a, b, c, d = values
        shape = Shape(label=label, box=corners((a, b, c, d), "cxcywh"), name=name)
        if places and carries and keypoints is not None:
            _add_keypoints(shape, places, keypoints[1])
        return shape
    return Shape(label=label, poly=values, was="polygon", name=name)


def _cure(parts: list[float], count: int) -> str:
    """What kpt_shape says of such a line where it is right, "" where none does."""
    for size, how in ((2, "without"), (3, "with")):
        if len(parts) == 5 + count * size:
            return f"; kpt_shape: [{count}, {size}] is of lines {how} visibility"
    return ""


def _add_keypoints(shape: Shape, places: list[float], size: int) -> None:
    """size: how many numbers each of them is."""
    xs, ys = places[::size], places[1::size]
    shape.keypoints = [value for pair in zip(xs, ys, strict=True) for value in pair]
    shape.seen = [2 if x >= 0 and y >= 0 else 0 for x, y in zip(xs, ys, strict=True)]
    if size == 3:
        shape.seen = [int(seen) for seen in places[2::3]]
