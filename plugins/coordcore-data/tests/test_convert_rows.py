"""ODVG, referring expressions, ms-swift rows and records: one JSON object per line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from conversion_support import coco, read_lines, records_of, run, write_image, write_json, write_lines

from coordcore import InputError
from coordcore.coords import ints_to_tokens
from coordcore.quantisation import QUANTISATIONS
from coordcore.records.annotations import Rules, read_annotations
from coordcore.records.record import parse_record


def odvg(**content: Any) -> dict[str, Any]:
    return {"filename": "a.jpg", "width": 100, "height": 80, **content}


def from_odvg(tmp_path: Path, *rows: Any, **options: Any) -> tuple[list[Any], Any]:
    return records_of(write_lines(tmp_path / "a.jsonl", *rows), "odvg", tmp_path, **options)


INSTANCE = {"bbox": [10, 20, 40, 60], "label": 0, "category": "cat"}


def test_odvg_detections(tmp_path: Path) -> None:
    records, _ = from_odvg(tmp_path, odvg(detection={"instances": [INSTANCE]}), odvg(detection={"instances": []}))
    assert [item["objects"] for item in records] == [[{"desc": "cat", "bbox_2d": [10, 20, 40, 60]}], []]


@pytest.mark.parametrize(
    "content", [{}, {"detection": {}}, {"detection": None}, {"grounding": {"caption": "a cat", "regions": []}}]
)
def test_an_odvg_row_without_a_list_of_instances_is_not_empty(tmp_path: Path, content: dict[str, Any]) -> None:
    records, account = from_odvg(tmp_path, odvg(detection={"instances": [INSTANCE]}), odvg(**content))
    assert (len(records), account.images.dropped) == (1, {"row without a list of instances": 1})


def test_odvg_label_numbers_take_their_names_from_a_map(tmp_path: Path) -> None:
    classes = write_json(tmp_path / "map.json", {"0": "cat"})
    instance = {"bbox": [10, 20, 40, 60], "label": 0}
    records, _ = from_odvg(tmp_path, odvg(detection={"instances": [instance]}), classes=classes)
    assert records[0]["objects"][0]["desc"] == "cat"


def test_an_odvg_category_that_the_map_names_otherwise_is_told(tmp_path: Path) -> None:
    classes = write_json(tmp_path / "map.json", {"0": "cat", "3": "mug"})
    given = [{"bbox": [10, 20, 40, 60], "label": number, "category": "cat"} for number in (0, 3, 7)]
    records, account = from_odvg(tmp_path, odvg(detection={"instances": given}), classes=classes)
    assert [item["desc"] for item in records[0]["objects"]] == ["cat"] * 3
    assert account.notes == {"category that --classes names otherwise: the category is taken": 1}


def test_odvg_phrases_may_have_several_boxes(tmp_path: Path) -> None:
    regions = [
        {"phrase": "two cats", "bbox": [[1, 2, 3, 4], [5, 6, 7, 8]]},
        {"phrase": ["a dog"], "bbox": [9, 10, 11, 12]},
    ]
    records, _ = from_odvg(tmp_path, odvg(grounding={"caption": "two cats and a dog", "regions": regions}))
    assert [(item["desc"], item["bbox_2d"][0]) for item in records[0]["objects"]] == [
        ("two cats", 1),
        ("two cats", 5),
        ("a dog", 9),
    ]
    assert records[0]["metadata"] == {"caption": "two cats and a dog"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"detection": {"instances": [{"bbox": [1, 2, 3, 4], "label": 5}]}}, "label number without a name; --classes"),
        (
            {"detection": {"instances": [{"bbox": [1, 2, 3]}]}},
            "instance not readable: bbox: expected array of length 4",
        ),
        ({"detection": {"instances": [{"bbox": [9, 2, 3, 4], "category": "a"}]}}, "negative width or height"),
        ({"detection": {"instances": [{"bbox": [1, 2, 3, 4]}]}}, "no label"),
        ({"grounding": {"regions": [{"bbox": [1, 2, 3, 4], "phrase": ["a", "b"]}]}}, "region with several phrases"),
        ({"grounding": {"regions": [{"bbox": [], "phrase": "a"}]}}, "region not readable"),
        ({"grounding": {"regions": [{"bbox": [[1, 2, 3, math.inf]], "phrase": "a"}]}}, "a coordinate is NaN"),
    ],
)
def test_each_bad_odvg_object_has_its_reason(tmp_path: Path, content: dict[str, Any], reason: str) -> None:
    _, account = from_odvg(tmp_path, odvg(detection={"instances": [INSTANCE]}), odvg(**content))
    assert [key.startswith(reason) for key in account.objects.dropped] == [True]
    assert account.images.dropped == {"all of its objects were dropped": 1}


def test_bad_lines_are_dropped_images(tmp_path: Path) -> None:
    good = odvg(detection={"instances": [INSTANCE]})
    _, account = from_odvg(tmp_path, good, '{"filename": ', "[]", "", {"width": 1})
    assert account.images.dropped == {
        "not JSON": 1,
        "expected object, got array": 1,
        "object missing required field filename": 1,
    }


# --- referring expressions ------------------------------------------------------------------------------------------

FLAT = {"boxes": "xyxy", "from_space": "pixel"}


def row(expression: Any = "left cat", bbox: Any = (10, 20, 40, 60), **more: Any) -> dict[str, Any]:
    return {"image": "a.jpg", "expression": expression, "bbox": bbox, "width": 100, "height": 80, **more}


def from_rows(tmp_path: Path, *rows: Any, **options: Any) -> tuple[list[Any], Any]:
    return records_of(write_lines(tmp_path / "a.jsonl", *rows), "refcoco", tmp_path, **(FLAT | options))


def test_every_expression_is_a_record_that_asks_for_it(tmp_path: Path) -> None:
    other = row("a dog", [1, 2, 3, 4], image="b.jpg")
    records, account = from_rows(tmp_path, row(), other, row(["right cat", "that one"], [50, 20, 60, 60]))
    asked = [(item["images"], item["task"], item["question"]) for item in records]
    assert asked == [
        (["a.jpg"], "refer", "left cat"),
        (["a.jpg"], "refer", "right cat"),
        (["a.jpg"], "refer", "that one"),
        (["b.jpg"], "refer", "a dog"),
    ]
    assert records[2]["objects"] == [{"desc": "that one", "bbox_2d": [50, 20, 60, 60]}]
    assert (account.images.read, account.images.written, account.objects.written) == (4, 4, 4)
    assert all(parse_record(json.dumps(item).encode()) for item in records)


def test_an_expression_without_its_box_is_no_negative(tmp_path: Path) -> None:
    records, account = from_rows(tmp_path, row(), row("far out", [300, 300, 400, 400]))
    assert [item["question"] for item in records] == ["left cat"]
    assert account.images.dropped == {"all of its objects were dropped": 1}


def test_a_coco_file_lists_an_image_of_several_expressions_once(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "a.jsonl", row(), row("right cat", [50, 20, 60, 60]))
    run(source, "refcoco", tmp_path / "out.json", to="coco", space=None, **FLAT)
    assert len(json.loads((tmp_path / "out.json").read_text())["images"]) == 1


def test_the_expressions_of_an_image_can_be_one_record(tmp_path: Path) -> None:
    other = row("a dog", [1, 2, 3, 4], image="b.jpg")
    rows = [row(), other, row(["right cat", "that one"], [50, 20, 60, 60])]
    records, _ = from_rows(tmp_path, *rows, per="image")
    assert [item["images"] for item in records] == [["a.jpg"], ["b.jpg"]]
    assert [item["desc"] for item in records[0]["objects"]] == ["left cat", "right cat", "that one"]
    assert records[0]["objects"][2]["bbox_2d"] == [50, 20, 60, 60]


@pytest.mark.parametrize(
    ("order", "space", "bbox"),
    [
        ("xyxy", "pixel", [10, 20, 40, 60]),
        ("xywh", "pixel", [10, 20, 30, 40]),
        ("cxcywh", "norm1", [0.25, 0.5, 0.3, 0.5]),
        ("yxyx", "norm1", [0.25, 0.1, 0.75, 0.4]),
    ],
)
def test_rows_are_read_as_declared(tmp_path: Path, order: str, space: str, bbox: list[float]) -> None:
    records, _ = from_rows(tmp_path, row(bbox=bbox), boxes=order, from_space=space)
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([10, 20, 40, 60])


def test_an_array_of_rows_with_other_names(tmp_path: Path) -> None:
    item = {"img_path": "a.jpg", "sent": "left cat", "bbox": [10, 20, 40, 60], "width": 100, "height": 80}
    records, _ = records_of(write_json(tmp_path / "a.json", [item]), "refcoco", tmp_path, **FLAT)
    assert records[0]["objects"] == [{"desc": "left cat", "bbox_2d": [10, 20, 40, 60]}]


def test_rows_without_a_declared_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"give --boxes .* and --from-space"):
        from_rows(tmp_path, row(), boxes=None)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(bbox=[1, 2, 3]), "bbox is not 4 numbers"),
        (row(bbox="1,2,3,4"), "row not readable: bbox: expected array, got str"),
        (row(expression=None), "row without one of"),
        (row(expression=""), "empty label"),
        (row(image=None), "row without one of"),
        (row(width=90), "size differs from that of the image's first row"),
        ("{", "not JSON"),
        ("5", "row not readable: expected object, got int"),
    ],
)
def test_each_bad_row_has_its_reason(tmp_path: Path, bad: Any, reason: str) -> None:
    _, account = from_rows(tmp_path, row(), bad)
    assert [key.startswith(reason) for key in account.objects.dropped] == [True]


def refs(tmp_path: Path, *given: dict[str, Any]) -> tuple[Path, Path]:
    instances = coco([{"id": 5, "image_id": 7, "category_id": 1, "bbox": [10, 20, 30, 40]}])
    return write_json(tmp_path / "refs.json", list(given)), write_json(tmp_path / "instances.json", instances)


def test_refers_refs_take_boxes_and_splits_from_the_instances(tmp_path: Path) -> None:
    ref = {"ann_id": 5, "image_id": 7, "split": "testA", "sentences": [{"sent": "left cat", "raw": "Left CAT!"}]}
    lost = {"ann_id": 6, "image_id": 7, "split": "testA", "sentences": [{"sent": "a"}, {"sent": "b"}]}
    source, instances = refs(tmp_path, ref, lost, {"ann_id": 5})
    account = run(source, "refcoco", tmp_path / "out.jsonl", instances=instances, split="source")
    records = read_lines(tmp_path / "out.testA.jsonl")
    assert records[0]["objects"] == [{"desc": "left cat", "bbox_2d": [10, 20, 40, 60]}]
    assert account.objects.dropped == {
        "ref to an image or box that the instances lack": 2,
        "ref not readable: object missing required field image_id": 1,
    }


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "refs(unc).p").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(InputError, match="a pickle can run code"):
        run(tmp_path / "refs(unc).p", "refcoco", tmp_path / "out.jsonl", **FLAT)


# --- ms-swift -------------------------------------------------------------------------------------------------------


def swift(**objects: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "<image>Find <ref-object>"}],
        "images": ["a.png"],
        "objects": objects,
    }


def from_swift(tmp_path: Path, *rows: Any) -> tuple[list[Any], Any]:
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, 100, 80)
    return records_of(write_lines(tmp_path / "a.jsonl", *rows), "swift", tmp_path)


@pytest.mark.parametrize(
    ("kind", "bbox"),
    [
        ({}, [10, 20, 40, 60]),
        ({"bbox_type": "real"}, [10, 20, 40, 60]),
        ({"bbox_type": "norm1"}, [0.1, 0.25, 0.4, 0.75]),
    ],
)
def test_swift_boxes_in_pixels_and_fractions(tmp_path: Path, kind: dict[str, str], bbox: list[float]) -> None:
    records, _ = from_swift(tmp_path, swift(ref=["cat"], bbox=[bbox], **kind))
    assert (records[0]["width"], records[0]["height"]) == (100, 80)
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([10, 20, 40, 60])


def test_swift_rows_of_several_images_become_several_records(tmp_path: Path) -> None:
    objects = {"ref": ["cat", "dog", "hen"], "bbox": [[1, 2, 3, 4], [5, 6], [7, 8, 9, 10]], "image_id": [1]}
    records, _ = from_swift(tmp_path, {"images": ["a.png", {"path": "b.png"}], "objects": objects})
    assert [item["images"] for item in records] == [["a.png"], ["b.png"]]
    assert records[0]["metadata"] == {"points": [{"desc": "dog", "points": [5, 6]}]}
    assert [item["objects"] for item in records] == [
        [{"desc": "hen", "bbox_2d": [7, 8, 9, 10]}],
        [{"desc": "cat", "bbox_2d": [1, 2, 3, 4]}],
    ]


def test_one_ref_names_every_box(tmp_path: Path) -> None:
    records, _ = from_swift(tmp_path, swift(ref=["sheep"], bbox=[[1, 2, 3, 4], [5, 6, 7, 8]]))
    assert [item["desc"] for item in records[0]["objects"]] == ["sheep", "sheep"]


@pytest.mark.parametrize(
    ("bad", "images", "objects"),
    [
        (swift(ref=["a", "b", "c"], bbox=[[1, 2, 3, 4]]), {"row whose refs do not match its boxes": 1}, None),
        ({"images": [{"bytes": "AA"}]}, {"row without the path of an image file": 1}, None),
        ({"images": []}, {"row without the path of an image file": 1}, None),
        (swift(ref=["a"], bbox=[], bbox_type="pixels"), {"objects.bbox_type: invalid enum value 'pixels'": 1}, None),
        (swift(ref=["a"], bbox=[[1, 2, 3]]), None, {"bbox that is neither 4 numbers nor 2": 1}),
        (swift(ref=["a"], bbox=[["left", 2, 3, 4]]), None, {"bbox that is neither 4 numbers nor 2": 1}),
        (
            swift(ref=["a"], bbox=[[1, 2, 3, 4]], image_id=[3]),
            None,
            {"image_id of an image that the row does not have": 1},
        ),
        ({"images": ["no.png"]}, {"image file missing": 1}, None),
    ],
)
def test_each_bad_swift_row_has_its_reason(tmp_path: Path, bad: Any, images: Any, objects: Any) -> None:
    _, account = from_swift(tmp_path, swift(ref=["cat"], bbox=[[10, 20, 40, 60]]), bad)
    assert account.images.dropped == (images or {"all of its objects were dropped": 1})
    if objects is not None:
        assert account.objects.dropped == objects


# --- records --------------------------------------------------------------------------------------------------------


def record(*objects: Any, **more: Any) -> dict[str, Any]:
    return {"images": ["a.jpg"], "width": 100, "height": 80, "objects": list(objects), **more}


INSIDE = {"desc": "cat", "bbox_2d": [0, 0, 50, 50]}


def from_records(tmp_path: Path, *rows: Any, **options: Any) -> tuple[list[Any], Any]:
    options = {"from_space": "pixel"} | options
    return records_of(write_lines(tmp_path / "a.jsonl", *rows), "records", tmp_path, **options)


def test_records_in_the_wrong_order_can_be_mended(tmp_path: Path) -> None:
    records, _ = from_records(tmp_path, record({"desc": "cat", "bbox_2d": [10, 20, 30, 40]}), boxes="xywh")
    assert records[0]["objects"] == [{"desc": "cat", "bbox_2d": [10, 20, 40, 60]}]


EACH_KIND = [
    {"desc": "cat", "bbox_2d": [10, 20, 40, 60]},
    {"desc": "sign", "quad": [20, 10, 60, 20, 50, 50, 10, 40]},
    {"desc": "tree", "poly": [1, 2, 30, 4, 50, 60, 5, 70], "poly_points": 4},
    {"desc": "eye", "point": [5, 6]},
]


@pytest.mark.parametrize("geometry", [None, "own"])
def test_records_keep_the_kinds_of_their_objects(tmp_path: Path, geometry: Any) -> None:
    aside = {"points": [{"desc": "nose", "points": [7, 8, 9, 10]}]}
    given = record(*EACH_KIND, metadata=aside)
    records, account = from_records(tmp_path, given, geometry=geometry)
    assert records == [given]
    assert account.notes == {}
    kinds = [list(item)[1] for item in from_records(tmp_path, given, geometry="box")[0][0]["objects"]]
    assert kinds == ["bbox_2d"] * 3


def test_records_in_bins_keep_their_kinds_too(tmp_path: Path) -> None:
    bins, _ = from_records(tmp_path, record(*EACH_KIND), space="bin", geometry="own")
    again, _ = from_records(tmp_path, *bins, space="bin", from_space="bin", from_quantisation="nearest_999")
    assert [list(item)[1] for item in again[0]["objects"]] == ["bbox_2d", "quad", "poly", "point"]
    assert again == bins


def test_other_formats_keep_their_kinds_where_that_is_asked_for(tmp_path: Path) -> None:
    shapes = (
        '<box label="a" xtl="10" ytl="20" xbr="40" ybr="60" rotation="90"/><points label="b" points="1,2;3,4"/>'
        '<polygon label="c" points="1,2;30,4;5,70"/><ellipse label="d" cx="50" cy="40" rx="10" ry="5"/>'
    )
    image = f'<annotations><image id="0" name="a.jpg" width="100" height="80">{shapes}</image></annotations>'
    (tmp_path / "a.xml").write_text(image)
    records, _ = records_of(tmp_path / "a.xml", "cvat", tmp_path, geometry="own")
    assert [list(item)[1] for item in records[0]["objects"]] == ["quad", "point", "point", "poly", "bbox_2d"]


def test_everything_of_a_record_is_carried(tmp_path: Path) -> None:
    given = record(
        {"desc": "cat", "bbox_2d": [10, 20, 40, 60]},
        {"desc": "roof", "poly": [0, 0, 9, 0, 9, 9], "poly_points": 3},
        summary="a cat",
        metadata={
            "image_id": 3,
            "difficult": [0],
            "note": "mine",
            "crowd": [{"desc": "cat", "bbox_2d": [1, 2, 3, 4]}],
            "points": [{"desc": "eye", "points": [5, 6]}],
        },
    )
    records, _ = from_records(tmp_path, given, geometry="poly")
    assert records == [given]


@pytest.mark.parametrize(("options", "objects"), [({}, 1), ({"geometry": "point"}, 1), ({"crowd": "objects"}, 2)])
def test_a_crowd_that_is_a_point_is_no_object(tmp_path: Path, options: Any, objects: int) -> None:
    crowd = {"crowd": [{"desc": "cats", "point": [5, 5]}]}
    given = record({"desc": "cat", "bbox_2d": [10, 20, 40, 60]}, metadata=crowd)
    records, _ = from_records(tmp_path, given, **({"geometry": "own"} | options))
    assert len(records[0]["objects"]) == objects
    assert records[0].get("metadata", {}).get("points", []) == (
        [{"desc": "cats", "points": [5, 5]}] if objects == 1 else []
    )


@pytest.mark.parametrize("form", [list, ints_to_tokens])
def test_bins_and_coord_tokens_are_read_under_their_convention(tmp_path: Path, form: Any) -> None:
    given = record({"desc": "cat", "bbox_2d": form([0, 333, 666, 999])})
    records, _ = from_records(tmp_path, given, from_space="bin", from_quantisation="nearest_999")
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([0, 80 / 3, 200 / 3, 80])


def test_bins_of_another_declared_convention_are_refused(tmp_path: Path) -> None:
    spec = QUANTISATIONS["qwen_1000"].as_dict()
    given = record({"desc": "cat", "bbox_2d": [0, 333, 666, 999]}, metadata={"quantisation": spec})
    with pytest.raises(
        InputError, match=r"a\.jsonl:1: metadata\.quantisation: .* as qwen_1000 .* --from-quantisation as nearest_999"
    ):
        from_records(tmp_path, given, from_space="bin", from_quantisation="nearest_999")


@pytest.mark.parametrize("options", [{"from_space": None}, {"from_space": "bin"}])
def test_what_records_do_not_say_must_be_said(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"--from-space|--from-quantisation"):
        from_records(tmp_path, record(), **options)


@pytest.mark.parametrize("convention", ["nearest_999", "qwen_1000", "florence_1000"])
def test_bins_written_again_under_their_own_convention_do_not_move(tmp_path: Path, convention: str) -> None:
    objects = [{"desc": "cat", "bbox_2d": [k, k, k + 1, 999]} for k in range(0, 999)]
    given = record(*objects) | {"width": 641, "height": 427}
    spec = QUANTISATIONS[convention]
    options = {"from_space": "bin", "from_quantisation": convention, "space": "bin", "quantisation": spec}
    records, _ = from_records(tmp_path, given, **options)
    assert records[0]["objects"] == objects
    assert records[0]["metadata"] == {"quantisation": spec.as_dict()}


def test_coordexps_bins_become_the_pixels_they_mean(tmp_path: Path) -> None:
    given = record({"desc": "cat", "bbox_2d": [0, 333, 666, 999]})
    records, _ = from_records(tmp_path, given, from_space="bin", from_quantisation="coordexp_999")
    assert records[0]["objects"][0]["bbox_2d"] == pytest.approx([0, 79 / 3, 66, 79])


@pytest.mark.parametrize(
    ("convention", "box", "pixels"),
    [
        ("paligemma_1024", [1000, 0, 1023, 1023], [97.65625, 0, 99.90234375, 79.921875]),
        ("nearest_255", [51, 0, 255, 255], [20, 0, 100, 80]),
    ],
)
@pytest.mark.parametrize("written", ["numbers", "tokens"])
def test_the_bins_of_a_source_are_those_of_its_convention(
    tmp_path: Path, convention: str, box: list[int], pixels: list[float], written: str
) -> None:
    boxes = [box, [0, 0, box[2] + 1, box[3]]]
    spelt = [[f"<|coord_{k}|>" for k in values] for values in boxes] if written == "tokens" else boxes
    given = record(*({"desc": "cat", "bbox_2d": values} for values in spelt))
    records, account = from_records(tmp_path, given, from_space="bin", from_quantisation=convention)
    assert [item["bbox_2d"] for item in records[0]["objects"]] == [pytest.approx(pixels)]
    (reason,) = account.objects.dropped
    assert f"{box[2]}" in reason
    assert account.examples[reason][0].startswith("line 1: objects[1].bbox_2d: ")


def test_more_bins_than_there_can_be_coord_tokens_of_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--from-quantisation nearest_50000: .*32767.*; convert from pixels"):
        from_records(tmp_path, record(), from_space="bin", from_quantisation="nearest_50000")


@pytest.mark.parametrize("convention", ["outward_999", "floor_999"])
def test_bins_that_rounding_errors_would_move_are_refused(tmp_path: Path, convention: str) -> None:
    options = {"from_space": "bin", "from_quantisation": "nearest_999", "space": "bin"}
    with pytest.raises(InputError, match="just on the border of two bins"):
        from_records(tmp_path, record(), **options, quantisation=QUANTISATIONS[convention])


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"poly": [1, 2, 30, 4, 5, 60]}, "poly of 'roof'"),
        ({"bbox_2d": [1, 2, 30, 40], "keypoints": [3, 4, 2]}, "keypoints of 'roof'"),
    ],
)
def test_what_outward_rounding_cannot_write_is_named(tmp_path: Path, given: dict[str, Any], what: str) -> None:
    options: dict[str, Any] = {"space": "bin", "quantisation": QUANTISATIONS["outward_999"], "geometry": "poly"}
    with pytest.raises(
        InputError, match=rf"a\.jsonl: a\.jpg: {what}: quantisation outward_999 .* cannot encode single"
    ):
        from_records(tmp_path, record(INSIDE, {"desc": "roof", **given}), **options, keypoints=True)


def test_a_file_of_records_with_categories_is_no_coco_file(tmp_path: Path) -> None:
    crowd = {"crowd": [{"desc": "cup", "bbox_2d": [0, 0, 5, 5]}]}
    with pytest.raises(InputError, match="'cup' is neither among the objects nor known to be absent") as caught:
        from_records(tmp_path, record(task="named", categories=["cup", "dog"], metadata=crowd))
    assert "looks like" not in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "space", "reason"),
    [
        (
            {"desc": "cat", "bbox_2d": [1, 2, 3]},
            "pixel",
            "objects[...].bbox_2d: needs 4 numbers (x1, y1, x2, y2), got 3",
        ),
        (
            {"desc": "cat", "bbox_2d": ["<|coord_1|>"] * 4},
            "pixel",
            'objects[...].bbox_2d: is text, but `space` is "pixel"; write numbers, or set "bin"',
        ),
        (
            {"desc": "cat", "bbox_2d": [0, 0, 1016, 5]},
            "bin",
            "objects[...].bbox_2d: > 999: this looks like absolute pixels; convert to bins 0..999 first "
            '(`space = "pixel"` converts on reading)',
        ),
        (
            {"desc": "cat", "bbox_2d": [5, 0, 1, 5]},
            "pixel",
            "objects[...].bbox_2d: corners are x1, y1, x2, y2 (COCO writes x, y, w, h)",
        ),
        ({"bbox_2d": [0, 0, 5, 5]}, "bin", "objects[...].desc: missing"),
    ],
)
def test_each_bad_object_of_a_record_has_its_reason(tmp_path: Path, bad: Any, space: str, reason: str) -> None:
    given = record(INSIDE, bad)
    _, account = from_records(tmp_path, given, from_space=space, from_quantisation="nearest_999")
    assert account.objects.dropped == {reason: 1}


def test_examples_say_what_the_builder_would(tmp_path: Path) -> None:
    bad = {"desc": "cat", "bbox_2d": [0, 0, 1016, 5]}
    _, account = from_records(
        tmp_path, record(INSIDE, bad, bad, bad, bad), from_space="bin", from_quantisation="nearest_999"
    )
    (reason,) = account.objects.dropped
    assert (account.objects.dropped[reason], len(account.examples[reason])) == (4, 3)
    assert account.examples[reason][0].startswith("line 1: objects[1].bbox_2d: 1016 > 999: this looks like")


def test_what_records_ask_is_carried(tmp_path: Path) -> None:
    image = {"images": ["a.jpg"], "width": 100, "height": 80}
    cat = {"desc": "cat", "bbox_2d": [1, 2, 30, 40]}
    rows = [
        {**image, "objects": [cat], "task": "refer", "question": "left cat"},
        {**image, "objects": [], "task": "refer", "question": "right cat"},
        {**image, "objects": [cat], "task": "named", "categories": ["cat", "dog"]},
        {**image, "objects": [cat], "task": "region", "question": "What is {box}?", "answer": "a cat"},
        {**image, "objects": [], "task": "caption", "answer": "A cat."},
        {**image, "task": "chat", "question": "How many?", "answer": "One."},
    ]
    source = write_lines(tmp_path / "a.jsonl", *rows)
    records, _ = records_of(source, "records", tmp_path, from_space="pixel")
    assert records == [*rows[:-1], {**rows[-1], "objects": []}]


def test_a_category_whose_object_is_dropped_does_not_become_an_absent_one(tmp_path: Path) -> None:
    image = {"images": ["a.jpg"], "width": 100, "height": 80}
    objects = [{"desc": "cat", "bbox_2d": [1, 2, 30, 40]}, {"desc": "dog", "bbox_2d": [200, 2, 300, 40]}]
    asked = {**image, "objects": objects, "task": "named", "categories": ["cat", "dog"]}
    source = write_lines(tmp_path / "a.jsonl", {**image, "objects": objects[:1]}, asked)
    records, account = records_of(source, "records", tmp_path, from_space="pixel")
    assert [item.get("task") for item in records] == [None]
    assert [key.startswith("an object was dropped of a category") for key in account.images.dropped] == [True]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"categories": ["cat", "eye"]}, "points of a category that is asked for"),
        ({"categories": ["cat", "eye", "dog"]}, "points of a category that is asked for"),
        ({}, None),
    ],
)
def test_a_category_whose_points_are_put_aside_does_not_become_an_absent_one(
    tmp_path: Path, asked: dict[str, Any], reason: str | None
) -> None:
    eye = {"desc": "eye", "point": [5, 6]}
    given = record(INSIDE, eye, task="named", **asked)
    aside = record(INSIDE, task="named", metadata={"points": [{"desc": "eye", "points": [5, 6]}]}, **asked)
    records, account = from_records(tmp_path, given, aside, record(INSIDE), geometry="box")
    unknown = "categories[...]: 'eye' is neither among the objects nor known to be absent (metadata.absent_categories"
    assert [key.partition(",")[0] for key in account.images.dropped] == ([reason, unknown] if reason else [])
    assert len(records) == (1 if reason else 3)
    records, account = from_records(tmp_path, given, aside, record(INSIDE))
    assert list(account.images.dropped.values()) == ([1] if reason else [])
    assert [item["desc"] for item in records[0]["objects"]] == ["cat", "eye"]
    records, _ = from_records(tmp_path, given, aside, record(INSIDE), geometry="point")
    read = 1 if reason else 2
    assert [[item["desc"] for item in row["objects"]] for row in records] == [["cat", "eye"]] * read + [["cat"]]


def test_a_named_record_without_categories_that_lost_an_object_is_dropped(tmp_path: Path) -> None:
    gone = {"desc": "dog", "bbox_2d": [200, 2, 300, 40]}
    records, account = from_records(tmp_path, record(INSIDE, gone, task="named"), record(INSIDE, gone))
    assert [row.get("task") for row in records] == [None]
    assert [key.startswith("an object was dropped of a category") for key in account.images.dropped] == [True]


@pytest.mark.parametrize(
    ("task", "objects", "geometry"),
    [
        ("refer", [{"desc": "cat", "bbox_2d": [1, 2, 30, 40]}, {"desc": "cat", "bbox_2d": [200, 2, 300, 40]}], "box"),
        ("point", [{"desc": "cat", "point": [1, 2]}, {"desc": "cat", "point": [200, 2]}], "point"),
    ],
)
def test_a_phrase_that_lost_one_of_its_objects_is_not_answered_in_part(
    tmp_path: Path, task: str, objects: list[Any], geometry: str
) -> None:
    rows = [record(*found, task=task, question="cats") for found in (objects, objects[:1], [])]
    records, account = from_records(tmp_path, *rows, geometry=geometry)
    assert records == rows[1:]
    assert account.images.dropped == {
        "one of several objects that a phrase asks for was dropped: the answer would lack it": 1
    }
    assert account.objects.read == 3


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"task": "refer", "question": "cat"}, True),
        ({"task": "named", "categories": ["cat"]}, True),
        ({"task": "named", "categories": ["cat", "dog"]}, False),
        ({"task": "named"}, False),
    ],
)
def test_a_crowd_that_is_left_out_matters_where_it_is_asked_for(
    tmp_path: Path, asked: dict[str, Any], kept: bool
) -> None:
    crowd = [{"desc": "dog", "bbox_2d": [1, 2, 9, 9]}]
    given = record(INSIDE, metadata={"crowd": crowd}, **asked)
    records, _ = from_records(tmp_path, record(INSIDE), given, crowd="drop")
    assert len(records) == 1 + kept


def test_labels_are_cleaned_wherever_a_record_has_them(tmp_path: Path) -> None:
    lists = {"absent_categories": ["q  r", "q\tr", "dog"], "incomplete_categories": ["x\n y"]}
    said = {"category_frequencies": {"a  b": "r"}, "keypoint_names": {"a\nb": ["left  ear"]}, "asked": ["z  z"]}
    given = record(INSIDE | {"desc": "a  b"}, INSIDE | {"desc": "a\nb"}, task="named", metadata=lists | said)
    records, _ = from_records(tmp_path, given | {"categories": ["a  b", "a\nb", "dog"]})
    assert records[0]["categories"] == ["a b", "dog"]
    assert records[0]["metadata"] == {
        "absent_categories": ["q r", "dog"],
        "incomplete_categories": ["x y"],
        "category_frequencies": {"a b": "r"},
        "keypoint_names": {"a b": ["left  ear"]},
        "asked": ["z  z"],
    }
    written = parse_record(json.dumps(records[0]).encode())
    assert [item.desc for item in read_annotations(written, Rules(space="pixel"))] == ["a b", "a b"]


def test_keys_that_records_do_not_have_are_left_out_and_noted(tmp_path: Path) -> None:
    records, account = from_records(tmp_path, record({**INSIDE, "score": 0.5}, colour="red"))
    assert records == [record(INSIDE)]
    known = "known keys: desc, bbox_2d, poly, poly_points, point, quad, keypoints"
    assert account.notes == {
        "colour: unknown key; known keys: images, width, height, objects, summary, task, question, answer, "
        "categories, metadata": 1,
        f"objects[...].score: unknown key; {known}": 1,
    }


def test_lines_that_are_no_record_are_dropped_images(tmp_path: Path) -> None:
    _, account = from_records(tmp_path, record(INSIDE), "", '{"images": [NaN', "[]", record(INSIDE, width=0))
    assert account.images.dropped == {
        "blank line; every line holds one record, remove it": 1,
        "not JSON": 1,
        "expected object, got array": 1,
        "width: expected int >= 1": 1,
    }


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        ({"points": [1, 2]}, "metadata.points[...]: object missing required field desc"),
        ({"desc": "", "points": [1, 2]}, "metadata.points[...].desc: empty; write what is there"),
        ({"desc": "eye", "points": [1, 2, 3]}, "metadata.points[...].points: needs pairs x, y"),
    ],
)
def test_each_bad_point_has_its_reason(tmp_path: Path, point: Any, reason: str) -> None:
    _, account = from_records(tmp_path, record(INSIDE, metadata={"points": [point]}))
    assert account.objects.dropped == {reason: 1}


def test_points_and_marks_that_coco_lacks_are_counted(tmp_path: Path) -> None:
    metadata = {"points": [{"desc": "eye", "points": [5, 6]}], "difficult": [0]}
    source = write_lines(tmp_path / "a.jsonl", record({"desc": "cat", "bbox_2d": [0, 0, 5, 5]}, metadata=metadata))
    account = run(source, "records", tmp_path / "b.json", to="coco", from_space="pixel")
    assert account.objects.dropped == {"points: COCO's keypoints belong to a box": 1}
    assert account.notes == {"difficult: COCO has no such mark": 1}
    assert len(json.loads((tmp_path / "b.json").read_text())["annotations"]) == 1
