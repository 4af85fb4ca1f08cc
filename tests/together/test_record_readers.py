"""Every reader of records meets the same odd records, and says the same of each.

The strict readers are the data builder and the truth of `eval`: the first mistake stops them. The lenient ones are
`coordcore data convert` and `data check`: they leave out what a strict reader refuses, and count it under its path.
docs/reference/records.md has the rules; each case below is one of its sentences.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from coordcore import InputError
from coordcore.coords import ints_to_tokens
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_coord_tokens import CoordJsonlConfig
from coordcore_coord_tokens.jsonl import record_problems
from coordcore_data.check.sample import collect
from coordcore_data.convert.core import Account, Reading
from coordcore_data.convert.records import read
from coordcore_detection.evaluate.truth_sources import truth_from_records

BOX = [12, 40, 300, 412]
TOKENS = ints_to_tokens(BOX)
POLY = [0, 80, 200, 0, 400, 80]
BASE: dict[str, Any] = {"images": ["photo.png"], "width": 640, "height": 480}

FORM = ("builder", "eval", "convert", "check")
"""Who looks at the form of a record: everyone."""

NUMBERS = ("builder", "eval", "convert")
"""Who reads numbers in a declared space. `data check` finds out what they are, and takes any."""

PLACE = ("builder", "eval")
"""Who wants every corner inside its image. `data convert` cuts or drops under `--outside`."""


def builder(path: Path, space: str) -> list[str]:
    config = CoordJsonlConfig(train=path, space=space)
    return [
        f"{problem.path}: {problem.message}" if problem.path else problem.message
        for problem in record_problems(config, SPEC)
    ]


def truth(path: Path, space: str) -> list[str]:
    try:
        truth_from_records(path, space=space, quantisation=SPEC, question="Where?")
    except InputError as error:
        return [line.removeprefix(f"{path}:1: ") for line in str(error).splitlines()]
    return []


def converter(path: Path, space: str) -> list[str]:
    account = Account()
    try:
        list(read(path, Reading(space=space, quantisation=SPEC), account).images)
    except InputError as error:
        return [str(error).removeprefix(f"{path}:1: ")]
    return [shown.removeprefix("line 1: ") for examples in account.examples.values() for shown in examples]


def checker(path: Path, _space: str) -> list[str]:
    return [shown.removeprefix("line 1: ") for shown in collect(path).examples.values()]


SPEC = DEFAULT_QUANTISATION
READERS: dict[str, Callable[[Path, str], list[str]]] = {
    "builder": builder,
    "eval": truth,
    "convert": converter,
    "check": checker,
}


@attrs.frozen
class Odd:
    """A line, and the beginning of what each of `by` says of it; "" where it is right."""

    line: dict[str, Any] | bytes
    says: str
    by: tuple[str, ...] = FORM
    space: str = "bin"


def record(says: str, by: tuple[str, ...] = FORM, space: str = "bin", **keys: Any) -> Odd:
    line = {**BASE, "objects": [], **keys}
    return Odd({key: value for key, value in line.items() if value is not ...}, says, by, space)


def one(says: str, by: tuple[str, ...] = FORM, space: str = "bin", **keys: Any) -> Odd:
    """A record of one object."""
    return record(says, by, space, objects=[{"desc": "red circle", **keys}])


def raw(says: str, coordinate: str, by: tuple[str, ...] = FORM, space: str = "bin") -> Odd:
    """A box whose second corner has an x that Python would not write."""
    line = json.dumps({**BASE, "objects": [{"desc": "x", "bbox_2d": [0, 0, "?", 9]}]}).replace('"?"', coordinate)
    return Odd(line.encode(), says, by, space)


AT = "objects[0].bbox_2d"
DEEP = b'{"metadata": {"a": ' + b"[" * 9999 + b"]" * 9999 + b"}}"
TWICE = b'{"images": ["photo.png"], "width": 0, "width": 640, "height": 480, "objects": []}'

CASES = {
    # the line
    "a blank line": Odd(b" ", "blank line; "),
    "a byte order mark": Odd(b"\xef\xbb\xbf" + json.dumps({**BASE, "objects": []}).encode(), "starts with a byte"),
    "no UTF-8": Odd(b'{"images": ["caf\xe9.jpg"]}', "not UTF-8 ("),
    "no JSON": Odd(b'{"images": [', "not JSON: "),
    "nested too deep": Odd(DEEP, "not a record: nested too deep"),
    "a list": Odd(b"[]", "expected object, got array"),
    "half a surrogate pair": Odd(b'{"images": ["\\ud83d"]}', "not JSON: "),
    "a key that is there twice": Odd(TWICE, "width: expected int >= 1"),
    # the record
    "a misspelt key": record("objcts: unknown key; did you mean 'objects'?", objcts=[]),
    "a key of one's own": record("colour: unknown key; known keys: ", colour="red"),
    "caches of annotations": record("", _coord_tokens_enabled=True),
    "two images": record("images: holds 2 images; ", images=["a.png", "b.png"]),
    "no image": record("images: holds 0 images; ", images=[]),
    "an image that is no list": record("images: expected array, got str", images="photo.png"),
    "an empty path": record("images[0]: empty path", images=[""]),
    "no height": record("height: missing", height=...),
    "no width at all": record("width: expected int >= 1", width=0),
    "a huge width": record("width: expected int <= 1000000", width=10**7),
    "a width beyond any integer type": record("width: expected int <= 1000000", width=10**400),
    "a width with a fraction": record("width: expected int, got float", width=640.0),
    "a width in quotes": record("width: expected int, got str", width="640"),
    "a width that is true": record("width: expected int, got bool", width=True),
    "no objects": record("objects: missing; ", objects=...),
    "objects that are null": record("objects: missing; ", objects=None),
    "objects that are an object": record("objects: expected array | null, got object", objects={}),
    "a summary that is null": record("", summary=None),
    "a summary that is no text": record("summary: expected str | null, got int", summary=5),
    "a phrase that finds something": record(
        "", task="refer", question="the circle", objects=[{"desc": "red circle", "bbox_2d": BOX}]
    ),
    "a phrase that finds nothing": record("", task="refer", question="the circle", objects=[]),
    "a question of a detection's own": record("", question="What is there?", objects=[]),
    "a caption without objects": record("", task="caption", answer="A circle.", objects=...),
    "a task that there is not": record("task: 'find' is no task; ", task="find", objects=[]),
    "a task that is a number": record("task: expected str | null, got int", task=5),
    "a phrase that is not there": record("question: missing; the task", task="refer", objects=[]),
    "a phrase of blanks": record("question: empty", task="refer", question=" ", objects=[]),
    "a phrase with a control token": record(
        "question: contains '<|im_end|>'", task="refer", question="x<|im_end|>", objects=[]
    ),
    "an answer to a detection": record('answer: the task "detect" takes none', answer="two", objects=[]),
    "a caption with objects": record(
        'objects: holds 1, and the task "caption" takes none',
        task="caption",
        answer="x",
        objects=[{"desc": "x", "bbox_2d": BOX}],
    ),
    "a region without its place": record(
        'objects: holds 0, and the task "region" takes one', task="region", answer="x", objects=[]
    ),
    "a label that is there and absent": record(
        "objects[0].desc: 'cup' is in metadata.absent_categories too",
        objects=[{"desc": "cup", "bbox_2d": BOX}],
        metadata={"absent_categories": ["cup"]},
    ),
    **{
        f"numbers under {key}": record(f"metadata.{key}[0]: expected str, got int", metadata={key: [1]})
        for key in ("absent_categories", "incomplete_categories")
    },
    "an object that is not asked for": record(
        "objects[0].desc: 'cup' is not among `categories`",
        task="named",
        categories=["cow"],
        objects=[{"desc": "cup", "bbox_2d": BOX}],
    ),
    "metadata of one's own": record("", metadata={"image_id": 7, "colour": [1, {"a": None}]}),
    "metadata that is null": record("", metadata=None),
    "metadata that is a list": record("metadata: expected object | null, got array", metadata=[]),
    "its quantisation": record("", metadata={"quantisation": SPEC.as_dict()}),
    "another quantisation": record("metadata.quantisation: ", NUMBERS, metadata={"quantisation": "qwen_1000"}),
    "a quantisation nobody knows": record("metadata.quantisation: ", NUMBERS, metadata={"quantisation": "mine"}),
    "a quantisation that is a number": record("metadata.quantisation: ", NUMBERS, metadata={"quantisation": 5}),
    "a quantisation of bins for pixels": record("", space="pixel", metadata={"quantisation": "qwen_1000"}),
    "crowd regions": record("", metadata={"crowd": [{"desc": "people", "bbox_2d": BOX}]}),
    "crowd that is no list": record("metadata.crowd: expected array | null, got int", metadata={"crowd": 5}),
    "a crowd region without a place": record(
        "metadata.crowd[0]: needs exactly one geometry", metadata={"crowd": [{"desc": "people"}]}
    ),
    "a crowd region in pixels": record(
        "metadata.crowd[0].bbox_2d: 1016 > 999",
        NUMBERS,
        metadata={"crowd": [{"desc": "a", "bbox_2d": [0, 0, 1016, 9]}]},
    ),
    # an object
    "an object that is text": record("objects[0]: expected object, got str", objects=["red circle"]),
    "a key of an object of one's own": one("objects[0].score: unknown key; ", bbox_2d=BOX, score=0.5),
    "caches of an object": one(
        "", bbox_2d=BOX, _coord_tokens={"bbox_2d": TOKENS}, _coord_token_ints=5, _coord_token_norm=None
    ),
    "a line that is null": one("", bbox_2d=BOX, line=None),
    "a line": one("objects[0].line: lines are not supported; ", line=[1, 2, 3, 4]),
    "no description": record("objects[0].desc: missing", objects=[{"bbox_2d": BOX}]),
    "a description that is null": record("objects[0].desc: expected str, got null", objects=[{"desc": None}]),
    "an empty description": one("objects[0].desc: empty; ", desc="", bbox_2d=BOX),
    "a blank description": one("objects[0].desc: empty; ", desc=" \n", bbox_2d=BOX),
    "a control token": one("objects[0].desc: contains '<|im_end|>'", desc="a <|im_end|>", bbox_2d=BOX),
    "a coord token as text": one("objects[0].desc: contains '<|coord_5|>'", desc="<|coord_5|>", bbox_2d=BOX),
    "a placeholder": one("objects[0].desc: contains '<image>'", desc="<image>", bbox_2d=BOX),
    "a sign that only looks like one": one("", desc="a < b | c > d", bbox_2d=BOX),
    "no geometry": one("objects[0]: needs exactly one geometry, bbox_2d, poly, point or quad, got none"),
    "a geometry that is null": one(
        "objects[0]: needs exactly one geometry, bbox_2d, poly, point or quad, got none", bbox_2d=None
    ),
    "two geometries": one("objects[0]: needs exactly one geometry, ", bbox_2d=BOX, poly=POLY),
    "three numbers": one(f"{AT}: needs 4 numbers (x1, y1, x2, y2), got 3", bbox_2d=[1, 2, 3]),
    "numbers of two dimensions": one(f"{AT}[0]: expected int | float | str, got array", bbox_2d=[[1, 2], [3, 4]]),
    "an odd poly": one("objects[0].poly: needs pairs x, y, ", poly=[1, 2, 3, 4, 5, 6, 7]),
    "a poly of two points": one("objects[0].poly: needs at least 3 points, got 2", poly=[1, 2, 3, 4]),
    "another count of points": one("objects[0].poly_points: says 4, but poly holds 3 points", poly=POLY, poly_points=4),
    "points of a box": one("objects[0].poly_points: belongs to a poly; ", bbox_2d=BOX, poly_points=2),
    "points that are a fraction": one(
        "objects[0].poly_points: expected int | null, got float", poly=POLY, poly_points=3.5
    ),
    # coordinates
    "coord tokens": one("", bbox_2d=TOKENS),
    "numbers and tokens": one(f"{AT}: mixes numbers and coord tokens; ", bbox_2d=[*BOX[:3], "<|coord_412|>"]),
    "the wildcard": one(f"{AT}: '<|coord_*|>' is the wildcard, ", bbox_2d=["<|coord_*|>", *TOKENS[1:]]),
    "a token too many": one(f"{AT}: '<|coord_1000|>' is no coord token; ", bbox_2d=["<|coord_1000|>"] * 4),
    "a token with a zero before": one(f"{AT}: '<|coord_012|>' is no coord token; ", bbox_2d=["<|coord_012|>"] * 4),
    "numbers in quotes": one(f"{AT}: '12' is no coord token; ", bbox_2d=["12", "40", "300", "412"]),
    "tokens for pixels": one(f"{AT}: '<|coord_12|>' is text, ", NUMBERS, "pixel", bbox_2d=TOKENS),
    "true": one(f"{AT}[2]: expected int | float | str, got bool", bbox_2d=[1, 2, True, 4]),
    "null": one(f"{AT}[2]: expected int | float | str, got null", bbox_2d=[1, 2, None, 4]),
    "NaN": raw("not JSON: invalid character", "NaN"),
    "infinity": raw("not JSON: invalid character", "-Infinity"),
    "a number beyond any float": raw(f"{AT}[2]: number out of range", "1e400"),
    "an integer beyond any float": raw(f"{AT}[2]: expected int <= 9007199254740992", "1" + "0" * 400),
    "an integer that no float holds": raw(f"{AT}[2]: expected int <= 9007199254740992", str(2**53 + 1)),
    "a bin with a point": raw("", "10.0"),
    "minus zero": one("", bbox_2d=[-0.0, 0, 9, 9]),
    "a bin with a fraction": raw(f"{AT}: 12.5 is not a whole number, ", "12.5", NUMBERS),
    "a huge float": raw(f"{AT}[2]: expected float <= 9007199254740992", "1e300"),
    "a bin too many": raw(f"{AT}: 1000 > 999: this looks like absolute pixels; ", "1000", NUMBERS),
    "a negative bin": raw(f"{AT}: -3 < 0: ", "-3", NUMBERS),
    "reversed corners": one(f"{AT}: x2 = 12 < x1 = 300: ", NUMBERS, bbox_2d=[300, 40, 12, 412]),
    "reversed corners in pixels": one(f"{AT}: y2 = 1.5 < y1 = 40: ", NUMBERS, "pixel", bbox_2d=[1, 40, 9, 1.5]),
    "a box without width": one("", bbox_2d=[5, 5, 5, 9]),
    "a pixel outside": one(f"{AT}: x = 641.5 lies outside 0..640; ", PLACE, "pixel", bbox_2d=[0, 0, 641.5, 9]),
    "no overlap": one(f"{AT}: x = 800 lies outside 0..640; ", PLACE, "pixel", bbox_2d=[700, 0, 800, 9]),
    "pixels for fractions": one(f"{AT}: x = 300 lies outside 0..1; if ", PLACE, "norm1", bbox_2d=BOX),
    "a poly outside": one("objects[0].poly: y = -1 lies outside 0..480; ", PLACE, "pixel", poly=[0, -1, 9, 9, 5, 5]),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", CASES)
def test_every_reader_says_the_same(name: str, reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    monkeypatch.setenv("COORDCORE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photo.png").touch()
    path = tmp_path / "odd.jsonl"
    line = case.line if isinstance(case.line, bytes) else json.dumps(case.line).encode()
    right = json.dumps({**BASE, "objects": []}).encode()
    path.write_bytes(line + b"\n" + right + b"\n")
    found = READERS[reader](path, case.space)
    if case.says and reader in case.by:
        assert [text[: len(case.says)] for text in found] == [case.says]
    else:
        assert found == []
