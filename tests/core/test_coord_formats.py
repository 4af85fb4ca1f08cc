"""Coordinate tokens of other patterns, counts and orders, through the core: coords, manifest, answers, records."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import tomli

from coordcore.coords import DEFAULT_COORDS, PRESETS, CoordFormat, CoordVocab, int_to_token, token_to_int
from coordcore.errors import InputError, ManifestError
from coordcore.manifest import load
from coordcore.manifest.sections import Coords
from coordcore.quantisation import Quantisation, quantisation
from coordcore.records.annotations import Rules, read_annotations
from coordcore.records.answers import Format, Located, answer_text, parse_answer, reserved
from coordcore.records.answers.format import Coords as Places
from coordcore.records.answers.format import Label
from coordcore.records.example import Example
from coordcore.records.record import RecordError, parse_record

REX, PALIGEMMA = PRESETS["rex_omni"][0], PRESETS["paligemma"][0]
SMALL = CoordFormat(tokens="<p{}>", bins=256)
EVERY = [DEFAULT_COORDS, REX, PALIGEMMA, SMALL]


def test_the_presets_are_what_the_models_have() -> None:
    assert str(REX) == "<0> to <999>"
    assert str(PALIGEMMA) == "<loc0000> to <loc1023>, y first"
    assert pickle.loads(pickle.dumps(PALIGEMMA)) == PALIGEMMA


@pytest.mark.parametrize("coords", EVERY, ids=str)
def test_every_bin_has_its_token(coords: CoordFormat) -> None:
    assert [token_to_int(int_to_token(k, coords), coords) for k in range(coords.bins)] == list(range(coords.bins))
    with pytest.raises(InputError, match=rf"{coords.bins} > {coords.bins - 1}: this looks like absolute pixels"):
        int_to_token(coords.bins, coords)


@pytest.mark.parametrize("token", ["<loc1>", "<loc1024>", "<loc00001>", "<1>"])
def test_what_only_looks_like_a_token_is_none(token: str) -> None:
    with pytest.raises(InputError, match="is not a coord token; expected <loc0000> to <loc1023>, y first"):
        token_to_int(token, PALIGEMMA)


@pytest.mark.parametrize(
    "wrong", [{"tokens": "coord"}, {"tokens": "<a>"}, {"tokens": "{}"}, {"bins": 1}, {"order": "y"}]
)
def test_a_format_that_is_none_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        CoordFormat(**wrong)


def test_a_vocabulary_has_as_many_ids_as_bins() -> None:
    vocab = CoordVocab(ids=range(7, 263), format=SMALL)
    assert vocab.bins([6, 7, 262, 263]).tolist() == [-1, 0, 255, -1]
    with pytest.raises(InputError, match="a coord vocabulary has 256 distinct ids, got 1000"):
        CoordVocab(ids=range(1000), format=SMALL)


# --- answers --------------------------------------------------------------------------------------------------------

BOX = Located(desc="a <b>", kind="bbox_2d", bins=(1, 20, 30, 255))
POLY = Located(desc="c", kind="poly", bins=(1, 2, 30, 4, 50, 6))
PLAIN = Format(
    name="plain",
    label=(Label(without=";"),),
    amid=" ",
    places={kind: (Places(kind, between=""),) for kind in ("bbox_2d", "poly")},
    between=" ; ",
)


@pytest.mark.parametrize("form", [None, PLAIN], ids=["coordjson", "plain"])
@pytest.mark.parametrize("coords", EVERY, ids=str)
def test_an_answer_is_read_as_it_was_written(coords: CoordFormat, form: Format | None) -> None:
    more = {} if form is None else {"form": form}
    text = answer_text([BOX, POLY], coords=coords, **more)
    answer = parse_answer(text, coords=coords, **more)
    assert answer.unread == ()
    assert [(entry.desc, entry.kind, entry.bins) for entry in answer.objects] == [
        ("a <b>", "bbox_2d", BOX.bins),
        ("c", "poly", POLY.bins),
    ]
    for item in answer.objects:  # a span is where its bin stands, whatever the order of the text
        assert [text[start:end] for start, end in item.coord_spans] == [coords.written[k] for k in item.bins]


def test_y_comes_first_where_the_model_writes_it_so() -> None:
    text = answer_text([BOX], coords=PALIGEMMA, geometry_first=True)
    assert text.startswith('{"objects": [{"bbox_2d": [<loc0020>, <loc0001>, <loc0255>, <loc0030>], ')
    assert '"bbox_2d": [1, 20, 30, 255]' in answer_text([BOX], coords=PALIGEMMA, coord_tokens=False)


@pytest.mark.parametrize(
    ("coords", "token", "reason"),
    [
        (SMALL, "<p256>", '"<p256>" is no coord token'),
        (PALIGEMMA, "<loc5>", '"<loc5>" is no coord token'),
        (REX, "<|coord_5|>", '"<|coord_5|>" where a coord token belongs'),
        (SMALL, "<5>", '"<5>" where a coord token belongs'),
    ],
)
def test_another_format_s_token_is_not_read(coords: CoordFormat, token: str, reason: str) -> None:
    item = coords.written[1]
    text = f'{{"objects": [{{"desc": "a", "bbox_2d": [{item}, {item}, {item}, {token}]}}]}}'
    answer = parse_answer(text, coords=coords)
    assert [(item.at, item.reason) for item in answer.unread] == [("objects[0].bbox_2d", reason)]


def test_a_bin_that_there_is_not_is_not_read_in_pieces_either() -> None:
    answer = parse_answer("a <p1><p2><p3><p256>", PLAIN, coords=SMALL)
    assert answer.objects == ()
    assert len(answer.unread) == 1


def test_boxes_in_tags_are_read_beside_tokens_that_look_like_tags() -> None:
    answer = parse_answer("<ref>cup</ref><box>[<1>, <2>, <3>, <4>]</box>", coords=REX)
    assert [item.bins for item in answer.objects] == [(1, 2, 3, 4)]


def test_a_description_must_not_hold_a_coord_token() -> None:
    assert reserved("size <5> nut", REX) == "<5>"
    assert reserved("size <5> nut") is None


def test_examples_keep_x_first_and_write_y_first() -> None:
    spec = quantisation("paligemma_1024")
    example = Example.boxes(
        [("a", (64, 128, 320, 640))],
        image=b"",
        image_size=(640, 640),
        prompt="Where?",
        quantisation=spec,
        coords=PALIGEMMA,
    )
    assert "[<loc0205>, <loc0102>, <loc1023>, <loc0512>]" in example.messages[1]["content"]
    assert example.geometries[0].values == pytest.approx((102.4, 204.8, 512.0, 1023.0))


# --- records --------------------------------------------------------------------------------------------------------


def _read(box: list[object], coords: CoordFormat) -> tuple[float, ...]:
    record = {"images": ["a.png"], "width": 9, "height": 9, "objects": [{"desc": "a", "bbox_2d": box}]}
    [found] = read_annotations(parse_record(json.dumps(record).encode()), Rules(space="bin", coords=coords))
    return found.values


def test_records_have_x_first_whatever_the_order_of_answers() -> None:
    assert _read([1, 2, 3, 1023], PALIGEMMA) == (1, 2, 3, 1023)
    assert _read(["<loc0001>", "<loc0002>", "<loc0003>", "<loc1023>"], PALIGEMMA) == (1, 2, 3, 1023)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([1, 2, 3, 256], "256 > 255: this looks like absolute pixels; convert to bins 0..255 first"),
        (["<p1>", "<p2>", "<p3>", "<p256>"], "'<p256>' is no coord token; write <p0> to <p255>"),
    ],
)
def test_a_record_has_the_run_s_bins(box: list[object], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        _read(box, SMALL)


# --- manifest and quantisation --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "coords", "spec"),
    [
        ("", DEFAULT_COORDS, "nearest_999"),
        ('tokens = "rex_omni"', REX, "floor_999"),
        ('tokens = "paligemma"', PALIGEMMA, "paligemma_1024"),
        ('tokens = "<p{}>"\nbins = 256', SMALL, "nearest_255"),
        ('tokens = "rex_omni"\nquantisation = "rex_reward"', REX, "rex_reward"),
        (
            'tokens = "<loc{:04}>"\nbins = 1024\norder = "yx"\nquantisation = "paligemma_1024"',
            PALIGEMMA,
            "paligemma_1024",
        ),
    ],
)
def test_the_manifest_declares_it(text: str, coords: CoordFormat, spec: str) -> None:
    section = Coords(**tomli.loads(text))
    assert (section.format, section.quantisation, section.fault()) == (coords, spec, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'tokens = "coord_{}"',
            r"coords.tokens: must be a pattern like <\|coord_{}\|> or <loc{:04}>, or rex_omni or pal",
        ),
        ("bins = 1", "coords.bins: must be >= 2, got 1"),
        ('quantisation = "nearest_255"', "coords.quantisation: 'nearest_255' has 256 bins, and coords.bins is 1000"),
        ('bins = 1024\nquantisation = "qwen_1000"', "'qwen_1000' has 1000 bins, and coords.bins is 1024"),
    ],
)
def test_what_does_not_fit_is_said_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(f'[model]\nbase = "base"\n[coords]\n{text}')
    with pytest.raises(ManifestError, match=message):
        load(path)


@pytest.mark.parametrize("bins", [256, 1000, 1024])
def test_there_is_a_convention_for_any_number_of_bins(bins: int) -> None:
    spec = quantisation(f"nearest_{bins - 1}")
    assert spec.encode([0, 320, 640], 640).tolist() == [0, bins // 2, bins - 1]
    assert spec.decode([0, bins - 1], 640).tolist() == [0, 640]
    assert Quantisation.from_dict(spec.as_dict()) == spec
