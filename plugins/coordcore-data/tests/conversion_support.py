"""Small files in the formats that `convert` reads, and one call that converts and reads back."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image

from coordcore.quantisation import quantisation
from coordcore_data.convert.conversion import Account, Conversion, convert
from coordcore_data.convert.core import Reading

REAL_COCO = Path(__file__).parents[3] / "tests" / "data" / "coco_val2014_100_boxes.json"

SKELETON = "skeleton: records have no such geometry; export as COCO Keypoints, and use --from coco --keypoints"

_READING = ("images", "classes", "instances", "boxes", "origin", "attribute", "frames", "per")


def run(source: Path, source_format: str, output: Path, **options: Any) -> Account:
    """Convert to records in pixels unless `options` say otherwise; `from_space`, `from_quantisation` as in the CLI."""
    reading = Reading(
        space=options.pop("from_space", None),
        quantisation=_spec(options.pop("from_quantisation", None)),
        **{key: options.pop(key) for key in _READING if key in options},
    )
    if options.get("to", "records") == "records":
        options.setdefault("space", "pixel")
    if options.get("space") == "bin":
        options.setdefault("quantisation", quantisation("nearest_999"))
    account = convert(Conversion(source=source, source_format=source_format, output=output, reading=reading, **options))
    assert account.images.balanced
    assert account.objects.balanced
    return account


def _spec(name: str | None) -> Any:
    return None if name is None else quantisation(name)


def records_of(source: Path, source_format: str, tmp_path: Path, **options: Any) -> tuple[list[Any], Account]:
    output = tmp_path / "out.jsonl"
    account = run(source, source_format, output, overwrite=True, **options)
    return read_lines(output), account


def read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_zip(path: Path, files: dict[str, str | Path]) -> Path:
    """An archive of texts, and of files by their paths."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            if isinstance(content, Path):
                archive.write(content, name)
            else:
                archive.writestr(name, content)
    return path


def why_dropped(account: Account) -> list[str]:
    """The reasons why images, and then objects, were dropped, those of objects that went with their image left out."""
    objects = [reason for reason in account.objects.dropped if not reason.startswith("image dropped")]
    return [*account.images.dropped, *objects]


def write_image(path: Path, width: int, height: int, orientation: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.new("RGB", (width, height), "gray").save(path, exif=exif)
    return path


def coco(
    annotations: list[Any], images: list[Any] | None = None, categories: list[Any] | None = None
) -> dict[str, Any]:
    """One image a.jpg of 100 x 80 with id 7, and the category 1 = cat, unless given."""
    return {
        "images": images if images is not None else [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 80}],
        "annotations": annotations,
        "categories": categories if categories is not None else [{"id": 1, "name": "cat"}],
    }


def annotation(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20, 30, 40], "iscrowd": 0} | changes
