"""What is written: spaces, splits, the account, and nothing at all when something goes wrong."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conversion_support import REAL_COCO, annotation, coco, read_lines, records_of, run, write_json, write_lines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from coordcore import InputError, RunError
from coordcore.cli import app
from coordcore.quantisation import QUANTISATIONS, encode_boxes
from coordcore_data.convert.conversion import parse_splits
from coordcore_data.convert.outputs import Outputs
from coordcore_data.convert.write import choose_split


def source_of(tmp_path: Path, *annotations: dict[str, Any], **more: Any) -> Path:
    return write_json(tmp_path / "instances.json", coco(list(annotations), **more))


def test_the_spaces_say_the_same(tmp_path: Path) -> None:
    source = source_of(tmp_path, annotation())
    boxes = {
        space: records_of(source, "coco", tmp_path, space=space)[0][0]["objects"][0]["bbox_2d"]
        for space in ("pixel", "norm1", "bin")
    }
    assert boxes == {"pixel": [10, 20, 40, 60], "norm1": [0.1, 0.25, 0.4, 0.75], "bin": [100, 250, 400, 749]}


@pytest.mark.parametrize("name", sorted(QUANTISATIONS))
def test_bins_are_those_of_the_declared_convention(tmp_path: Path, name: str) -> None:
    spec = QUANTISATIONS[name]
    records, _ = records_of(REAL_COCO, "coco", tmp_path, space="bin", quantisation=spec, crowd="drop")
    exact, _ = records_of(REAL_COCO, "coco", tmp_path, crowd="drop")
    for bins, pixels in zip(records, exact, strict=True):
        boxes = [item["bbox_2d"] for item in pixels["objects"]]
        encoded = encode_boxes(boxes, pixels["width"], pixels["height"], quantisation=spec)
        assert [item["bbox_2d"] for item in bins["objects"]] == encoded.bins.tolist()
        assert bins["metadata"]["quantisation"] == spec.as_dict()


def test_points_polygons_and_crowds_are_in_the_same_space(tmp_path: Path) -> None:
    row = {
        "images": ["a.jpg"],
        "width": 100,
        "height": 80,
        "objects": [{"desc": "roof", "poly": [0, 0, 50, 0, 50, 40]}],
        "metadata": {
            "crowd": [{"desc": "cat", "bbox_2d": [0, 0, 50, 40]}],
            "points": [{"desc": "eye", "points": [50, 40]}],
        },
    }
    source = write_lines(tmp_path / "a.jsonl", row)
    options = {"geometry": "poly", "space": "norm1", "from_space": "pixel"}
    records, _ = records_of(source, "records", tmp_path, **options)
    assert records[0]["objects"][0]["poly"] == [0, 0, 0.5, 0, 0.5, 0.5]
    assert records[0]["metadata"]["crowd"][0]["bbox_2d"] == [0, 0, 0.5, 0.5]
    assert records[0]["metadata"]["points"][0]["points"] == [0.5, 0.5]


def test_a_box_smaller_than_a_bin_is_widened_and_counted(tmp_path: Path) -> None:
    records, account = records_of(
        source_of(tmp_path, annotation(bbox=[10, 20, 0.01, 40])), "coco", tmp_path, space="bin"
    )
    assert records[0]["objects"][0]["bbox_2d"][:3:2] == [100, 101]
    assert account.notes == {"box smaller than a bin: widened by one": 1}


@pytest.mark.parametrize(
    ("policy", "objects", "dropped"),
    [("clip", [[90, 20, 100, 60]], {}), ("drop", [], {"reaches over the image's edge": 1})],
)
def test_the_policy_at_the_edge(tmp_path: Path, policy: str, objects: list[Any], dropped: dict[str, int]) -> None:
    source = source_of(tmp_path, annotation(bbox=[90, 20, 30, 40]), annotation(id=2, bbox=[0, 0, 9, 9]))
    records, account = records_of(source, "coco", tmp_path, outside=policy)
    assert [item["bbox_2d"] for item in records[0]["objects"]] == [*objects, [0, 0, 9, 9]]
    assert account.objects.dropped == dropped


def test_an_error_at_the_edge_names_the_object_and_leaves_nothing(tmp_path: Path) -> None:
    source = source_of(tmp_path / "in", annotation(bbox=[90, 20, 30, 40]))
    with pytest.raises(
        InputError, match=r"a\.jpg: annotation 1: \[90\.0, 20\.0, 120\.0, 60\.0\] reaches over the image's edge"
    ):
        run(source, "coco", tmp_path / "out" / "a.jsonl", outside="error")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_rounding_puts_over_the_edge_is_no_clipping(tmp_path: Path) -> None:
    # 0.1 + 99.9 is 100.00000000000001 in some orders of summation; COCO's two decimals do that all the time.
    records, account = records_of(
        source_of(tmp_path, annotation(bbox=[33.3, 20, 66.70000000000002, 40])), "coco", tmp_path, outside="error"
    )
    assert records[0]["objects"][0]["bbox_2d"][2] == 100
    assert account.notes == {}


def test_image_paths_take_a_prefix(tmp_path: Path) -> None:
    records, _ = records_of(source_of(tmp_path, annotation()), "coco", tmp_path, image_prefix="train2017/")
    assert records[0]["images"] == ["train2017/a.jpg"]


# --- splits ---------------------------------------------------------------------------------------------------------


def test_splits_hold_every_image_once_whatever_the_order(tmp_path: Path) -> None:
    content = json.loads(REAL_COCO.read_text())
    random.Random(0).shuffle(content["images"])
    shuffled = write_json(tmp_path / "shuffled.json", content)
    splits = (("train", 0.8), ("val", 0.2))
    found = []
    for source, name in ((REAL_COCO, "a"), (shuffled, "b")):
        run(source, "coco", tmp_path / f"{name}.jsonl", split=splits)
        parts = [read_lines(tmp_path / f"{name}.{split}.jsonl") for split in ("train", "val")]
        found.append([{item["images"][0] for item in part} for part in parts])
    assert found[0] == found[1]
    train, val = found[0]
    assert (len(train | val), train & val) == (100, set())
    assert 10 <= len(val) <= 30


def test_an_image_stays_in_its_split_when_others_come_and_go() -> None:
    # The hash of the name is part of the format: a change would move images from training to validation.
    splits = (("train", 0.5), ("val", 0.3), ("test", 0.2))
    assert [choose_split(f"{n}.jpg", splits) for n in range(8)] == [
        "train",
        "train",
        "train",
        "test",
        "val",
        "train",
        "test",
        "train",
    ]


def test_shares_are_kept_for_many_images() -> None:
    splits = (("train", 0.9), ("val", 0.1))
    share = sum(choose_split(f"{n:012d}.jpg", splits) == "val" for n in range(20_000)) / 20_000
    assert share == pytest.approx(0.1, abs=0.007)


def test_coco_splits_share_their_category_ids(tmp_path: Path) -> None:
    run(REAL_COCO, "coco", tmp_path / "a.json", to="coco", split=(("train", 0.5), ("val", 0.5)))
    train, val = (json.loads((tmp_path / f"a.{name}.json").read_text()) for name in ("train", "val"))
    assert train["categories"] == val["categories"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train", "'train' is not NAME=SHARE"),
        ("train=0.9,val=0.2", "shares must be > 0 and add up to 1"),
        ("train=1.5,val=-0.5", "shares must be > 0"),
        ("train=nan", "shares must be > 0"),
        ("../a=0.5,b=0.5", "names must be different"),
        ("a=0.5,a=0.5", "names must be different"),
        ("=1", "names must be different"),
    ],
)
def test_wrong_splits_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_splits(text)


# --- files ----------------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    source = source_of(tmp_path, annotation())
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(InputError, match=r"out\.jsonl: already there; --overwrite replaces it"):
        run(source, "coco", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "mine"
    run(source, "coco", tmp_path / "out.jsonl", overwrite=True)
    assert len(read_lines(tmp_path / "out.jsonl")) == 1


@pytest.mark.parametrize("name", ["out.train.jsonl", "out.account.json"])
def test_every_file_that_would_be_written_is_looked_at_first(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="already there"):
        run(tmp_path / "missing.json", "coco", tmp_path / "out.jsonl", split=(("train", 0.5), ("val", 0.5)))


def test_the_source_is_never_the_output(tmp_path: Path) -> None:
    source = source_of(tmp_path, annotation())
    with pytest.raises(InputError, match="is the source"):
        run(source, "coco", tmp_path / "." / "instances.json", overwrite=True)


@pytest.mark.parametrize("name", ["out.train.jsonl", "out.account.json"])
def test_no_file_beside_the_output_is_the_source_either(tmp_path: Path, name: str) -> None:
    source = source_of(tmp_path, annotation()).rename(tmp_path / name)
    before = source.read_bytes()
    with pytest.raises(InputError, match=f"{name}: is the source, or read beside it; name another file"):
        run(source, "coco", tmp_path / "out.jsonl", split=(("train", 1.0),), overwrite=True)
    assert source.read_bytes() == before


def test_the_given_categories_are_not_replaced(tmp_path: Path) -> None:
    source = source_of(tmp_path, annotation())
    categories = source.with_name("categories.json")
    categories.write_bytes(source.read_bytes())
    with pytest.raises(InputError, match=r"categories\.json: is the source, or read beside it"):
        run(source, "coco", categories, to="coco", space=None, categories=categories, overwrite=True)


@pytest.mark.parametrize("to", ["records", "coco"])
@pytest.mark.parametrize("split", [None, (("train", 1.0),), "source"])
@pytest.mark.parametrize("output", [".", "", "/", "..", "in"])
def test_a_folder_is_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, split: Any, to: Any
) -> None:
    source = source_of(tmp_path / "in", annotation())
    monkeypatch.chdir(tmp_path)
    space = "pixel" if to == "records" else None
    with pytest.raises(InputError) as raised:
        run(source, "coco", Path(output), overwrite=True, split=split, to=to, space=space)

    assert str(raised.value) == f"{Path(output)}: is a folder; name a file"
    assert list(tmp_path.iterdir()) == [tmp_path / "in"]


@pytest.mark.parametrize("output", [".", "/"])
def test_the_command_names_a_folder_that_is_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    source = source_of(tmp_path, annotation())
    monkeypatch.chdir(tmp_path)
    options = ["--from", "coco", "--to-space", "pixel", "--overwrite"]
    done = CliRunner().invoke(app, ["data", "convert", str(source), output, *options])

    assert (done.exit_code, f"{output}: is a folder; name a file" in done.output) == (2, True), done.output


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        run(source_of(tmp_path, annotation()), "coco", tmp_path / "file" / "out.jsonl")


def test_a_full_disk_is_a_run_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("coordcore_data.convert.write.RecordWriter.finish", full)
    with pytest.raises(RunError, match="cannot be written: no space left on device"):
        run(source_of(tmp_path / "in", annotation()), "coco", tmp_path / "out" / "out.jsonl")
    assert list((tmp_path / "out").iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
import conversion_support
from coordcore_data.convert import write
write.RecordWriter.finish = lambda writer: os.kill(os.getpid(), signal.SIGKILL)
conversion_support.run(Path(sys.argv[1]), "coco", Path(sys.argv[2]))
"""


def test_what_a_killed_conversion_left_is_removed_by_the_next(tmp_path: Path) -> None:
    source, output = source_of(tmp_path / "in", annotation()), tmp_path / "out" / "out[1].jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, source, output], cwd=Path(__file__).parent, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name[:14] for path in output.parent.iterdir()] == [".out[1].jsonl."]
    with Outputs(output, False) as goes_on:
        goes_on.open(output)
        alive = [*output.parent.iterdir()]
        run(source, "coco", output)
        assert {*output.parent.iterdir()} == {*alive, output, output.with_suffix(".account.json")}
        output.unlink()
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_an_older_account_does_not_speak_for_what_a_kill_has_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = source_of(tmp_path / "in", annotation()), tmp_path / "out" / "out.jsonl"
    run(source, "coco", output)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run(source, "coco", output, overwrite=True)
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


def test_nothing_left_to_write_is_an_error_with_the_account(tmp_path: Path) -> None:
    source = source_of(tmp_path / "in", annotation(bbox=[1, 1, 0, 0]))
    with pytest.raises(InputError) as caught:
        run(source, "coco", tmp_path / "out" / "out.jsonl")
    assert "no image is left to write" in str(caught.value)
    assert "1  no extent: width or height is 0 (e.g. a.jpg annotation 1 [1.0, 1.0, 1.0, 1.0])" in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_account_lies_beside_the_output(tmp_path: Path) -> None:
    source = source_of(tmp_path, annotation(), annotation(id=2, bbox=[1, 1, 0, 0]))
    run(source, "coco", tmp_path / "out.jsonl", space="bin")
    account = json.loads((tmp_path / "out.account.json").read_text())
    reason = "no extent: width or height is 0"
    assert account["objects"] == {"read": 2, "written": 1, "carried": {}, "dropped": {reason: 1}}
    assert account["examples"] == {reason: ["a.jpg annotation 2 [1.0, 1.0, 1.0, 1.0]"]}
    assert account["conversion"]["quantisation"] == QUANTISATIONS["nearest_999"].as_dict()
    assert account["files"] == {str(tmp_path / "out.jsonl"): 1}


def test_the_account_as_a_table(tmp_path: Path) -> None:
    many = [annotation(id=n, bbox=[1, 1, 0, 0]) for n in range(2, 12)]
    _, account = records_of(source_of(tmp_path, annotation(), *many, annotation(id=99, iscrowd=1)), "coco", tmp_path)
    assert account.lines() == [
        "         read  written  crowd  dropped",
        "images      1        1      0        0",
        "objects    12        1      1       10",
        "",
        "objects dropped",
        "  10  no extent: width or height is 0 (e.g. a.jpg annotation 2 [1.0, 1.0, 1.0, 1.0])",
    ]


# --- any input ------------------------------------------------------------------------------------------------------

_NUMBERS = st.one_of(
    st.floats(-50, 150), st.integers(-5, 5), st.sampled_from([float("nan"), float("inf"), 1e308, -1e308, None, "4"])
)
_ANNOTATIONS = st.fixed_dictionaries(
    {"image_id": st.sampled_from([7, 8, 9, "7", None]), "category_id": st.integers(0, 3)},
    optional={
        "id": st.integers(0, 3),
        "bbox": st.lists(_NUMBERS, min_size=3, max_size=5),
        "iscrowd": st.sampled_from([0, 1, True, 2.5]),
        "segmentation": st.lists(st.lists(_NUMBERS, max_size=9), max_size=2),
    },
)
_NAMES = st.sampled_from(["cat", "", "a\nb", "<|im_end|>", "\ud800", "🐈"]) | st.text(max_size=4)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(annotations=st.lists(_ANNOTATIONS, max_size=6), names=st.lists(_NAMES, min_size=3, max_size=3), data=st.data())
def test_any_coco_file_gives_valid_records_and_an_account_that_adds_up(
    tmp_path: Path, annotations: list[Any], names: list[str], data: Any
) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 100, "height": 80} for n in (7, 8, 10)]
    names.append("cat")
    categories = [{"id": n, "name": name} for n, name in enumerate(names)]
    # One image has an object, so that the file as a whole is good.
    annotations.append({"image_id": 10, "category_id": len(names) - 1, "bbox": [1, 2, 3, 4]})
    source = write_json(tmp_path / "a.json", coco(annotations, [*images, {**images[0], "id": 1}], categories))
    options = {
        "geometry": data.draw(st.sampled_from(["box", "poly"])),
        "outside": data.draw(st.sampled_from(["clip", "drop"])),
    }
    records, account = records_of(source, "coco", tmp_path, **options)
    assert account.objects.read == len(annotations)
    assert account.objects.written == sum(len(record["objects"]) for record in records)
    for record in records:
        for found in [*record["objects"], *record["metadata"].get("crowd", [])]:
            values = found.get("bbox_2d") or found["poly"]
            assert found["desc"].strip()
            assert all(0 <= x <= 100 for x in values[::2])
            assert all(0 <= y <= 80 for y in values[1::2])
            if "bbox_2d" in found:
                assert values[0] < values[2]
                assert values[1] < values[3]
