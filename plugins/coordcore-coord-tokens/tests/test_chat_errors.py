"""What is wrong with a chat row is said with file, line, path and cure, before training and at the first use."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coordcore import BuildContext, InputError
from coordcore_coord_tokens import ChatJsonl, ChatJsonlConfig

ASKED = {"role": "user", "content": "<image>Where is the dog?"}


def row(answer: Any = "<bbox>", **more: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": answer}
    return {"messages": [ASKED, said], "images": ["photo.png"], "objects": {"bbox": [[64, 48, 320, 240]]}, **more}


def turns(*messages: tuple[str, str]) -> dict[str, Any]:
    said = [{"role": role, "content": content} for role, content in messages]
    return {"messages": said, "images": ["photo.png"]}


def text(answer: str) -> dict[str, Any]:
    return row(answer, objects=None)


BOX = {"bbox": [[64, 48, 320, 240]]}
WRONG: dict[str, tuple[dict[str, Any] | bytes, str]] = {
    "a blank line": (b"", "blank line; every line holds one row, remove it"),
    "no JSON": (b"{", "not JSON: input data was truncated"),
    "a list": (b"[{", "expected object, got array; write one row a line, or one array of all rows"),
    "a number": (b"1", "expected object, got int"),
    "no messages": ({"images": []}, "messages: missing; write the turns, with role and content (or `conversations`)"),
    "empty messages": (row(messages=[]), "messages: empty; write the turns, with role and content"),
    "no role": (row(messages=[{"content": "x"}]), "messages[0].role: missing; write who speaks: user or assistant"),
    "a tool": (turns(("user", "?"), ("tool", "x")), "messages[1].role: 'tool' is not supported; known: user, human"),
    "no content": (row(None), "messages[1].content: missing; write what is said"),
    "an empty answer": (row(" "), "messages[1].content: empty answer; write what is said"),
    "two questions": (
        turns(("user", "<image>?"), ("user", "?"), ("assistant", "x")),
        "messages[1].content: a turn of the user, where one of the assistant belongs",
    ),
    "an answer first": (turns(("assistant", "x")), "messages[0].content: a turn of the assistant, where one of the us"),
    "no answer": (
        turns(("user", "<image>?"), ("assistant", "x"), ("user", "?")),
        "messages[2].content: the last turn is no answer, so there is nothing to train; leave it out",
    ),
    "an answer that is not to be trained": (
        row(messages=[ASKED, {"role": "assistant", "content": "x", "loss": False}]),
        "messages[1].loss: not supported: every answer is trained",
    ),
    "a video": (row(videos=["a.mp4"]), "videos: not supported: only text and images are trained; leave the row out"),
    "an answer that was rejected": (
        row(label=False),
        "label: false marks a rejected answer, which would be trained as a right one; leave the row out, or the key",
    ),
    "more places than boxes": (
        row("<bbox> and <bbox>"),
        "messages[1].content: a further <bbox>, but objects.bbox holds 1",
    ),
    "a place without objects": (row(objects=None), "messages[1].content: a further <bbox>, but objects.bbox holds 0"),
    "a question with a box that is not there": (
        row("x", messages=[{"role": "user", "content": "<image><bbox>?"}, {"role": "assistant", "content": "x"}])
        | {"objects": {"bbox": []}},
        "messages[0].content: a further <bbox>, but objects.bbox holds 0",
    ),
    "a question with a box beside the image": (
        turns(("user", "<image><bbox>?"), ("assistant", "x")) | {"objects": {"bbox": [[700, 0, 800, 10]]}},
        'objects.bbox[0]: x = 800 lies outside 0..640; `outside = "clip"` moves such corners to the edge',
    ),
    "more boxes than places": (row("dog"), "objects.bbox: holds 1, but the messages have 0 <bbox>"),
    "more refs than places": (
        row(objects=BOX | {"ref": ["dog"]}),
        "objects.ref: holds 1, but the messages have 0 <ref-object>",
    ),
    "more places than refs": (
        row("<ref-object><bbox>"),
        "messages[1].content: a further <ref-object>, but objects.ref holds 0",
    ),
    "an empty ref": (row("<ref-object><bbox>", objects=BOX | {"ref": [""]}), "objects.ref[0]: empty; write what is"),
    "a control token in a ref": (
        row("<ref-object><bbox>", objects=BOX | {"ref": ["<|im_end|>"]}),
        "objects.ref[0]: contains '<|im_end|>'",
    ),
    "a ref that is no text": (row(objects=BOX | {"ref": [None]}), "objects.ref[0]: expected str, got null"),
    "an image_id out of range": (
        row(objects=BOX | {"image_id": [1]}),
        "objects.image_id[0]: is on image 1, counted from 0, but the row has 1 image",
    ),
    "a negative image_id": (row(objects=BOX | {"image_id": [-1]}), "objects.image_id[0]: is on image -1"),
    "too many image_ids": (row(objects=BOX | {"image_id": [0, 0]}), "objects.image_id: holds 2, but objects.bbox 1"),
    "a box without an image": (
        row(images=[], messages=[{"role": "user", "content": "?"}, {"role": "assistant", "content": "<bbox>"}]),
        "objects.bbox[0]: is on image 0, counted from 0, but the row has 0 images",
    ),
    "three numbers": (row(objects={"bbox": [[1, 2, 3]]}), "objects.bbox[0]: needs 4 numbers (x1, y1, x2, y2), got 3"),
    "no number": (row(objects={"bbox": [[1, 2, 3, "4"]]}), "objects.bbox[0][3]: expected float, got str"),
    "another bbox_type": (
        row(objects=BOX | {"bbox_type": "norm1000"}),
        "objects.bbox_type: invalid enum value 'norm1000'; real is pixels, norm1 fractions, write one of these",
    ),
    "corners in the wrong order": (
        row(objects={"bbox": [[320, 48, 64, 240]]}),
        "objects.bbox[0]: x2 = 64.0 < x1 = 320.0: corners are x1, y1, x2, y2 (COCO writes x, y, w, h)",
    ),
    "pixels for fractions": (
        row(objects=BOX | {"bbox_type": "norm1"}),
        "objects.bbox[0]: x = 320 lies outside 0..1",
    ),
    "fractions for pixels": (
        row(objects={"bbox": [[0.1, 0.2, 0.5, 1]]}),
        "objects.bbox[0]: [0.1, 0.2, 0.5, 1.0] all lie in 0..1, as fractions of an image do; set `objects.bbox_type` ",
    ),
    "a missing image": (row(images=["gone.png"]), "images[0]: no image file at gone.png"),
    "a file that is no image": (row(images=["train.jsonl"]), "images[0]: image train.jsonl cannot be read"),
    "an image elsewhere": (row(images=["../photo.png"]), "images[0]: ../photo.png lies outside"),
    "an address": (row(images=["https://a.b/c.png"]), "images[0]: 'https://a.b/c.png' is no path; download the image"),
    "an image without a path": (row(images=[{"bytes": "x"}]), "images[0]: without a path; write the image to a file"),
    "two lists of images": (row(image="small.png"), "image: given beside other `images`; write one of them"),
    "a thin image": (row("x", objects=None, images=["thin.png"]), "images[0]: 300 x 1 is 300 times as long one way"),
    "more places than images": (
        turns(("user", "<image><image>?"), ("assistant", "x")),
        "messages[0].content: a further <image>, the 2. of the row, which has 1 image",
    ),
    "an image in an answer": (row("<image>"), "messages[1].content: <image> in an answer: answers are text"),
    "a control token": (text("a dog<|im_end|>"), "messages[1].content: contains '<|im_end|>'"),
    "a control token of ms-swift": (text("a <video>"), "messages[1].content: contains '<video>'"),
    "the wildcard": (text("<|coord_*|>"), "messages[1].content: contains '<|coord_*|>'"),
    "a bin that is none": (text("<|coord_1000|>" * 4), "messages[1].content: '<|coord_1000|>' is no coord token"),
    "three coord tokens": (text("<|coord_1|>" * 3), "has 3 coordinates; a box has 4, a point 2, a quad 8, a poly 6"),
    "a quad that is none": (text("ring|#" + "<|coord_1|>" * 6), "has 6 coordinates; a box has 4, a point 2, a quad 8"),
    "coord tokens in the wrong order": (
        text("<|coord_9|><|coord_1|><|coord_1|><|coord_2|>"),
        "messages[1].content: x2 = 1 < x1 = 9: corners are x1, y1, x2, y2",
    ),
    "numbers and coord tokens": (text("[1, 2, 3, <|coord_4|>]"), "mixes numbers and coord tokens; write one form"),
    "numbers that nothing declares": (
        text('[{"bbox_2d": [1, 2, 3, 4]}]'),
        "messages[1].content: numbers of a box, and nothing says what they are: set `space` to pixel, norm1,",
    ),
    "a click that nothing declares": (
        text('{"action": "left_click", "coordinate": [10, 20]}'),
        "messages[1].content: numbers of a point, and nothing says what they are: set `space` to pixel",
    ),
    "a click alone that nothing declares": (
        text("(0.49,0.40)"),
        "messages[1].content: numbers of a point, and nothing says what they are: set `space` to pixel, norm1",
    ),
    "boxes between semicolons that nothing declares": (
        text("The dogs[0.1,0.2,0.3,0.4;0.5,0.6,0.7,0.8] run."),
        "messages[1].content: numbers of a box, and nothing says what they are: set `space` to pixel, norm1",
    ),
    "two pairs of coord tokens": (
        text("[[<|coord_1|>, <|coord_2|>], [<|coord_3|>, <|coord_4|>]]"),
        ": 2 pairs are a box or two points; write them in <box> or under bbox_2d, each in <point> or under point_2d",
    ),
    "coord tokens of two points": (
        text('{"points": [[<|coord_1|>, <|coord_2|>], [<|coord_3|>, <|coord_4|>]]}'),
        "messages[1].content: 4 numbers under points, which are no x1, y1, x2, y2; write bbox_2d, poly or point_2d",
    ),
    "refs that are no list": (row(objects=BOX | {"ref": "dog"}), "objects.ref: expected array"),
}

IN_SPACE: dict[str, tuple[dict[str, Any], str, str]] = {
    "three numbers in JSON": (text('{"bbox_2d": [1, 2, 3]}'), "norm1000", "has 3 coordinates; a box has 4"),
    "three numbers of a point": (
        text('{"point_2d": [1, 2, 3]}'),
        "norm1000",
        "has 3 coordinates; a box has 4, a point",
    ),
    "Gemini's point": (text('{"point": [1, 2]}'), "norm1000", "numbers under point, which begin with y"),
    "Gemini's box": (text('{"box_2d": [1, 2, 3, 4]}'), "norm1000", "numbers under box_2d, which begin with y"),
    "pairs": (text("(1,2),(3,4),(5,6),(7,8)"), "norm1000", "4 pairs are several boxes or none; write [x1, y1, x2, y2]"),
    "two pairs": (
        text("[[10, 20], [630, 40]]"),
        "pixel",
        "'[10, 20], [630, 40]': 2 pairs are a box or two points; write them in <box> or under bbox_2d, each in <point> "
        'or under point_2d, or set `space = "text"` where they are no places',
    ),
    "two pairs in round brackets": (
        text("(10, 20), (630, 40)"),
        "pixel",
        "'(10, 20), (630, 40)': 2 pairs are a box or",
    ),
    "two pairs of a click": (text('{"coordinate": [[1, 2], [3, 4]]}'), "pixel", "2 pairs are a box or two points"),
    "two pairs in a question": (
        turns(("user", "<image>What lies between (1, 2), (30, 40)?"), ("assistant", "x")),
        "pixel",
        "messages[0].content: '(1, 2), (30, 40)': 2 pairs are a box or two points",
    ),
    "Florence": (
        text("dog<loc_12><loc_13><loc_500><loc_600>"),
        "norm1000",
        "messages[1].content: '<loc_12><loc_13><loc_500><loc_600>' is no place that can be read; write bbox_2d or "
        'point_2d with a list of numbers, or set `space = "text"` where they are no places',
    ),
    "PaliGemma": (text("<loc0100> <loc0200> <loc0300> <loc0400> dog"), "norm1000", "'<loc0100> <loc0200> <loc0300>"),
    "a point of Florence": (text("<loc_12><loc_30>"), "norm1000", "'<loc_12><loc_30>' is no place that can be read"),
    "Kosmos": (
        text("<patch_index_0044><patch_index_0863>"),
        "norm1000",
        "'<patch_index_0044><patch_index_0863>' is no",
    ),
    "MiniGPT-v2": (text("<p>dog</p> {<12><13><50><60>}"), "norm1000", "'{<12><13><50><60>}' is no place that can be"),
    "no commas": (text("[10 20 300 400]"), "pixel", "'[10 20 300 400]' is no place that can be read; write bbox_2d"),
    "no commas in round brackets": (text("dog (10 20 300 400)"), "pixel", "'(10 20 300 400)' is no place that can be"),
    "semicolons alone": (text("[0.1; 0.2; 0.3; 0.4]"), "norm1", "'[0.1; 0.2; 0.3; 0.4]' is no place that can be read"),
    "corners by name without quotes": (
        text("x1=10, y1=20, x2=300, y2=400"),
        "pixel",
        "'x1=10, y1=20, x2=300, y2=400' is no place that can be read; write bbox_2d or point_2d with a list of numbers",
    ),
    "corners by name in words": (text("Xmin: 1; Ymin: 2; Xmax: 3 and Ymax: 4"), "pixel", "'Xmin: 1; Ymin: 2; Xmax: 3"),
    "words in JSON": (text('{"bbox_2d": [1, 2, "a", 4]}'), "norm1000", "what stands under bbox_2d is no box that can"),
    "words in tags": (text("<box>1 to 4</box>"), "norm1000", "'<box>1 to 4</box>' is no box that can be read"),
    "Molmo's points": (
        text('<points x1="10.5" y1="20.1" alt="dogs">dogs</points>'),
        "norm1000",
        'alt="dogs">dogs</point\' is a point of Molmo, in percent of the image, which no `space` says; write '
        '<point>x y</point>, or set `space = "text"` where they are no places',
    ),
    "a corner and a size by name": (
        text('{"bbox": {"x": 1, "y": 2, "width": 3, "height": 4}}'),
        "pixel",
        'messages[1].content: \'"x": 1, "y": 2, "width": 3, "height": 4\': x, y, width, height are no x1, y1, x2, y2; '
        "write bbox_2d",
    ),
    "sides by name": (
        text('{"left": 1, "top": 2, "right": 3, "bottom": 4}'),
        "pixel",
        'left, top, right, bottom are no x1, y1, x2, y2; write bbox_2d, or set `space = "text"`',
    ),
    "a corner and a size of a page's element": (
        text('{"left": 1, "top": 2, "width": 3, "height": 4}'),
        "pixel",
        "left, top, width, height are no x1, y1, x2, y2; write bbox_2d",
    ),
    "y first beside a click": (
        text('{"y": 20, "x": 10, "type": "click"}'),
        "pixel",
        "y, x, where coord tokens stand as x, y; reorder",
    ),
    "percents of Molmo by coords": (text('<points coords="1 1 20 30">a</points>'), "pixel", "is a point of Molmo"),
    "corners by name in another order": (
        text('{"xmin": 1, "xmax": 2, "ymin": 3, "ymax": 4}'),
        "pixel",
        "xmin, xmax, ymin, ymax, where coord tokens stand as xmin, ymin, xmax, ymax; reorder",
    ),
    "corners by name with others between": (
        text('{"x1": 1, "label": "a", "y1": 2, "x2": 3, "y2": 4}'),
        "pixel",
        'is no place that can be read; write bbox_2d or point_2d with a list of numbers, or set `space = "text"`',
    ),
    "three numbers of a click": (
        text('{"coordinate": [1, 2, 3]}'),
        "pixel",
        "'\"coordinate\": [1, 2, 3]}' is no place",
    ),
    "a click in quotes": (text('{"coordinate": "10,20"}'), "pixel", "is no place that can be read; write bbox_2d or"),
    "y first in a call": (text("pyautogui.click(y=10, x=20)"), "pixel", "'pyautogui.click(y=10, x=20)' is no place"),
    "four numbers of a point": (text("<point>1 2 3 4</point>"), "pixel", "has 4 coordinates; a box has 4, a point 2"),
    "words of a point": (
        text("<point>1 and 2</point>"),
        "pixel",
        "'<point>1 and 2</point>' is no place that can be rea",
    ),
    "a click beside the image": (text("click(700, 10)"), "pixel", "x = 700 lies outside 0..640; `outside"),
    "more than a thousand": (text("[1, 2, 3, 1001]"), "norm1000", "y = 1001 lies outside 0..1000"),
    "no bins": (text("[1, 2, 3, 1000]"), "bin", "1000.0 > 999: this looks like absolute pixels"),
    "no fractions": (text("[1, 2, 3, 4]"), "norm1", "x = 3 lies outside 0..1"),
    "fractions for thousandths": (
        text("[0.1, 0.2, 0.5, 1]"),
        "norm1000",
        '[0.1, 0.2, 0.5, 1.0] all lie in 0..1, as fractions of an image do; set `space = "norm1"`; where such numbers',
    ),
    "width and height": (
        text('{"bbox_xywh": [1, 2, 3, 4]}'),
        "pixel",
        "4 numbers under bbox_xywh, which are no x1, y1, x2, y2; write bbox_2d, poly or point_2d, or set",
    ),
    "a line": (text('{"line": [[1, 2], [3, 4]]}'), "pixel", "4 numbers under line, which are no x1, y1, x2, y2"),
    "no pixels": (text("[1, 2, 3, 481]"), "pixel", "y = 481 lies outside 0..480"),
    "years": (
        text("in [2019, 2020, 2021, 2022]"),
        "pixel",
        'x = 2021 lies outside 0..640; `outside = "clip"` moves such corners to the edge; where such numbers are no '
        'coordinates, set `space = "text"`, which leaves the text alone',
    ),
    "a countdown": (text("[9, 8, 7, 6]"), "pixel", 'no coordinates, set `space = "text"`, which leaves the text alone'),
    "pixels of one image of several": (
        text("[1, 2, 3, 4]") | {"images": ["photo.png", "small.png"]},
        "pixel",
        "messages[1].content: a box in pixels, of one of 2 images of several sizes: of which is not said",
    ),
    "a box without an image": (
        {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "<|coord_1|>" * 4}]},
        "pixel",
        "messages[1].content: has a box, but the row has no image; add its image",
    ),
}


@pytest.fixture(autouse=True)
def images(folder: Path) -> None:
    Image.new("RGB", (100, 50)).save("small.png")
    Image.new("RGB", (300, 1)).save("thin.png")


def refused(config: ChatJsonlConfig, context: BuildContext) -> str:
    with pytest.raises(InputError) as caught:
        ChatJsonl.open(config, context).train()[1]
    return str(caught.value)


@pytest.mark.parametrize("name", WRONG)
def test_before_training(write: Any, context: BuildContext, name: str) -> None:
    given, message = WRONG[name]
    found = refused(ChatJsonlConfig(train=write(row(), given)), context)
    assert found.startswith("train.jsonl:2: ")
    assert message in found


@pytest.mark.parametrize("name", [name for name in WRONG if name != "a thin image"])  # which the processor refuses
def test_at_its_first_use(write: Any, context: BuildContext, name: str) -> None:
    given, message = WRONG[name]
    found = refused(ChatJsonlConfig(train=write(row(), given), validate=False), context)
    assert found.startswith("train.jsonl:2: ")
    assert message in found


@pytest.mark.parametrize(
    "key", ["points", "text_line", "keypoints_xy", "polygon1", "bboxXYWH", "bbox_cxcywh", "yxyx", "topLine"]
)
def test_four_numbers_of_a_key_that_are_no_corners(write: Any, context: BuildContext, key: str) -> None:
    path = write(text(f'{{"{key}": [1, 2, 3, 4]}}'))
    assert f"4 numbers under {key}, which" in refused(ChatJsonlConfig(train=path, space="pixel"), context)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('{"segmentation": [[10, 20, 30, 20, 30, 40]]}', "6 numbers under segmentation, which"),
        ('{"points": [[10, 20], [30, 20], [30, 40]]}', "6 numbers under points, which"),
        ('{"keypoints": [10, 20, 2, 30, 20, 2, 0, 0, 0]}', "9 numbers under keypoints, which"),
        ('{"keypoints": [[10, 20, 2], [30, 20, 2], [0, 0, 0]]}', "3 numbers under keypoints, which"),
        ('{"polygon": [[10, 20], [30, 20], [30, 40]]}', "6 numbers under polygon, which"),
    ],
)
def test_an_outline_that_nothing_would_turn_into_coord_tokens(
    write: Any, context: BuildContext, answer: str, said: str
) -> None:
    assert said in refused(ChatJsonlConfig(train=write(text(answer)), space="pixel"), context)


@pytest.mark.parametrize(
    "answer",
    [
        '{"poly": [10, 20, 30, 20, 30, 40]}',
        '{"line_chart": [1, 2, 3, 4, 5, 6]}',
        '{"points": [3, 1, 0, 3, 3, 1], "keypoints": [17]}',
        '{"segments": [[0.0, 1.5], [1.5, 3.0], [3.0, 4.5]]}',
        '{"baseline": [1, 2, 3, 4, 5, 6]}',
    ],
)
def test_numbers_of_other_keys_are_places_or_text(write: Any, context: BuildContext, answer: str) -> None:
    example = ChatJsonl.open(ChatJsonlConfig(train=write(text(answer)), space="pixel"), context).train()[0]
    kinds = [geometry.kind for geometry in example.geometries]
    assert kinds == (["poly"] if "poly" in answer else [])


@pytest.mark.parametrize(
    "key", ["bbox_xyxy", "polyp", "vertebra", "oryx", "airliner", "line_bbox", "line_chart", "points_of_interest"]
)
def test_a_key_that_only_sounds_like_it_holds_a_box(write: Any, context: BuildContext, key: str) -> None:
    path = write(text(f'{{"{key}": [1, 2, 3, 4]}}'))
    example = ChatJsonl.open(ChatJsonlConfig(train=path, space="pixel"), context).train()[0]
    assert [geometry.kind for geometry in example.geometries] == ["bbox_2d"]


@pytest.mark.parametrize(
    "answer",
    ["[10 20 30 40]", "x1=10, y1=20, x2=30, y2=40", "{<1><2><3><4>}", "<loc_1><loc_2>", "(1, 2)", "[1,2,3,4;5,6,7,8]"],
)
def test_places_that_cannot_be_read_are_text_where_that_is_declared(
    write: Any, context: BuildContext, answer: str
) -> None:
    example = ChatJsonl.open(ChatJsonlConfig(train=write(text(answer)), space="text"), context).train()[0]
    assert (example.messages[1]["content"], example.geometries) == (answer, ())
    alone = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]}
    example = ChatJsonl.open(ChatJsonlConfig(train=write(alone), space="pixel"), context).train()[0]
    assert (example.messages[1]["content"], example.geometries) == (answer, ())


@pytest.mark.parametrize(
    "answer",
    [
        "<|box_start|>(10,20),(300,400)<|box_end|>",
        "<ref>dog</ref><box>(10,20),(300,400)</box>",
        "<box>[[10, 20], [300, 400]]</box>",
        "<|det|>[[10,20],[300,400]]<|/det|>",
        '{"bbox_2d": [[10, 20], [300, 400]]}',
        '{"bounding_box": [[10, 20], [300, 400]]}',
        '{"boxes": [[10, 20], [300, 400]]}',
        '{"rect": [(10, 20), (300, 400)]}',
        "Bounding box: (10, 20), (300, 400)",
        "bbox = [[10, 20], [300, 400]]",
    ],
)
def test_two_pairs_where_something_says_box(write: Any, context: BuildContext, answer: str) -> None:
    example = ChatJsonl.open(ChatJsonlConfig(train=write(text(answer)), space="norm1000"), context).train()[0]
    assert [(item.kind, [round(value, 2) for value in item.values]) for item in example.geometries] == [
        ("bbox_2d", [9.99, 19.98, 299.7, 399.6])
    ]


def test_a_box_that_is_clipped_into_the_corner_is_no_fraction(write: Any, context: BuildContext) -> None:
    path = write(row(objects={"bbox": [[-5, -4.5, 0.3, 0.4]]}))
    assert len(ChatJsonl.open(ChatJsonlConfig(train=path, outside="clip"), context).train()) == 1


@pytest.mark.parametrize("name", IN_SPACE)
def test_in_a_space(write: Any, context: BuildContext, name: str) -> None:
    given, space, message = IN_SPACE[name]
    found = refused(ChatJsonlConfig(train=write(row(), given), space=space), context)
    assert found.startswith("train.jsonl:2: ")
    assert message in found


def test_a_file_that_shows_no_rows_is_told_as_what_it_is(write: Any, context: BuildContext) -> None:
    path = write(row())
    content = path.read_bytes()
    path.write_bytes(gzip.compress(content))
    told = "train.jsonl: is compressed with gzip; unpack it, as `gunzip` does, and name that file"
    assert refused(ChatJsonlConfig(train=path), context) == told
    path.write_bytes(b" \n" * 40_000 + b"[" + content + b"]")
    told = "train.jsonl: begins with 64 KiB of blanks or more; remove them"
    assert refused(ChatJsonlConfig(train=path), context) == told


def test_all_problems_of_a_file_are_told(write: Any, context: BuildContext) -> None:
    config = ChatJsonlConfig(train=write(row("dog"), row(), row(images=["gone.png"])))
    assert [line.split(":")[1] for line in refused(config, context).splitlines()] == ["1", "3"]


def test_images_are_decoded_beforehand_where_that_is_asked(write: Any, context: BuildContext) -> None:
    Path("cut.png").write_bytes(Path("photo.png").read_bytes()[:120])
    path = write(row(), row(images=["cut.png"]))
    assert len(ChatJsonl.open(ChatJsonlConfig(train=path), context).train()) == 2
    assert "images[0]: image cut.png cannot be read" in refused(ChatJsonlConfig(train=path, validate="images"), context)
