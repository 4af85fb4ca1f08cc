"""Images that a run would stop at: found before it, by the record's size or by decoding, or left out and told."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import attrs
import pytest
from PIL import Image

from coordcore import BuildContext, InputError
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_coord_tokens import CoordJsonl, CoordJsonlConfig
from coordcore_coord_tokens.jsonl import record_problems


def problems(path: Path, **settings) -> list[str]:
    return [str(problem) for problem in record_problems(CoordJsonlConfig(train=path, **settings), DEFAULT_QUANTISATION)]


@pytest.mark.parametrize(("width", "height"), [(2010, 10), (10, 2010)])
def test_an_image_that_is_too_long_is_a_problem_in_every_record(write, record, width, height):
    path = write(*[record] * 700, {**record, "width": width, "height": height, "objects": []})

    assert problems(path) == [
        f"train.jsonl:701: width: {width} x {height} is 201 times as long one way as the other; the image processor "
        "takes up to 200 (`max_aspect`): cut the image, or leave it out"
    ]


def test_the_limit_itself_is_no_problem(write, record):
    assert problems(write({**record, "width": 2000, "height": 10, "objects": []})) == []


def test_another_limit_can_be_said(write, record):
    path = write({**record, "objects": []})  # 640 x 480

    assert [len(problems(path, max_aspect=limit)) for limit in (1.3, 1.4, None)] == [1, 0, 0]


def test_more_pixels_than_pillow_opens_are_a_problem(write, record):
    path = write({**record, "width": 10**6, "height": 10**6, "objects": []})

    assert problems(path) == [
        "train.jsonl:1: width: 1000000 x 1000000 are more than the 178956970 pixels that Pillow opens"
    ]
    assert Image.MAX_IMAGE_PIXELS is not None
    assert Image.MAX_IMAGE_PIXELS * 2 == 178956970


@pytest.fixture
def mixed(write, record) -> Path:
    """Six records; the images of the second, third and sixth are damaged, missing and of another size."""
    Path("half.png").write_bytes(Path("photo.png").read_bytes()[:60])
    Image.new("RGB", (64, 48)).save("small.png")
    names = ["photo.png", "half.png", "gone.png", "photo.png", "photo.png", "small.png"]
    return write(
        *[
            {**record, "images": [name], "objects": [{"desc": f"thing {n}", "bbox_2d": [0, 0, 9, 9]}]}
            for n, name in enumerate(names)
        ]
    )


def test_images_are_decoded_beforehand_where_that_is_asked(mixed):
    assert len(problems(mixed)) == 1  # the one that is missing
    found = problems(mixed, validate="images")
    assert [item.partition(": images[0]: ")[0] for item in found] == [f"train.jsonl:{line}" for line in (2, 3, 6)]
    assert "cannot be read" in found[0]
    assert "no image file" in found[1]
    assert "is 64 x 48, but the record says 640 x 480" in found[2]


def opened(path: Path, run: Path, *, rank: int = 0) -> CoordJsonl:
    context = BuildContext(run_dir=run, seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None, rank=rank)
    return CoordJsonl.open(CoordJsonlConfig(train=path, on_bad_image="skip"), context)


def seen(data: CoordJsonl) -> list[str]:
    return [example.source for example in (data.train()[index] for index in range(len(data.train())))]


def test_bad_images_are_left_out_and_told(mixed, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        data = opened(mixed, tmp_path / "run")

    assert seen(data) == ["train.jsonl:1", "train.jsonl:4", "train.jsonl:5"]
    assert data.train()[-1].source == "train.jsonl:5"
    assert [
        "thing 0" in data.train()[0].messages[-1]["content"],
        "thing 4" in data.train()[2].messages[-1]["content"],
    ] == [True, True]
    assert "train.jsonl: 3 records are left out for their images; the first: line 2: images[0]: image" in caplog.text
    (written,) = (tmp_path / "run").glob("left-out-train.jsonl-*.json")
    assert [entry["line"] for entry in json.loads(written.read_text())["left_out"]] == [2, 3, 6]


def test_the_same_are_left_out_by_every_rank_and_after_a_resume(mixed, tmp_path):
    first = seen(opened(mixed, tmp_path / "run"))
    Path("half.png").write_bytes(Path("photo.png").read_bytes())
    Path("gone.png").write_bytes(Path("photo.png").read_bytes())

    assert seen(opened(mixed, tmp_path / "run", rank=1)) == first
    assert seen(opened(mixed, tmp_path / "run")) == first
    assert len(seen(opened(mixed, tmp_path / "another run"))) == 5


def test_check_tells_what_would_be_left_out(mixed, caplog):
    assert problems(mixed, on_bad_image="skip") == []
    assert "3 records are left out" in caplog.text


def test_a_file_without_one_good_image_is_a_problem(write, record):
    path = write({**record, "images": ["gone.png"]})

    assert problems(path, on_bad_image="skip") == [
        "train.jsonl: every record has a bad image; the first: images[0]: no image file at gone.png"
    ]


def test_an_image_that_goes_bad_later_stops_the_run(mixed, tmp_path):
    data = opened(mixed, tmp_path / "run")
    Path("photo.png").unlink()

    with pytest.raises(InputError, match=r"train\.jsonl:4: images"):
        data.train()[1]


def test_what_was_found_is_kept_for_the_next_time(mixed, at_rest, monkeypatch):
    first = problems(mixed, on_bad_image="skip")
    monkeypatch.setattr("coordcore_coord_tokens.judging._decode", None)

    assert problems(mixed, on_bad_image="skip") == first == []


def test_stopping_is_the_default():
    assert attrs.fields_dict(CoordJsonlConfig)["on_bad_image"].default == "stop"
