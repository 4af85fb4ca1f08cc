"""`coordcore predict` of a folder of pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from prediction_support import checkpoint
from typer.testing import CliRunner

from coordcore import InputError
from coordcore.cli import app
from coordcore_detection.predict import prediction_files
from coordcore_detection.predict.pictures import pictures

torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "sub/c.webp", ".hidden/d.png", ".e.png"):
        file = Path("pictures") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 32), "red").save(file)
    Path("pictures/notes.txt").write_text("no picture")
    return Path("pictures")


def names(folder: Path) -> list[str]:
    return [image.key for image in pictures(folder, "Find.")[0]]


def test_they_are_named_by_their_paths_in_order(folder: Path) -> None:
    found, others = pictures(folder, "Find.", "Be brief.")
    assert ([image.key for image in found], others) == (["a.JPG", "b.png", "sub/c.webp"], 1)
    assert found[0].messages == (
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>Find."},
    )  # fmt: skip
    assert [(image.width, image.height, image.open().size) for image in found] == [(40, 32, (40, 32))] * 3


def test_a_size_is_that_of_the_upright_picture(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 32)).save(folder / "a.JPG", exif=exif)
    found = pictures(folder, "Find.")[0][0]
    assert ((found.width, found.height), found.open().size) == ((32, 40), (32, 40))


def test_a_broken_picture_says_so_when_it_is_opened(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"nothing")
    found = pictures(folder, "Find.")[0][1]
    assert (found.width, found.height) == (0, 0)
    with pytest.raises(InputError, match=r"b\.png cannot be read"):
        found.open()


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "p.png")
    with pytest.raises(InputError, match="is a pipe"):
        next(image for image in pictures(folder, "Find.")[0] if image.key == "p.png").open()


def test_links_are_followed_and_a_circle_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "far/z.png")
    (folder / "far").symlink_to(tmp_path / "far")
    (folder / "sub/round").symlink_to(folder.absolute())
    assert names(folder) == ["a.JPG", "b.png", "far/z.png", "sub/c.webp"]


@pytest.mark.parametrize("name", [b"x\xff.png", b"a\nb.png"])
def test_a_name_that_cannot_be_written_down(folder: Path, name: bytes) -> None:
    Image.new("RGB", (8, 8)).save(folder / "x.png")
    os.rename(folder / "x.png", os.path.join(os.fsencode(folder), name))
    with pytest.raises(InputError, match="cannot be written down; rename"):
        pictures(folder, "Find.")


@pytest.mark.parametrize("name", ["9.41\u202fAM.png", "\u3000\xa0.png", "{}[red]\"'$(id).png", "\u200b.png"])
def test_blanks_of_all_kinds_may_stand_in_a_name(folder: Path, name: str) -> None:
    Image.new("RGB", (8, 8)).save(folder / name)
    assert name in names(folder)


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(InputError, match=r"holds no pictures .* among 1 files"):
        pictures(tmp_path, "Find.")


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"))


def predict(model: Path, folder: Path, *more: object) -> Any:
    asked = ("predict", model, folder, "--output", "out.jsonl", "--max-new-tokens", 30, "--device", "cpu", *more)
    return CliRunner().invoke(app, [str(item) for item in asked])


def test_the_command_takes_a_folder(model: Path, folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"nothing")
    result = predict(model, folder, "--question", "Find.")
    assert result.exit_code == 0, result.output
    assert "pictures: 1 files that are no pictures are passed over" in result.stderr
    assert "broken.png: image pictures/broken.png cannot be read" in result.stderr
    found, rows = prediction_files.read(Path("out.jsonl"))
    assert found.decoding["question"] == "Find."
    assert [(row.image, row.width) for row in rows] == [
        ("a.JPG", 40), ("b.png", 40), ("broken.png", 0), ("sub/c.webp", 40),
    ]  # fmt: skip
    Image.new("RGB", (24, 32)).save(folder / "broken.png")
    assert "holds 3 of 4 images already" in predict(model, folder, "--question", "Find.").stderr


def test_every_kind_of_geometry_is_allowed_unless_one_is_named(model: Path, folder: Path) -> None:
    assert predict(model, folder, "--question", "Find.", "--limit", 1).exit_code == 0
    assert prediction_files.read(Path("out.jsonl"))[0].decoding["geometry"] == ["bbox_2d", "poly", "point", "quad"]
    assert predict(model, folder, "--question", "Find.", "--geometry", "quad", "--overwrite").exit_code == 0
    assert prediction_files.read(Path("out.jsonl"))[0].decoding["geometry"] == ["quad"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--space", "pixel"), "--space: says how a record file is read, and pictures is a folder of pictures"),
        (("--image-root", "x"), "--image-root: says how a record file is read"),
        (("--prompt", "refer=x {phrase}"), "--prompt: says how a record file is read"),
        ((), "give the question with --question"),
    ],
)
def test_what_does_not_go_with_a_folder(model: Path, folder: Path, options: tuple[str, ...], message: str) -> None:
    result = predict(model, folder, *options)
    assert result.exit_code == 2
    assert message in result.stderr
