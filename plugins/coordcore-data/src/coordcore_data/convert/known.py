"""The files and folders that `sniff` knows: by first bytes, suffix, keys of JSON, headers of CSV."""

from __future__ import annotations

import attrs


@attrs.frozen
class Seen:
    """what: "a Label Studio export (JSON)". formats: those that read it. cure: what to do where none does."""

    what: str
    formats: tuple[str, ...] = ()
    cure: str = ""

    def __str__(self) -> str:
        cure = f"--from {' or '.join(self.formats)} reads it" if self.formats else self.cure
        return f"{self.what}; {cure}"


TO_COCO = "export it as COCO, and use --from coco"
UNPACK = "unpack it, and name what it holds"
TO_LINES = "write its rows as JSON lines"
NOT_THIS = "name the file with the annotations"

MAGIC: tuple[tuple[bytes, Seen], ...] = (
    (b"PAR1", Seen("a Parquet file", cure="write its rows as JSON lines (pandas: to_json(lines=True))")),
    (b"ARROW1", Seen("an Arrow file", cure=TO_LINES)),
    (b"\xff\xff\xff\xff", Seen("an Arrow stream, as Hugging Face data sets are kept", cure=TO_LINES)),
    (b"\x89HDF", Seen("an HDF5 file", cure=TO_LINES)),
    (b"\x93NUMPY", Seen("a NumPy array", cure="write its boxes as JSON lines, with their images and labels")),
    (b"MATLAB 5.0", Seen("a MATLAB file", cure="write its boxes as JSON lines, with their images and labels")),
    (b"SQLite format 3", Seen("an SQLite data base", cure="export its rows as JSON lines")),
    (b"PK\3\4", Seen("a zip archive", cure=UNPACK)),
    (b"7z\xbc\xaf", Seen("a 7z archive", cure=UNPACK)),
    (b"Rar!", Seen("a RAR archive", cure=UNPACK)),
    (b"BZh", Seen("a bzip2 file", cure=UNPACK)),
    (b"\xfd7zXZ", Seen("an xz file", cure=UNPACK)),
    (b"\x28\xb5\x2f\xfd", Seen("a Zstandard file", cure=UNPACK)),
    (b"%PDF", Seen("a PDF document", cure=NOT_THIS)),
    (b"\x89PNG", Seen("a picture", cure=NOT_THIS)),
    (b"\xff\xd8\xff", Seen("a picture", cure=NOT_THIS)),
    (b"GIF8", Seen("a picture", cure=NOT_THIS)),
    (b"RIFF", Seen("a picture (WebP), a sound or a video", cure=NOT_THIS)),
    (b"II*\0", Seen("a picture", cure=NOT_THIS)),
    (b"MM\0*", Seen("a picture", cure=NOT_THIS)),
    (b"version https://git-lfs", Seen("a Git LFS pointer, not the file", cure="fetch it: git lfs pull")),
    (b"<!DOCTYPE html", Seen("a web page", cure="was a download refused? Fetch the file again")),
    (b"<html", Seen("a web page", cure="was a download refused? Fetch the file again")),
)

_COCO = Seen("a COCO file", ("coco",))
_LABEL_STUDIO = Seen("a Label Studio export", ("label_studio",))
_CHAT = Seen("chat rows, as ms-swift, LLaVA or ShareGPT have them", ("swift",))
_RECORDS = Seen("records of coordcore", ("records",))
VIA = Seen("a project of the VGG Image Annotator (VIA)", ("via",))
_FROM_VIA = f"{TO_COCO} (Annotation > Export as COCO), or as JSON, and use --from via"
PREDICTIONS = Seen("predictions, not annotations: boxes with scores", cure="convert the annotations they belong to")
_ANSWERS = Seen("answers of a model", cure="`coordcore eval` scores them; they are no annotations")
_LABELBOX = Seen("a Labelbox export", ("labelbox",))

BY_SUFFIX = {
    ".npz": Seen("NumPy arrays", cure="write their boxes as JSON lines, with their images and labels"),
    ".xlsx": Seen("a spreadsheet", cure="write its rows as JSON lines, or as ODVG or COCO"),
    **dict.fromkeys((".pt", ".pth", ".safetensors"), Seen("the weights of a model", cure=NOT_THIS)),
    **dict.fromkeys(
        (".pkl", ".pickle"),
        Seen("a Python pickle, which can run code when it is read", cure="save what it holds as JSON"),
    ),
}
"""What the first bytes alone do not tell: zip archives of a kind, and formats without a mark."""

KEYS: tuple[tuple[frozenset[str], Seen], ...] = tuple(
    (frozenset(keys.split()), seen)
    for keys, seen in (
        ("images width height objects", _RECORDS),  # which may have `categories`, as COCO's files
        ("images annotations categories", _COCO),
        ("images annotations", _COCO),
        (
            "image_id category_id bbox score",
            Seen("COCO results: a detector's boxes with scores", cure=PREDICTIONS.cure),
        ),
        ("image_id category_id segmentation score", Seen("COCO results: a detector's masks", cure=PREDICTIONS.cure)),
        ("image boxes stopped", Seen("predictions of coordcore", cure="`coordcore eval` scores them")),
        ("image_id category_id keypoints score", Seen("COCO results: key points", cure=PREDICTIONS.cure)),
        (
            "image_id category_id bbox",
            Seen("the annotations of a COCO file alone", cure="put them beside its images and categories"),
        ),
        ("images categories", Seen("a COCO file without annotations", cure="name the one that has them")),
        ("predictions", PREDICTIONS),
        ("detections", PREDICTIONS),
        ("_via_img_metadata", VIA),
        ("project file metadata view", Seen("a VIA 3 project", cure=TO_COCO)),
        ("filename size regions", VIA),
        ("filename regions", VIA),
        ("data_row projects", _LABELBOX),
        ("data_row", _LABELBOX),
        (
            "Labeled~Data Label",
            Seen("a Labelbox export of the first kind (JSON)", cure="export it as NDJSON, and use --from labelbox"),
        ),
        ("items categories", Seen("a Datumaro data set", ("datumaro",))),
        ("data annotations", _LABEL_STUDIO),
        ("data completions", _LABEL_STUDIO),
        ("data predictions", _LABEL_STUDIO),
        ("annotation_id annotator", Seen("a Label Studio export (JSON-MIN)", ("label_studio",))),
        ("response messages", _ANSWERS),
        ("messages", _CHAT),
        ("conversations", _CHAT),
        ("query response", _CHAT),
        (
            "prefix suffix",
            Seen(
                "PaliGemma rows, or Florence's", cure="write their <loc> tokens as pixels (PaliGemma's: y first, 1024)"
            ),
        ),
        ("instruction output", Seen("rows of Alpaca's kind", cure="write them as messages, and use --from swift")),
        (
            "conversion images objects files",
            Seen("an account of coordcore data convert", cure="name the file beside it"),
        ),
        ("filename detection", Seen("ODVG rows", ("odvg",))),
        ("filename grounding", Seen("ODVG rows", ("odvg",))),
        ("ann_id sentences", Seen("REFER's refs", cure="--from refcoco --instances FILE reads them")),
        ("bbox expression", Seen("referring expressions", ("refcoco",))),
        ("shapes imagePath", Seen("a LabelMe file", ("labelme",))),
        ("shapes version flags", Seen("a LabelMe file", ("labelme",))),
        ("size objects tags", Seen("a Supervisely annotation", cure=TO_COCO)),
        ("item annotations", Seen("a V7 Darwin file", cure=TO_COCO)),
        ("dataset image annotations", Seen("a V7 Darwin file", cure=TO_COCO)),
        ("metadata instances", Seen("a SuperAnnotate file", cure=TO_COCO)),
        ("asset regions", Seen("a VoTT asset", cure=TO_COCO)),
        ("assets tags", Seen("a VoTT project", cure=TO_COCO)),
        ("data_units label_hash", Seen("an Encord export", cure=TO_COCO)),
        ("task_id response", Seen("a Scale export", cure=TO_COCO)),
        ("image_id regions", Seen("Visual Genome's regions", cure="write them as rows for --from refcoco")),
        ("source-ref", Seen("a SageMaker Ground Truth manifest", cure=f"{TO_COCO}, or write ODVG rows")),
        ("boundingBoxAnnotations", Seen("a Vertex AI data set", cure=f"{TO_COCO}, or write ODVG rows")),
        ("name labels attributes", Seen("BDD100K labels", cure="write them as COCO: bdd100k.label.to_coco")),
        ("file_name objects", Seen("rows of a Hugging Face image folder", cure="write their boxes as ODVG rows")),
        ("image objects", Seen("rows of a Hugging Face data set", cure="write their boxes as ODVG rows")),
        ("response", _ANSWERS),
    )
)
"""Keys of an object, or of the first object of a list -> what it is; "~" is a blank."""

HEADERS: tuple[tuple[frozenset[str], Seen], ...] = (
    (
        frozenset(("ImageID", "XMin")),
        Seen("boxes of Open Images (CSV)", ("openimages",)),
    ),
    (
        frozenset(("ImageID", "LabelName")),
        Seen("labels of Open Images (CSV)", cure="name the file with the boxes, and use --from openimages"),
    ),
    (frozenset(("region_shape_attributes",)), Seen("a VIA export (CSV)", cure=_FROM_VIA)),
    (frozenset(("filename", "xmin", "ymax")), Seen("a table of boxes (CSV)", cure="write its rows as ODVG or COCO")),
    (frozenset(("image_id", "bbox")), Seen("a table of boxes (CSV)", cure="write its rows as ODVG or COCO")),
    *(
        (frozenset(("annotator", key)), Seen("a Label Studio export (CSV)", cure="export it as JSON"))
        for key in ("annotation_id", "lead_time")
    ),
)
