"""Annotation files of every format that `coordcore data convert` reads."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import attrs
from command import Ended, breaches, invoke
from furnish import RECORDS, png, work_folder
from mutate import CONTROL, LONG, Mutator, Raw, as_lines, json_bytes

from kinds import exports

Files = dict[str, bytes]


@attrs.frozen
class Spoil:
    """Puts `count` mistakes into what it is called with."""

    mutator: Mutator
    count: int

    def __call__(self, tree: Any) -> Any:
        for _ in range(self.count):
            tree = self.mutator.tree(tree)
        return tree


COCO: dict[str, Any] = {
    "info": {"description": "d"},
    "images": [
        {"id": 1, "file_name": "a.png", "width": 64, "height": 48, "license": 1},
        {"id": 2, "file_name": "b.png", "width": 48, "height": 64},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 5, 20, 30], "area": 600, "iscrowd": 0},
        {
            "id": 2,
            "image_id": 2,
            "category_id": 2,
            "bbox": [1.5, 2, 20, 30],
            "segmentation": [[1.5, 2, 21.5, 2, 21.5, 32]],
        },
        {
            "id": 3,
            "image_id": 2,
            "category_id": 1,
            "bbox": [0, 0, 9, 9],
            "iscrowd": 1,
            "segmentation": {"counts": "x", "size": [64, 48]},
        },
    ],
    "categories": [{"id": 1, "name": "cat", "synset": "cat.n.01"}, {"id": 2, "name": "dog", "supercategory": "animal"}],
}

LABELME: dict[str, Any] = {
    "version": "5.2.1",
    "flags": {},
    "imagePath": "..\\images\\a.png",
    "imageData": None,
    "imageHeight": 48,
    "imageWidth": 64,
    "shapes": [
        {"label": "cat", "points": [[4, 5], [30, 40]], "shape_type": "rectangle", "group_id": None, "flags": {}},
        {"label": "dog", "points": [[1, 1], [20.5, 3], [7, 40]], "shape_type": "polygon"},
        {"label": "eye", "points": [[9, 9]], "shape_type": "point"},
        {"label": "ball", "points": [[20, 20], [25, 20]], "shape_type": "circle"},
    ],
}

ODVG: list[Any] = [
    {
        "filename": "a.png",
        "width": 64,
        "height": 48,
        "detection": {
            "instances": [
                {"bbox": [4, 5, 30, 40], "label": 0, "category": "cat"},
                {"bbox": [1, 2, 3.5, 4], "label": 1, "category": "dog"},
            ]
        },
    },
    {
        "filename": "b.png",
        "width": 48,
        "height": 64,
        "grounding": {
            "caption": "two cats and a dog",
            "regions": [
                {"phrase": "two cats", "bbox": [[1, 2, 30, 40], [5, 6, 17, 18]]},
                {"phrase": ["a dog"], "bbox": [9, 10, 11, 12]},
            ],
        },
    },
]

REF_ROWS: list[Any] = [
    {"image": "a.png", "expression": "left cat", "bbox": [4, 5, 20, 30], "width": 64, "height": 48, "split": "train"},
    {
        "image": "a.png",
        "sentence": ["right cat", "the other"],
        "bbox": [1, 2, 20, 30],
        "width": 64,
        "height": 48,
        "split": "train",
    },
]

REFS: list[Any] = [
    {
        "ann_id": 1,
        "image_id": 1,
        "split": "train",
        "sentences": [{"sent": "left cat", "raw": "Left cat"}, {"raw": "x"}],
    },
    {"ann_id": 2, "image_id": 2, "split": "val", "sentences": ["a dog"]},
]

SWIFT: list[Any] = [
    {
        "messages": [
            {"role": "user", "content": "<image>Find <ref-object>"},
            {"role": "assistant", "content": "<bbox><bbox>"},
        ],
        "images": ["a.png"],
        "objects": {"ref": ["cat", "dog"], "bbox": [[4, 5, 30, 40], [1, 2, 9, 9.5]], "bbox_type": "real"},
    },
    {
        "messages": [
            {"role": "user", "content": "<image>Find"},
            {"role": "assistant", "content": "<ref-object><bbox>"},
        ],
        "images": [{"path": "b.png"}],
        "objects": {"ref": ["cat"], "bbox": [[0.1, 0.2, 0.5, 0.5]], "bbox_type": "norm1", "image_id": [0]},
    },
]

_LS_SIZE: dict[str, Any] = {"original_width": 64, "original_height": 48, "image_rotation": 0}

LABEL_STUDIO: list[Any] = [
    {
        "id": 7,
        "data": {"image": "/data/upload/18/0f61-a.png"},
        "annotations": [
            {
                "id": 1,
                "was_cancelled": False,
                "result": [
                    {
                        **_LS_SIZE,
                        "type": "rectanglelabels",
                        "value": {
                            "x": 10,
                            "y": 20,
                            "width": 30,
                            "height": 40,
                            "rotation": 30,
                            "rectanglelabels": ["cat"],
                        },
                    },
                    {
                        **_LS_SIZE,
                        "type": "polygonlabels",
                        "value": {"points": [[1, 2], [50, 2], [50, 60]], "polygonlabels": ["dog"]},
                    },
                    {**_LS_SIZE, "type": "choices", "value": {"choices": ["night"]}},
                ],
            }
        ],
        "predictions": [],
    },
    {"id": 8, "data": {"image": "b.png"}, "annotations": [{"was_cancelled": False, "result": []}]},
]

LABEL_STUDIO_MIN: list[Any] = [
    {
        "id": 9,
        "image": "/data/upload/18/0f61-a.png",
        "label": [
            {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["cat"]}
            | {"original_width": 64, "original_height": 48}
        ],
    }
]

VOC = (
    "<annotation><folder>f</folder><filename>a.png</filename><size><width>64</width><height>48</height><depth>3</depth></size>"
    "<object><name>cat</name><difficult>1</difficult><bndbox><xmin>4</xmin><ymin>5</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
    "</object><object><name>dog</name><pose>x</pose><bndbox><ymin>1</ymin><xmin>2</xmin><xmax>9</xmax><ymax>8</ymax></bndbox>"
    "<part><name>head</name><bndbox><xmin>4</xmin><ymin>5</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></part></object></annotation>"
)

CVAT = (
    '<annotations><version>1.1</version><meta><task/></meta><image id="3" name="d\\a.png" width="64" '
    'height="48" subset="Train">'
    '<box label="cat" xtl="4" ytl="5" xbr="30" ybr="40" occluded="0" rotation="30">'
    '<attribute name="a">b</attribute></box>'
    '<polygon label="roof" points="0.5,1;20,1;20,30"/><points label="eye" points="5,6;7,8"/><tag label="night"/>'
    '<ellipse label="egg" cx="20" cy="20" rx="5" ry="10" rotation="30"/>'
    '<mask label="fog" rle="3, 4" left="5" top="6" width="10" height="20"/>'
    '<polyline label="p" points="1,2;3,4"/></image><image id="4" name="b.png" width="48" height="64"/></annotations>'
)

YAML = "path: .\ntrain: images/train\nval: [images/val, list.txt]\nnc: 2\nnames:\n  0: cat\n  1: 'a, dog'\n"
LABELS = "0 0.5 0.5 0.25 0.5\n1 0.1 0.25 0.4 0.25 0.1 0.75\n\n1 0.9 0.9 0.1 0.1\n"


def warm() -> None:
    """Load what the readers load."""
    from coordcore.cli import app
    from coordcore_data.convert.conversion import FORMATS, reader

    for name in FORMATS:
        reader(name)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        (Path(folder) / "a.json").write_bytes(json_bytes(COCO))
        with contextlib.suppress(SystemExit):
            arguments = [f"{folder}/a.json", f"{folder}/a.jsonl", "--from", "coco", "--to-space", "bin"]
            app(args=["data", "convert", *arguments])
    png((8, 8))


def case(name: str, seed: int, folder: Path) -> list[str]:
    """One source of the format `name` with one to three mistakes in it."""
    work = work_folder(folder)
    rng = Random(f"importers.{name}:{seed}")
    mutator = Mutator(rng)
    mistakes = rng.choice((1, 1, 1, 2, 3))
    in_text = sum(rng.random() < 0.25 for _ in range(mistakes))
    files, arguments = SOURCES[name](Spoil(mutator, mistakes - in_text))
    for path, data in files.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_bytes(data)
    for _ in range(in_text):
        path = rng.choice([path for path in sorted(files) if not path.endswith(".png")])
        (work / path).write_bytes(mutator.bytes((work / path).read_bytes(), next(iter(files.values()))))
    output, options = _options(rng, name)
    ended = invoke(
        ["data", "convert", arguments[0], output, "--from", name, *arguments[1:], *options],
        folder,
        "; ".join(mutator.notes),
    )
    made = [output.replace(".", f".{part}.", 1) for part in ("account", "train", "val", "test", "Train")]
    made = [output, *made, output.rpartition(".")[0] + ".account.json"]
    found = breaches(ended, outputs=made) + _unplaced(ended, work)
    if ended.code == 0:
        found += _unbalanced(work, output)
    return found


def _options(rng: Random, name: str) -> tuple[str, list[str]]:
    if rng.random() < 0.2:
        return "out.json", ["--to", "coco"]
    options = ["--to-space", rng.choice(("pixel", "norm1", "bin"))]
    if rng.random() < 0.3:
        options += ["--geometry", "poly"]
    if rng.random() < 0.2:
        options += ["--split", "train=0.5,val=0.5"]
    if rng.random() < 0.2:
        options += ["--outside", rng.choice(("drop", "error"))]
    if rng.random() < 0.2:
        options += ["--crowd", "drop"]
    if rng.random() < 0.2:
        options += ["--check-sizes", "--image-root", "."]
    elif rng.random() < 0.3:
        options += ["--image-root", "."]
    return "out.jsonl", options


def _unplaced(ended: Ended, work: Path) -> list[str]:
    """A message that names neither a file nor an option."""
    if not ended.code or "Traceback" in ended.err or re.search(r"--[a-z]", ended.err):
        return []
    names = {part for name in _names(work) for part in (name, name.rpartition("/")[2])}
    named = any(name in ended.err for name in names)
    return [] if named else [f"no file in the message: {ended.err[:200]!r}"]


def _names(work: Path) -> list[str]:
    return [str(path.relative_to(work)) for path in work.rglob("*")]


def _unbalanced(work: Path, output: str) -> list[str]:
    """An account that does not add up, in itself or against what was written."""
    account = json.loads((work / output).with_suffix(".account.json").read_text())
    found = []
    for kind in ("images", "objects"):
        tally = account[kind]
        ends = tally["written"] + sum(tally["carried"].values()) + sum(tally["dropped"].values())
        if tally["read"] != ends:
            found.append(f"the account of {kind} does not add up: {tally['read']} read, {ends} accounted for")
    images = objects = 0
    for name in account["files"]:
        if output.endswith(".json"):
            content = json.loads((work / name).read_text())
            images += len(content["images"])
            objects += len(content["annotations"])
        else:
            for line in (work / name).read_bytes().splitlines():
                images += 1
                record, problems = _read(line)
                objects += len(record["objects"])
                found += problems
    if (images, objects) != (account["images"]["written"], account["objects"]["written"]):
        crowd = sum(account["objects"]["carried"].values())
        if (images, objects) != (account["images"]["written"], account["objects"]["written"] + crowd):
            told = account["images"]["written"], account["objects"]["written"]
            found.append(f"the account says {told} images and objects, the files hold {images, objects}")
    return found


def _read(line: bytes) -> tuple[dict[str, Any], list[str]]:
    """A record that was written, and what is wrong with it."""
    from coordcore.errors import InputError
    from coordcore.records.record import parse_record

    record = json.loads(line)
    try:
        parse_record(line)
    except InputError as error:
        return record, [f"wrote a record that is not right: {error}"]
    return record, []


# --- sources --------------------------------------------------------------------------------------------------------


def _coco(spoil: Spoil) -> tuple[Files, list[str]]:
    return {"in.json": json_bytes(spoil(COCO))}, ["in.json"]


def _labelme(spoil: Spoil) -> tuple[Files, list[str]]:
    return {"in/a.json": json_bytes(spoil(LABELME)), "in/b.json": json_bytes(LABELME)}, ["in"]


def _odvg(spoil: Spoil) -> tuple[Files, list[str]]:
    names = (
        spoil.mutator.tree({"0": "cat", "1": "dog"}) if spoil.mutator.rng.random() < 0.2 else {"0": "cat", "1": "dog"}
    )
    return {"in.jsonl": as_lines(_rows(spoil(ODVG))), "map.json": json_bytes(names)}, [
        "in.jsonl",
        "--classes",
        "map.json",
    ]


def _refcoco(spoil: Spoil) -> tuple[Files, list[str]]:
    order = ["--boxes", spoil.mutator.rng.choice(("xyxy", "xywh", "cxcywh", "yxyx"))]
    how = spoil.mutator.rng.randrange(4)
    if how == 0:
        return {"in.jsonl": as_lines(_rows(spoil(REF_ROWS)))}, ["in.jsonl", *order, "--from-space", "pixel"]
    if how == 1:
        return {"in.json": json_bytes(spoil(REF_ROWS))}, ["in.json", *order, "--from-space", "norm1"]
    refs, instances = (spoil(REFS), COCO) if how == 2 else (REFS, spoil(COCO))
    return {"in.json": json_bytes(refs), "i.json": json_bytes(instances)}, ["in.json", "--instances", "i.json"]


def _swift(spoil: Spoil) -> tuple[Files, list[str]]:
    return {"in.jsonl": as_lines(_rows(spoil(SWIFT)))}, ["in.jsonl"]


def _label_studio(spoil: Spoil) -> tuple[Files, list[str]]:
    tree = LABEL_STUDIO if spoil.mutator.rng.random() < 0.7 else LABEL_STUDIO_MIN
    return {"in.json": json_bytes(spoil(tree))}, ["in.json"]


def _records(spoil: Spoil) -> tuple[Files, list[str]]:
    rows = as_lines(_rows(spoil(list(RECORDS))))
    return {"in.jsonl": rows}, ["in.jsonl", "--from-space", spoil.mutator.rng.choice(("pixel", "norm1"))]


def _voc(spoil: Spoil) -> tuple[Files, list[str]]:
    return {"in/a.xml": _spoil_xml(VOC, spoil), "in/b.xml": VOC.encode()}, ["in"]


def _cvat(spoil: Spoil) -> tuple[Files, list[str]]:
    if spoil.mutator.rng.random() < 0.4:
        return {"in.xml": _spoil_xml(exports.CVAT_VIDEO, spoil)}, ["in.xml", "--frames", "2"]
    return {"in.xml": _spoil_xml(CVAT, spoil)}, ["in.xml"]


def _yolo(spoil: Spoil) -> tuple[Files, list[str]]:
    yaml, labels = YAML.encode(), LABELS.encode()
    for _ in range(spoil.mutator.rng.choice((1, 1, 2))):
        if spoil.mutator.rng.random() < 0.5:
            yaml = spoil.mutator.bytes(yaml, labels)
        else:
            labels = spoil.mutator.bytes(labels, yaml)
    files = {
        "data.yaml": yaml,
        "list.txt": b"./images/val/b.png\nimages/train/a.png\n",
        "classes.txt": b"cat\ndog\n",
        "images/train/a.png": png((64, 48)),
        "images/val/b.png": png((48, 64)),
        "labels/train/a.txt": labels,
        "labels/val/b.txt": LABELS.encode(),
        "labels/val/lone.txt": LABELS.encode(),
    }
    return files, ["data.yaml"]


def _export(name: str, spoil: Spoil) -> tuple[Files, list[str]]:
    return exports.SOURCES[name](spoil, spoil.mutator.bytes, spoil.mutator.rng)


def _rows(tree: Any) -> list[Any]:
    return tree if isinstance(tree, list) else [tree]


def _spoil_xml(text: str, spoil: Spoil) -> bytes:
    """XML with as many mistakes as `spoil` makes."""
    rng, mutator = spoil.mutator.rng, spoil.mutator
    root = ElementTree.fromstring(text)
    for _ in range(spoil.count):
        elements = list(root.iter())
        element, other = rng.choice(elements), rng.choice(elements)
        how = rng.choice(("text", "text", "attribute", "attribute", "tag", "remove", "copy", "deep", "long", "empty"))
        mutator.notes.append(f"{how} <{element.tag}>"[:60])
        value = mutator.value()
        given = value.text if isinstance(value, Raw) else str(value)
        given = re.sub(r"[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]", "", given)
        if how == "text":
            element.text = given
        elif how == "attribute" and element.attrib:
            element.set(rng.choice(sorted(element.attrib)), given)
        elif how == "tag":
            element.tag = rng.choice(("object", "image", "bndbox", "track", "polygon", "x", "annotation", "robndbox"))
        elif how == "remove" and len(element):
            element.remove(rng.choice(list(element)))
        elif how == "copy" and len(element):
            element.append(copy.deepcopy(rng.choice(list(element))))
        elif how == "deep":
            return ElementTree.tostring(root).replace(b"</", b"<d>" * 5000 + b"</d>" * 5000 + b"</", 1)
        elif how == "long":
            other.set("long", LONG * 3)
        elif how == "empty":
            element.clear()
        else:
            element.text = CONTROL[5:12]
    return _with_head(ElementTree.tostring(root), rng)


def _with_head(data: bytes, rng: Random) -> bytes:
    bomb = b'<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
    outside = b'<!DOCTYPE a SYSTEM "file:///etc/passwd">'
    heads = (b"",) * 12 + (
        b'<?xml version="1.0" encoding="klingon"?>',
        b'<?xml version="1.0" encoding="utf-16"?>',
        bomb,
        outside,
    )
    return rng.choice(heads) + data


SOURCES: dict[str, Callable[[Spoil], tuple[Files, list[str]]]] = {
    "coco": _coco,
    "lvis": _coco,
    "voc": _voc,
    "yolo": _yolo,
    "labelme": _labelme,
    "cvat": _cvat,
    "odvg": _odvg,
    "refcoco": _refcoco,
    "swift": _swift,
    "label_studio": _label_studio,
    "records": _records,
    **{name: partial(_export, name) for name in exports.SOURCES},
}
"""Every format of `coordcore_data.convert.conversion.FORMATS`."""
