"""Ultralytics YOLO: one text file per image, `class cx cy w h` or `class x1 y1 x2 y2 x3 y3 ...` in fractions.

The source is a `data.yaml` with its folders, or a folder of label files beside `--images DIR`. An image without a label
file, or with an empty one, is an empty record: that is YOLO's background image. Four points are how YOLO writes rotated
boxes; they become a polygon like any other. Sizes come from the image files, since the format has none.
Not carried: keypoints, lines with a confidence (six numbers: predictions).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import msgspec

from coordcore import InputError
from coordcore_data.convert.core import Account, Found, Reading, Shape, SourceImage, corners
from coordcore_data.convert.text import UnreadableError, files_below, load_whole, numbers, read_bytes

IMAGE_SUFFIXES = frozenset((".bmp", ".gif", ".heic", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))


@attrs.frozen
class _Pair:
    """An image file and where its labels would be. name: the image's path in the record."""

    image: Path
    labels: Path
    name: str
    split: str | None


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError without class names or images."""
    given = read_classes(reading.classes) if reading.classes is not None else None
    if source.is_dir():
        pairs, names = _from_folder(source, reading, given)
    else:
        pairs, names = _from_yaml(source, given)
    return Found(images=_images(pairs, names, account), total=len(pairs))


def read_classes(path: Path) -> dict[str, str]:
    """Class number -> name: one name on each line, or JSON (a list, or an object by number). Raises InputError."""
    if path.suffix == ".json":
        return _names(load_whole(path), path)
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
    return {str(number): str(name) for number, name in given.items()}


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, int, float))


def _from_folder(source: Path, reading: Reading, names: dict[str, str] | None) -> tuple[list[_Pair], dict[str, str]]:
    if reading.images is None:
        raise InputError(f"{source}: YOLO labels are fractions of the image: say where the images are, --images DIR")
    if names is None:
        near = [path for path in (source / "classes.txt", source.parent / "classes.txt") if path.is_file()]
        if not near:
            raise InputError(f"{source}: has no classes.txt; give the class names with --classes FILE, or a data.yaml")
        names = read_classes(near[0])
    images = _image_files(reading.images)
    relative = [path.relative_to(reading.images) for path in images]
    pairs = [
        _Pair(path, (source / name).with_suffix(".txt"), name.as_posix(), None)
        for path, name in zip(images, relative, strict=True)
    ]
    return pairs + _orphans(source, {pair.labels for pair in pairs}), names


def _orphans(folder: Path, known: set[Path]) -> list[_Pair]:
    """Label files whose image is missing, as pairs of which only the label file is there."""
    lone = [
        path
        for path in files_below(folder)
        if path.suffix == ".txt" and path not in known and path.name != "classes.txt"
    ]
    stems = [path.with_suffix("") for path in lone]
    return [
        _Pair(stem, path, stem.relative_to(folder).as_posix(), None) for stem, path in zip(stems, lone, strict=True)
    ]


def _from_yaml(source: Path, given: dict[str, str] | None) -> tuple[list[_Pair], dict[str, str]]:
    try:
        content = msgspec.yaml.decode(read_bytes(source))
    except UnreadableError as error:
        raise InputError(f"{source}: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"{source}: is no data.yaml: expected keys such as path, train, val, names")
    names = given if given is not None else _names(content.get("names"), source)
    path = content.get("path")
    root = source.parent / path if isinstance(path, str) else source.parent
    if not root.is_dir():
        root = source.parent  # Ultralytics looks for `path` in a folder of its own; it is often wrong elsewhere
    pairs = []
    for split in ("train", "val", "test"):
        places = content.get(split) or []
        for place in places if isinstance(places, list) else [places]:
            if not isinstance(place, str):
                raise InputError(f"{source}: {split}: needs a folder or a list of them")
            pairs += _of_place(root / place, root, split, source)
    if not pairs:
        raise InputError(f"{source}: names no images: train, val and test are empty")
    return pairs, names


def _of_place(place: Path, root: Path, split: str, source: Path) -> list[_Pair]:
    """The images of one folder or list of `data.yaml`."""
    if place.is_dir():
        images = _image_files(place)
    elif place.is_file() and place.suffix == ".txt":
        lines = place.read_bytes().decode("utf-8", "replace").splitlines()
        # Entries that start with "./" are relative to the list, others to where training starts: the root.
        images = [(place.parent if line.startswith("./") else root) / line.strip() for line in lines if line.strip()]
    else:
        raise InputError(f"{source}: {split}: no folder or list of images at {place}")
    pairs = []
    known: set[Path] = set()
    for image in images:
        labels = _labels_of(image)
        known.add(labels)
        name = image.relative_to(root) if image.is_relative_to(root) else image
        pairs.append(_Pair(image, labels, name.as_posix(), split))
    folder = _labels_of(place / "x").parent
    if place.is_dir() and folder != place and folder.is_dir():
        pairs += [attrs.evolve(one, split=split) for one in _orphans(folder, known)]
    return pairs


def _labels_of(image: Path) -> Path:
    """Ultralytics' rule: the last folder `images` becomes `labels`, the suffix .txt."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _image_files(folder: Path) -> list[Path]:
    found = [path for path in files_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise InputError(f"{folder}: holds no images")
    return found


def _images(pairs: list[_Pair], names: Mapping[str, str], account: Account) -> Iterator[SourceImage]:
    for pair in pairs:
        account.images.read += 1
        lines: list[str] = []
        if pair.labels.is_file():
            try:
                text = read_bytes(pair.labels).decode("utf-8-sig")
            except UnreadableError as error:
                account.drop_image(error.reason, pair.labels, error.detail)
                continue
            except UnicodeDecodeError:
                account.drop_image("not UTF-8", pair.labels)
                continue
            lines = [line for line in text.splitlines() if line.strip()]
        else:
            account.note("image without a label file: an empty record", pair.name)
        account.objects.read += len(lines)
        shapes = []
        for number, line in enumerate(lines, 1):
            shape = _shape(line, f"{pair.labels.name}:{number}", names)
            if isinstance(shape, str):
                account.drop_object(shape, f"{pair.labels.name}:{number}", repr(line))
            else:
                shapes.append(shape)
        yield SourceImage(
            file=pair.name,
            width=None,
            height=None,
            shapes=shapes,
            fractions=True,
            path=pair.image,
            lost=len(lines) - len(shapes),
            split=pair.split,
        )


def _shape(line: str, name: str, names: Mapping[str, str]) -> Shape | str:
    """The shape of a line, or why there is none."""
    parts = numbers(line)
    if parts is None or len(parts) < 5:
        return "not `class cx cy w h` or a polygon"
    if len(parts) == 6:
        return "six numbers: a prediction with its confidence, no label"
    if len(parts) % 2 == 0:
        return "polygon with an odd count of numbers"
    label = names.get(f"{parts[0]:g}")
    if label is None:
        return "class without a name"
    values = parts[1:]
    if len(values) == 4:
        a, b, c, d = values
        return Shape(label=label, box=corners((a, b, c, d), "cxcywh"), name=name)
    return Shape(label=label, poly=values, was="polygon", name=name)
