"""`coordcore data convert` and `coordcore data check`. Torch-free; the work is imported inside."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from coordcore import InputError
from coordcore.errors import printable
from coordcore.options import SpaceName
from coordcore_data.convert.conversion import FORMATS

command = typer.Typer(
    help="Convert annotation formats to records and back, and check records for wrong conventions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Format = StrEnum("Format", {name: name for name in FORMATS})  # type: ignore[misc]  # mypy wants the names written out


class Target(StrEnum):
    """What is written."""

    RECORDS = "records"
    COCO = "coco"
    SWIFT = "swift"


class Boxes(StrEnum):
    """What four numbers are."""

    XYXY = "xyxy"
    XYWH = "xywh"
    CXCYWH = "cxcywh"
    YXYX = "yxyx"


class Geometry(StrEnum):
    """What objects become."""

    OWN = "own"
    BOX = "box"
    POLY = "poly"
    QUAD = "quad"
    POINT = "point"


class Crowd(StrEnum):
    """What becomes of regions of several objects."""

    CARRY = "carry"
    DROP = "drop"
    OBJECTS = "objects"


class Edge(StrEnum):
    """What becomes of a shape that reaches over the edge of its image."""

    CLIP = "clip"
    DROP = "drop"
    ERROR = "error"


class Purpose(StrEnum):
    """What the records are for."""

    TRAINING = "training"
    EVALUATION = "evaluation"


class Reversed(StrEnum):
    """What becomes of a box whose second corner lies before its first."""

    DROP = "drop"
    SORT = "sort"


class Per(StrEnum):
    """What a record is made of."""

    EXPRESSION = "expression"
    IMAGE = "image"


class Origin(StrEnum):
    """What a source calls the first pixel."""

    ZERO = "0"
    ONE = "1"


ImageRoot = Annotated[
    Path | None, typer.Option("--image-root", metavar="DIR", help="Folder that image paths start from.")
]
FormerImages = Annotated[Path | None, typer.Option("--images", hidden=True, help="As --image-root.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]

_FORMATS = "; ".join(f"{name}: {what}" for name, what in FORMATS.items())


@command.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="File or folder to read.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="File to write, .jsonl or .json.")],
    source_format: Annotated[Format, typer.Option("--from", metavar="FORMAT", help=f"{_FORMATS}.")],
    target: Annotated[
        Target, typer.Option("--to", help="What to write: records, COCO, or chat rows of ms-swift.")
    ] = Target.RECORDS,
    to_space: Annotated[
        SpaceName | None,
        typer.Option(help="What the written numbers are; needed for records. COCO is in pixels, as chat rows are."),
    ] = None,
    quantisation: Annotated[
        str, typer.Option(metavar="NAME", help="Convention of the bins that are written.")
    ] = "nearest_999",
    geometry: Annotated[
        Geometry | None,
        typer.Option(
            help="Write polygons and rotated boxes as their enclosing box (box, point), as polygons (poly), or all "
            "with four corners (quad); points as objects (point), or else under metadata; or each as what it is (own). "
            "When absent own from records, box from other formats."
        ),
    ] = None,
    keypoints: Annotated[
        bool, typer.Option("--keypoints", help="Carry the keypoints of COCO and YOLO-pose beside each object's box.")
    ] = False,
    crowd: Annotated[
        Crowd, typer.Option(help="Carry crowd regions under metadata, leave them out, or read them as objects.")
    ] = Crowd.CARRY,
    purpose: Annotated[
        Purpose, typer.Option(help="Leave out images that have crowd regions only, or keep them for evaluation.")
    ] = Purpose.TRAINING,
    outside: Annotated[
        Edge, typer.Option(help="A shape over the image's edge: cut it there, leave it out, or stop.")
    ] = Edge.CLIP,
    reversed_corners: Annotated[
        Reversed, typer.Option("--reversed", help="A box whose second corner lies before its first.")
    ] = Reversed.DROP,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=SHARE,...",
            help="One file for each, by a hash of the image's file name: train=0.9,val=0.1. "
            "`source` takes the source's own splits.",
        ),
    ] = None,
    image_root: ImageRoot = None,
    images: FormerImages = None,
    check_sizes: Annotated[
        bool, typer.Option("--check-sizes", help="Compare sizes with the image files, and apply EXIF orientations.")
    ] = False,
    strip_prefix: Annotated[
        str, typer.Option(metavar="PATH", help="Take off the front of the source's image paths.")
    ] = "",
    image_prefix: Annotated[
        str, typer.Option(metavar="PATH", help="Put before every image path that is written.")
    ] = "",
    from_space: Annotated[
        SpaceName | None, typer.Option(help="What the numbers of the source are, where its format does not say.")
    ] = None,
    from_quantisation: Annotated[
        str | None, typer.Option(metavar="NAME", help="Convention of the bins in the source.")
    ] = None,
    boxes: Annotated[
        Boxes | None,
        typer.Option(help="Order of a box in the source, where its format does not say or the file breaks it."),
    ] = None,
    origin: Annotated[
        Origin | None,
        typer.Option(
            help="What VOC files call the first pixel; 1 unless corners at 0 or between pixels show otherwise."
        ),
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Class names: one on each line, or JSON by number.")
    ] = None,
    attribute: Annotated[
        str | None, typer.Option(metavar="NAME", help="Attribute of VIA's regions that holds their label.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of a video with tracks, take every Nth frame.")
    ] = None,
    per: Annotated[
        Per | None,
        typer.Option(help="A record for every expression of refcoco, which asks for it, or for every image."),
    ] = None,
    instances: Annotated[
        Path | None, typer.Option(metavar="FILE", help="COCO file with the boxes that REFER's refs name.")
    ] = None,
    categories: Annotated[
        Path | None, typer.Option(metavar="FILE", help="COCO file whose category ids a written COCO file takes.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert SOURCE to records, to COCO or to chat rows, with an account of everything that was dropped or changed.

    The account is printed and lies beside OUTPUT as NAME.account.json. Images and objects that cannot be used are
    dropped and counted by reason; what was read is what was written, carried and dropped.
    """
    from coordcore.quantisation import quantisation as convention
    from coordcore_data.convert.conversion import Conversion, parse_splits
    from coordcore_data.convert.conversion import convert as run
    from coordcore_data.convert.core import Reading

    conversion = Conversion(
        source=source,
        output=output,
        source_format=source_format.value,
        to=target.value,
        space=to_space.value if to_space else None,
        quantisation=convention(quantisation) if to_space is SpaceName.BIN else None,
        geometry=geometry.value if geometry else None,
        keypoints=keypoints,
        crowd=crowd.value,
        purpose=purpose.value,
        outside=outside.value,
        reversed_corners=reversed_corners.value,
        split=parse_splits(split),
        strip_prefix=strip_prefix,
        image_prefix=image_prefix,
        check_sizes=check_sizes,
        categories=categories,
        overwrite=overwrite,
        reading=Reading(
            images=image_root or images,
            classes=classes,
            instances=instances,
            space=from_space.value if from_space else None,
            boxes=boxes.value if boxes else None,
            origin=int(origin) if origin else None,  # type: ignore[arg-type]  # "0" or "1"
            attribute=attribute,
            frames=frames,
            per=per.value if per else None,
            quantisation=convention(from_quantisation) if from_quantisation else None,
        ),
    )
    account = run(conversion, progress=True)
    for line in account.lines():
        typer.echo(line)


@command.command()
def check(
    records: Annotated[Path, typer.Argument(metavar="RECORDS", help="JSONL file of records, right or wrong.")],
    space: Annotated[
        SpaceName | None, typer.Option(help="What the numbers are; guessed, and said, when absent.")
    ] = None,
    boxes: Annotated[Boxes, typer.Option(help="Read boxes in this order, to see whether it fits.")] = Boxes.XYXY,
    quantisation: Annotated[
        str | None, typer.Option(metavar="NAME", help="Convention of the bins; the records' own when absent.")
    ] = None,
    image_root: ImageRoot = None,
    images: FormerImages = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw boxes and labels on some of the images.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=100, help="Images on the sheet.")] = 12,
    limit: Annotated[int | None, typer.Option(min=1, help="Read only the first records.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Look for wrong conventions in RECORDS: statistics, one line per suspicion, and boxes drawn on the images.

    With --image-root the sizes in the records are compared with the image files. Suspicions do not change the exit
    code.
    """
    from coordcore.files import require_writable
    from coordcore.quantisation import quantisation as convention
    from coordcore_data.check.result import check_sample
    from coordcore_data.check.sample import collect

    root = image_root or images
    if root is not None and not root.is_dir():
        raise InputError(f"{root}: no such folder")
    require_writable(sheet, records, overwrite=overwrite)
    spec = convention(quantisation) if quantisation else None
    sample = collect(records, limit, quantisation=spec, progress=True)
    checked = check_sample(sample, space=space.value if space else None, order=boxes.value, images=root)
    drawn = 0
    if sheet is not None:
        from coordcore_data.check.sheet import write_sheet

        folder = root or records.parent
        drawn = write_sheet(sheet, sample, folder, space=checked.space, order=checked.order, count=count)
    if json:
        from json import dumps

        typer.echo(dumps(checked.as_dict(), indent=2))
        return
    for line in checked.lines():
        typer.echo(line)
    if sheet is not None:
        typer.echo(printable(f"{sheet}: {drawn} images"))
