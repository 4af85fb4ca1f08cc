"""Which images a YOLO data set has and where their labels are: data.yaml, CVAT's obj.data, folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from coordcore import InputError
from coordcore_data.convert.core import Account
from coordcore_data.convert.paths import ImageFolder
from coordcore_data.convert.sizes import IMAGE_SUFFIXES
from coordcore_data.convert.text import UnreadableError, files_below, is_file, read_bytes, unique


@attrs.frozen
class Pair:
    """An image file and where its labels would be.

    name: the image's path in the record. place: the folder or list that the image is from.
    """

    image: Path
    labels: Path
    name: str
    place: Path
    split: str | None = None


# --- folders --------------------------------------------------------------------------------------------------------


def from_folder(source: Path, images: Path | None) -> list[Pair]:
    """The images of a folder, and the label files at the same places of `source`.

    images: the folder; None for `images` beside `labels` in the source, as Label Studio exports them.
    """
    if images is None and (source / "images").is_dir() and (source / "labels").is_dir():
        images, source = source / "images", source / "labels"
    if images is None:
        raise InputError(
            f"{source}: YOLO labels are fractions of the image: say where the images are, --image-root DIR"
        )
    files = _image_files(images)
    if not files:
        raise InputError(f"{images}: holds no images")
    relative = [path.relative_to(images) for path in files]
    pairs = [
        Pair(path, (source / name).with_suffix(".txt"), name.as_posix(), images)
        for path, name in zip(files, relative, strict=True)
    ]
    return pairs + _orphans(source, {pair.labels for pair in pairs}, images)


def _image_files(folder: Path) -> list[Path]:
    return [path for path in files_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def _orphans(folder: Path, known: set[Path], place: Path, split: str | None = None) -> list[Pair]:
    """Label files whose image is missing, as pairs of which only the label file is there."""
    lone = [
        path
        for path in files_below(folder)
        if path.suffix.lower() == ".txt"
        and path not in known
        and path.name not in ("classes.txt", "train.txt", "valid.txt")
    ]
    stems = [path.with_suffix("") for path in lone]
    return [Pair(stem, path, _name(stem, folder), place, split) for stem, path in zip(stems, lone, strict=True)]


def _name(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


# --- data.yaml ------------------------------------------------------------------------------------------------------


def read_yaml(source: Path) -> dict[str, Any]:
    """The content of a data.yaml, every scalar as the text it is written as.

    Raises InputError, also for a key that stands there twice, of which YAML would keep the last value.
    It would also make True of the class `on`, 1.1 of `1.10` and 10 of `0012`.
    """
    import yaml

    class Loader(yaml.BaseLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            unique(
                (
                    key.value,
                    value.value if value.id == "scalar" else f"a {value.id} in line {value.start_mark.line + 1}",
                )
                for key, value in node.value
                if key.id == "scalar"
            )
            found: dict[Any, Any] = super().construct_mapping(node, deep)
            return found

    try:
        content = yaml.load(read_bytes(source), Loader=Loader)
    except UnreadableError as error:
        raise InputError(f"{source}: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{source}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"{source}: is no data.yaml: expected keys such as path, train, val, names")
    return content


def from_yaml(source: Path, content: dict[str, Any], account: Account) -> list[Pair]:
    """The images of all splits; a split without any is said. Raises InputError when there is no image at all."""
    roots = _roots(source, content.get("path") or "")
    pairs: list[Pair] = []
    lone: list[Pair] = []
    missing: list[str] = []
    for split in ("train", "val", "test"):
        names = ("val", "validation", "valid") if split == "val" else (split,)
        places: Any = next((content[name] for name in names if content.get(name)), [])
        for place in places if isinstance(places, list) else [places]:
            if not isinstance(place, str):
                raise InputError(f"{source}: {split}: needs a folder or a list of them")
            found = _resolve(place, roots)
            its = [] if found is None else _of_place(found, roots, split)
            if not its:
                missing.append(f"{split}: {place}")
            pairs += its
            lone += _without_images(place, roots, split) if found is None else []
    if not pairs:
        told = f"no folder or list of images at {', '.join(missing)}" if missing else "train, val and test are empty"
        raise InputError(f"{source}: names no images: {told}")
    for item in missing:
        account.note("split without images: left out", item)
    return pairs + lone


def _without_images(place: str, roots: list[Path], split: str) -> list[Pair]:
    """The label files of a folder of images that is not there."""
    for root in roots:
        images = root / place
        labels = _labels_of(images / "x").parent
        if labels != images and labels.is_dir():
            return _orphans(labels, set(), images, split)
    return []


def _roots(source: Path, path: Any) -> list[Path]:
    """Where the paths of a data.yaml may start from, the likeliest first.

    `path` counts from the file, or from where training starts; Ultralytics also looks in a folder of its own, so that
    it is often wrong elsewhere. Without it paths start at the file, in older exports at the folder above.
    """
    if not isinstance(path, str):
        raise InputError(f"{source}: path: {path!r} is not the path of a folder")
    folder = source.parent
    listed = [folder / path, Path(path)] if path else []
    return [item for item in (*listed, folder, folder.resolve().parent) if item.is_dir()]


def _resolve(place: str, roots: list[Path]) -> Path | None:
    """The folder or list that a path means: below one of the roots, or, as Ultralytics does, without "../" in front."""
    bare = place.replace("\\", "/")
    while bare.startswith("../"):
        bare = bare.removeprefix("../")
    for root in roots:
        for path in (root / place, root / bare):
            if path.is_dir() or (path.is_file() and path.suffix == ".txt"):
                whole, start = path.resolve(), roots[0].resolve()
                return roots[0] / whole.relative_to(start) if whole.is_relative_to(start) else path
    return None


def _of_place(place: Path, roots: list[Path], split: str) -> list[Pair]:
    """The images of one folder or list of `data.yaml`."""
    images = _image_files(place) if place.is_dir() else list(_listed(place, roots))
    labels = [_labels_of(image) for image in images]
    pairs = [
        Pair(image, path, _name(image, roots[0]), place, split) for image, path in zip(images, labels, strict=True)
    ]
    folder = _labels_of(place / "x").parent
    if place.is_dir() and folder != place and folder.is_dir():
        pairs += _orphans(folder, set(labels), place, split)
    return pairs


def _labels_of(image: Path) -> Path:
    """Ultralytics' rule: the last folder `images` becomes `labels`, the suffix .txt."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _listed(file: Path, roots: list[Path]) -> Iterator[Path]:
    """The image files of a list.

    Entries that start with "./" are relative to the list, others to where training starts: the root.
    """
    for entry, names in _entries(file):
        starts = [file.parent, *roots] if entry.startswith("./") else [*roots, file.parent]
        tried = (start / name for name in names for start in starts)
        yield next(filter(is_file, tried), starts[0] / entry)


def _entries(file: Path) -> Iterator[tuple[str, list[str]]]:
    """The entries of a list, each with the paths that it may mean, the likeliest first.

    Folders in front that are not there belong to another machine or archive, as the "data/" that CVAT writes.
    """
    for line in _text_of(file).splitlines():
        entry = line.strip().replace("\\", "/")
        parts = [part for part in entry.split("/") if part not in ("", ".", "..")]
        if parts:  # which a folder above has not, nor is it an image
            yield entry, [entry, *("/".join(parts[index:]) for index in range(len(parts)))]


def _text_of(file: Path) -> str:
    try:
        return read_bytes(file).decode("utf-8-sig", "replace")
    except UnreadableError as error:
        raise InputError(f"{file}: {error}") from error


# --- obj.data -------------------------------------------------------------------------------------------------------


def from_obj_data(source: Path, images: Path | None, account: Account) -> tuple[list[Pair], Path]:
    """The images that CVAT's export in the YOLO 1.1 format lists, and the file with their class names.

    images: a folder with the image files, which the export may leave out. Raises InputError without images or names.
    """
    try:
        text = read_bytes(source).decode("utf-8-sig")
    except (UnreadableError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: {error}") from error
    entries = [line.partition("=") for line in text.splitlines() if "=" in line]
    values = {key.strip(): value.strip().replace("\\", "/") for key, _, value in entries}
    roots = [source.parent, *([images] if images is not None else [])]
    folder = ImageFolder(images) if images is not None else None
    names = _beside(source, values.pop("names", "obj.names"))
    if names is None:
        raise InputError(f"{source}: names: no file with the class names; give it with --classes FILE")
    pairs: list[Pair] = []
    missing: list[str] = []
    for key, value in values.items():
        file = _beside(source, value) if value.endswith(".txt") else None
        if file is None:
            if value.endswith(".txt"):
                missing.append(f"{key}: {value}")
                account.note("split without images: left out", missing[-1])
            continue
        for (entry, meant), image in zip(_entries(file), _listed(file, roots), strict=True):
            if folder is not None and not is_file(image):
                # Wherever the images lie: labels are where the list says.
                image = folder.root / (folder.find(meant[-1], "") or meant[-1])
            tried = (source.parent / Path(name).with_suffix(".txt") for name in meant)
            labels = next(filter(is_file, tried), source.parent / Path(entry).with_suffix(".txt"))
            root = images if images is not None and image.is_relative_to(images) else source.parent
            pairs.append(Pair(image, labels, _name(image, root), file, key))
    if not pairs:
        told = f"no file at {', '.join(missing)}" if missing else "no list of images, or nothing in them"
        raise InputError(f"{source}: names no images: {told}")
    return pairs, names


def _beside(source: Path, path: str) -> Path | None:
    """The file that obj.data means by a path, which starts with a "data/" that the archive does not have."""
    tried = (source.parent / path, source.parent / path.removeprefix("data/"), source.parent / Path(path).name)
    return next((item for item in tried if item.is_file()), None)
