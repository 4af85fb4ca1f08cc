"""A file that is one JSON array of chat rows gives the examples of the same rows on lines, or says what is wrong."""

from __future__ import annotations

import codecs
import json
import os
import pickle
import random
from array import array
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from coordcore import BuildContext, Example, InputError
from coordcore.errors import in_order
from coordcore.records.record import RecordError
from coordcore_coord_tokens import ChatJsonl, ChatJsonlConfig, CoordJsonl, CoordJsonlConfig
from coordcore_coord_tokens import elements as elements_module
from coordcore_coord_tokens import scan as scan_module
from coordcore_coord_tokens.augment.config import ChatAugmentConfig
from coordcore_coord_tokens.chat.builder import row_problems
from coordcore_coord_tokens.elements import element_ends, is_array, row_in
from coordcore_coord_tokens.index import UnindexedError, joined
from coordcore_coord_tokens.layout import IN_ARRAY

SAID = (
    "a dog",
    'he said "[", then "{\\"a\\": 1}" and left',
    "C:\\photos\\",
    '\\"',
    "]}, {[",
    "größer 图像 \u2028 \U0001f600",
    "[1, 2, 3, 4, 5] und }{",
    "line\nbreak, tab\t",
)


def swift(number: int) -> dict[str, Any]:
    said = SAID[number % len(SAID)]
    return {
        "messages": [
            {"role": "system", "content": said},
            {"role": "user", "content": "<image><image>Where is <ref-object>?"},
            {"role": "assistant", "content": "<bbox>, beside <bbox>"},
        ],
        "images": ["photo.png", "small.png"],
        "objects": {"ref": [said], "bbox": [[number, 2, 300, 400], [1, 2, 30, 40]], "image_id": [0, 1]},
    }


def llava(number: int) -> dict[str, Any]:
    return {
        "id": f"{number:012d}",
        "image": "photo.png",
        "conversations": [
            {"from": "human", "value": f"<image>\nWhat is {SAID[number % len(SAID)]}?"},
            {"from": "gpt", "value": '[{"bbox_2d": [10, 20, 300, 400], "label": "dog"}]'},
            {"from": "human", "value": "Sure?"},
            {"from": "gpt", "value": SAID[-number % len(SAID)]},
        ],
    }


def share(number: int) -> dict[str, Any]:
    said = [{"from": "human", "value": SAID[number % len(SAID)]}, {"from": "gpt", "value": SAID[number * 3 % 8]}]
    return {"conversations": said, "system": "Be brief.", "images": []}


ROWS = [kind(number) for number in range(12) for kind in (swift, llava, share)]


def crlf(rows: Any) -> bytes:
    return json.dumps(rows, indent=2).replace("\n", "\r\n").encode()


FORMS = {
    "indented": lambda rows: json.dumps(rows, indent=2).encode(),
    "on one line": lambda rows: json.dumps(rows).encode(),
    "without a blank": lambda rows: json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode(),
    "CRLF": crlf,
    "tabs, and white space around": lambda rows: b" \n\t" + json.dumps(rows, indent="\t").encode() + b"\n\n",
    "a byte order mark": lambda rows: codecs.BOM_UTF8 + json.dumps(rows, ensure_ascii=False).encode(),
    "rows on lines of their own": lambda rows: b"[\n" + b"\n,".join(json.dumps(row).encode() for row in rows) + b"\n]",
}


@pytest.fixture(autouse=True)
def small(folder: Path) -> None:
    Image.new("RGB", (100, 50)).save("small.png")
    Image.effect_noise((640, 480), 90).convert("RGB").save("photo.png")


def data(text: bytes | str, name: str = "train.json") -> Path:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return Path(name)


def lines(rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def opened(path: Path, context: BuildContext, **settings: Any) -> ChatJsonl:
    return ChatJsonl.open(ChatJsonlConfig(train=path, **{"space": "pixel", **settings}), context)


def told(example: Example) -> tuple[Any, ...]:
    images = [np.asarray(image).tobytes() for image in example.images]
    return example.messages, images, example.geometries, example.image_size, example.task, example.categories


def small_blocks(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(elements_module, "BLOCK", size)


# --- the same examples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("validate", [True, False])
def test_the_examples_are_those_of_the_rows_on_lines(form: str, validate: bool, context: BuildContext) -> None:
    expected = opened(data(lines(ROWS), "train.jsonl"), context).train()
    path, held_out = data(FORMS[form](ROWS)), data(FORMS[form](ROWS[3:7]), "val.json")
    built = opened(path, context, validation=held_out, validate=validate)
    found, other = built.train(), built.validation()
    assert (len(found), len(other)) == (36, 4)
    assert [told(found[i]) for i in range(36)] == [told(expected[i]) for i in range(36)]
    assert [told(other[i]) for i in range(4)] == [told(expected[i]) for i in range(3, 7)]
    assert [found.length(0, i) for i in range(36)] == [expected.length(0, i) for i in range(36)]
    assert [found[i].source for i in (0, 35, -1)] == ["train.json[0]", "train.json[35]", "train.json[35]"]
    assert other[2].source == "val.json[2]"


def test_what_is_drawn_for_an_epoch_is_the_same(context: BuildContext) -> None:
    changes = ChatAugmentConfig(flip=0.5, resize=(0.5, 1), brightness=0.2, left_right="exchange")
    found = []
    for text in (lines(ROWS), FORMS["indented"](ROWS)):  # draws follow from the name of the file
        source = opened(data(text), context, augment=changes).train()
        found.append([told(source.in_epoch(epoch, i)) for epoch in (0, 1) for i in range(9)])
    assert found[0] == found[1]
    assert found[0][:9] != found[0][9:]


@pytest.mark.parametrize("limit", [1, 5, 36, 99])
def test_the_first_rows_alone(context: BuildContext, limit: int) -> None:
    source = opened(data(FORMS["indented"](ROWS)), context, limit=limit).train()
    assert len(source) == min(limit, 36)
    assert source[-1].source == f"train.json[{min(limit, 36) - 1}]"


def test_rows_behind_the_limit_are_not_read(context: BuildContext) -> None:
    cut = FORMS["on one line"](ROWS)[:-300]
    assert len(opened(data(cut), context, limit=3).train()) == 3


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_wherever_a_block_is_cut(context: BuildContext, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    text = FORMS["indented"](ROWS[:9])
    whole = opened(data(text), context).train().file.lines.offsets.tolist()
    small_blocks(monkeypatch, size)
    assert opened(data(text), context).train().file.lines.offsets.tolist() == whole


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a"\\[]{},: \nä', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='k"\\]}', max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    rows=st.lists(st.dictionaries(st.text(alphabet='k"\\{', max_size=3), json_values, max_size=3), max_size=6),
    indent=st.sampled_from([None, 0, 1, "\t"]),
    block=st.integers(1, 30),
    parts=st.integers(1, 4),
    limit=st.none() | st.integers(1, 7),
)
def test_every_row_is_cut_out_whole(
    rows: list[Any], indent: Any, block: int, parts: int, limit: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "data"
    path.write_bytes(json.dumps(rows, indent=indent, ensure_ascii=False).encode())
    with pytest.MonkeyPatch.context() as patch, path.open("rb") as file:
        patch.setattr(elements_module, "BLOCK", block)
        offsets = joined(element_ends(file.fileno(), path.stat().st_size, limit)).tolist()
    content = path.read_bytes()
    pieces = [content[start:end] for start, end in pairwise(offsets)]
    assert [json.loads(row_in(piece, number)) for number, piece in enumerate(pieces, 1)] == rows[:limit]
    for first in range(0, len(pieces), parts):
        some = pieces[first : first + parts]
        assert list(IN_ARRAY.pieces(b"".join(some), first + 1)) == some


@given(
    rows=st.lists(st.dictionaries(st.text(alphabet='k"\\\\{', max_size=2), json_values, max_size=2), max_size=3),
    place=st.floats(0, 1),
    length=st.integers(0, 3),
    put=st.text(alphabet='"\\\\[]{},1: ', max_size=3),
    block=st.sampled_from([1, 2, 5, 1 << 20]),
)
def test_a_damaged_file_is_read_as_json_is_or_refused(
    rows: list[Any], place: float, length: int, put: str, block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = json.dumps(rows)
    at = round(place * len(text))
    text = text[:at] + put + text[at + length :]
    path = tmp_path_factory.mktemp("rows") / "data"
    path.write_bytes(text.encode())
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    if not isinstance(expected, list) or not all(isinstance(row, dict) for row in expected):
        expected = None
    with pytest.MonkeyPatch.context() as patch, path.open("rb") as file:
        patch.setattr(elements_module, "BLOCK", block)
        if not is_array(file.fileno()):  # then it is read by lines
            assert expected is None
            return
        try:
            offsets = joined(element_ends(file.fileno(), len(text.encode()), None)).tolist()
            pieces = [text.encode()[start:end] for start, end in pairwise(offsets)]
            decoder = msgspec.json.Decoder(dict[str, Any])
            found = [decoder.decode(row_in(piece, number)) for number, piece in enumerate(pieces, 1)]
        except (UnindexedError, RecordError, msgspec.DecodeError):
            found = None
    assert found == expected


def test_processes_check_it_too(context: BuildContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "processes_for", lambda size: 2)
    monkeypatch.setattr(scan_module, "PART", 64_000)
    assert len(opened(data(FORMS["indented"](ROWS)), context).train()) == 36
    wrong = [*ROWS, {"messages": []}, *ROWS, share(1) | {"videos": ["a.mp4"]}]
    with pytest.raises(InputError) as caught:
        opened(data(FORMS["indented"](wrong)), context)
    assert [line.split(":")[:2] for line in str(caught.value).splitlines()] == [
        ["train.json[36]", " messages"],
        ["train.json[73]", " videos"],
    ]


def test_a_source_may_go_to_another_process(context: BuildContext) -> None:
    source = opened(data(FORMS["CRLF"](ROWS)), context).train()
    assert told(pickle.loads(pickle.dumps(source))[17]) == told(source[17])


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_the_index_is_kept_apart_from_that_of_lines(
    context: BuildContext, at_rest: None, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data(FORMS["indented"](ROWS))
    first = opened(path, context).train()
    with pytest.raises(InputError, match=r"^train\.json:1: expected object, got array\n"):
        CoordJsonl.open(CoordJsonlConfig(train=path), context)
    monkeypatch.setattr("coordcore_coord_tokens.chat.builder.ChatJudge.judge", None)
    again = opened(path, context).train()  # nothing is judged anew
    assert (type(again.file.lines.offsets), told(again[35])) == (memoryview, told(first[35]))
    assert sorted(file.name.split("-")[-1].partition(".")[2] for file in cache.glob("*index")) == [
        "array.index",
        "index",
    ]
    sent = pickle.dumps(again)
    for file in cache.glob("*.array.index"):
        file.unlink()
    found = pickle.loads(sent)  # in a process that finds the cache emptied
    assert (type(found.file.lines.offsets), told(found[35])) == (array, told(first[35]))


def test_rows_on_lines_after_an_array(context: BuildContext, at_rest: None) -> None:
    assert opened(data(FORMS["indented"](ROWS)), context).train()[4].source == "train.json[4]"
    assert opened(data(lines(ROWS[:5])), context).train()[4].source == "train.json:5"
    assert opened(data(FORMS["CRLF"](ROWS)), context).train()[4].source == "train.json[4]"


@pytest.mark.parametrize("change", ["longer", "shorter", "a line more"])
def test_a_file_that_changes_while_it_is_used(
    context: BuildContext, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr("coordcore_coord_tokens.lines.LOOK_AGAIN", 0)
    source = opened(data(FORMS["indented"](ROWS)), context).train()
    rows = {"longer": [*ROWS, ROWS[0]], "shorter": ROWS[:2], "a line more": ROWS}[change]
    text = FORMS["indented"](rows)
    data(b"\n" + text if change == "a line more" else text)
    with pytest.raises(InputError, match=r"^train\.json: changed since it was indexed"):
        source[20]


def test_another_array_in_its_place_is_no_mistake_of_a_row(context: BuildContext) -> None:
    source = opened(data(FORMS["on one line"](ROWS)), context).train()
    assert source[0].source == "train.json[0]"
    with open("train.json", "r+b") as file:  # the same file, of which a process has read a row
        file.write(b" " * 900)
    os.utime("train.json", (1, 1))
    with pytest.raises(InputError, match=r"^train\.json: changed since it was indexed"):
        source[0]


def test_rows_of_bad_images_are_left_out(context: BuildContext, caplog: pytest.LogCaptureFixture) -> None:
    bad = share(0) | {"images": ["gone.png"]}
    settings = {"on_bad_image": "skip"}
    found = opened(data(FORMS["indented"]([bad, *ROWS[:2], bad, ROWS[2]])), context, **settings).train()
    assert [found[i].source for i in range(len(found))] == ["train.json[1]", "train.json[2]", "train.json[4]"]
    said = "train.json: 2 records are left out for their images; the first: row 0: images[0]: no image file at gone.png"
    assert said in caplog.text
    (written,) = context.run_dir.glob("left-out-train.json-*.json")
    assert [entry["row"] for entry in json.loads(written.read_text())["left_out"]] == [0, 3]
    Image.new("RGB", (10, 10)).save("gone.png")  # a run that goes on leaves out what it has left out
    assert len(opened(Path("train.json"), context, **settings).train()) == 3


# --- what is wrong ----------------------------------------------------------------------------------------------------

GOOD = json.dumps(ROWS[2])
TALK = '{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "x"}]}'
WRONG: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("[]", "train.json: holds no records; write them into the array, or name another file"),
    "nothing but white space": (" [ \r\n ] \n", "train.json: holds no records; write them into the array"),
    "an empty file": ("", "train.json: holds no records; write one a line, or name another file"),
    "numbers": ("[1, 2]", "train.json[0]: expected object, got '1, 2'"),
    "texts": ('["a", "b"]', 'train.json[0]: expected object, got \'"a", "b"\''),
    "a number behind rows": (f"[{GOOD}, {GOOD}, 3]", "train.json[2]: expected object, got '3'"),
    "a number before a row": (f"[{GOOD}, 3, {GOOD}]", 'train.json[1]: expected object, got \'3, {"conversations"'),
    "an array": (f"[{GOOD}, [{GOOD}]]", "train.json[1]: expected object, got array"),
    "all in another array": (f"[[{GOOD}]]", "train.json[0]: expected object, got array"),
    "cut off in a row": (f"[{GOOD}, {GOOD[:60]}", "train.json[1]: the file ends within this row; copy it anew, whole"),
    "cut off in a text": (f"[{GOOD}, {GOOD[:9]}", "train.json[1]: the file ends within this row; copy it anew, whole"),
    "cut off behind a row": (f"[{GOOD}, {GOOD}", "train.json: the array does not end behind its row 1; copy the file"),
    "cut off behind a comma": (f"[{GOOD},\n", "train.json: the array does not end behind its row 0; copy the file"),
    "cut off at once": ("[", "train.json[0]: the file ends within this row; copy it anew, whole"),
    "filled up with NUL": (f"[{GOOD}, {GOOD[:60]}" + "\0" * 99, "train.json[1]: the file ends within this row"),
    "text behind it": (f"[{GOOD}]\n{GOOD}", f"train.json: '{GOOD[:30]}"),
    "one array a line": (
        f"[{GOOD}]\n[{GOOD}]\n",
        f", at byte {len(GOOD) + 3}; write one array of all rows, or one row",
    ),
    "a bracket more": (f"[{GOOD}]]", "train.json: ']' behind the end of the array, at byte"),
    "NUL behind it": (f"[{GOOD}]\0\0", "behind the end of the array, at byte"),
    "a brace at the end": (f"[{GOOD}}}", "train.json[1]: expected object, got '}'"),
    "a comma missing": (f"[{GOOD}\n{GOOD}]", "train.json[1]: no comma between row 0 and this one; write it"),
    "a comma too many": (f"[{GOOD},, {GOOD}]", "train.json[1]: expected object, got ', {"),
    "a comma at the beginning": (f"[, {GOOD}]", "train.json[0]: expected object, got ', {"),
    "nothing but a comma": ("[,]", "train.json[0]: expected object, got ','"),
    "a comma at the end": (f"[{GOOD},\n]", "train.json: a comma behind row 0, the last of the array; remove it"),
    "a bracket for a brace": (f'[{GOOD}, {{"messages": []]]', "train.json[1]: not JSON: "),
    "a quote missing": (f'[{GOOD}, {{"messages: []}}, {GOOD}]', "train.json[1]: "),
    "no JSON": ("[{messages: []}]", "train.json[0]: not JSON: object keys must be strings"),
    "no UTF-8": (b'[{"messages": [{"role": "user", "content": "\xff"}]}]', "train.json[0]: not UTF-8"),
    "UTF-16": (codecs.BOM_UTF16 + f"[{GOOD}]".encode("utf-16-le"), "train.json:1: not "),
    "a wrong row": (
        f"[{GOOD}, {TALK}]".replace(', "content": "x"', ""),
        "train.json[1]: messages[1].content: missing; write what is said",
    ),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("block", [1 << 20, 5])
def test_before_training(context: BuildContext, name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text, message = WRONG[name]
    small_blocks(monkeypatch, block)
    path = data(text)
    with pytest.raises(InputError) as caught:
        opened(path, context)
    assert message in str(caught.value)
    assert str(caught.value).startswith("train.json")


@pytest.mark.parametrize("name", WRONG)
def test_at_the_latest_at_their_use(context: BuildContext, name: str) -> None:
    text, message = WRONG[name]

    def use() -> None:
        source = opened(data(text), context, validate=False).train()
        list(map(source.__getitem__, range(len(source))))

    with pytest.raises(InputError) as caught:
        use()
    assert message in str(caught.value)


def test_a_row_that_does_not_end(context: BuildContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements_module, "LONGEST", 1 << 20)
    text = f'[{GOOD}, {{"messages": [{", ".join([GOOD] * 10_000)}]'
    with pytest.raises(InputError) as caught:
        opened(data(text), context)
    assert str(caught.value) == "train.json[1]: longer than 1 MiB; is a quote or a bracket missing in it?"


def test_problems_come_in_the_order_of_the_rows(context: BuildContext) -> None:
    rows = [json.loads(TALK), {"messages": []}] * 13
    path = data(FORMS["indented"](rows))
    config, how = ChatJsonlConfig(train=path), (context.quantisation, context.coords, context.format)
    found = in_order(row_problems(config, *how))
    assert [str(problem).split(": ")[0] for problem in found] == [f"train.json[{i}]" for i in range(1, 26, 2)]
    many = data(FORMS["on one line"](rows * 2))
    said = [str(problem) for problem in row_problems(attrs.evolve(config, train=many), *how)]
    assert (len(said), said[-1]) == (21, "train.json[41]: from here on 6 more records have problems")


def test_an_array_in_a_file_of_lines(context: BuildContext) -> None:
    with pytest.raises(InputError) as caught:
        opened(data(f"{GOOD}\n[{GOOD}]\n"), context)
    assert str(caught.value) == (
        "train.json:2: expected object, got array; write one row a line, or one array of all rows"
    )


def test_records_are_no_arrays(context: BuildContext) -> None:
    with pytest.raises(InputError) as caught:
        CoordJsonl.open(CoordJsonlConfig(train=data("[{}]")), context)
    assert str(caught.value) == "train.json:1: expected object, got array"


def test_backslashes_without_end() -> None:
    for count in range(1, 9):
        text = json.dumps([{"a": "\\" * count + '"' * (count % 3)}, {"b": "]}"}]).encode()
        for cut in range(1, len(text)):
            depth = elements_module.Depth(0)
            found = [depth.ends(text[:cut]), depth.ends(text[cut:])]
            ends = [*found[0][0].tolist(), *(found[1][0] + cut).tolist()]
            assert [text[: ends[0]].count(b"{"), len(ends), ends[1] + 1, found[1][1]] == [
                1,
                2,
                len(text),
                len(text) - cut,
            ]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    import tracemalloc

    random.seed(0)
    rows = [random.choice(ROWS) for _ in range(40)]
    peaks = []
    for times in (100, 800):
        path = tmp_path / "rows"
        path.write_bytes(FORMS["on one line"](rows * times))
        with path.open("rb") as file:
            tracemalloc.start()
            found = sum(map(len, element_ends(file.fileno(), path.stat().st_size, None)))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert found == 40 * times
    assert peaks[1] < 1.5 * peaks[0]
