"""Exports of annotation tools, for `importers`: what their files hold, and how they are named."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from furnish import png
from mutate import as_lines, json_bytes

Source = tuple[dict[str, bytes], list[str]]
"""The files of a source by path, and the arguments of the command."""

_BOX = {"x": 4, "y": 5, "width": 20, "height": 30}

VIA: dict[str, Any] = {
    "_via_settings": {"core": {"default_filepath": ""}, "project": {"name": "p"}},
    "_via_img_metadata": {
        "a.png1": {
            "filename": "a.png",
            "size": 1,
            "regions": [
                {"shape_attributes": {"name": "rect", **_BOX}, "region_attributes": {"class": "cat"}},
                {
                    "shape_attributes": {"name": "ellipse", "cx": 20, "cy": 20, "rx": 9, "ry": 5, "theta": 0.3},
                    "region_attributes": {"class": {"cat": True, "dog": False}},
                },
                {
                    "shape_attributes": {"name": "polygon", "all_points_x": [1, 30, 9], "all_points_y": [2, 3, 40]},
                    "region_attributes": {"class": "dog"},
                },
                {
                    "shape_attributes": {"name": "circle", "cx": 60, "cy": 9, "r": 8},
                    "region_attributes": {"class": "2"},
                },
                {"shape_attributes": {"name": "point", "cx": 6, "cy": 9}, "region_attributes": {"class": "dog"}},
            ],
            "file_attributes": {},
        },
        "b.png1": {"filename": "b.png", "size": 1, "regions": {"0": {"shape_attributes": {"name": "rect", **_BOX}}}},
    },
    "_via_attributes": {"region": {"class": {"type": "radio", "options": {"2": "two", "cat": ""}}}, "file": {}},
}

CREATEML: list[Any] = [
    {"image": "a.png", "annotations": [{"label": "cat", "coordinates": _BOX}, {"label": "dog", "coordinates": _BOX}]},
    {"imagefilename": "b.png", "annotation": []},
]

LABELBOX: list[Any] = [
    {
        "data_row": {"id": "1", "external_id": "a.png", "row_data": "https://h/a.png?x=1"},
        "media_attributes": {"width": 64, "height": 48},
        "projects": {
            "p": {
                "labels": [
                    {
                        "label_details": {"is_benchmark_reference": True},
                        "annotations": {
                            "objects": [
                                {"name": "cat", "bounding_box": {"top": 5, "left": 4, "height": 30, "width": 20}},
                                {"name": "dog", "polygon": [{"x": 1, "y": 2}, {"x": 30, "y": 3}, {"x": 9, "y": 40}]},
                                {"name": "eye", "annotation_kind": "ImagePoint", "point": {"x": 5, "y": 6}},
                            ],
                            "classifications": [],
                        },
                    }
                ]
            }
        },
    },
    {"data_row": {"global_key": "b.png"}, "media_attributes": {"width": 48, "height": 64}, "projects": {}},
]

DATUMARO: dict[str, Any] = {
    "info": {},
    "categories": {"label": {"labels": [{"name": "cat", "parent": ""}, {"name": "dog", "parent": ""}]}},
    "items": [
        {
            "id": "a",
            "image": {"path": "a.png", "size": [48, 64]},
            "annotations": [
                {"type": "bbox", "label_id": 0, "group": 1, "bbox": [4, 5, 20, 30], "attributes": {"rotation": 30}},
                {"type": "bbox", "label_id": 1, "group": 2, "bbox": [1, 2, 29, 38], "attributes": {"is_crowd": True}},
                {"type": "polygon", "label_id": 1, "group": 3, "points": [1, 2, 30, 3, 9, 40]},
                {"type": "polygon", "label_id": 1, "group": 3, "points": [40, 2, 50, 3, 45, 40]},
                {"type": "ellipse", "label_id": 0, "group": 0, "points": [1, 2, 30, 40]},
                {"type": "points", "label_id": 0, "group": 0, "points": [1, 2, 30, 40]},
            ],
        },
        {"id": "b", "image": {"path": "b.png", "size": [64, 48]}, "annotations": []},
    ],
}

OPENIMAGES = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
    "a.png,xclick,/m/01,1,0.1,0.5,0.2,0.7,0,0,0,0,0\nb.png,xclick,/m/02,1,0.1,0.5,0.2,0.7,0,0,1,0,0\n"
    "a.png,xclick,/m/02,1,0.6,0.9,0.2,0.7,0,0,0,0,0\nb.png,xclick,/m/01,1,0.1,0.5,0.2,0.7,0,0,0,0,0\n"
)

DOTA = "imagesource:x\ngsd:0.1\n4 5 30 6 29 40 3 39 plane 0\n10 10 20 10 20 20 10 20 ship 1\n"

CVAT_VIDEO = (
    "<annotations><version>1.1</version><meta><task><size>9</size><start_frame>0</start_frame>"
    "<frame_filter>step=1</frame_filter><original_size><width>64</width><height>48</height></original_size></task></meta>"
    '<track id="0" label="cat"><box frame="0" outside="0" xtl="4" ytl="5" xbr="30" ybr="40" rotation="5"/>'
    '<box frame="4" outside="0" xtl="9" ytl="5" xbr="35" ybr="40"/>'
    '<box frame="6" outside="1" xtl="9" ytl="5" xbr="35" ybr="40"/></track>'
    '<track id="1" label="dog"><polygon frame="1" outside="0" points="1,2;30,3;9,40"/>'
    '<polygon frame="5" outside="0" points="2,2;31,3;31,9;9,40"/></track>'
    '<track id="2" label="eye"><points frame="0" outside="0" points="5,6"/><points frame="8" points="9,9"/></track>'
    "</annotations>"
)

Spoiled = Callable[[Any], Any]
Bytes = Callable[[bytes, bytes], bytes]


def via(spoil: Spoiled, mutate: Bytes, rng: Random) -> Source:
    tree = VIA if rng.random() < 0.7 else VIA["_via_img_metadata"]
    return {"in.json": json_bytes(spoil(tree))}, ["in.json"]


def createml(spoil: Spoiled, mutate: Bytes, rng: Random) -> Source:
    return {"in.json": json_bytes(spoil(CREATEML))}, ["in.json", *rng.choice(([], [], ["--from-space", "norm1"]))]


def labelbox(spoil: Spoiled, mutate: Bytes, rng: Random) -> Source:
    spoiled = spoil(LABELBOX)
    return {"in.ndjson": as_lines(spoiled if isinstance(spoiled, list) else [spoiled])}, ["in.ndjson"]


def datumaro(spoil: Spoiled, mutate: Bytes, rng: Random) -> Source:
    return {"in.json": json_bytes(spoil(DATUMARO))}, ["in.json"]


def openimages(spoil: Spoiled, mutate: Bytes, rng: Random) -> Source:
    rows, names = OPENIMAGES.encode(), b"/m/01,cat\n/m/02,dog\n"
    spoiled = (mutate(rows, names), names) if rng.random() < 0.8 else (rows, mutate(names, rows))
    files = {"in/x-annotations-bbox.csv": spoiled[0], "in/class-descriptions.csv": spoiled[1]}
    pictures = {"in/images/a.png": png((64, 48)), "in/images/b.png": png((48, 64))}
    return files | pictures, ["in"]


def dota(spoil: Spoiled, mutate: Bytes, rng: Random) -> Source:
    files = {
        "in/labelTxt/a.txt": mutate(DOTA.encode(), b"0 1.5 -2 x"),
        "in/labelTxt/b.txt": DOTA.encode(),
        "in/images/a.png": png((64, 48)),
        "in/images/b.png": png((48, 64)),
    }
    return files, ["in"]


SOURCES: dict[str, Callable[[Spoiled, Bytes, Random], Source]] = {
    "via": via,
    "createml": createml,
    "labelbox": labelbox,
    "datumaro": datumaro,
    "openimages": openimages,
    "dota": dota,
}
