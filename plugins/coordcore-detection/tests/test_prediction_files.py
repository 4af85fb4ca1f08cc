"""Prediction files: what is written, read again, and continued."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest
from evaluation_support import header

from coordcore import InputError
from coordcore.records.answers import Unread
from coordcore_detection.predict.prediction_files import appending, read, resume, write
from coordcore_detection.predict.predictions import Box, Row


def row(key: str, *, unread: list[Unread] | None = None) -> Row:
    box = Box(label='a "b"\n😀', box=(0.5, 1.0, 2.0, 3.0), bins=(1, 2, 3, 4), score=0.25, scores={"min": 0.5})
    return Row(image=key, width=10, height=20, text="{}", boxes=[box], unread=unread or [])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of two rows."""
    path = tmp_path / "deep" / "predictions.jsonl"
    with appending(path, header()) as add:
        add(row("1.png"))
        add(row("2.png"))
    return path


def test_a_file_gives_back_what_was_written(path: Path) -> None:
    assert read(path) == (header(), [row("1.png"), row("2.png")])


@pytest.mark.parametrize("missing", ["null", "NaN"])
def test_a_score_may_be_missing(path: Path, missing: str) -> None:
    text = path.read_text().replace('"score":0.25', f'"score":{missing}', 1).replace('"min":0.5', f'"min":{missing}', 1)
    path.write_text(text)
    (first,), (second,) = (item.boxes for item in read(path)[1])
    assert (math.isnan(first.score), math.isnan(first.scores["min"]), second.score) == (True, True, 0.25)


def test_a_missing_score_is_written_as_it_is_read(path: Path) -> None:
    box = msgspec.structs.replace(row("1.png").boxes[0], score=math.nan)
    write(path, header(), [msgspec.structs.replace(row("1.png"), boxes=[box])])
    assert math.isnan(read(path)[1][0].boxes[0].score)


def test_every_row_is_there_when_the_writing_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"

    def broken_off() -> None:
        with appending(path, header()) as add:
            add(row("1.png"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert read(path)[1] == [row("1.png")]


def test_a_file_is_continued(path: Path) -> None:
    kept = resume(path, header())
    with appending(path, header()) as add:
        add(row("3.png"))
    assert (kept, read(path)[1]) == ([row("1.png"), row("2.png")], [row("1.png"), row("2.png"), row("3.png")])


def test_there_is_nothing_to_continue(tmp_path: Path) -> None:
    assert resume(tmp_path / "none.jsonl", header()) == []


@pytest.mark.parametrize("cut", [1, 7, 200])
def test_a_line_that_was_cut_off_is_taken_away(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    assert (resume(path, header()), read(path)[1]) == ([row("1.png")], [row("1.png")])


def test_a_line_is_taken_away_after_a_call_was_killed_as_it_did_so(path: Path) -> None:
    path.with_name(f".{path.name}.tmp").write_bytes(path.read_bytes())
    path.write_bytes(path.read_bytes()[:-1])
    assert (resume(path, header()), read(path)[1]) == ([row("1.png")], [row("1.png")])


@pytest.mark.parametrize("size", [0, 5, 30])
def test_a_header_that_was_cut_off_is_written_again(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    kept = resume(path, header())
    with appending(path, header()) as add:
        add(row("1.png"))
    assert (kept, read(path)) == ([], (header(), [row("1.png")]))


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(InputError, match=r"notes.txt: is no prediction file"):
        resume(tmp_path / "notes.txt", header())
    assert (tmp_path / "notes.txt").read_text() == "notes"


def test_images_that_could_not_be_opened_are_tried_again(path: Path) -> None:
    with appending(path, header()) as add:
        add(row("3.png", unread=[Unread(at="image", reason="no image file at 3.png")]))
    assert [item.image for item in resume(path, header())] == ["1.png", "2.png"]
    assert [item.image for item in read(path)[1]] == ["1.png", "2.png"]


def test_another_contract_is_refused_and_nothing_is_changed(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"another contract \(score min there, near now\); .* --overwrite"):
        resume(path, header(score="near"))
    assert path.read_bytes() == before


def test_another_training_in_the_same_folder_is_another_contract(path: Path) -> None:
    with pytest.raises(InputError, match="weights  there, 12ab now"):
        resume(path, header(weights="12ab"))


def test_a_whole_file_replaces_the_old_one(path: Path) -> None:
    write(path, header(), [row("9.png")])
    assert (read(path)[1], list(path.parent.iterdir())) == ([row("9.png")], [path])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no prediction file: it has no header line"),
        ("{}\n", "predictions.jsonl:1: is no header of a prediction file .*missing required field"),
        ('{"images": ["a.png"]}\n', "predictions.jsonl:1: is no header"),
        (msgspec.json.encode(header(predictions=9)).decode() + "\n", "has prediction format 9, .* reads 1"),
        (msgspec.json.encode(header()).decode() + '\n{"image": 7}\n', "predictions.jsonl:2: is no row"),
        (msgspec.json.encode(header()).decode() + '\n{"ima', "the last line is cut off"),
        ("\xff\n", "predictions.jsonl:1: is no header"),
        (
            '{"decoding": {"a": ' + "[" * 100_000 + "\n",
            r"predictions.jsonl:1: is no header of a prediction file \(nested too deep",
        ),
        ('{"' + "k" * 100_000 + '": 1}\n', r"^.{0,700}$"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            '"score":0.25',
            '"score":7',
            r"score: 7\.0 lies outside 0\.\.1; divide it by the highest there can be, or write null",
        ),
        ('"score":0.25', '"score":-0.1', r"score: -0\.1 lies outside 0\.\.1"),
        ('"score":0.25', '"score":1e400', r"score: inf lies outside 0\.\.1"),
        ('"score":0.25', '"score":Infinity', r"score: inf lies outside 0\.\.1"),
        ('"min":0.5', '"min":1.5', r"scores\.min: 1\.5 lies outside 0\.\.1"),
        ("[0.5,1.0,2.0,3.0]", "[10,10,5,50]", r"box: x2 = 5\.0 < x1 = 10\.0; write x1, y1, x2, y2 with x1 <= x2"),
        ("[0.5,1.0,2.0,3.0]", "[1,10,5,5]", r"box: y2 = 5\.0 < y1 = 10\.0"),
        (
            "[0.5,1.0,2.0,3.0]",
            "[10,10,1e300,1e308]",
            r"box: 1e\+300 is no pixel of any image; write pixels of the upright image",
        ),
        ("[0.5,1.0,2.0,3.0]", "[10,10,20,1e400]", "box: inf is no pixel"),
        ("[0.5,1.0,2.0,3.0]", "[-1e10,10,20,30]", r"box: -1e\+10 is no pixel"),
        ('"duplicate":false', '"duplicate":false,"kind":"point","points":[1,1e300]', r"points: 1e\+300 is no pixel"),
    ],
)
def test_a_box_that_is_none_is_refused_with_its_line(path: Path, before: str, after: str, message: str) -> None:
    head, first, second = path.read_text().splitlines()
    assert before in second
    path.write_text("\n".join([head, first, second.replace(before, after), ""]))
    with pytest.raises(InputError, match=rf"predictions\.jsonl:3: boxes\[0\]\.{message}"):
        read(path)


@pytest.mark.parametrize("score", [0.0, 1.0, 1.0000001])
def test_a_box_without_area_and_the_ends_of_scores_are_read(path: Path, score: float) -> None:
    box = Box(label="a", box=(3.0, 4.0, 3.0, 4.0), bins=(1, 1, 1, 1), score=score, scores={"min": 1 - score})
    write(path, header(), [msgspec.structs.replace(row("1.png"), boxes=[box])])
    assert read(path)[1][0].boxes == [box]


@pytest.mark.parametrize("name", ["none.jsonl", "."])
def test_a_file_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / name)


def test_a_folder_is_not_continued(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: is a directory"):
        resume(tmp_path, header())


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="cannot be written"),
        appending(tmp_path / "file" / "predictions.jsonl", header()),
    ):
        pass
