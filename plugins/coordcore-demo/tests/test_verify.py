"""The command that tries a checkpoint."""

from __future__ import annotations

import pytest
from PIL import Image

from coordcore.quantisation import DEFAULT_QUANTISATION, quantisation
from coordcore_demo import answer_text
from coordcore_demo.shapes import Shape, draw
from coordcore_demo.sheet import write_sheet
from coordcore_demo.verify import main, to_shapes


def test_boxes_are_decoded_with_the_quantisation_of_the_checkpoint():
    text = '{"objects": [{"desc": "red ring", "bbox_2d": [<|coord_0|>, <|coord_250|>, <|coord_500|>, <|coord_999|>]}]}'
    (shape,) = to_shapes(text, image_size=64, quantisation=quantisation("qwen_1000"))
    assert shape == Shape("red ring", (0.0, 16.0, 32.0, 63.936))


@pytest.mark.parametrize("coord_tokens", [True, False])
def test_an_answer_reads_back(coord_tokens):
    text = answer_text([("red ring", (12, 40, 500, 999)), ("blue cross", (0, 1, 2, 3))], coord_tokens=coord_tokens)
    assert to_shapes(text, image_size=999, quantisation=DEFAULT_QUANTISATION) == [
        Shape("red ring", (12.0, 40.0, 500.0, 999.0)),
        Shape("blue cross", (0.0, 1.0, 2.0, 3.0)),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a red ring",
        "[1, 2]",
        '{"objects": {}}',
        '{"objects": ["red ring"]}',
        '{"objects": [{"bbox_2d": [1, 2, 3, 4]}]}',
        '{"objects": [{"desc": "red ring"}]}',
        '{"objects": [{"desc": "red ring", "bbox_2d": [1, 2, 3]}]}',
        '{"objects": [{"desc": "red ring", "bbox_2d": [1, 4, 3, 2]}]}',
        '{"objects": [{"desc": "red ring", "bbox_2d": [1, 2, 3, 1000]}]}',
        '{"objects": [{"desc": "red ring", "bbox_2d": [1, 2, 3, 4.5]}]}',
        '{"objects": [{"desc": "red ring", "bbox_2d": [1, 2, <|coord_*|>, 4]}]}',
        '{"objects": [{"desc": "red ring", "bbox_2d": [1, 2, 3, 4]}',
    ],
)
def test_anything_else_does_not_parse(text):
    assert to_shapes(text, image_size=999, quantisation=DEFAULT_QUANTISATION) is None


def test_the_command_prints_its_table_and_writes_the_sheet(base, tmp_path, capsys):
    main([str(base), "--images", "2", "--sheet", str(tmp_path / "new" / "sheet.png")])
    output = capsys.readouterr().out
    assert "2 held-out pictures" in output
    assert "answers that parse to the right number of boxes" in output
    assert Image.open(tmp_path / "new" / "sheet.png").size == (2 * 166 + 6, 182 + 6)


def test_a_missed_bound_fails(base):
    with pytest.raises(SystemExit, match=r"below the bounds: parsed 0\.0, class-agnostic mean IoU 1\.0"):
        main([str(base), "--images", "1", "--min-iou", "1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "0"], "argument --images: must be a whole number of at least 1, got '0'"),
        (["--seed", "-1"], "argument --seed: must be a whole number of at least 0, got '-1'"),
        (["--max-objects", "10"], "argument --max-objects: invalid choice: 10"),
        ([], "no config.json; give the folder of a merged checkpoint (runs/<name>/merged)"),
    ],
)
def test_wrong_input_exits_with_2(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), *arguments])
    assert message in capsys.readouterr().err


def test_the_sheet_shows_truth_and_answer(tmp_path):
    image, ((_, box),) = draw(0, 0)
    answer = [Shape("red ring", (40.0, 40.0, 60.0, 60.0))]
    write_sheet(tmp_path / "sheet.png", [image], [[Shape("yellow cross", box)]], [answer])
    sheet = Image.open(tmp_path / "sheet.png").convert("RGB")
    left, top = 6, 6
    truth_corner = (left + round(2.5 * box[0]), top + round(2.5 * box[1]))
    assert sheet.getpixel(truth_corner) == (255, 255, 255)
    assert sheet.getpixel((left + 100, top + 100)) == (255, 0, 255)
