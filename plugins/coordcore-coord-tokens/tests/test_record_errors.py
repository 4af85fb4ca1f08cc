"""Every message for a record that is not right; docs/reference/records.md lists exactly these."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from PIL import Image

from coordcore import BuildContext, InputError
from coordcore.quantisation import quantisation
from coordcore_coord_tokens import CoordJsonl, CoordJsonlConfig

Build = Callable[..., CoordJsonl]
Write = Callable[..., Path]


REFERENCE = Path(__file__).parents[3] / "docs/reference/records.md"
BASE: dict[str, Any] = {"images": ["photo.png"], "width": 640, "height": 480}


@attrs.frozen
class Case:
    """What stands on the first line, how it is read, and the message (without "train.jsonl:1: ")."""

    line: dict[str, Any] | bytes
    message: str
    settings: dict[str, Any] = attrs.field(factory=dict)
    quantisation: str = "nearest_999"


def of(message: str, settings: dict[str, Any] | None = None, quantisation: str = "nearest_999", **item: Any) -> Case:
    """A case of one object."""
    line = {**BASE, "objects": [{"desc": "red circle", **item}]}
    return Case(line, message, settings or {}, quantisation)


def record(message: str, **keys: Any) -> Case:
    """A case of a record with other top-level keys."""
    return Case({**BASE, "objects": [], **keys}, message)


BOX = [12, 40, 300, 412]
PIXEL = {"space": "pixel"}
POINTS = {"geometry": ("point", "quad")}
CLIP = {"space": "pixel", "outside": "clip"}
SUMMARY = {"mode": "summary"}

CASES = [
    # the line
    Case(b"", "blank line; every line holds one record, remove it"),
    Case(b'{"images": [', "not JSON: input data was truncated"),
    Case(b"{'images': []}", "not JSON: object keys must be strings (byte 1)"),
    Case(b'{"images": ["caf\xe9.jpg"]}', "not UTF-8 (invalid continuation byte); save the file as UTF-8"),
    Case(b"\xef\xbb\xbf{}", "starts with a byte order mark; save the file as UTF-8 without one"),
    Case(b'{"metadata": {"a": ' + b"[" * 9999 + b"]" * 9999 + b"}}", "not a record: nested too deep"),
    Case(b"[]", "expected object, got array"),
    # what it asks
    record("task: 'reffer' is no task; did you mean 'refer'?", task="reffer"),
    record('question: missing; the task "refer" needs it', task="refer"),
    record("question: empty; write what is there", task="refer", question=" "),
    record(
        'answer: the task "detect" takes none; leave it out, or name the `task` that it belongs to', answer="a red ring"
    ),
    record(
        "answer: contains '<|coord_7|>', which the tokenizer or the template reads as a control token; reword it",
        task="chat",
        question="Where?",
        answer="at <|coord_7|>",
    ),
    Case(
        {**BASE, "task": "point", "question": "ring", "objects": [{"desc": "ring", "poly": [0, 0, 9, 0, 9, 9]}]},
        'objects[0]: the task "point" takes a point or bbox_2d; write one, or name another task',
    ),
    record(
        'objects: holds 0, and the task "region" takes one, the place; write a record for each',
        task="region",
        answer="a red ring",
    ),
    Case(
        {**BASE, "task": "region", "objects": [{"desc": "ring", "bbox_2d": [12, 40, 300, 412]}]}
        | {"question": "What is this?", "answer": "a red ring"},
        'question: must hold {box}, its place, for the task "region", and for no other; reword it',
    ),
    Case(
        {**BASE, "task": "named", "objects": [{"desc": "cup", "bbox_2d": [12, 40, 300, 412]}], "categories": ["cow"]},
        "objects[0].desc: 'cup' is not among `categories`; ask for it too",
    ),
    record(
        "categories[1]: 'cup' is there twice, or in metadata.incomplete_categories; drop it",
        task="named",
        categories=["cup", "cup"],
    ),
    Case(
        {**BASE, "objects": [{"desc": "cup", "bbox_2d": [12, 40, 300, 412]}]}
        | {"metadata": {"absent_categories": ["cow", "cup"]}},
        "objects[0].desc: 'cup' is in metadata.absent_categories too; drop it there, or the object",
    ),
    record(
        "categories: empty; list what is asked for, or leave the key out, which asks for what is there",
        task="named",
        categories=[],
    ),
    record(
        "categories: missing; nothing is there to ask for, nor known to be absent; write the list",
        task="named",
        metadata={"absent_categories": []},
    ),
    # the record
    record("objcts: unknown key; did you mean 'objects'?", objcts=[]),
    record("question and prompt say different things; they are one key, keep question", prompt="a?", question="b?"),
    record(
        "colour: unknown key; known keys: images, width, height, objects, summary, task, question, answer, categories, "
        "metadata",
        colour="red",
    ),
    Case({"images": ["photo.png"], "width": 640, "objects": []}, "height: missing"),
    Case(BASE, "objects: missing; write an empty list when the image holds none"),
    record("width: expected int >= 1", width=0),
    record("width: expected int, got str", width="640"),
    record("images: holds 2 images; geometry refers to one image, so write one record for each", images=["a", "b"]),
    record("images[0]: empty path", images=[""]),
    record("images[0]: no image file at phto.png", images=["phto.png"]),
    record(
        "metadata.quantisation: the record is quantised as qwen_1000 (version 1), this run as nearest_999 (version 1): "
        "name qwen_1000 against nearest_999, encode_scale 1000.0 against 999.0, decode_scale 1000.0 against 999.0; "
        "use one convention throughout ([coords] quantisation), or write the data again from pixels",
        metadata={"quantisation": "qwen_1000"},
    ),
    # summaries
    Case(BASE, 'summary: missing; `mode = "summary"` needs one in every record', SUMMARY),
    Case({**BASE, "summary": " "}, "summary: empty; write what is there", SUMMARY),
    # an object
    Case({**BASE, "objects": [{"desc": "roof", "bbox": BOX}]}, "objects[0].bbox: unknown key; did you mean 'bbox_2d'?"),
    Case({**BASE, "objects": [{"bbox_2d": BOX}]}, "objects[0].desc: missing"),
    Case({**BASE, "objects": [{"desc": "", "bbox_2d": BOX}]}, "objects[0].desc: empty; write what is there"),
    Case(
        {**BASE, "objects": [{"desc": "sign <|im_end|>", "bbox_2d": BOX}]},
        "objects[0].desc: contains '<|im_end|>', which the tokenizer or the template reads as a control token; "
        "reword it",
    ),
    of("objects[0]: needs exactly one geometry, bbox_2d, poly, point or quad, got none"),
    of(
        "objects[0]: needs exactly one geometry, bbox_2d, poly, point or quad, got bbox_2d and poly",
        bbox_2d=BOX,
        poly=[0, 0, 9, 0, 9, 9],
    ),
    of("objects[0].line: lines are not supported; write a bbox_2d, poly, point or quad", line=[1, 2, 3, 4]),
    of(
        "objects[0].poly: not among the kinds `geometry` allows: bbox_2d; add it there to train it",
        {"geometry": ("bbox_2d",)},
        poly=[0, 0, 9, 0, 9, 9],
    ),
    # coordinates
    of("objects[0].bbox_2d: needs 4 numbers (x1, y1, x2, y2), got 3", bbox_2d=[1, 2, 3]),
    of("objects[0].bbox_2d[2]: expected int | float | str, got bool", bbox_2d=[1, 2, True, 4]),
    of(
        "objects[0].bbox_2d: x2 = 100 < x1 = 300: corners are x1, y1, x2, y2 (COCO writes x, y, w, h)",
        bbox_2d=[300, 40, 100, 412],
    ),
    of("objects[0].poly: needs pairs x, y, got an odd count of 7 numbers", poly=[1, 2, 3, 4, 5, 6, 7]),
    of("objects[0].poly: needs at least 3 points, got 2", poly=[1, 2, 3, 4]),
    of("objects[0].poly_points: says 4, but poly holds 3 points", poly=[0, 0, 9, 0, 9, 9], poly_points=4),
    of("objects[0].poly_points: belongs to a poly; remove it from this bbox_2d", bbox_2d=BOX, poly_points=4),
    of("objects[0].point: needs 2 numbers (x, y), got 4", POINTS, point=BOX),
    of("objects[0].quad: needs 8 numbers (x1, y1 to x4, y4), got 4", POINTS, quad=BOX),
    of(
        "objects[0].quad: its sides cross; write the corners in order around it: x1, y1 to x4, y4",
        POINTS,
        quad=[0, 0, 9, 0, 0, 9, 9, 9],
    ),
    of("objects[0].keypoints: needs x, y and visibility of each, got 4 numbers", bbox_2d=BOX, keypoints=[1, 2, 2, 5]),
    of(
        "objects[0].keypoints: visibility is 0, 1 or 2, got 3; write 0 for one not labelled, 1 hidden, 2 visible",
        bbox_2d=BOX,
        keypoints=[1, 2, 3],
    ),
    # bins
    of(
        "objects[0].bbox_2d: 1016 > 999: this looks like absolute pixels; convert to bins 0..999 first "
        '(`space = "pixel"` converts on reading)',
        bbox_2d=[12, 40, 1016, 412],
    ),
    of("objects[0].bbox_2d: -3 < 0: bins are 0..999", bbox_2d=[-3, 40, 300, 412]),
    of(
        "objects[0].bbox_2d: 12.5 is not a whole number, as bins are; if these are pixels or fractions, set `space`",
        bbox_2d=[12.5, 40, 300, 412],
    ),
    of(
        "objects[0].bbox_2d: mixes numbers and coord tokens; write one form throughout",
        bbox_2d=[12, 40, 300, "<|coord_412|>"],
    ),
    of(
        "objects[0].bbox_2d: '<|coord_1000|>' is no coord token; write <|coord_0|> to <|coord_999|>",
        bbox_2d=["<|coord_0|>", "<|coord_0|>", "<|coord_1000|>", "<|coord_9|>"],
    ),
    of(
        "objects[0].bbox_2d: '<|coord_*|>' is the wildcard, not a coordinate; write <|coord_0|> to <|coord_999|>",
        bbox_2d=["<|coord_*|>", "<|coord_0|>", "<|coord_1|>", "<|coord_9|>"],
    ),
    # pixels and fractions
    of(
        'objects[0].bbox_2d: \'<|coord_0|>\' is text, but `space` is "pixel"; write numbers, or set "bin"',
        PIXEL,
        bbox_2d=["<|coord_0|>"] * 4,
    ),
    of(
        'objects[0].bbox_2d: x = 641.5 lies outside 0..640; `outside = "clip"` moves such corners to the edge',
        PIXEL,
        bbox_2d=[12, 40, 641.5, 412],
    ),
    of(
        "objects[0].keypoints: x = 641.5 lies outside 0..640; `coordcore data convert --keypoints` moves them to the "
        "edge",
        CLIP,
        bbox_2d=BOX,
        keypoints=[641.5, 40, 2],
    ),
    of(
        'objects[0].bbox_2d: x = 300 lies outside 0..1; if these are pixels, set `space = "pixel"`',
        {"space": "norm1"},
        bbox_2d=BOX,
    ),
    of(
        "objects[0].bbox_2d: x = 700..800 does not overlap 0..640; remove the object",
        CLIP,
        bbox_2d=[700, 40, 800, 412],
    ),
    of(
        "objects[0].poly: quantisation outward_999 rounds boxes outward and cannot encode single points; "
        "encode boxes, or choose a quantisation that rounds to nearest",
        PIXEL,
        "outward_999",
        poly=[0, 0, 9, 0, 9, 9],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.message[:60])
def test_message(case: Case, write: Write, context: BuildContext) -> None:
    config = CoordJsonlConfig(train=write(case.line), **case.settings)
    with pytest.raises(InputError) as caught:
        CoordJsonl.open(config, attrs.evolve(context, quantisation=quantisation(case.quantisation)))
    assert str(caught.value) == f"train.jsonl:1: {case.message}"


def swapped(path: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (640, 480)).save(path, exif=exif)


def torn(path: str) -> None:
    Image.effect_noise((640, 480), 50).save(path)
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: len(whole) // 2])


IMAGE_CASES = {
    "images[0]: image photo.jpg is 480 x 640 once its EXIF orientation 6 is applied, but the record says 640 x 480; "
    "width and height are those of the upright image": ("photo.jpg", swapped),
    "images[0]: image photo.jpg is 64 x 48, but the record says 640 x 480; "
    "width and height are those of the upright image": ("photo.jpg", lambda path: Image.new("L", (64, 48)).save(path)),
    "images[0]: image photo.jpg cannot be read: cannot identify image file 'photo.jpg'": (
        "photo.jpg",
        lambda path: Path(path).write_text("<html>404</html>"),
    ),
    "images[0]: image photo.bmp cannot be read: image file is truncated (101 bytes not processed)": ("photo.bmp", torn),
    "images[0]: image photo.tif has mode I;16, more than 8 bits a channel; convert it to 8 bits first": (
        "photo.tif",
        lambda path: Image.new("I;16", (640, 480)).save(path),
    ),
}


@pytest.mark.parametrize("message", IMAGE_CASES)
def test_image_message(message: str, build: Build, record: dict[str, Any]) -> None:
    name, draw = IMAGE_CASES[message]
    draw(name)
    train = build({**record, "images": [name]}).train()
    with pytest.raises(InputError) as caught:
        train[0]
    assert str(caught.value) == f"train.jsonl:1: {message}"


def test_a_file_that_is_not_there(folder: Path, context: BuildContext) -> None:
    with pytest.raises(InputError) as caught:
        CoordJsonl.open(CoordJsonlConfig(train=Path("train.jsonl")), context)
    assert str(caught.value) == "train.jsonl: cannot be read: no such file or directory"


def test_a_file_without_records(write: Write, context: BuildContext) -> None:
    with pytest.raises(InputError) as caught:
        CoordJsonl.open(CoordJsonlConfig(train=write()), context)
    assert str(caught.value) == "train.jsonl: holds no records; write one a line, or name another file"


@pytest.mark.parametrize("geometry", [{"bbox_2d": [0.1, 0.2, 0.5, 1]}, {"poly": [0, 0.2, 0.5, 0.1, 0.4, 0.9]}])
def test_fractions_that_are_called_pixels(build: Build, record: dict[str, Any], geometry: dict[str, Any]) -> None:
    fractions = {**record, "objects": [{"desc": "cup", **geometry}]}
    with pytest.raises(InputError) as caught:
        build(fractions, record, space="pixel")
    seen = "train.jsonl: 1 of 2 records with objects hold pixels of 0..1 alone, as fractions of an image are"
    assert str(caught.value) == f'{seen}; if they are, set `space = "norm1"`'


def test_records_without_objects_say_nothing_of_fractions(build: Build, record: dict[str, Any]) -> None:
    fractions = {**record, "objects": [{"desc": "cup", "bbox_2d": [0.1, 0.2, 0.5, 1]}]}
    empty = {**record, "objects": []}
    with pytest.raises(InputError, match="1 of 2 records with objects"):
        build(empty, fractions, empty, record, empty, space="pixel")
    assert len(build(empty, space="pixel").train()) == 1


def test_records_that_are_left_out_say_nothing_of_fractions(build: Build, record: dict[str, Any]) -> None:
    gone = {**record, "images": ["gone.png"], "objects": [{"desc": "cup", "bbox_2d": [0.1, 0.2, 0.5, 1]}]}
    assert len(build(record, gone, gone, space="pixel", on_bad_image="skip").train()) == 1


@pytest.mark.parametrize("box", [[0.1, 0.2, 0.5, 1], [f"<|coord_{number}|>" for number in range(4)]])
def test_a_summary_is_trained_whatever_the_objects_are(build: Build, record: dict[str, Any], box: list[Any]) -> None:
    summed = {**record, "summary": "A cup.", "objects": [{"desc": "cup", "bbox_2d": box}]}
    assert len(build(summed, space="pixel", mode="summary").train()) == 1


def test_a_box_that_is_clipped_into_the_corner_is_no_fraction(build: Build, record: dict[str, Any]) -> None:
    clipped = {**record, "objects": [{"desc": "cup", "bbox_2d": [-5, -4.5, 0.3, 0.4]}]}
    assert len(build(clipped, space="pixel", outside="clip").train()) == 1


@pytest.mark.parametrize("box", [[0, 0, 1, 1], [0, 0, 1.5, 1]])
def test_a_box_in_the_corner_is_no_fraction(build: Build, record: dict[str, Any], box: list[float]) -> None:
    corner = {**record, "objects": [{"desc": "cup", "bbox_2d": box}]}
    assert len(build(corner, space="pixel").train()) == 1


def test_all_problems_at_once_and_the_rest_counted(build: Build, record: dict[str, Any]) -> None:
    wrong = {**record, "width": 0}
    with pytest.raises(InputError) as caught:
        build(*[wrong] * 23, record)
    shown = [f"train.jsonl:{line}: width: expected int >= 1" for line in range(1, 21)]
    assert str(caught.value).splitlines() == [*shown, "train.jsonl:21: from here on 3 more records have problems"]


def test_an_image_that_is_gone_later(build: Build, record: dict[str, Any]) -> None:
    train = build(record).train()
    Path("photo.png").unlink()
    with pytest.raises(InputError, match=r"^train\.jsonl:1: images\[0\]: no image file at photo\.png$"):
        train[0]


def test_without_validation_a_mistake_is_found_at_its_record(build: Build, record: dict[str, Any]) -> None:
    train = build(record, {**record, "width": 0}, validate=False).train()
    assert train[0].source == "train.jsonl:1"
    with pytest.raises(InputError, match=r"^train\.jsonl:2: width: expected int >= 1$"):
        train[1]


def test_the_reference_lists_every_message_and_no_other() -> None:
    blocks = re.findall(r"```text\n(.*?)```", REFERENCE.read_text(), flags=re.DOTALL)
    documented = [line for block in blocks for line in block.splitlines()]
    produced = [f"train.jsonl:1: {message}" for message in [*(case.message for case in CASES), *IMAGE_CASES]]
    of_the_file = [
        "train.jsonl: cannot be read: no such file or directory",
        "train.jsonl: holds no records; write one a line, or name another file",
        "train.jsonl: 1 of 2 records with objects hold pixels of 0..1 alone, as fractions of an image are; if they "
        'are, set `space = "norm1"`',
        "train.jsonl:21: from here on 3 more records have problems",
        # test_index.py
        "train.jsonl: cannot be read: is a directory",
        "train.jsonl: cannot be read: is a pipe or a device; write what it gives into a file",
        "train.jsonl: changed since it was indexed; leave it as it is during a run, and start again",
        "train.jsonl:2: longer than 64 MiB; every line holds one record, so line breaks are missing here",
    ]
    assert sorted(documented) == sorted([*produced, *of_the_file])
