"""Corners that are guessed and checked: what is proposed, what a pass said behind a wrong guess, and what may stand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from prediction_support import FIRST_COORD, SIZE, TOKENS, VOCAB, checkpoint, image, images

from coordcore.coords import CoordFormat, CoordVocab
from coordcore.errors import InputError
from coordcore_detection.decode.automaton import X1, X2, Y1, Y2
from coordcore_detection.decode.grammar import bins_of_tokens, compile_grammar
from coordcore_detection.predict import asking, proposing
from coordcore_detection.predict.ahead import Guesses, NotAheadError
from coordcore_detection.predict.asking import Loaded, PredictSettings
from coordcore_detection.predict.corners import Corners, Together
from coordcore_detection.predict.predictions import Row

torch.set_num_threads(1)

COMMA = TOKENS.text.index(b", ")


class Proposes:
    """The same corners, whatever it sees."""

    layers = (-1,)
    digest = "made"

    def __init__(self, *bins: int) -> None:
        self.bins = bins
        self.asked = 0

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        self.asked += len(hidden)
        return torch.tensor([self.bins] * len(hidden), device=hidden.device)


def corners(proposer: Any = None, tolerance: int = 0, vocab: CoordVocab = VOCAB) -> Corners:
    return Corners(vocab, vocab.ids_tensor(), bins_of_tokens(vocab, SIZE), 2, proposer, tolerance)


def output(*, said: dict[int, int] | None = None, steps: int = 8) -> Any:
    """What a model says of two rows; said: step -> the bin that is most likely behind it in row 1."""
    logits = torch.zeros(2, steps, SIZE)
    for step, bin_ in (said or {}).items():
        logits[1, step, FIRST_COORD + bin_] = 5.0
    return SimpleNamespace(logits=logits, hidden_states=[torch.zeros(2, steps, 3)])


def look(asked: Corners, slot: int, draft: list[int], end: int, said: dict[int, int]) -> dict[int, int]:
    """Slot -> bin of what follows in row 1, that has written a coordinate in `slot` at a pass's place `end`."""
    asked.written(1, slot, FIRST_COORD + 7)
    asked.look(np.array([1]), np.array([1]), np.array([end]), {1: draft}, output(said=said))
    return {slot: token - FIRST_COORD for slot, token in asked.next_of(1).items()}


# --- what is proposed -----------------------------------------------------------------------------------------------


def test_the_corners_behind_the_written_one_are_proposed() -> None:
    assert look(corners(Proposes(11, 12, 13)), X1, [], 0, {}) == {Y1: 11, X2: 12, Y2: 13}
    assert look(corners(Proposes(11, 12, 13)), X2, [], 0, {}) == {Y2: 13}


def test_before_a_box_any_corners_are_guessed_and_no_head_is_asked() -> None:
    heads = Proposes(11, 12, 13)
    middle = dict.fromkeys((X1, Y1, X2, Y2), 500)
    assert [look(corners(heads), slot, [], 0, {}) for slot in (Y2, Y2 + 1, Y2 + 2)] == [middle] * 3
    assert corners(heads).next_of(0).keys() == middle.keys()
    assert heads.asked == 0


def test_in_the_order_in_which_a_box_is_written() -> None:
    vocab = CoordVocab(ids=VOCAB.ids, format=CoordFormat(order="yx"))
    assert look(corners(Proposes(11, 12, 13), vocab=vocab), X1, [], 0, {}) == {Y2: 12, X2: 13}


def test_behind_a_wrong_corner_what_the_pass_said_is_better() -> None:
    draft = [FIRST_COORD + 400, COMMA, FIRST_COORD + 500, COMMA, FIRST_COORD + 600]
    found = look(corners(Proposes(11, 12, 13)), Y1, draft, 0, {2: 510, 4: 610})
    assert found == {X2: 510, Y2: 610}


def test_behind_a_wrong_first_corner_it_is_for_the_other_axis_alone() -> None:
    draft = [FIRST_COORD + 300, FIRST_COORD + 400, FIRST_COORD + 500, FIRST_COORD + 600]
    found = look(corners(Proposes(11, 12, 13)), X1, draft, 0, {1: 410, 2: 510, 3: 610})
    assert found == {Y1: 410, X2: 12, Y2: 13}


def test_behind_a_wrong_text_it_is_not() -> None:
    draft = [COMMA, FIRST_COORD + 500]
    assert look(corners(Proposes(11, 12, 13)), X2, draft, 0, {1: 510}) == {Y2: 13}


def test_a_model_that_has_learned_it_says_all_corners_behind_a_wrong_first_one() -> None:
    draft = [FIRST_COORD + 500] * 4
    assert look(corners(Together()), X1, draft, 0, {1: 410, 2: 510, 3: 610}) == {Y1: 410, X2: 510, Y2: 610}
    middle = dict.fromkeys((X1, Y1, X2, Y2), 500)
    assert look(corners(Together()), Y2, [], 0, {}) == middle
    assert look(corners(Together()), X1, [], 0, {}) == {Y1: 500, X2: 500, Y2: 500}
    assert not corners(Together()).sees_states


def test_without_a_proposer_nothing_is_looked_at() -> None:
    alone = corners()
    assert not alone.sees_states
    assert look(alone, X1, [FIRST_COORD], 0, {}) == {}


def test_a_model_that_does_not_tell_its_states() -> None:
    asked = corners(Proposes(1, 2, 3))
    with pytest.raises(InputError, match="--parallel: this model does not tell its hidden states"):
        asked.look(np.array([0]), np.array([0]), np.array([0]), {0: []}, SimpleNamespace(hidden_states=None))


# --- what may stand -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tolerance", "off", "fits"), [(0, 0, True), (0, 1, False), (5, 5, True), (5, -6, False)])
def test_a_guess_may_be_off_by_the_tolerance(tolerance: int, off: int, fits: bool) -> None:
    asked = corners(Proposes(1, 2, 3), tolerance)
    asked.written(1, Y1, FIRST_COORD + 100)
    assert asked.fits(1, FIRST_COORD + 100 + off, FIRST_COORD + 100) is fits


def test_the_first_corner_must_be_right_whatever_the_tolerance() -> None:
    asked = corners(Proposes(1, 2, 3), 999)
    asked.written(1, X1, FIRST_COORD + 100)
    assert not asked.fits(1, FIRST_COORD + 101, FIRST_COORD + 100)
    assert asked.fits(1, FIRST_COORD + 100, FIRST_COORD + 100)


def test_text_must_be_right_whatever_the_tolerance() -> None:
    asked = corners(Proposes(1, 2, 3), 999)
    asked.written(0, Y1, FIRST_COORD)
    asked.written(1, -1, COMMA)
    assert not asked.fits(0, COMMA, FIRST_COORD)
    assert not asked.fits(1, FIRST_COORD, COMMA)
    assert not asked.fits(1, COMMA + 1, COMMA)


def test_a_model_that_has_learned_it_goes_on_behind_any_first_corner() -> None:
    asked = corners(Together(), 999)
    asked.written(1, X1, FIRST_COORD + 100)
    assert asked.fits(1, FIRST_COORD + 500, FIRST_COORD + 100)
    assert not asked.fits(1, FIRST_COORD + 500, COMMA)
    exact = corners(Together(), 0)
    exact.written(1, X1, FIRST_COORD + 100)
    assert not exact.fits(1, FIRST_COORD + 500, FIRST_COORD + 100)


# --- guesses of the format between them -----------------------------------------------------------------------------


def test_what_follows_a_coordinate_is_guessed_behind_any_other() -> None:
    grammar = compile_grammar(TOKENS, VOCAB, size=SIZE, end_tokens=[SIZE - 1])
    guesses = Guesses(grammar)
    led = grammar.table[: len(grammar.slot), COMMA]
    behind = int(np.flatnonzero((led >= 0) & (grammar.slot[led] == X2))[0])
    guesses.learn(behind, FIRST_COORD + 3, COMMA)
    token = FIRST_COORD + 500
    assert guesses.after(behind, FIRST_COORD + 4, 9, {X2: token}) == [COMMA, token]
    assert guesses.after(behind, FIRST_COORD + 4, 9, {}) == [COMMA]
    assert guesses.after(behind, FIRST_COORD + 4, 1, {X2: token}) == [COMMA]


def test_behind_a_new_label_follows_what_followed_another() -> None:
    grammar = compile_grammar(TOKENS, VOCAB, size=SIZE, end_tokens=[SIZE - 1])
    guesses = Guesses(grammar)
    state, red, blue, quote = grammar.start, 1, 2, int(np.flatnonzero(grammar.table[grammar.start] >= 0)[0])
    guesses.learn(state, red, quote)
    assert guesses.after(state, blue, 1, {}) == [quote] == guesses.after(state, red, 1, {})
    assert guesses.copy().after(state, blue, 1, {}) == [quote]
    assert guesses.after(int(grammar.table[state, quote]), blue, 1, {}) == []


# --- whole answers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return asking.load(folder, "cpu")


def ask(loaded: Loaded, proposer: Any, log: Any = None, shown: Any = None, **settings: Any) -> list[Row]:
    return list(
        asking.predict(
            loaded.model,
            loaded.processor,
            shown or images(5),
            PredictSettings(**{"max_new_tokens": 150, "batch_size": 4} | settings),
            vocab=loaded.vocab,
            quantisation=loaded.quantisation,
            log=log,
            proposer=proposer,
        )
    )


def said(rows: list[Row]) -> list[Any]:
    return [(row.text, row.stopped, [box.bins for box in row.boxes]) for row in rows]


def test_verified_proposals_change_no_token(loaded: Loaded) -> None:
    """Of 200 pictures, with corners of which some are right and most are not: those that boxes have most often."""
    shown = [image(f"{k}.png", size=(32 + 7 * (k % 9), 60 - 5 * (k % 7)), seed=k) for k in range(200)]
    about: dict[str, Any] = {"shown": shown, "max_new_tokens": 100, "batch_size": 50, "geometry": ("bbox_2d",)}
    plain = ask(loaded, None, **about)
    bins = np.array([box.bins for row in plain for box in row.boxes])
    heads = Proposes(*(int(np.bincount(bins[:, slot]).argmax()) for slot in (1, 2, 3)))
    rows = ask(loaded, heads, **about, tolerance=0)
    assert [row.image for row in rows] == [item.key for item in shown]
    for found, expected in zip(said(rows), said(plain), strict=True):
        assert found == expected
    right = bins[:, 1:] == heads.bins
    assert 0.02 < right.mean() < 0.5
    assert heads.asked > len(bins) > 200
    assert len({row.text for row in plain}) > 100


def test_a_guessed_first_corner_is_no_bound_for_the_second_one(loaded: Loaded) -> None:
    """The second corner of an answer is bounded by the first one that it says, which is another than was guessed."""
    rows = ask(loaded, Proposes(990, 991, 992), tolerance=999)
    boxes = np.array([box.bins for row in rows for box in row.boxes if box.kind is msgspec.UNSET])
    assert (boxes[:, 3] < 990).mean() > 0.2
    assert (boxes[:, 3] >= boxes[:, 1]).all()


def test_checked_corners_of_a_model_that_has_learned_it_change_no_token(loaded: Loaded) -> None:
    shown = [image(f"{k}.png", size=(32 + 7 * (k % 9), 60 - 5 * (k % 7)), seed=k) for k in range(60)]
    about: dict[str, Any] = {"shown": shown, "max_new_tokens": 100, "batch_size": 30, "geometry": ("bbox_2d",)}
    assert said(ask(loaded, Together(), **about, tolerance=0)) == said(ask(loaded, None, **about))


@pytest.mark.parametrize("proposer", [Together(), Proposes(300, 500, 700)], ids=["learned", "heads"])
def test_unchecked_answers_do_not_depend_on_who_else_is_asked(loaded: Loaded, proposer: Any) -> None:
    about: dict[str, Any] = {"shown": images(12), "tolerance": 999, "geometry": ("bbox_2d",)}
    alone, few, many = (said(ask(loaded, proposer, **about, batch_size=size)) for size in (1, 5, 12))
    assert alone == few == many


def test_a_pass_says_a_whole_box_where_nothing_is_checked(loaded: Loaded) -> None:
    about: dict[str, Any] = {"shown": images(1), "batch_size": 1, "geometry": ("bbox_2d",)}

    def passes(proposer: Any, **settings: Any) -> tuple[int, list[Row]]:
        calls: list[int] = []
        hook = loaded.model.register_forward_pre_hook(lambda *_: calls.append(1))
        rows = ask(loaded, proposer, **about, **settings)
        hook.remove()
        return len(calls), rows

    (usual, _), (checked, _), (unchecked, rows) = (
        passes(None),
        passes(Together(), tolerance=0),
        passes(Together(), tolerance=999),
    )
    assert unchecked < checked <= usual
    assert all(not row.unread for row in rows)
    boxes = [box for row in rows for box in row.boxes]
    assert boxes
    assert all(box.bins[0] <= box.bins[2] and box.bins[1] <= box.bins[3] for box in boxes)


def test_without_a_tolerance_in_the_settings_heads_are_not_asked(loaded: Loaded) -> None:
    heads = Proposes(300, 500, 700)
    ask(loaded, heads)
    assert heads.asked == 0


def test_unchecked_boxes_are_still_boxes(loaded: Loaded) -> None:
    plain = ask(loaded, None)
    rows = ask(loaded, Proposes(300, 500, 700), tolerance=999)
    assert said(rows) != said(plain)
    assert all(not row.unread for row in rows)
    for box in (box for row in rows for box in row.boxes if box.kind is msgspec.UNSET):
        assert box.bins[0] <= box.bins[2]
        assert box.bins[1] <= box.bins[3]


def test_a_model_that_takes_a_token_a_pass_says_so_once(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_args: Any) -> Any:
        raise NotAheadError("the cache holds more than keys and values of every token")

    told: list[str] = []
    monkeypatch.setattr(asking, "write_ahead", refuses)
    ask(loaded, Proposes(1, 2, 3), told.append, tolerance=0)
    assert told == [
        "tokens come one at a time, and no corners are proposed: "
        "the cache holds more than keys and values of every token"
    ]


# --- settings, and what is found beside a checkpoint ----------------------------------------------------------------


def test_only_a_tolerance_is_part_of_how_answers_came_about(loaded: Loaded, folder: Path) -> None:
    plain = asking.header(folder, loaded, PredictSettings())
    heads = loaded._replace(proposer=Proposes(1, 2, 3))
    assert asking.header(folder, heads, PredictSettings(tolerance=0)) == plain
    decoding = asking.header(folder, heads, PredictSettings(tolerance=20)).decoding
    assert decoding == {**plain.decoding, "tolerance": 20, "heads": "made"}


def test_where_no_box_may_be_said_none_is_guessed() -> None:
    with pytest.raises(
        ValueError, match="--parallel: says the corners of a bbox_2d, and --geometry allows point, poly;"
    ):
        PredictSettings(tolerance=0, geometry=("point", "poly"))


def test_free_decoding_proposes_nothing() -> None:
    with pytest.raises(ValueError, match="leave out --free, or --parallel"):
        PredictSettings(constrained=False, tolerance=0)


def offer(monkeypatch: pytest.MonkeyPatch, **offered: Any) -> None:
    entries = [SimpleNamespace(name=name, load=lambda load=load: load) for name, load in offered.items()]
    monkeypatch.setattr(proposing, "entry_points", lambda group: entries if group == "coordcore.proposers" else [])


def test_heads_are_those_in_the_folder_that_a_plugin_knows(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, made=lambda *given: given, other=None)
    (tmp_path / "made").mkdir()
    assert proposing.proposer_of(tmp_path, loaded) == (tmp_path / "made", loaded.model, loaded.vocab)


def test_a_model_that_has_learned_it_needs_no_heads(
    loaded: Loaded, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch)
    learned = loaded._replace(together=True)
    proposer = proposing.proposer_of(tmp_path, learned)
    assert isinstance(proposer, Together)
    header = asking.header(folder, learned._replace(proposer=proposer), PredictSettings(tolerance=20))
    assert header.decoding == {**asking.header(folder, loaded, PredictSettings()).decoding, "tolerance": 20}


def test_no_plugin_no_heads_too_many_heads(loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch)
    with pytest.raises(
        InputError, match=r"has not learned to say .*parallel_boxes.*, and no installed plugin has heads"
    ):
        proposing.proposer_of(tmp_path, loaded)
    offer(monkeypatch, made=None, other=None)
    with pytest.raises(InputError, match="the folder holds none; train some: coordcore heads RUN"):
        proposing.proposer_of(tmp_path, loaded)
    (tmp_path / "made").mkdir()
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="the folder holds several: made, other; keep one"):
        proposing.proposer_of(tmp_path, loaded)


def test_answers_without_coord_tokens_have_no_corners(loaded: Loaded, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="answers in plain numbers"):
        proposing.proposer_of(tmp_path, loaded._replace(vocab=None))
