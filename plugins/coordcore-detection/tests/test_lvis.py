"""Federated truth: AP as lvis-api and faster-coco-eval measure it, and what else follows from it."""

from __future__ import annotations

import importlib
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from evaluation_support import header, row, truth
from lvis_support import HEIGHT, WIDTH, dataset, lvis_api

from coordcore import InputError
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_detection.evaluate import resampling
from coordcore_detection.evaluate.compare import compare
from coordcore_detection.evaluate.contract import differences
from coordcore_detection.evaluate.evaluation import evaluate
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.evaluate.truth_sources import truth_from_records
from coordcore_detection.predict.predictions import Box, Row

GOLDEN = json.loads((Path(__file__).parent / "lvis_golden.json").read_text())
OURS = {"APs": "AP_small", "APm": "AP_medium", "APl": "AP_large", "AR@300": "AR300"} | {
    f"AR{size[0]}@300": f"AR_{size}" for size in ("small", "medium", "large")
}
"""lvis-api's names of metrics -> ours, where they are not the same."""


def records(path: Path, *, silent: bool = False) -> Path:
    """The data set as `coordcore data convert` writes it. silent: without what makes it LVIS's."""
    content, _ = dataset()
    names = {category["id"]: category for category in content["categories"]}
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    lines = []
    for image in content["images"]:
        found = by_image[image["id"]]
        present = {item["category_id"] for item in found}
        metadata = {
            "image_id": image["id"],
            "absent_categories": [names[id_]["name"] for id_ in image["neg_category_ids"]],
            "incomplete_categories": [names[id_]["name"] for id_ in image["not_exhaustive_category_ids"]],
            "category_frequencies": {names[item]["name"]: names[item]["frequency"] for item in present},
            "object_areas": [item["area"] for item in found],
        }
        lines.append(
            {
                "images": [f"{image['id']}.jpg"],
                "width": WIDTH,
                "height": HEIGHT,
                "objects": [
                    {"desc": names[item["category_id"]]["name"], "bbox_2d": corners(item["bbox"])} for item in found
                ],
                "metadata": {"image_id": image["id"]} if silent else metadata,
            }
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def corners(box: list[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y + height]


def answers() -> list[Row]:
    by_image: dict[int, list[Box]] = defaultdict(list)
    for item in dataset()[1]:
        box = tuple(corners(item["bbox"]))
        by_image[item["image_id"]].append(
            Box(label=f"thing {item['category_id']}", box=box, bins=(0, 0, 0, 0), score=item["score"])
        )
    return [
        Row(image=f"{image}.jpg", width=WIDTH, height=HEIGHT, text="", boxes=boxes) for image, boxes in by_image.items()
    ]


def peer(name: str) -> Any:
    """A library of the same metric: tox installs it, so that there it is never left out; elsewhere it may be absent."""
    return importlib.import_module(name) if "COORDCORE_ISOLATED" in os.environ else pytest.importorskip(name)


def images(path: Path) -> list[TruthImage]:
    return list(truth_from_records(path, space="pixel", quantisation=DEFAULT_QUANTISATION, question=""))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[TruthImage], list[Row]]:
    return images(records(tmp_path_factory.mktemp("lvis") / "val.jsonl")), answers()


def test_every_metric_is_that_of_lvis_api(scene: tuple[list[TruthImage], list[Row]]) -> None:
    metrics = evaluate(scene[0], header(), scene[1]).result.metrics
    assert {name: metrics[OURS.get(name, name)] for name in GOLDEN} == pytest.approx(GOLDEN, abs=1e-12)


def test_the_golden_values_are_those_of_the_lvis_api_that_is_installed() -> None:
    peer("lvis")
    assert lvis_api(*dataset()) == pytest.approx(GOLDEN, abs=1e-12)


def test_ap_is_that_of_faster_coco_eval(scene: tuple[list[TruthImage], list[Row]]) -> None:
    """It knows a limit for each label only, which is not reached here; ours is raised."""
    library = peer("faster_coco_eval")
    content, detections = dataset()
    true = library.COCO(
        content | {"annotations": [annotation | {"iscrowd": 0} for annotation in content["annotations"]]}
    )
    evaluation = library.COCOeval_faster(true, true.loadRes(detections), "bbox", lvis_style=True)
    evaluation.params.maxDets = [300]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    theirs = evaluation.stats_as_dict
    names = {name: name for name in ("AP_small", "AP_medium", "AP_large", "APr", "APc", "APf")}
    names |= {"AP": "AP_all", "AP50": "AP_50", "AP75": "AP_75", "AR10000": "AR_all"}
    ours = evaluate(scene[0], header(), scene[1], max_detections=10_000).result.metrics
    assert {name: ours[name] for name in names} == pytest.approx({item: theirs[name] for item, name in names.items()})


def test_the_limit_is_of_the_image_whatever_the_labels(scene: tuple[list[TruthImage], list[Row]]) -> None:
    """420 boxes of one image, of many labels."""
    found = evaluate(scene[0], header(), scene[1]).result
    raised = evaluate(scene[0], header(), scene[1], max_detections=420).result
    assert (found.contract["max_detections"], round(found.metrics["AP"] or 0, 4)) == ([300], 0.3330)
    assert (raised.contract["max_detections"], round(raised.metrics["AP"] or 0, 4)) == ([420], 0.3350)


def test_records_in_any_order_give_the_same(scene: tuple[list[TruthImage], list[Row]]) -> None:
    assert evaluate(scene[0][::-1], header(), scene[1][::-1]).result == evaluate(scene[0], header(), scene[1]).result


def test_resampling_starts_from_the_same_ap(scene: tuple[list[TruthImage], list[Row]]) -> None:
    found = evaluate(scene[0], header(), scene[1]).result
    drawn = resampling.resampled(found.detail, np.ones((1, len(found.detail.images))))
    for name in ("AP", "AP50", "agnostic_AP", "F1", "agnostic_F1", "ece"):
        assert drawn[name].tolist() == pytest.approx([found.metrics[name]], abs=1e-12)


def test_the_contract_tells_lvis_from_coco(tmp_path: Path, scene: tuple[list[TruthImage], list[Row]]) -> None:
    plain = evaluate(images(records(tmp_path / "val.jsonl", silent=True)), header(), scene[1]).result
    federated = evaluate(scene[0], header(), scene[1]).result
    assert round(plain.metrics["AP"] or 0, 4) == 0.2388  # not .3330: what nobody looked for counts as a mistake
    told = [difference.partition(":")[0] for difference in differences(plain.contract, federated.contract)]
    assert told == ["truth.sha256", "max_detections", "area_of", "federated"]
    with pytest.raises(InputError, match=r"max_detections: \[1, 10, 100\] against \[300\]"):
        compare(plain, federated, resamples=1)


# --- one box at a time ----------------------------------------------------------------------------------------------

CAT = ("cat", (10.0, 10.0, 50.0, 50.0))
FAR = (60.0, 60.0, 90.0, 90.0)


@pytest.mark.parametrize(
    ("lists", "label", "mistake"),
    [
        ({"absent": ("dog",)}, "dog", True),
        ({"absent": ("bird",)}, "dog", False),  # nobody looked for dogs
        ({"absent": ("bird",)}, "cat", True),  # there are cats, and all are marked
        ({"incomplete": ("cat",)}, "cat", False),
        ({"absent": ("dog",), "incomplete": ("dog",)}, "dog", False),
        ({"federated": True}, "dog", False),
        ({}, "dog", True),
    ],
)
def test_what_nobody_looked_for_is_no_mistake(lists: dict[str, Any], label: str, mistake: bool) -> None:
    image = attrs.evolve(truth("a", [CAT]), **lists)
    other = truth("b", [("dog", FAR)])  # so that AP knows dogs
    rows = [row("a", [CAT, (label, FAR)], [0.5, 0.9]), row("b", [("dog", FAR)], [0.4])]
    metrics = evaluate([image, other], header(), rows).result.metrics
    # A mistake ranks first: precision is 1/2 throughout for one of the two labels, and 2/3 without labels.
    expected = [0.75, 2 / 3, 2 / 3, 2 / 3] if mistake else [1.0] * 4
    names = ("AP50", "precision_50", "agnostic_AP50", "agnostic_precision_50")
    assert [metrics[name] for name in names] == pytest.approx(expected, abs=1e-12)


def test_without_labels_a_box_of_any_label_may_be_found() -> None:
    image = attrs.evolve(truth("a", [CAT]), absent=("bird",))
    metrics = evaluate([image], header(), [row("a", [("dog", CAT[1])])]).result.metrics
    assert (metrics["AP50"], metrics["agnostic_AP50"]) == (0.0, 1.0)


def test_an_image_of_more_boxes_than_lvis_looks_at_is_told() -> None:
    many = [("cat", (float(n % 20 * 5), float(n // 20 * 6), n % 20 * 5 + 4.0, n // 20 * 6 + 5.0)) for n in range(310)]
    image = attrs.evolve(truth("a", many), federated=True)
    found = evaluate([image], header(), [row("a", many)]).result
    assert found.metrics["AR300"] == pytest.approx(300 / 310)
    (note,) = [item for item in found.notes if "true boxes" in item]
    assert note.startswith(
        "1 images have more than 300 true boxes, up to 310 ('a'), but AP and AR look at the best 300"
    )
    assert "predicted ones of an image, as LVIS's do; --max-detections 310" in note


def test_images_that_say_nothing_are_told() -> None:
    says, silent = attrs.evolve(truth("a", [CAT]), federated=True), truth("b", [CAT])
    mixed, whole = (evaluate(given, header(), []).result.caveats for given in ([says, silent], [says]))
    assert (len(mixed), whole) == (1, [])
    assert mixed[0].startswith(
        "1 of 2 images say which labels are absent or incomplete in them, as LVIS's do; the other 1"
    )


def test_a_frequency_of_no_true_label_has_no_ap() -> None:
    image = attrs.evolve(truth("a", [CAT]), frequencies={"cat": "f", "dog": "r"})
    metrics = evaluate([image], header(), [row("a", [CAT])]).result.metrics
    assert [metrics[name] for name in ("APr", "APc", "APf")] == [None, None, 1.0]
    assert "APf" not in evaluate([truth("a", [CAT])], header(), []).result.metrics


def test_a_label_of_two_frequencies_is_refused() -> None:
    both = [attrs.evolve(truth(key, [CAT]), frequencies={"cat": item}) for key, item in (("a", "f"), ("b", "r"))]
    with pytest.raises(
        InputError, match=r"b: metadata\.category_frequencies: 'cat' is 'r', and 'f' in a; a label has one freq"
    ):
        evaluate(both, header(), [])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            {"category_frequencies": {"thing 1": "x"}},
            "metadata.category_frequencies: must give labels one of r, c, f, got {'thing 1': 'x'}",
        ),
        ({"category_frequencies": ["f"]}, "metadata.category_frequencies: must give labels one of r, c, f, got ['f']"),
        (
            {"object_areas": [1.0, 2.0]},
            "metadata.object_areas: must hold an area or null for each of 1 objects, got 2 entries",
        ),
        ({"object_areas": 5}, "metadata.object_areas: must hold an area or null for each of 1 objects, got 5"),
        ({"object_areas": ["5"]}, "metadata.object_areas[0]: must be square pixels >= 0 or null, got '5'"),
        ({"object_areas": [-1]}, "metadata.object_areas[0]: must be square pixels >= 0 or null, got -1"),
        ({"object_areas": [True]}, "metadata.object_areas[0]: must be square pixels >= 0 or null, got True"),
    ],
)
def test_metadata_that_is_not_right_is_told(tmp_path: Path, metadata: dict[str, Any], message: str) -> None:
    record = {"images": ["a.jpg"], "width": 100, "height": 100, "metadata": metadata}
    record["objects"] = [{"desc": "thing 1", "bbox_2d": [1, 2, 3, 4]}]
    path = tmp_path / "val.jsonl"
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(InputError) as raised:
        images(path)
    assert str(raised.value) == f"{path}:1: {message}"
