"""Whether images are there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordcore_coord_tokens import folders
from coordcore_coord_tokens.files import Stamp
from coordcore_coord_tokens.folders import ImageFolders

NAMES = ["a.png", "b.png", "deep/c.png"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images, each of them asked for before it is listed; the second question has the listing's answer."""
    monkeypatch.setattr(folders, "ASKED", 1)
    (tmp_path / "deep").mkdir()
    for name in NAMES:
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("image", "there"),
    [
        *((name, True) for name in NAMES),
        ("./a.png", True),
        ("deep/../b.png", True),
        ("absent.png", False),
        ("deep", False),
        ("deep/", False),
        ("absent/a.png", False),
        ("a.png/", False),
        ("a\0.png", False),
        ("\0/a.png", False),
        ("x" * 5000, False),
    ],
)
def test_an_image_is_there_or_not_however_often_one_asks(root: Path, image: str, there: bool) -> None:
    images = ImageFolders(str(root))
    assert [images.has(image) for _ in range(4)] == [there] * 4


def test_an_absolute_path_starts_anywhere(root: Path) -> None:
    images = ImageFolders("/absent")
    assert [images.has(str(root / "a.png")) for _ in range(3)] == [True] * 3


def test_the_top_of_the_file_system_is_not_the_root(root: Path) -> None:
    images = ImageFolders(str(root))
    assert [images.has(image) for image in ("a.png", "/a.png") * 3] == [True, False] * 3


def test_a_link_is_what_it_points_to(root: Path) -> None:
    (root / "good.png").symlink_to("a.png")
    (root / "bad.png").symlink_to("absent.png")
    images = ImageFolders(str(root))
    assert [images.has(image) for image in ("good.png", "bad.png") * 3] == [True, False] * 3


def test_files_of_a_listed_folder_are_not_asked_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ImageFolders(str(root))
    for image in ("a.png", "a.png"):
        images.has(image)

    def gone(path: str) -> os.stat_result:
        raise FileNotFoundError(path)

    monkeypatch.setattr("os.lstat", gone)
    assert [images.has(image) for image in NAMES] == [True, True, False]


def test_a_folder_too_large_for_memory_is_asked_for_each_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "NAMES", 1)
    images = ImageFolders(str(root))
    assert [images.has(image) for image in ("a.png", "b.png", "absent.png") * 3] == [True, True, False] * 3


def test_folders_are_stamped_once(root: Path, at_rest: None) -> None:
    images = ImageFolders(str(root))
    for name in NAMES * 2:
        images.has(name)
    expected = {f"{folder}/": Stamp.of(os.stat(folder)) for folder in (root, root / "deep")}
    assert (images.take_stamps(), images.take_stamps()) == (expected, {})


@pytest.mark.parametrize("asked", ["link.png", "a.png"], ids=["by asking for it", "by listing its folder"])
def test_a_folder_with_a_link_has_no_stamp(root: Path, at_rest: None, asked: str) -> None:
    (root / "link.png").symlink_to("a.png")
    images = ImageFolders(str(root))
    assert [images.has(name) for name in (asked, "b.png", "deep/c.png")] == [True] * 3
    expected = {f"{root}/": None, f"{root}/deep/": Stamp.of(os.stat(root / "deep"))}
    assert images.take_stamps() == expected


def test_a_folder_just_changed_has_no_stamp(root: Path) -> None:
    images = ImageFolders(str(root))
    images.has("a.png")
    assert images.take_stamps() == {f"{root}/": None}


def test_too_many_folders_have_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "FOLDERS", 2)
    images = ImageFolders(str(root))
    for name in (*NAMES, "absent/d.png", *NAMES):
        images.has(name)
    assert images.take_stamps() is None
