"""DOTA: one text file for each image, a line `x1 y1 x2 y2 x3 y3 x4 y4 category difficult` for each object, in pixels.

The source is a folder of such files (`labelTxt`), or one above several. The image of P0001.txt is the file P0001 of any
image's suffix in `--image-root`, else in the folder `images` beside the label files' own, else beside the file; of
several such files nobody knows which is meant, and the label file is dropped. A file
without objects says that nothing is there; an image without a file is not read. Lines `imagesource:...` and `gsd:...`
stand in front and are not carried. The four corners become a polygon from the first one onwards, or its enclosing box.
A `difficult` above 0 is listed under `metadata.difficult`; a line may end without one. Commas may stand in place of the
blanks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs

from coordcore import InputError
from coordcore_data.convert.core import TURNED, Account, Found, Reading, Shape, SourceImage
from coordcore_data.convert.sizes import IMAGE_SUFFIXES
from coordcore_data.convert.text import UnreadableError, files_below, find_files, number, read_bytes

_HEADERS = ("imagesource:", "gsd:")
_OTHERS = ("classes.txt", "train.txt", "val.txt", "test.txt", "trainval.txt")
"""Lists that may lie beside labels."""


@attrs.define
class _Pictures:
    """Image files by the path of their label file, as each folder is first asked for. root: --image-root."""

    root: Path | None
    _folders: dict[Path, dict[str, list[Path]]] = attrs.field(factory=dict, init=False)
    _below: dict[str, list[Path]] | None = attrs.field(default=None, init=False)

    def find(self, labels: Path, source: Path) -> list[Path]:
        """The files that may be the image of a label file: one, unless there is none or it is not clear which."""
        if self.root is not None:
            return self._in(self.root / labels.parent.relative_to(source), labels.stem) or self._anywhere(labels.stem)
        return self._in(labels.parent.parent / "images", labels.stem) or self._in(labels.parent, labels.stem)

    def _in(self, folder: Path, stem: str) -> list[Path]:
        if folder not in self._folders:
            self._folders[folder] = _by_stem(sorted(folder.iterdir()) if folder.is_dir() else [])
        return self._folders[folder].get(stem, [])

    def _anywhere(self, stem: str) -> list[Path]:
        """The images below the root of that name."""
        if self._below is None:
            self._below = _by_stem(files_below(self.root) if self.root is not None else [])
        return self._below.get(stem, [])


def _by_stem(files: list[Path]) -> dict[str, list[Path]]:
    """The image files among these by their names without suffix."""
    found: dict[str, list[Path]] = {}
    for path in files:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            found.setdefault(path.stem, []).append(path)
    return found


def read(source: Path, reading: Reading, account: Account) -> Found:
    """Raises InputError when there are no text files, or no image for any of them."""
    files = [path for path in find_files(source, ".txt") if path.name not in _OTHERS]
    root = source if source.is_dir() else source.parent
    pictures = _Pictures(reading.images)
    pairs = [(path, pictures.find(path, root)) for path in files]
    if not any(found for _, found in pairs):
        looked = reading.images or "folders named images, and beside the labels"
        raise InputError(
            f"{source}: no image for any of its {len(files)} label files in {looked}; sizes come from the images: "
            "--image-root DIR"
        )
    return Found(images=_images(pairs, root, reading.images or root, account), total=len(pairs))


def _images(pairs: list[tuple[Path, list[Path]]], root: Path, images: Path, account: Account) -> Iterator[SourceImage]:
    """pairs: of a label file and what may be its image.

    root, images: folders that names of label files and paths of images start from.
    """
    for path, found in pairs:
        account.images.read += 1
        try:
            data = read_bytes(path)
        except UnreadableError as error:
            account.drop_image(error.reason, path, error.detail)
            continue
        text = data.decode("utf-8-sig", "replace")
        lines = [
            (at, line)
            for at, line in enumerate(text.splitlines(), 1)
            if line.strip() and not line.strip().lower().startswith(_HEADERS)
        ]
        account.objects.read += len(lines)
        name = path.relative_to(root).as_posix()
        if len(found) > 1:
            named = " and ".join(image.name for image in found)
            account.drop_image(
                "label file that may be of several images; keep one", name, "->", named, objects=len(lines)
            )
            continue
        if "\ufffd" in text or not found:
            account.drop_image("not UTF-8" if found else "label file without an image", name, objects=len(lines))
            continue
        [image] = found
        shapes = []
        for at, line in lines:
            where = f"{path.name}:{at}"
            shape = _shape(line, where)
            if isinstance(shape, str):
                account.drop_object(shape, where, repr(line))
            else:
                shapes.append(shape)
        yield SourceImage(
            file=(image.relative_to(images) if image.is_relative_to(images) else Path(image.name)).as_posix(),
            width=None,
            height=None,
            shapes=shapes,
            path=image,
            lost=len(lines) - len(shapes),
            split=path.parent.parent.name if path.parent != root else None,
        )


def _shape(line: str, name: str) -> Shape | str:
    """The shape of a line, or why there is none."""
    commas = line.count(",") in (8, 9)
    parts = list(map(str.strip, line.split(","))) if commas else line.split()
    if len(parts) not in (9, 10):
        return "not `x1 y1 x2 y2 x3 y3 x4 y4 category difficult`"
    try:
        values = [float(number(part)) for part in parts[:8]]
    except ValueError:
        return "corners that are no numbers"
    difficult = parts[9] if len(parts) == 10 else "0"
    if difficult not in ("0", "1", "2"):
        return "difficult is not 0, 1 or 2"
    return Shape(label=parts[8], poly=values, difficult=difficult != "0", was=TURNED, name=name)
