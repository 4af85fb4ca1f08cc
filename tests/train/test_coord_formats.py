"""Coordinate tokens of other patterns, counts and orders, through checkpoints, targets and the objective."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import attrs
import pytest
import torch

from coordcore.coords import DEFAULT_COORDS, PRESETS, CoordFormat, CoordVocab
from coordcore.errors import InputError
from coordcore.quantisation import quantisation
from coordcore.records.answers import Located, answer_text
from coordcore.records.example import Example, Geometry
from coordcore_train.checkpoint.expand import expand
from coordcore_train.checkpoint.folder import preset_hint, read_checkpoint_info, read_vocab
from coordcore_train.checkpoint.initialise import coord_rows
from coordcore_train.objective.targets import make_targets
from coordcore_train.swift.template import align
from coordcore_train.testing.tiny import tiny_qwen3vl

PALIGEMMA, SMALL = PRESETS["paligemma"][0], CoordFormat(tokens="<p{}>", bins=256)


@pytest.mark.parametrize("coords", [SMALL, CoordFormat(tokens="<loc{:04}>", bins=1024)], ids=str)
def test_a_base_is_expanded_by_any_tokens(plain_base: Path, tmp_path: Path, coords: CoordFormat) -> None:
    spec = quantisation(f"nearest_{coords.bins - 1}")
    report = expand(plain_base, tmp_path / "new", quantisation=spec, coords=coords)
    info = read_checkpoint_info(tmp_path / "new")
    assert info is not None
    assert (info.vocab, info.quantisation) == (report.vocab, spec)
    assert read_vocab(tmp_path / "new") == report.vocab  # from what the checkpoint says
    assert report.vocab.format == coords
    with pytest.raises(InputError, match=f"has the {coords.bins} coord tokens already; use it as it is"):
        expand(tmp_path / "new", tmp_path / "again", quantisation=spec, coords=coords)


def test_tokens_and_quantisation_must_have_as_many_bins(plain_base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nearest_999 .* has 1000 bins, the coord tokens <p0> to <p255> are 256"):
        expand(plain_base, tmp_path / "new", coords=SMALL)


def test_a_run_of_other_tokens_than_the_checkpoint_s_is_refused(plain_base: Path, tmp_path: Path) -> None:
    expand(plain_base, tmp_path / "new", quantisation=quantisation("nearest_255"), coords=SMALL)
    wanted = r"has the coord tokens <p0> to <p255>, this run <\|coord_0\|> to <\|coord_999\|>; use the tokens of the"
    with pytest.raises(InputError, match=wanted):
        read_vocab(tmp_path / "new", DEFAULT_COORDS)


def test_a_checkpoint_from_before_there_were_others_has_the_default(plain_base: Path, tmp_path: Path) -> None:
    expand(plain_base, tmp_path / "new")
    path = tmp_path / "new" / "coordcore.json"
    data = json.loads(path.read_text())
    assert data.pop("coords") == {"tokens": "<|coord_{}|>", "bins": 1000, "order": "xy"}
    path.write_text(json.dumps(data))
    assert read_vocab(tmp_path / "new").format == DEFAULT_COORDS


@pytest.mark.parametrize("damaged", [{"order": "zz"}, {"bins": "many"}, {"colour": 1}, "x"])
def test_a_damaged_declaration_is_named(plain_base: Path, tmp_path: Path, damaged: object) -> None:
    expand(plain_base, tmp_path / "new")
    path = tmp_path / "new" / "coordcore.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "coords": damaged}))
    with pytest.raises(InputError, match=r"coordcore.json: coords"):
        read_vocab(tmp_path / "new")


@pytest.mark.parametrize("name", PRESETS)
def test_a_base_s_own_tokens_are_used_and_hinted_at(tmp_path: Path, name: str) -> None:
    coords = PRESETS[name][0]
    base = tiny_qwen3vl(tmp_path / "base", coord_tokens=coords)
    assert read_vocab(base, coords).format == coords
    with pytest.raises(InputError, match="has no coord tokens"):
        read_vocab(base)
    assert preset_hint(base) == f'; it has its own: set [coords] tokens = "{name}"'


@pytest.mark.parametrize("preset", [None, "rex_omni"])
def test_fewer_bins_than_the_tokenizer_has_are_refused(tmp_path: Path, preset: str | None) -> None:
    coords = DEFAULT_COORDS if preset is None else PRESETS[preset][0]
    base = tiny_qwen3vl(tmp_path / "base", coord_tokens=coords)
    half = attrs.evolve(coords, bins=500)
    message = f"the tokenizer has {coords.written[500]} as well, and coords.bins is 500; set [coords] bins"
    with pytest.raises(InputError, match=re.escape(message)):
        read_vocab(base, half)


def test_the_default_s_tokens_are_hinted_at_too(tmp_path: Path) -> None:
    base = tiny_qwen3vl(tmp_path / "base")
    assert preset_hint(base) == '; it has its own: set [coords] tokens = "<|coord_{}|>"'


def test_tokens_of_the_base_vocabulary_are_not_added_again(plain_base: Path, tmp_path: Path) -> None:
    base = shutil.copytree(plain_base, tmp_path / "base")
    path = base / "tokenizer.json"
    data = json.loads(path.read_text())
    first = max(token["id"] for token in data["added_tokens"]) + 1
    data["model"]["vocab"] |= {token: first + k for k, token in enumerate(DEFAULT_COORDS.written)}
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"tokenizer.json: has some coord tokens in its base vocabulary"):
        expand(base, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("bins", [256, 1000, 1024])
@pytest.mark.parametrize("initialiser", ["mean", "digits", "smooth"])
def test_every_bin_has_a_row_of_its_own(initialiser: str, bins: int) -> None:
    rows = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    found = coord_rows(rows, rows[:10], initialiser, 0, bins)
    assert found.shape == (bins, 16)
    assert len(found.unique(dim=0)) == bins


def test_boxes_have_x_first_for_the_losses_whatever_the_order_of_the_text() -> None:
    vocab = CoordVocab(ids=range(100, 1124), format=PALIGEMMA)
    example = Example(messages=(), geometries=(Geometry(kind="bbox_2d", values=(10.4, 20.0, 30.0, 40.0)),))
    answer = [7, *(vocab.ids[k] for k in (20, 10, 40, 30)), 8]  # y1 x1 y2 x2
    places = align(answer, example, vocab)
    assert places.corners == [-1, 1, 0, 3, 2, -1]
    labels = torch.tensor([[-100, *answer]])
    values, corners = torch.tensor([[0.0, *places.values]]), torch.tensor([[-1, *places.corners]])
    targets = make_targets(labels, vocab, values=values, corners=corners)
    assert targets["bins"].tolist() == [20, 10, 40, 30]
    assert targets["bins"][targets["boxes"]].tolist() == [[10, 20, 30, 40]]
    assert targets["values"][targets["boxes"]][0].tolist() == pytest.approx([10.4, 20, 30, 40])


def test_an_answer_in_the_wrong_order_is_an_error() -> None:
    vocab = CoordVocab(ids=range(100, 1124), format=PALIGEMMA)
    example = Example(messages=(), geometries=(Geometry(kind="bbox_2d", values=(10, 200, 30, 400)),))
    with pytest.raises(InputError, match=r"coord token 10 stands where the geometry has 200.00"):
        align([vocab.ids[k] for k in (10, 200, 30, 400)], example, vocab)


def test_mixed_orders_are_an_error() -> None:
    vocab = CoordVocab(ids=range(100, 1124), format=PALIGEMMA)
    labels = torch.tensor([[-100, *range(100, 108)]])
    corners = torch.tensor([[-1, 0, 1, 2, 3, 1, 0, 3, 2]])
    with pytest.raises(InputError, match=r"box corners must come as 0, 1, 2, 3 for each box \(or 1"):
        make_targets(labels, vocab, corners=corners)


def test_the_answer_of_a_template_is_whole_tokens(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen3vl(tmp_path / "base", coord_tokens=PALIGEMMA))
    vocab = CoordVocab.from_tokenizer(tokenizer, PALIGEMMA)
    text = answer_text([Located(desc="a", kind="bbox_2d", bins=(1, 2, 3, 1023))], coords=PALIGEMMA)
    bins = vocab.bins(tokenizer(text)["input_ids"])
    assert bins[bins >= 0].tolist() == [2, 1, 1023, 3]
