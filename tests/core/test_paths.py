"""Paths that lead to no file, or to one that is not to be read: a message with their place, and nothing waits."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordcore.errors import Problem, RunError
from coordcore.files import require_regular, whole_folder, write_whole
from coordcore.manifest.read import Origin, read


def complaint(text: str) -> str:
    """The one problem of a manifest."""
    Path("m.toml").write_text(text)
    problems: list[Problem] = []
    read(Path("m.toml"), (), problems)
    (found,) = problems
    return str(found)


def make_special() -> None:
    os.mkfifo("fifo")
    Path("loop").symlink_to("loop")
    Path("endless").symlink_to("/dev/zero")
    Path("folder").mkdir()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fifo", "fifo: cannot be read: is a pipe or a device; write what it gives into a file"),
        (
            "endless",
            "endless: cannot be read: is a pipe or a device; write what it gives into a file",
        ),
        ("folder", "folder: cannot be read: is a directory"),
        ("loop", "no such file: loop"),
        ("loop/x", "loop/x: too many levels of symbolic links"),
        ("~nosuchuser/x", "~nosuchuser: there is no such home folder; write the path out"),
        ("a\\u0000b", "embedded null byte"),
        ("y" * 300, f"{'y' * 60}... (300 characters): file name too long"),
    ],
)
def test_a_base_that_cannot_be_read_is_told_where_it_is_named(name: str, message: str) -> None:
    make_special()

    assert complaint(f'# first\nextends = ["{name}"]\n') == f"m.toml:2: extends[0]: {message}"


def test_manifests_that_extend_two_others_each_are_not_read_for_ever() -> None:
    for number in range(30):
        Path(f"{number}.toml").write_text(f'extends = ["{number + 1}.toml", "./{number + 1}.toml"]\n')
    Path("30.toml").touch()
    problems: list[Problem] = []
    read(Path("0.toml"), (), problems)

    assert {problem.message for problem in problems} == {"more than 500 files extend each other; put some into one"}


@pytest.mark.parametrize("text", ["~nosuchuser/x", "a\0b", "y" * 300, "z/" * 3000])
def test_a_value_that_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"home folder|null byte|too long"):
        Origin("m.toml", 1, Path.cwd()).absolute(text)


def test_a_file_may_have_so_many_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("four")

    require_regular(tmp_path / "a", 4)
    with pytest.raises(OSError, match="has 4 bytes, more than 3"):
        require_regular(tmp_path / "a", 3)


@pytest.fixture
def _full_disk() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("_full_disk")
def test_a_full_disk_leaves_the_old_text_and_nothing_beside_it(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "old")
    with pytest.raises(OSError, match="too large") as caught:
        write_whole(tmp_path / "a", "new" * 10)
    assert caught.value.filename == str(tmp_path / "a")

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


@pytest.mark.usefixtures("_full_disk")
def test_a_folder_that_a_full_disk_cut_short_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught, whole_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("new" * 10)

    assert str(caught.value) == f"{tmp_path}/out: cannot be written: file too large; make room there, and start again"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", [True, False])
def test_what_a_killed_replacement_put_aside_is_put_back(tmp_path: Path, there: bool) -> None:
    old, scratch = tmp_path / ".out.0123456789ab.old", tmp_path / ".out.0123456789ab.tmp"
    old.mkdir()
    (old / "old").touch()
    if there:  # it was killed a moment later
        (tmp_path / "out").mkdir()
    else:
        scratch.mkdir()
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "out", if_exists="replace"):
        raise KeyboardInterrupt

    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "old").exists() is not there
