"""Where the lines of a file start, and what is kept of it from one run to the next."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordcore import BuildContext, InputError
from coordcore.files import cache_folder
from coordcore.quantisation import DEFAULT_QUANTISATION, quantisation
from coordcore_coord_tokens import CoordJsonl, CoordJsonlConfig, JsonlSource
from coordcore_coord_tokens import index as index_module
from coordcore_coord_tokens import layout as layout_module
from coordcore_coord_tokens import scan as scan_module
from coordcore_coord_tokens.files import open_regular
from coordcore_coord_tokens.index import joined, line_ends
from coordcore_coord_tokens.judging import RecordJudge
from coordcore_coord_tokens.scan import scan

Write = Callable[..., Path]
Open = Callable[..., JsonlSource]


@pytest.fixture
def opened(context: BuildContext) -> Open:
    """`opened(path, space="pixel")` builds the file at `path` and gives its source."""

    def opened(path: Path, **settings: Any) -> JsonlSource:
        return CoordJsonl.open(CoordJsonlConfig(train=path, **settings), context).train()

    return opened


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been read from beginning to end: "index" and "records"."""
    seen: list[str] = []

    def noting(what: str, function: Any) -> Any:
        def note(*given: Any, **named: Any) -> Any:
            seen.append(what)
            return function(*given, **named)

        return note

    monkeypatch.setattr(layout_module, "line_ends", noting("index", line_ends))
    monkeypatch.setattr(scan_module, "_checked", noting("records", scan_module._checked))
    return seen


# --- the index ------------------------------------------------------------------------------------------------------


@given(
    lines=st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"")), max_size=20),
    ended=st.booleans(),
    block=st.integers(1, 12),
    limit=st.none() | st.integers(1, 25),
)
def test_lines_are_found_whatever_a_block_cuts(
    lines: list[bytes], ended: bool, block: int, limit: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lines") / "data"
    path.write_bytes(b"\n".join(lines) + (b"\n" if ended else b""))
    with pytest.MonkeyPatch.context() as patch, path.open("rb") as file:
        patch.setattr(index_module, "BLOCK", block)
        offsets = joined(line_ends(file.fileno(), path.stat().st_size, limit))
        expected = [0]
        for line in list(file)[:limit]:
            expected.append(expected[-1] + len(line))
    assert offsets.tolist() == expected


def test_the_index_is_kept_and_mapped(
    opened: Open, write: Write, record: dict[str, Any], at_rest: None, looked_at: list[str]
) -> None:
    path = write(record, {**record, "objects": []})
    first, second = opened(path), opened(path)
    assert looked_at == ["index", "records"]
    assert (second.file.lines.offsets.tolist(), type(second.file.lines.offsets)) == (
        first.file.lines.offsets.tolist(),
        memoryview,
    )
    assert second[1].messages[-1]["content"] == '{"objects": []}'


def test_a_file_written_a_moment_ago_is_indexed_in_memory(
    opened: Open, write: Write, record: dict[str, Any], cache: Path
) -> None:
    # Written again within the tick of the file system's clock, it would look the same.
    source = opened(write(record, record))
    assert (type(source.file.lines.offsets), cache.exists()) == (array, False)


def test_another_name_for_the_file_is_another_index(
    opened: Open, write: Write, record: dict[str, Any], at_rest: None, looked_at: list[str], folder: Path
) -> None:
    path = write(record, record)
    (folder / "link.jsonl").symlink_to(path)
    assert len(opened(path)) == len(opened(folder / "link.jsonl")) == 2
    path.rename("renamed.jsonl")
    write(record, name="other.jsonl").rename(path)
    assert (len(opened(folder / "link.jsonl")), looked_at) == (1, ["index", "records"] * 3)


def same_size(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"circle", b"square"))


def with_its_old_times(path: Path) -> None:
    before = path.stat()
    same_size(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def another_file(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes().replace(b"circle", b"square"))
    copy.rename(path)


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"circle", b"square thing"))


@pytest.mark.parametrize("change", [same_size, with_its_old_times, another_file, longer])
def test_a_changed_file_is_looked_at_again(
    opened: Open,
    write: Write,
    record: dict[str, Any],
    at_rest: None,
    looked_at: list[str],
    change: Callable[[Path], None],
) -> None:
    path = write(record)
    opened(path)
    change(path)
    assert "square" in opened(path)[0].messages[-1]["content"]
    assert looked_at == ["index", "records"] * 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + bytes(8),
        lambda data: data[:10],
        lambda data: b"",
        lambda data: data[:-8] + bytes(8),
        lambda data: bytes(8) + data[8:],
    ],
)
def test_a_damaged_index_is_made_anew(
    opened: Open,
    write: Write,
    record: dict[str, Any],
    at_rest: None,
    looked_at: list[str],
    cache: Path,
    damage: Callable[[bytes], bytes],
) -> None:
    path = write(record, record)
    opened(path)
    (index,) = cache.glob("*.index")
    whole = index.read_bytes()
    index.write_bytes(damage(whole))
    assert (opened(path)[1].source, looked_at[2]) == ("train.jsonl:2", "index")
    assert index.read_bytes() == whole


def test_a_limit_has_an_index_of_its_own(opened: Open, write: Write, record: dict[str, Any], at_rest: None) -> None:
    path = write(record, record, record)
    assert [len(opened(path, limit=limit)) for limit in (2, None, 2, 5)] == [2, 3, 2, 3]


def test_processes_that_scan_at_once_do_the_work_once(
    write: Write, record: dict[str, Any], at_rest: None, looked_at: list[str]
) -> None:
    # Threads stand for processes: a lock on a file belongs to whoever opened it.
    path = write(*[record] * 50)
    with ThreadPoolExecutor(4) as threads:
        found = list(
            threads.map(
                lambda _: scan(path, CoordJsonlConfig(train=path), DEFAULT_QUANTISATION, judge=RecordJudge), range(4)
            )
        )
    assert ([len(item.lines or ()) for item in found], looked_at) == ([50] * 4, ["index", "records"])


@pytest.mark.parametrize("broken", ["a file", "no permission", "no home"])
def test_without_a_cache_the_index_stays_in_memory(
    opened: Open,
    write: Write,
    record: dict[str, Any],
    at_rest: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    if broken == "a file":
        (tmp_path / "file").touch()
        monkeypatch.setenv("COORDCORE_CACHE", str(tmp_path / "file"))
    elif broken == "no permission":  # /proc takes no files, not even from root
        monkeypatch.setenv("COORDCORE_CACHE", "/proc/self")
    else:
        monkeypatch.delenv("COORDCORE_CACHE")
        monkeypatch.setattr("os.path.expanduser", lambda path: path)
    source = opened(write(record, record))
    assert (source[1].source, type(source.file.lines.offsets)) == ("train.jsonl:2", array)
    assert (caplog.messages, sorted(item.name for item in Path.cwd().iterdir() if item.name.startswith("~"))) == (
        [],
        [],
    )


def test_an_index_that_cannot_be_finished_leaves_nothing(
    opened: Open, write: Write, record: dict[str, Any], at_rest: None, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    assert len(opened(write(record, record))) == 2
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


# --- that the records were right ------------------------------------------------------------------------------------


def test_what_was_counted_is_kept(
    opened: Open, write: Write, record: dict[str, Any], at_rest: None, caplog: pytest.LogCaptureFixture
) -> None:
    path = write({**record, "objects": [{"desc": "x", "bbox_2d": [1, 1, 1, 9]}, {"desc": "x", "poly": [5] * 6}]})
    opened(path, space="pixel")
    opened(path, space="pixel")
    assert (
        caplog.messages
        == [
            "train.jsonl: 1 boxes narrower than one bin were widened by one bin",
            "train.jsonl: 1 polygons and quads have no area: in bins, their corners lie on one line",
        ]
        * 2
    )


@pytest.mark.parametrize(
    ("settings", "again"),
    [
        ({"prompt": "Find all."}, False),
        ({"coord_tokens": False}, False),
        ({"object_order": "top_left", "field_order": "geometry_first"}, False),
        ({"max_objects": 1}, True),
        ({"space": "pixel"}, True),
        ({"outside": "clip"}, True),
        ({"geometry": ("bbox_2d",)}, True),
        ({"mode": "summary"}, True),
        ({"image_root": Path("elsewhere")}, True),
        ({"images_within": Path("elsewhere")}, True),
    ],
)
def test_other_settings_are_another_check(
    opened: Open,
    write: Write,
    record: dict[str, Any],
    at_rest: None,
    looked_at: list[str],
    folder: Path,
    settings: dict[str, Any],
    again: bool,
) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere/photo.png").write_bytes(Path("photo.png").read_bytes())
    path = write({**record, "summary": "A circle."})
    opened(path)
    opened(path, **settings)
    assert looked_at == ["index", "records", *(["records"] if again else [])]


def test_what_earlier_rules_found_right_is_checked_again(
    opened: Open, write: Write, record: dict[str, Any], at_rest: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write({**record, "objects": [{"desc": "cup", "bbox_2d": [0.1, 0.2, 0.5, 1]}]})
    with monkeypatch.context() as earlier:
        earlier.setattr("coordcore_coord_tokens.cache.RULES", 4)
        earlier.setattr("coordcore_coord_tokens.judging.are_fractions", lambda _: False)
        opened(path, space="pixel")
    with pytest.raises(InputError, match="as fractions of an image are"):
        opened(path, space="pixel")


def test_another_quantisation_is_another_check(
    write: Write, record: dict[str, Any], context: BuildContext, at_rest: None, looked_at: list[str]
) -> None:
    config = CoordJsonlConfig(train=write(record))
    CoordJsonl.open(config, context)
    CoordJsonl.open(config, attrs.evolve(context, quantisation=quantisation("qwen_1000")))
    assert (context.quantisation, looked_at) == (DEFAULT_QUANTISATION, ["index", "records", "records"])


def test_an_image_that_goes_is_missed(opened: Open, write: Write, record: dict[str, Any], at_rest: None) -> None:
    path = write(record)
    opened(path)
    Path("photo.png").unlink()
    with pytest.raises(InputError, match=r"^train\.jsonl:1: images\[0\]: no image file at photo\.png$"):
        opened(path)


def test_what_a_link_points_to_is_looked_for_again(
    opened: Open, write: Write, record: dict[str, Any], at_rest: None, folder: Path
) -> None:
    (folder / "store").mkdir()
    Path("photo.png").rename("store/photo.png")
    Path("photo.png").symlink_to("store/photo.png")
    path = write(record)
    opened(path)
    Path("store/photo.png").unlink()
    with pytest.raises(InputError, match=r"^train\.jsonl:1: images\[0\]: no image file at photo\.png$"):
        opened(path)


def test_folders_that_are_not_at_rest_vouch_for_nothing(
    opened: Open,
    write: Write,
    record: dict[str, Any],
    looked_at: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (folder / "photos").mkdir()
    Path("photo.png").rename("photos/photo.png")
    path = write(record)
    monkeypatch.setattr("coordcore_coord_tokens.files.Stamp.at_rest", lambda stamp: stamp.size == path.stat().st_size)
    for _ in range(2):
        opened(path, image_root=folder / "photos")
    assert looked_at == ["index", "records", "records"]


def test_a_file_with_problems_is_looked_at_again(
    opened: Open, write: Write, record: dict[str, Any], at_rest: None, looked_at: list[str]
) -> None:
    path = write({**record, "width": 0})
    for _ in range(2):
        with pytest.raises(InputError, match="width"):
            opened(path)
    assert looked_at == ["index", "records", "records"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-5],
        lambda data: data.replace(b"outside", b"outsid\xff"),
        lambda data: b'{"x": ' + b"[" * 100_000,
        lambda data: b"\xff\xfe",
    ],
    ids=["cut off", "no text", "too deep", "nothing of it"],
)
def test_a_damaged_outcome_is_made_anew(
    opened: Open,
    write: Write,
    record: dict[str, Any],
    at_rest: None,
    looked_at: list[str],
    cache: Path,
    damage: Callable[[bytes], bytes],
) -> None:
    path = write(record)
    opened(path)
    (outcome,) = cache.glob("*.json")
    whole = outcome.read_bytes()
    outcome.write_bytes(damage(whole))
    assert outcome.read_bytes() != whole
    opened(path)
    opened(path)
    assert looked_at == ["index", "records", "records"]


def test_without_validation_the_index_alone_is_kept(
    opened: Open, write: Write, record: dict[str, Any], at_rest: None, looked_at: list[str], cache: Path
) -> None:
    path = write({**record, "width": 0})
    for _ in range(2):
        assert len(opened(path, validate=False)) == 1
    assert (looked_at, sorted(item.suffix for item in cache.iterdir())) == (["index"], [".index", ".lock"])


# --- a file that changes --------------------------------------------------------------------------------------------

CHANGED = r"^train\.jsonl: changed since it was indexed; leave it as it is during a run, and start again$"


def test_a_file_that_changes_under_a_run(
    opened: Open, write: Write, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(write(record, record))
    assert source[0].source == "train.jsonl:1"
    write({**record, "summary": "shifts the second line"}, record)
    with pytest.raises(InputError, match=CHANGED):  # it starts in the middle of the first line
        source[1]
    monkeypatch.setattr("coordcore_coord_tokens.lines.LOOK_AGAIN", 0)
    with pytest.raises(InputError, match=CHANGED):
        source[0]


def test_a_file_that_changed_before_it_was_opened(opened: Open, write: Write, record: dict[str, Any]) -> None:
    source = opened(write(record, record))
    write(record)
    with pytest.raises(InputError, match=CHANGED):
        source[0]


def test_a_file_that_is_gone(opened: Open, write: Write, record: dict[str, Any]) -> None:
    path = write(record)
    source = opened(path)
    path.unlink()
    with pytest.raises(InputError, match=r"^train\.jsonl: cannot be read: no such file or directory$"):
        source[0]


def test_an_open_file_can_be_moved(opened: Open, write: Write, record: dict[str, Any]) -> None:
    path = write(record, record)
    source = opened(path)
    first = source[0]
    path.rename("away.jsonl")
    assert source[1].messages == first.messages


@pytest.mark.parametrize("changes", [lambda path: path.open("ab").write(b"{}\n"), lambda path: os.truncate(path, 10)])
def test_a_file_that_changes_while_it_is_indexed(
    opened: Open,
    write: Write,
    record: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    changes: Callable[[Path], Any],
) -> None:
    path = write(record)

    def indexing(descriptor: int, size: int, *rest: Any) -> Any:
        changes(path)
        return line_ends(descriptor, size, *rest)

    monkeypatch.setattr(layout_module, "line_ends", indexing)
    with pytest.raises(InputError, match=CHANGED):
        opened(path, validate=False)


# --- files that are no files of records -----------------------------------------------------------------------------


def test_a_folder(opened: Open, folder: Path) -> None:
    (folder / "train.jsonl").mkdir()
    with pytest.raises(InputError, match=r"^train\.jsonl: cannot be read: is a directory$"):
        opened(Path("train.jsonl"))


def test_a_pipe(opened: Open, folder: Path) -> None:
    os.mkfifo(folder / "train.jsonl")
    with pytest.raises(InputError) as caught:
        opened(Path("train.jsonl"))
    assert str(caught.value) == ("train.jsonl: cannot be read: is a pipe or a device; write what it gives into a file")


def test_a_file_without_line_breaks(
    opened: Open, write: Write, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "LONGEST", 1 << 20)
    path = write(record, json.dumps([record] * 20_000).encode(), record)
    with pytest.raises(InputError) as caught:
        opened(path)
    assert str(caught.value) == (
        "train.jsonl:2: longer than 1 MiB; every line holds one record, so line breaks are missing here"
    )


def test_open_regular_gives_the_state_of_what_it_opened(write: Write, record: dict[str, Any]) -> None:
    path = write(record)
    descriptor, stamp = open_regular(path)
    os.close(descriptor)
    assert (stamp.size, stamp.inode) == (path.stat().st_size, path.stat().st_ino)


def test_a_cache_that_others_can_write_to_is_not_used(
    opened: Open, write: Write, record: dict[str, Any], at_rest: None, looked_at: list[str]
) -> None:
    path = write(record)
    opened(path)
    folder = cache_folder()
    folder.chmod(0o777)
    opened(path)
    assert looked_at.count("records") == 2
    folder.chmod(0o700)
    opened(path)
    assert looked_at.count("records") == 2
