"""CVAT for video: frames taken from tracks, what moves between their frames, outside."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from conversion_support import SKELETON, records_of, run, why_dropped, write_image, write_text, write_zip

from coordcore import InputError
from coordcore_data.convert.cvat_polygons import between

META = (
    "<meta><task><id>5</id><name>street</name><size>21</size><mode>interpolation</mode><overlap>5</overlap>"
    "<start_frame>0</start_frame><stop_frame>20</stop_frame><frame_filter></frame_filter>"
    "<labels><label><name>car</name><attributes></attributes></label></labels>"
    "<original_size><width>100</width><height>80</height></original_size></task><dumped>2026-01-01</dumped></meta>"
)

PROJECT = f"<meta><project><tasks>{META.removeprefix('<meta>').removesuffix('</meta>') * 2}</tasks></project></meta>"


def box(frame: int, x: float, *, outside: int = 0, keyframe: int = 1, **more: Any) -> str:
    rest = "".join(f' {key}="{value}"' for key, value in more.items())
    return (
        f'<box frame="{frame}" keyframe="{keyframe}" outside="{outside}" occluded="0" xtl="{x}" ytl="20" '
        f'xbr="{x + 20}" ybr="40" z_order="0"{rest}><attribute name="model">a</attribute></box>'
    )


def track(*shapes: str, label: str = "car", number: int = 0) -> str:
    return f'<track id="{number}" label="{label}" source="manual">{"".join(shapes)}</track>'


def write(folder: Path, *tracks: str, meta: str = META) -> Path:
    return write_text(
        folder / "annotations.xml",
        f"<?xml version='1.0' encoding='utf-8'?>\n<annotations><version>1.1</version>{meta}{''.join(tracks)}"
        "</annotations>",
    )


def convert(tmp_path: Path, *tracks: str, frames: int | None = 10, meta: str = META) -> tuple[list[Any], Any]:
    return records_of(write(tmp_path, *tracks, meta=meta), "cvat", tmp_path, frames=frames)


def boxes(records: list[Any]) -> dict[str, list[list[float]]]:
    return {record["images"][0]: [item["bbox_2d"] for item in record["objects"]] for record in records}


def test_boxes_move_along_lines_and_end_outside(tmp_path: Path) -> None:
    records, account = convert(tmp_path, track(box(0, 0), box(8, 16), box(12, 20, outside=1)), frames=5)
    assert records[0] == {
        "images": ["frame_000000.png"],
        "width": 100,
        "height": 80,
        "objects": [{"desc": "car", "bbox_2d": [0, 20, 20, 40]}],
        "metadata": {"image_id": 0},
    }
    # At 5: 5/8 of the way from 0 to 16. At 10: half the way to where it is said to be outside.
    assert boxes(records) == {
        "frame_000000.png": [[0, 20, 20, 40]],
        "frame_000005.png": [[10, 20, 30, 40]],
        "frame_000010.png": [[18, 20, 38, 40]],
        "frame_000015.png": [],
        "frame_000020.png": [],
    }
    assert why_dropped(account) == []


def test_a_track_that_does_not_end_lasts_and_comes_back(tmp_path: Path) -> None:
    given = track(box(0, 0), box(1, 0, outside=1), box(10, 50)), track(box(4, 30), number=1)
    records, _ = convert(tmp_path, *given, frames=10)
    assert boxes(records) == {
        "frame_000000.png": [[0, 20, 20, 40]],
        "frame_000010.png": [[50, 20, 70, 40], [30, 20, 50, 40]],
        "frame_000020.png": [[50, 20, 70, 40], [30, 20, 50, 40]],
    }


def test_listed_frames_are_taken_as_they_are(tmp_path: Path) -> None:
    """CVAT's exports list every frame, those between keyframes too."""
    records, _ = convert(tmp_path, track(box(0, 0), box(10, 3, keyframe=0), box(20, 40)), frames=10)
    assert [item[0][0] for item in boxes(records).values()] == [0, 3, 40]


@pytest.mark.parametrize(("start", "end", "middle"), [(350, 30, 10), (30, 350, 10), (0, 90, 45), (10, 200, 285)])
def test_boxes_turn_the_shorter_way(tmp_path: Path, start: int, end: int, middle: int) -> None:
    turning, standing = (
        convert(tmp_path, track(box(0, 40, rotation=a), box(20, 40, rotation=b)))[0]
        for a, b in ((start, end), (middle, middle))
    )
    assert turning[1]["objects"][0]["bbox_2d"] == pytest.approx(standing[1]["objects"][0]["bbox_2d"])


def test_ellipses_and_single_points_move_others_stay(tmp_path: Path) -> None:
    def ellipse(frame: int, cx: float) -> str:
        return f'<ellipse frame="{frame}" outside="0" cx="{cx}" cy="40" rx="10" ry="5"/>'

    def points(frame: int, text: str) -> str:
        return f'<points frame="{frame}" outside="0" points="{text}"/>'

    records, _ = convert(
        tmp_path,
        track(ellipse(0, 20), ellipse(20, 60)),
        track(points(0, "10,10"), points(20, "30,20"), label="nose", number=1),
        track(points(0, "1,1;2,2"), points(20, "9,9;8,8"), label="eyes", number=2),
    )
    assert records[1]["objects"][0]["bbox_2d"] == pytest.approx([30, 35, 50, 45])
    assert records[1]["metadata"]["points"] == [
        {"desc": "nose", "points": [20, 15]},
        {"desc": "eyes", "points": [1, 1, 2, 2]},
    ]


def polygon(frame: int, points: str) -> str:
    return f'<polygon frame="{frame}" keyframe="1" outside="0" occluded="0" points="{points}"/>'


def test_polygons_move(tmp_path: Path) -> None:
    given = track(polygon(0, "10,10;50,10;50,50;10,50"), polygon(20, "30,20;70,20;70,60;30,60"))
    records, _ = records_of(write(tmp_path, given), "cvat", tmp_path, frames=5, geometry="poly")
    # At 5, a quarter of the way: 5 to the right, 2.5 down.
    assert [record["objects"][0]["poly"] for record in records[:2]] == [
        [10, 10, 50, 10, 50, 50, 10, 50],
        pytest.approx([15, 12.5, 55, 12.5, 55, 52.5, 15, 52.5]),
    ]


def test_a_polygon_of_other_points_is_joined_as_cvat_joins_it() -> None:
    """The right side of a square grows a corner; the values are those of CVAT's own code."""
    square, house = [0.0, 0, 40, 0, 40, 40, 0, 40], [0.0, 0, 40, 0, 60, 20, 40, 40, 0, 40]
    assert between(square, house, 0.5) == pytest.approx([0, 0, 40, 0, 50, 30, 40, 40, 0, 40])
    assert between(house, square, 0.25) == pytest.approx([0, 0, 40, 0, 55, 25, 40, 40, 0, 40])


@pytest.mark.parametrize("points", ["1,2;3", "", "a,b;c,d", "1,1;1,1;1,1", "nan,1;2,2;3,3"])
def test_polygons_that_cannot_move_are_dropped(tmp_path: Path, points: str) -> None:
    given = track(polygon(0, "10,10;50,10;50,50"), polygon(18, points), box(20, 0, outside=1)), track(box(0, 5))
    _, account = convert(tmp_path, *given)
    assert account.objects.dropped["polygon without its numbers, on a frame between two"] == 1


def test_a_track_that_changes_its_kind_is_dropped_between(tmp_path: Path) -> None:
    _, account = convert(tmp_path, track(polygon(0, "10,10;50,10;50,50"), box(20, 0)))
    assert why_dropped(account) == [
        "all of its objects were dropped",
        "polygon that becomes a box: what it is between is not said",
    ]


def test_a_filtered_video_keeps_the_numbers_of_its_frames(tmp_path: Path) -> None:
    meta = META.replace("<start_frame>0", "<start_frame>100").replace("<size>21", "<size>4")
    meta = meta.replace("<frame_filter>", "<frame_filter>step=5")
    records, _ = convert(tmp_path, track(box(100, 0), box(110, 20)), frames=2, meta=meta)
    assert boxes(records) == {"frame_000100.png": [[0, 20, 20, 40]], "frame_000110.png": [[20, 20, 40, 40]]}


@pytest.mark.parametrize("seed", range(4))
def test_what_a_frame_shows_does_not_depend_on_which_others_are_taken(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    given = [
        track(*(box(at, rng.randrange(70), outside=int(rng.random() < 0.3)) for at in places), number=number)
        for number in range(6)
        for places in [sorted(rng.sample(range(24), rng.randint(1, 6)))]
    ]
    every, _ = convert(tmp_path, *given, frames=1)
    for step in (2, 3, 7, 20, 50):
        assert convert(tmp_path, *given, frames=step)[0] == every[::step]


def test_frames_of_a_folder_and_an_archive(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "frame_000000.PNG", 100, 80)
    source = write_zip(tmp_path / "a.zip", {"annotations.xml": write(tmp_path, track(box(0, 0)))})
    records, _ = records_of(source, "cvat", tmp_path, frames=100, images=tmp_path / "images")
    assert records[0]["images"] == ["frame_000000.PNG"]


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ('<polyline frame="0" outside="0" points="1,2;3,4"/>', "polyline: records have no such geometry"),
        ('<cuboid frame="0" outside="0" xtl1="1"/>', "cuboid: records have no such geometry"),
        ('<skeleton frame="0" outside="0"/>', SKELETON),
        ('<box frame="0" outside="0" xtl="1" ytl="2" xbr="3"/>', "box without its numbers"),
        ('<box frame="0" outside="0" xtl="a" ytl="2" xbr="3" ybr="4"/>', "box without its numbers"),
        ('<box frame="0" outside="0" xtl="9" ytl="2" xbr="3" ybr="4"/>', "negative width or height"),
        ('<box frame="0" outside="0" xtl="3" ytl="2" xbr="3" ybr="4"/>', "no extent"),
        ('<box frame="0" outside="0" xtl="300" ytl="2" xbr="310" ybr="4"/>', "lies outside the image"),
        ('<box frame="0" outside="0" xtl="nan" ytl="2" xbr="3" ybr="4"/>', "a coordinate is NaN"),
        ('<polygon frame="0" outside="0" points="1,2,3"/>', "polygon without pairs of numbers"),
    ],
)
def test_a_frame_that_lost_its_object_is_no_record(tmp_path: Path, shape: str, reason: str) -> None:
    ended = shape.replace('frame="0"', 'frame="10"').replace('outside="0"', 'outside="1"')
    records, account = convert(tmp_path, track(shape, ended))
    assert [record["images"] for record in records] == [["frame_000010.png"], ["frame_000020.png"]]
    images, objects = why_dropped(account)
    assert (images, objects.startswith(reason)) == ("all of its objects were dropped", True)


@pytest.mark.parametrize(
    ("between", "after"),
    [
        ('<box frame="0" outside="0" xtl="1 2" ytl="2" xbr="3" ybr="4"/>', box(20, 0)),
        (box(0, 0), '<box frame="20" outside="0" xtl="x" ytl="2" xbr="3" ybr="4"/>'),
        (box(0, 0, rotation="left"), box(20, 0)),
    ],
)
def test_what_cannot_move_is_dropped(tmp_path: Path, between: str, after: str) -> None:
    _, account = convert(tmp_path, track(between, after), track(box(0, 5), number=1))
    assert account.objects.dropped["box without its numbers, on a frame between two"] == 1


@pytest.mark.parametrize(
    ("tracks", "options", "message"),
    [
        ([track(box(0, 0))], {"frames": None}, "holds tracks of a video: --frames N takes every Nth frame"),
        ([], {"frames": 10, "meta": ""}, "tracks of 0 tasks"),
        ([track(box(0, 0))], {"meta": PROJECT}, "tracks of 2 tasks; export each task on its own"),
        ([track(box(0, 0))], {"meta": META.replace("21", "many")}, "size 'many'"),
        ([track(box(0, 0))], {"meta": META.replace("<size>21", "<size>99999999")}, "size '99999999'"),
        ([track(box(0, 0))], {"meta": META.replace("<frame_filter>", "<frame_filter>step=0")}, "frame_filter 'step=0'"),
        ([track(box(0, 0))], {"meta": META.replace("<start_frame>0", "<start_frame>-5")}, "start_frame '-5'"),
        ([track(box(0, 0).replace('frame="0"', 'frame="first"', 1))], {}, "track 0: <box> with frame='first'"),
        ([track(box(0, 0).replace(' frame="0"', "", 1))], {}, "track 0: <box> with frame=None"),
        ([track(box(0, 0), label="")], {"frames": 1}, "no image is left to write"),
        (['<image id="0" name="a.jpg" width="9" height="9"/>'], {}, "--frames 10: holds images, no tracks of a video"),
        (["<track>"], {}, "not XML: "),
    ],
)
def test_refusals(tmp_path: Path, tracks: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(tmp_path, *tracks, **options)


def test_frames_mean_nothing_for_other_formats(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--frames means nothing for coco; it is for: cvat"):
        run(write_text(tmp_path / "a.json", "{}"), "coco", tmp_path / "out.jsonl", frames=2)
