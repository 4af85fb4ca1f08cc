"""One annotation format to another: the call `convert`, and what it is told. Torch-free."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from coordcore import InputError, RunError
from coordcore.errors import printable, shortened
from coordcore.quantisation import Quantisation
from coordcore.records.annotations import Space
from coordcore_data.convert.core import Account, Crowd, Purpose, Reader, Reading
from coordcore_data.convert.geometry import Geometry, Outside

if TYPE_CHECKING:
    from coordcore_data.convert.rules import Rules

FORMATS = {
    "coco": "COCO instances (JSON)",
    "lvis": "LVIS (JSON)",
    "voc": "Pascal VOC (folder of XML files)",
    "yolo": "Ultralytics YOLO (data.yaml, or a folder of label files)",
    "labelme": "LabelMe (folder of JSON files)",
    "cvat": "CVAT for images, or for video, 1.1 (XML)",
    "odvg": "ODVG (JSONL)",
    "refcoco": "referring expressions (JSON or JSONL rows, or REFER's refs as JSON)",
    "swift": "chat rows of ms-swift, LLaVA or ShareGPT (JSONL or JSON)",
    "label_studio": "Label Studio (JSON or JSON-MIN)",
    "via": "VGG Image Annotator, VIA 2 (JSON)",
    "createml": "Create ML (JSON)",
    "labelbox": "Labelbox (NDJSON)",
    "openimages": "Open Images (CSV of boxes)",
    "datumaro": "Datumaro (JSON)",
    "dota": "DOTA (folder of text files)",
    "records": "coordcore's own records (JSONL)",
}
"""Name -> what it is. Each is a module beside this one with a function `read`."""


@attrs.frozen(kw_only=True)
class Conversion:
    """What to convert, and how. `coordcore data convert --help` says what each option means.

    geometry: of the objects that are written; None for "own" from records, whose kinds are kept, and "box" from others.
    space, quantisation: of the records that are written; COCO files are always in pixels, chat rows in pixels or
    fractions. purpose: of the records; COCO files hold crowds among their annotations, chat rows are for training.
    split: shares by name that add up to 1, or "source". strip_prefix, image_prefix: a folder taken off every image
    path, and one put before. reading: what the reader has to be told.
    """

    source: Path
    output: Path
    source_format: str
    to: Literal["records", "coco", "swift"] = "records"
    space: Space | None = None
    quantisation: Quantisation | None = None
    geometry: Geometry | Literal["own"] | None = None
    keypoints: bool = False
    crowd: Crowd = "carry"
    purpose: Purpose = "training"
    outside: Outside = "clip"
    reversed_corners: Literal["drop", "sort"] = "drop"
    split: tuple[tuple[str, float], ...] | Literal["source"] | None = None
    strip_prefix: str = ""
    image_prefix: str = ""
    check_sizes: bool = False
    categories: Path | None = None
    overwrite: bool = False
    reading: Reading = attrs.Factory(Reading)


def convert(conversion: Conversion, *, progress: bool = False) -> Account:
    """Convert, and return what became of every image and object; `<output>.account.json` holds the same.

    Nothing is written unless everything is, and nothing is overwritten unless asked. progress: show a bar on stderr.
    Raises InputError for a source that cannot be read as a whole; single images and objects that cannot be used are
    dropped and counted.
    """
    from coordcore_data.convert.rules import Rules

    _check(conversion)
    geometry = conversion.geometry or ("own" if conversion.source_format == "records" else "box")
    conversion = attrs.evolve(conversion, geometry=geometry)
    account = Account()
    to_coco = conversion.to == "coco"
    reading = attrs.evolve(
        conversion.reading,
        polygons=geometry in ("poly", "quad", "own"),
        points=geometry in ("point", "own"),
        keypoints=conversion.keypoints,
        crowds=conversion.crowd != "objects",
        partial=not to_coco and conversion.purpose == "evaluation",
        per=conversion.reading.per or ("image" if to_coco else None),  # COCO's files list an image once
    )
    rules = Rules(
        geometry=geometry,
        crowd=conversion.crowd,
        outside=conversion.outside,
        purpose="evaluation" if to_coco else conversion.purpose,
        reversed_corners=conversion.reversed_corners,
        strip=conversion.strip_prefix,
        images=reading.images,
        check_sizes=conversion.check_sizes,
    )
    try:
        with _without_collector():
            _convert(conversion, reading, rules, account, progress)
    except OSError as error:  # of the output, or of a path that the source names
        why = (error.strerror or str(error)).lower()
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            named = shortened(str(error.filename), 300)
            raise InputError(f"{conversion.source}: names {named}, which no file can be called: {why}") from error
        raise RunError(f"{conversion.output}: cannot be written: {why}") from error
    return account


@contextmanager
def _without_collector() -> Iterator[None]:
    """No search for reference cycles: there are none, and it would walk over every box again and again (a fifth of
    the time for 860,000 boxes)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _convert(conversion: Conversion, reading: Reading, rules: Rules, account: Account, progress: bool) -> None:
    from coordcore_data.convert.outputs import Outputs
    from coordcore_data.convert.packed import unpacked
    from coordcore_data.convert.progress import shown
    from coordcore_data.convert.rules import apply_rules
    from coordcore_data.convert.sniff import named
    from coordcore_data.convert.write import split_of

    inputs = (conversion.source, conversion.categories, reading.classes, reading.instances)
    with (
        Outputs(conversion.output, conversion.overwrite, inputs) as outputs,
        unpacked(conversion.source, conversion.source_format) as source,
        named(source, conversion.source_format),
    ):
        make = _writers(conversion, account)
        # Before the long work, not after it.
        for path in (*map(outputs.path, _known_splits(conversion)), outputs.account):
            outputs.check(path)
        found = reader(conversion.source_format)(source, reading, account)
        writers = {split: make(outputs.open(outputs.path(split))) for split in _known_splits(conversion)}
        images = shown(found.images, "converting", found.total) if progress else found.images
        for image in apply_rules(images, rules, account):
            split, goes = split_of(image, conversion.split, account)
            if not goes:
                continue
            if split not in writers:
                writers[split] = make(outputs.open(outputs.path(split)))
            writers[split].add(image, _prefixed(conversion.image_prefix, image.file))
        for writer in writers.values():
            writer.finish()
        if source != conversion.source:
            account.note("read from an archive: image paths are those inside it, unpack it for training")
            account.rename(str(source), str(conversion.source))
        if not (account.images.balanced and account.objects.balanced):
            raise RunError(f"the account does not add up, which is a mistake of this converter: {account}")
        if not account.images.written:
            raise InputError("\n".join([f"{conversion.source}: no image is left to write", *account.lines()]))
        if account.objects.read and not (account.objects.written or account.objects.carried):
            account.note("not one object could be used: every record says that nothing is there")
        written = {str(outputs.path(split)): writer.images for split, writer in writers.items()}
        outputs.open(outputs.account).write(_account_file(conversion, account, written))


def reader(source_format: str) -> Reader:
    """The reader of a format. Raises InputError listing those there are."""
    if source_format not in FORMATS:
        raise InputError(f"unknown format {source_format!r}; available: {', '.join(FORMATS)}")
    module = import_module(f"coordcore_data.convert.{'coco' if source_format == 'lvis' else source_format}")
    read: Reader = module.read
    return read


def parse_splits(text: str | None) -> tuple[tuple[str, float], ...] | Literal["source"] | None:
    """ "train=0.9,val=0.1" as names and shares, "source" as it is. Raises InputError."""
    if text is None or text == "source":
        return text  # type: ignore[return-value]  # mypy does not narrow to the literal
    parts: list[tuple[str, float]] = []
    for part in text.split(","):
        name, _, share = part.strip().partition("=")
        try:
            parts.append((name, float(share)))
        except ValueError:
            raise InputError(f"--split {text}: {part!r} is not NAME=SHARE, such as train=0.9,val=0.1") from None
    names = [name for name, _ in parts]
    if not all(name.replace("_", "").replace("-", "").isalnum() for name in names) or len(set(names)) < len(names):
        raise InputError(f"--split {text}: names must be different and made of letters, digits, - and _")
    if not all(0 < share <= 1 for _, share in parts) or abs(sum(share for _, share in parts) - 1) > 1e-9:
        raise InputError(f"--split {text}: shares must be > 0 and add up to 1")
    return tuple(parts)


_TAKES = {
    "--from-space": ("refcoco", "swift", "createml", "records"),
    "--from-quantisation": ("swift", "records"),
    "--boxes": ("coco", "lvis", "odvg", "refcoco", "swift", "records"),
    "--classes": ("yolo", "odvg", "openimages"),
    "--instances": ("refcoco",),
    "--origin": ("voc",),
    "--attribute": ("via",),
    "--frames": ("cvat",),
    "--per": ("refcoco",),
    "--keypoints": ("coco", "lvis", "yolo", "records"),
}
"""Option -> the formats that it says something about. In vain anywhere else, it would be a mistake in silence."""


def _undeclared(reading: Reading) -> dict[str, object]:
    return {
        "--from-space": reading.space,
        "--from-quantisation": reading.quantisation,
        "--boxes": reading.boxes,
        "--classes": reading.classes,
        "--instances": reading.instances,
        "--origin": reading.origin,
        "--attribute": reading.attribute,
        "--frames": reading.frames,
        "--per": reading.per,
        "--keypoints": reading.keypoints or None,
    }


def _check(conversion: Conversion) -> None:
    for option, value in _undeclared(attrs.evolve(conversion.reading, keypoints=conversion.keypoints)).items():
        if value is not None and conversion.source_format not in _TAKES[option]:
            takers = ", ".join(_TAKES[option])
            raise InputError(f"{option} means nothing for {conversion.source_format}; it is for: {takers}")
    if conversion.to == "coco" and conversion.space not in (None, "pixel"):
        raise InputError("COCO files are in pixels; leave out --to-space, or write records")
    if conversion.to == "swift":
        if conversion.space == "bin":
            raise InputError("chat rows are in pixels or fractions: --to-space pixel or norm1")
        if conversion.purpose == "evaluation" or conversion.keypoints:
            option = "--keypoints" if conversion.keypoints else "--purpose evaluation"
            raise InputError(f"{option}: chat rows cannot hold what it asks for; write records")
    if conversion.to != "coco" and conversion.categories is not None:
        raise InputError("--categories gives a written COCO file its ids; records and chat rows have names only")
    if conversion.to == "records" and conversion.space is None:
        raise InputError("say what the written numbers shall be: --to-space pixel, norm1 or bin")
    if (conversion.space == "bin") != (conversion.quantisation is not None):
        raise InputError("bins need a convention, --quantisation NAME, and other spaces have none")
    if conversion.check_sizes and conversion.reading.images is None and conversion.source_format != "yolo":
        raise InputError("--check-sizes compares with the image files: say where they are, --image-root DIR")
    reading = conversion.reading
    for path in (conversion.source, conversion.categories, reading.images, reading.classes, reading.instances):
        if path is not None:
            _require_path(path)
    if conversion.reading.images is not None and not conversion.reading.images.is_dir():
        raise InputError(f"{conversion.reading.images}: no such folder")
    given = conversion.reading.quantisation if conversion.reading.space == "bin" else None
    if given is not None and conversion.quantisation is not None:
        _check_requantisation(given, conversion.quantisation)


def _require_path(path: Path) -> None:
    """Raise InputError for a path that no file can have. What is not there is its reader's to tell."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error


def _check_requantisation(given: Quantisation, wanted: Quantisation) -> None:
    on_border = given.decode_scale == wanted.encode_scale and given.decode_shift == 0 and given.inset == wanted.inset
    if on_border and wanted.rounding != "nearest":
        raise InputError(
            f"a bin of {given.name} lies just on the border of two bins of {wanted.name}, so that rounding "
            "errors would decide; convert from pixels"
        )


def _known_splits(conversion: Conversion) -> list[str | None]:
    if conversion.split is None:
        return [None]
    return [] if conversion.split == "source" else [name for name, _ in conversion.split]


def _writers(conversion: Conversion, account: Account) -> Any:
    """What makes the writer of one open file."""
    from coordcore_data.convert.coco_file import read_categories
    from coordcore_data.convert.coco_writer import CocoWriter
    from coordcore_data.convert.swift_writer import SwiftWriter
    from coordcore_data.convert.write import RecordWriter

    if conversion.to == "coco":
        categories = None if conversion.categories is None else read_categories(conversion.categories)
        labels: set[str] = set()
        return lambda file: CocoWriter(file, categories, labels, account)
    if conversion.to == "swift":
        return lambda file: SwiftWriter(file, conversion.space == "norm1", account)
    space = conversion.space or "pixel"
    return lambda file: RecordWriter(file, space, conversion.quantisation, account, conversion.source)


def _prefixed(prefix: str, file: str) -> str:
    return f"{prefix.rstrip('/')}/{file}" if prefix else file


def _account_file(conversion: Conversion, account: Account, written: dict[str, int]) -> bytes:
    import msgspec

    told, reading = attrs.asdict(conversion, recurse=False), attrs.asdict(conversion.reading, recurse=False)
    # `geometry`, `keypoints`, `crowd` and `purpose` say so.
    for name in ("polygons", "points", "keypoints", "crowds", "partial"):
        del reading[name]
    reading = {key: value for key, value in reading.items() if key != "per" or value is not None}
    if not conversion.keypoints:
        del told["keypoints"]
    for part in (told, reading):
        if part["quantisation"] is not None:
            part["quantisation"] = part["quantisation"].as_dict()
    # A file's name may have bytes that are no UTF-8.
    files = {printable(name): count for name, count in written.items()}
    content = {"conversion": told | {"reading": reading}, **account.as_dict(), "files": files}
    return (
        msgspec.json.format(msgspec.json.encode(content, enc_hook=lambda path: printable(str(path))), indent=2) + b"\n"
    )
