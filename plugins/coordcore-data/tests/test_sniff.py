"""Refusals say what a source is, and what reads it."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from conversion_support import coco, run, write_image, write_json

from coordcore import InputError
from coordcore_data.convert.sniff import sniff

VIA = {"a.jpg1": {"filename": "a.jpg", "size": 1, "regions": []}}
LABELBOX = {"data_row": {"id": "x"}, "projects": {}}
CREATEML = [{"image": "a.jpg", "annotations": [{"label": "cup", "coordinates": {"x": 1, "y": 2}}]}]
DATUMARO = {"info": {}, "categories": {}, "items": []}
RESULTS = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]


@pytest.mark.parametrize(
    ("name", "content", "what", "formats"),
    [
        ("a.json", coco([]), "a COCO file", ("coco",)),
        ("a.json", [{"data": {"image": "a.jpg"}, "annotations": []}], "a Label Studio export", ("label_studio",)),
        ("a.json", [{"image": "a.jpg", "x": [{"rectanglelabels": ["a"]}]}], "a Label Studio export", ("label_studio",)),
        ("a.json", VIA, "a project of the VGG Image Annotator", ("via",)),
        ("a.json", {"_via_settings": {}, "_via_img_metadata": VIA}, "a project of the VGG Image Annotator", ("via",)),
        ("a.ndjson", LABELBOX, "a Labelbox export", ("labelbox",)),
        ("a.json", [{"Labeled Data": "x", "Label": {}}], "a Labelbox export", ()),
        ("a.json", CREATEML, "a CreateML file", ("createml",)),
        ("a.json", DATUMARO, "a Datumaro data set", ("datumaro",)),
        ("a.json", [{"image": "a", "conversations": []}], "chat rows", ("swift",)),
        ("a.jsonl", {"messages": [], "images": []}, "chat rows", ("swift",)),
        ("a.jsonl", {"image": "a", "prefix": "detect", "suffix": ""}, "PaliGemma rows", ()),
        ("a.json", RESULTS, "COCO results", ()),
        ("a.json", {"shapes": [], "imagePath": "a.jpg"}, "a LabelMe file", ("labelme",)),
        ("a.jsonl", {"filename": "a", "detection": {}}, "ODVG rows", ("odvg",)),
        ("a.jsonl", {"images": ["a"], "width": 1, "height": 1, "objects": []}, "records of coordcore", ("records",)),
        ("a.json", [{"ann_id": 1, "sentences": []}], "REFER's refs", ()),
        ("a.json", {"size": {}, "objects": [], "tags": []}, "a Supervisely annotation", ()),
        ("a.jsonl", {"image": "a", "response": ""}, "answers of a model", ()),
        ("a.jsonl", {"response": "[]", "labels": None, "messages": [], "images": []}, "answers of a model", ()),
        (
            "a.json",
            [{"image_id": 1, "category_id": 1, "bbox": [], "id": 1}],
            "the annotations of a COCO file alone",
            (),
        ),
        ("a.json", [{"image_id": 1, "category_id": 1, "keypoints": [], "score": 1}], "COCO results: key points", ()),
        ("a.json", {"images": [], "categories": []}, "a COCO file without annotations", ()),
        (
            "a.json",
            [{"imagefilename": "a", "annotation": [{"coordinates": {"x": 1}}]}],
            "a CreateML file",
            ("createml",),
        ),
        ("a.json", {"version": "2.0", "item": {}, "annotations": []}, "a V7 Darwin file", ()),
        ("a.json", {"dataset": "a", "image": {}, "annotations": []}, "a V7 Darwin file", ()),
        ("a.json", {"metadata": {}, "instances": []}, "a SuperAnnotate file", ()),
        ("a.json", {"asset": {}, "regions": []}, "a VoTT asset", ()),
        ("a.json", [{"task_id": "a", "response": {}}], "a Scale export", ()),
        ("a.json", [{"instruction": "a", "input": "", "output": "b"}], "rows of Alpaca's kind", ()),
        ("a.jsonl", {"image": "a.png", "objects": {"bbox": []}}, "rows of a Hugging Face data set", ()),
    ],
)
def test_json(tmp_path: Path, name: str, content: Any, what: str, formats: tuple[str, ...]) -> None:
    seen = sniff(write_json(tmp_path / name, content))
    assert seen is not None
    assert (seen.what.startswith(what), seen.formats) == (True, formats)


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.csv", b"ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n", "boxes of Open Images"),
        ("a.csv", b"filename,file_size,region_count,region_shape_attributes\n", "a VIA export (CSV)"),
        ("a.csv", b"filename,width,height,class,xmin,ymin,xmax,ymax\n", "a table of boxes (CSV)"),
        ("a.xml", b"<?xml version='1.0'?>\n<annotation><filename/></annotation>", "a Pascal VOC file"),
        ("a.xml", b"<annotations><image/></annotations>", "a CVAT file"),
        ("a.txt", b"0 .5 .5 .1 .1\n1 .2 .2 .1 .1\n", "YOLO labels"),
        ("a.txt", b"0 .5 .5 .1 .1 .9\n", "YOLO's labels with a confidence"),
        ("a.txt", b"1 2 3 2 3 4 1 4 ship 0\n", "DOTA labels"),
        ("a.txt", b"images/a.jpg\nimages/b.jpg\n", "a list of image paths"),
        ("a.yaml", b"train: x\nnames: [a]\n", "a data.yaml of YOLO"),
        ("a.parquet", b"PAR1....", "a Parquet file"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        ("a.p", pickle.dumps([1]), "a Python pickle"),
        ("a.tfrecord", b"\x10\0\0\0\0\0\0\0abcd", "a TFRecord file"),
        ("a.zip", b"PK\x03\x04", "a zip archive"),
        ("a.png", b"\x89PNG\r\n", "a picture"),
        ("a.json", b"<!doctype html><html>", "a web page"),
        ("a.json", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("a.json", b"", "an empty file"),
        ("a.json", b" \n", "an empty file"),
        ("a.arrow", b"\xff\xff\xff\xff\x10\0\0\0", "an Arrow stream"),
        ("a.npz", b"PK\3\4", "NumPy arrays"),
        ("a.xlsx", b"PK\3\4", "a spreadsheet"),
        ("a.pt", b"PK\3\4", "the weights of a model"),
        ("a.pkl", pickle.dumps({}, 0), "a Python pickle"),
        ("a.gif", b"GIF89a", "a picture"),
        ("a.webp", b"RIFF\0\0\0\0WEBP", "a picture"),
        ("a.tif", b"II*\0", "a picture"),
        ("a.mp4", b"\0\0\0\x18ftypmp42", "a video"),
        ("a.csv", b"annotation_id,annotator,id,image,label\n", "a Label Studio export (CSV)"),
        ("a.txt", b"# PASCAL Annotation Version 1.00\n", "PASCAL annotations of 2005"),
        ("a.txt", b"Car 0.00 0 -1.57 614 181 727 284 1.57 1.73 4.15 1.00 1.75 13.22 -1.62\n", "KITTI labels"),
        ("a.txt", b"imagesource:x\ngsd:0.1\n1 2 3 4 5 6 7 8 plane 0\n", "DOTA labels"),
        ("a.txt", b"1,1,100,200,30,40,1,-1,-1,-1\n", "MOTChallenge boxes"),
        ("a.txt", b"gsd:1\n1,2,3,4,5,6,7,8,plane,0\n", "DOTA labels, with commas"),
        ("a.gz", gzip.compress(json.dumps(coco([])).encode()), "a gzip file that holds a COCO file"),
    ],
)
def test_bytes(tmp_path: Path, name: str, data: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert str(sniff(tmp_path / name)).startswith(what)


def test_folders(tmp_path: Path) -> None:
    write_image(tmp_path / "pictures" / "a.jpg", 4, 4)
    write_json(tmp_path / "set" / "annotations" / "train.json", coco([]))
    write_image(tmp_path / "set" / "a.jpg", 4, 4)
    (tmp_path / "empty").mkdir()
    for name in (".DS_Store", "Thumbs.db", "README.txt"):
        (tmp_path / "pictures" / name).write_bytes(b"x")
    (tmp_path / "set" / "a.pt").write_bytes(b"PK\3\4")
    assert str(sniff(tmp_path / "pictures")).startswith("a folder of 1 pictures without annotations")
    assert str(sniff(tmp_path / "set")) == (
        "a folder with a COCO file, annotations/train.json; name that file, --from coco"
    )
    assert str(sniff(tmp_path / "empty")).startswith("a folder without files")


@pytest.mark.parametrize("content", [7, [], {"a": 1}, ["x"]])
def test_what_is_not_known_is_not_named(tmp_path: Path, content: Any) -> None:
    assert sniff(write_json(tmp_path / "a.json", content)) is None


def test_what_is_not_there_is_not_named(tmp_path: Path) -> None:
    assert sniff(tmp_path / "no.json") is None


@pytest.mark.parametrize(
    ("content", "source_format", "text"),
    [
        (
            [{"data": {"image": "a.jpg"}, "annotations": []}],
            "coco",
            r"a Label Studio export; --from label_studio reads it",
        ),
        (CREATEML, "odvg", r"a CreateML file; --from createml reads it"),
        (coco([]), "swift", r"a COCO file; --from coco reads it"),
    ],
)
def test_every_reader_says_so(tmp_path: Path, content: Any, source_format: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        run(write_json(tmp_path / "a.json", content), source_format, tmp_path / "out.jsonl")


def test_a_source_of_the_right_kind_is_not_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run(write_json(tmp_path / "a.json", {"images": 3, "annotations": []}), "coco", tmp_path / "out.jsonl")
    assert "looks like" not in str(caught.value)
