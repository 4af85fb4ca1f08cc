"""`coordcore data convert` and `coordcore data check` from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conversion_support import REAL_COCO, annotation, coco, read_lines, write_json, write_lines
from PIL import Image
from typer.testing import CliRunner

from coordcore.cli import app


def call(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_real_coco_through_convert_and_check(tmp_path: Path) -> None:
    out = tmp_path / "coco.jsonl"
    done = call("convert", REAL_COCO, out, "--from", "coco", "--to-space", "pixel", "--split", "train=0.8,val=0.2")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "         read  written  crowd  dropped",
        "images    100      100      0        0",
        "objects   839      830      9        0",
    ]
    done = call("check", tmp_path / "coco.train.jsonl", "--sheet", tmp_path / "sheet.png")
    assert done.exit_code == 0
    assert "nothing suspicious" in done.stdout.splitlines()
    assert (tmp_path / "sheet.png").exists()


def test_a_check_of_what_is_no_record_file_says_what_it_is(tmp_path: Path) -> None:
    Image.new("RGB", (90, 80), "gray").save(tmp_path / "a.jpg")
    for path, what in (
        (tmp_path / "a.jpg", "a picture; name the file with the annotations"),
        (write_json(tmp_path / "b.json", coco([annotation()])), "a COCO file; --from coco reads it"),
    ):
        done = call("check", path)
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"{path}: holds no records" in done.stderr
        assert done.stderr.rstrip().endswith(f"{path}: looks like {what}")


def test_a_check_as_json(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"images": ["a"], "width": 9, "height": 9, "objects": []})
    found = json.loads(call("check", path, "--json").stdout)
    assert (found["records"], found["empty"]) == (1, 1)
    assert [suspicion["kind"] for suspicion in found["suspicions"]] == ["no box"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "coco"], "say what the written numbers shall be: --to-space pixel, norm1 or bin"),
        (["--from", "coco", "--to-space", "bin", "--quantisation", "best"], "unknown quantisation 'best'"),
        (["--from", "coco", "--to-space", "pixel", "--check-sizes"], "say where they are, --image-root DIR"),
        (["--from", "coco", "--to-space", "pixel", "--images", "nowhere"], "nowhere: no such folder"),
        (["--from", "coco", "--to-space", "pixel", "--split", "train"], "is not NAME=SHARE"),
        (["--from", "records", "--to-space", "pixel"], "--from-space pixel, norm1 or bin"),
        (["--from", "voc", "--to-space", "pixel"], "not XML"),
        (["--from", "voc", "--to-space", "pixel", "--boxes", "xywh"], "--boxes means nothing for voc; it is for: coco"),
        (["--from", "coco", "--to", "coco", "--to-space", "norm1"], "COCO files are in pixels"),
        (["--from", "coco", "--to-space", "pixel", "--categories", "a.json"], "records and chat rows have names only"),
    ],
)
def test_wrong_use_is_exit_code_2_and_one_message(tmp_path: Path, arguments: list[str], message: str) -> None:
    source = write_json(tmp_path / "in" / "a.json", coco([annotation()]))
    done = call("convert", source, tmp_path / "out" / "a.jsonl", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "out" / "a.jsonl").exists()


def test_a_sheet_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    objects = [{"desc": "cat", "bbox_2d": [1, 1, 5, 5]}]
    path = write_lines(tmp_path / "a.jsonl", {"images": ["a"], "width": 9, "height": 9, "objects": objects})
    (tmp_path / "sheet.png").write_text("mine")
    done = call("check", path, "--sheet", tmp_path / "sheet.png")
    assert (done.exit_code, "replace it with --overwrite" in done.stderr) == (2, True)
    assert call("check", path, "--sheet", tmp_path / "sheet.png", "--overwrite").exit_code == 0


def test_the_records_are_never_the_sheet(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"images": ["a"], "width": 9, "height": 9, "objects": []})
    before = path.read_bytes()
    done = call("check", path, "--sheet", path, "--overwrite")
    assert (done.exit_code, path.read_bytes() == before) == (2, True)
    assert "a.jsonl: is read by this command; name another file to write" in done.stderr


def test_what_records_are_is_mended_as_check_advises(tmp_path: Path) -> None:
    call("convert", REAL_COCO, tmp_path / "right.jsonl", "--from", "coco", "--to-space", "pixel", "--crowd", "drop")
    right = read_lines(tmp_path / "right.jsonl")
    for item in right:
        for found in item["objects"]:
            x1, y1, x2, y2 = found["bbox_2d"]
            found["bbox_2d"] = [x1, y1, x2 - x1, y2 - y1]
    wrong = write_lines(tmp_path / "wrong.jsonl", *right)
    assert "--boxes xywh shows it, and reads it in data convert" in call("check", wrong).stdout
    order = ("--from-space", "pixel", "--boxes", "xywh", "--to-space", "pixel")
    assert call("convert", wrong, tmp_path / "mended.jsonl", "--from", "records", *order).exit_code == 0
    mended, exact = read_lines(tmp_path / "mended.jsonl"), read_lines(tmp_path / "right.jsonl")
    boxes = [[item["bbox_2d"] for row in rows for item in row["objects"]] for rows in (mended, exact)]
    assert boxes[0] == [pytest.approx(box) for box in boxes[1]]


def test_the_help_imports_neither_torch_nor_numpy(tmp_path: Path) -> None:
    code = "import sys, coordcore_data.command; print({'torch', 'numpy', 'PIL', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("path", ["y" * 300, "z/" * 2100 + "z", "loop/x", "~nosuchuser/x"])
def test_an_image_root_that_no_folder_can_have_is_a_message(tmp_path: Path, path: str) -> None:
    records = write_lines(tmp_path / "a.jsonl", {"images": ["a"], "width": 9, "height": 9, "objects": []})
    source = write_json(tmp_path / "a.json", coco([annotation()]))
    (tmp_path / "loop").symlink_to("loop")
    for command in (
        ("check", records),
        ("convert", source, tmp_path / "o.jsonl", "--from", "coco", "--to-space", "bin"),
    ):
        done = call(*command, "--image-root", tmp_path / path)
        assert done.exit_code == 2
        assert done.stderr.startswith(f"coordcore: {tmp_path}/{path[:100]}")
        assert isinstance(done.exception, SystemExit)


def test_nothing_in_json_steers_the_terminal(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"images": ["a"], "width": 9, "height": 9, "objects": [], "x\x9b2J": 1})
    done = call("check", path, "--json")
    assert "\x9b" not in done.stdout
    assert "x\x9b2J" in json.loads(done.stdout)["suspicions"][-1]["text"]


def test_a_source_that_no_file_can_be_called_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    source = tmp_path / ("y" * 300)
    done = call("convert", source, tmp_path / "o.jsonl", "--from", "coco", "--to-space", "pixel")
    assert (done.exit_code, done.stderr) == (2, f"coordcore: {source}: cannot be read: file name too long\n")
    given = write_json(tmp_path / "a.json", coco([annotation()]))
    done = call("convert", given, source, "--from", "coco", "--to-space", "pixel")
    assert (done.exit_code, done.stderr) == (2, f"coordcore: {source}: cannot be written: file name too long\n")
