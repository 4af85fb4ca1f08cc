"""Where the images of records may lie: below the folder that their paths start from, or the one that is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordcore.errors import InputError
from coordcore.records.images import image_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "set" / "photos").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    return tmp_path / "set"


@pytest.mark.parametrize("image", ["a.jpg", "photos/a.jpg", "photos/../a.jpg", "..a.jpg", "a..b/c.jpg"])
def test_below_the_root(root: Path, image: str) -> None:
    assert image_path(root, image) == root / image


def test_an_absolute_path_below_the_root(root: Path) -> None:
    assert image_path(root, str(root / "a.jpg")) == root / "a.jpg"


@pytest.mark.parametrize("image", ["../secret/a.jpg", "photos/../../secret/a.jpg", "..", "/etc/a.jpg", "{}2/a.jpg"])
def test_outside_is_refused_with_the_line_that_allows_it(root: Path, image: str) -> None:
    image = image.format(root)
    with pytest.raises(InputError) as refused:
        image_path(root, image)
    assert f"{image} lies outside {root}" in str(refused.value)
    assert f'images_within = "{(root / image).resolve().parent}"' in str(refused.value)


@pytest.mark.parametrize("image", ["../secret/a.jpg", "{}/secret/a.jpg"])
def test_outside_where_it_is_allowed(root: Path, image: str) -> None:
    image = image.format(root.parent)
    for within in (root.parent, Path("/")):
        assert image_path(root, image, within) == root / image
    with pytest.raises(InputError, match="lies outside"):
        image_path(root, image, root / "photos")


def test_links_are_followed_but_not_by_going_up_behind_them(root: Path) -> None:
    (root / "link").symlink_to(root.parent / "secret")
    assert image_path(root, "link/a.jpg") == root / "link" / "a.jpg"  # whoever made the folder wants it there
    with pytest.raises(InputError, match="lies outside"):
        image_path(root, "link/../a.jpg")


def test_a_relative_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert image_path(Path(), "photos/../a.jpg") == Path("photos/../a.jpg")
    assert image_path(Path("../set"), "a.jpg") == Path("../set/a.jpg")
    with pytest.raises(InputError, match="lies outside"):
        image_path(Path(), "../secret/a.jpg")


def test_a_root_that_is_a_link(root: Path) -> None:
    (root.parent / "short").symlink_to(root)
    assert image_path(root.parent / "short", str(root / "a.jpg")) == root / "a.jpg"
    assert image_path(root, str(root.parent / "short" / "a.jpg")) == root.parent / "short" / "a.jpg"
