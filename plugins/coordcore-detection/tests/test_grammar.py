"""Constrained decoding: the automaton of the format, its walk over a vocabulary, and the masks of a step."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from padded_tokenizers import PADDED, padded_tokenizer
from prediction_support import END, FIRST_COORD, SIZE, TOKENS, VOCAB, coords, strict

from coordcore import InputError
from coordcore.coords import CoordVocab
from coordcore.records.answers import parse_answer
from coordcore_detection.decode.automaton import COORD, Automaton, answer_automaton
from coordcore_detection.decode.grammar import Constraint, DeviceGrammar, Grammar, compile_grammar
from coordcore_detection.decode.tokens import TokenBytes, token_bytes

torch.set_num_threads(1)

BOX = "[<0>, <1>, <2>, <3>]"
POLY = "[<4>, <5>, <5>, <5>, <5>, <5>]"


def follow(automaton: Automaton, text: str | bytes, *, last: bool = False) -> int:
    """The state behind `text`, in which `<k>` stands for a coordinate in slot k; -1 where the format ends."""
    data = text.encode() if isinstance(text, str) else text
    steps, state = automaton.last_steps if last else automaton.steps, 0
    for piece in re.findall(rb"<\d>|.", data, re.DOTALL):
        state = int(steps[state, COORD + int(piece[1:2]) if len(piece) == 3 else piece[0]])
        if state < 0:
            break
    return state


# --- automaton ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"objects": []}',
        f'{{"objects": [{{"desc": "a", "bbox_2d": {BOX}}}]}}',
        f'{{"objects": [{{"bbox_2d": {BOX}, "desc": "a"}}]}}',
        f'{{"objects": [{{"desc": "a", "poly": {POLY}}}, {{"desc": "a", "bbox_2d": {BOX}}}]}}',
        f'{{"objects": [{{"desc": "a", "poly": [<4>{", <5>" * 11}]}}]}}',
        f'{{"objects": [{{"desc": "é 猫 😀 \\" \\\\ \\n \\u00e9 \\ud83d\\ude00", "bbox_2d": {BOX}}}]}}',
    ],
)
def test_accepts(text: str) -> None:
    automaton = answer_automaton()
    assert (follow(automaton, text),) == automaton.ends


@pytest.mark.parametrize(
    "text",
    [
        '{"objects":[',
        '{"objects": [{"desc": ""',
        '{"objects": [{"desc": "a", "bbox_2d": [<0>, <1>, <2>]',
        '{"objects": [{"desc": "a", "bbox_2d": [<0>, <1>, <2>, <3>, ',
        '{"objects": [{"desc": "a", "poly": [<4>, <5>, <5>, <5>]',
        f'{{"objects": [{{"desc": "a", "poly": [<4>{", <5>" * 6}]',
        '{"objects": [{"desc": "<0>',
        '{"objects": [{"desc": "a\n',
        '{"objects": [{"desc": "\\x',
        '{"objects": [{"desc": "\\ud83d"',
        '{"objects": [{"desc": "\\ude00',
        b'{"objects": [{"desc": "\xa9',
        b'{"objects": [{"desc": "\xc3"',
        b'{"objects": [{"desc": "\xed\xa0\x80',
        f'{{"objects": [{{"desc": "a", "bbox_2d": {BOX}}}, ]',
        '{"objects": []} ',
    ],
)
def test_refuses(text: str | bytes) -> None:
    assert follow(answer_automaton(), text) == -1


def test_the_order_of_fields_can_be_fixed() -> None:
    automaton = answer_automaton(fields="geometry_first")
    assert (follow(automaton, '{"objects": [{"d'), follow(automaton, '{"objects": [{"b') >= 0) == (-1, True)


def test_the_kinds_of_geometry_can_be_fixed() -> None:
    automaton = answer_automaton(("bbox_2d",))
    assert (follow(automaton, '{"objects": [{"desc": "a", "p'), follow(automaton, '{"objects": [{"b') >= 0) == (
        -1,
        True,
    )


def test_no_object_follows_the_last() -> None:
    text = f'{{"objects": [{{"desc": "a", "bbox_2d": {BOX}}}'
    automaton = answer_automaton()
    assert follow(automaton, text + ",", last=True) == -1
    assert (follow(automaton, text + "]}", last=True),) == automaton.ends


def test_it_is_minimal() -> None:
    automaton = answer_automaton()
    assert len(np.unique(automaton.steps, axis=0)) == len(automaton.steps)


# --- vocabulary -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return compile_grammar(TOKENS, VOCAB, size=SIZE, end_tokens=[END])


def test_tokens_lead_where_their_bytes_lead(grammar: Grammar) -> None:
    steps = answer_automaton().steps
    for state, token in itertools.product(range(len(steps)), range(FIRST_COORD)):
        at = state
        for byte in TOKENS.of(token):
            at = int(steps[at, byte]) if at >= 0 else -1
        assert grammar.table[state, token] == at


def test_coord_tokens_stand_in_slots_and_nowhere_else(grammar: Grammar) -> None:
    states = grammar.table[: len(grammar.slot) - 1]
    allowed = (states[:, FIRST_COORD:END] >= 0).all(1)
    assert (states[:, FIRST_COORD:END] >= 0).any(1).tolist() == allowed.tolist()
    assert allowed.tolist() == (grammar.slot[:-1] >= 0).tolist()
    assert not (states[allowed, :FIRST_COORD] >= 0).any()


def test_other_added_tokens_and_rows_without_a_token_stand_nowhere(grammar: Grammar) -> None:
    states = len(grammar.slot) - 1
    assert np.argwhere(grammar.table[:states, END:] >= 0).tolist() == [[*answer_automaton().ends, 0]]


def test_distances_count_tokens_that_span_symbols(grammar: Grammar) -> None:
    state = follow(answer_automaton(), f'{{"objects": [{{"desc": "a", "bbox_2d": {BOX.removesuffix("]")}')
    assert grammar.far[state] == 1  # `]}]}` is a token


def test_a_vocabulary_that_cannot_write_the_format_is_refused() -> None:
    tokens = TokenBytes(text=(b"a",), added={})
    with pytest.raises(InputError, match="lacks tokens that the answer format needs"):
        compile_grammar(tokens, VOCAB, size=SIZE, end_tokens=[END])


@pytest.fixture(scope="module")
def boxes_only() -> Grammar:
    """Of boxes behind their descriptions."""
    return compile_grammar(TOKENS, VOCAB, size=SIZE, end_tokens=[END], geometry=("bbox_2d",), fields="desc_first")


# --- steps ----------------------------------------------------------------------------------------------------------


BEGUN = '{"objects": [{"desc": "a'

MANY = {ord('"'): 30.0, TOKENS.text.index(b"]}, {"): 20.0, ord("{"): 15.0, ord(","): 10.0}
"""For `generate`: short descriptions, many objects."""


def generate(
    grammar: Grammar,
    *,
    rows: int = 16,
    seed: int = 0,
    budget: int = 120,
    max_objects: int = 100,
    ordered: bool = True,
    likely: dict[int, float] | None = None,
    closing_from: int | None = None,
    begin: str = "",
) -> tuple[list[str], Constraint]:
    """The answers of a model whose logits are noise, and the constraint behind them. likely: token -> added logit."""
    constraint = Constraint(
        DeviceGrammar(grammar, "cpu"), rows, budget=budget, max_objects=max_objects, ordered=ordered
    )
    state = follow(answer_automaton(("bbox_2d",), "desc_first"), begin) if begin else 0
    constraint.places = [place._replace(state=state) for place in constraint.places]
    generator = torch.Generator().manual_seed(seed)
    added = torch.zeros(SIZE)
    for token, value in (likely or {}).items():
        added[token] = value
    tokens = []
    for step in range(budget):
        if step == closing_from:
            constraint.closing[:] = True
        scores = torch.randn(rows, SIZE, generator=generator) + added
        chosen = constraint.allow(scores).argmax(-1).numpy()
        constraint.advance(chosen)
        tokens.append(chosen)
    answers = []
    for row in np.stack(tokens, axis=1).tolist():
        length = row.index(END) if END in row else len(row)
        answers.append(begin + TOKENS.read(row[:length])[0])
    return answers, constraint


@pytest.mark.parametrize("spare", [0, 1, 7, 23, 40, 150])
@pytest.mark.parametrize("seed", range(3))
def test_every_answer_parses_within_its_budget(grammar: Grammar, spare: int, seed: int) -> None:
    answers, _ = generate(grammar, budget=int(grammar.far[0]) + spare, seed=seed, likely={ord("{"): 2.0})
    for text in answers:
        boxes = parse_answer(text)
        assert (len(boxes.objects), boxes.unread) == (len(strict(text)), ())


def test_some_of_them_hold_several_objects(grammar: Grammar) -> None:
    answers, _ = generate(grammar, budget=400, likely=MANY)
    assert max(len(strict(text)) for text in answers) > 3


@pytest.mark.parametrize("ordered", [True, False])
def test_corners_in_order_is_an_option(grammar: Grammar, ordered: bool) -> None:
    answers, _ = generate(grammar, rows=40, budget=200, ordered=ordered)
    boxes = [item["bbox_2d"] for text in answers for item in strict(text) if "bbox_2d" in item]
    assert len(boxes) > 5
    assert all(x1 <= x2 and y1 <= y2 for x1, y1, x2, y2 in boxes) == ordered


def test_a_full_answer_takes_no_further_object(boxes_only: Grammar) -> None:
    answers, constraint = generate(boxes_only, budget=400, max_objects=2, likely=MANY)
    assert {len(strict(text)) for text in answers} == {2}
    assert constraint.cut.all()


def test_an_answer_that_ends_by_itself_is_not_cut(boxes_only: Grammar) -> None:
    answers, constraint = generate(boxes_only, likely={ord('"'): 30.0, ord("{"): 20.0, ord("]"): 10.0}, max_objects=1)
    assert {len(strict(text)) for text in answers} == {1}
    assert not constraint.cut.any()


def test_an_answer_that_runs_out_of_tokens_is_cut(boxes_only: Grammar) -> None:
    _, constraint = generate(boxes_only, budget=60, likely={ord("a"): 20.0}, begin=BEGUN)
    assert constraint.cut.all()


def test_closing_ends_an_answer_by_the_shortest_way(boxes_only: Grammar) -> None:
    answers, _ = generate(boxes_only, budget=200, likely={ord("a"): 20.0}, closing_from=60, begin=BEGUN)
    lengths = [len(item["desc"]) for text in answers for item in strict(text)]
    assert (len(lengths), min(lengths), max(lengths) < 64) == (16, 61, True)


def test_a_budget_without_room_for_an_empty_answer_is_refused(grammar: Grammar) -> None:
    least = int(grammar.far[0])
    with pytest.raises(
        InputError, match=f"max_new_tokens must be at least {least} for an empty answer, got {least - 1}"
    ):
        Constraint(DeviceGrammar(grammar, "cpu"), 1, budget=least - 1, max_objects=1, ordered=True)


def test_scores_themselves_are_left_alone(grammar: Grammar) -> None:
    scores = torch.zeros(1, SIZE)
    Constraint(DeviceGrammar(grammar, "cpu"), 1, budget=99, max_objects=9, ordered=True).allow(scores)
    assert torch.equal(scores, torch.zeros(1, SIZE))


def test_the_strict_reader_reads_what_the_tests_write() -> None:
    assert strict(f'{{"objects": [{{"desc": "<|coord_5|>", "bbox_2d": {coords(1, 2, 3, 4)}}}]}}') == [
        {"desc": "<|coord_5|>", "bbox_2d": [1, 2, 3, 4]}
    ]


# --- a tokenizer that puts a space of its own before a text -----------------------------------------------------------


@pytest.fixture(scope="module", params=PADDED)
def padded(request: pytest.FixtureRequest) -> tuple[Any, Grammar, TokenBytes]:
    tokenizer = padded_tokenizer(request.param)
    tokens = token_bytes(tokenizer)
    size = len(tokenizer)
    vocab = CoordVocab.from_tokenizer(tokenizer)
    return tokenizer, compile_grammar(tokens, vocab, size=size, end_tokens=[tokenizer.eos_token_id]), tokens


def test_what_training_writes_may_be_written(padded: tuple[Any, Grammar, TokenBytes]) -> None:
    tokenizer, grammar, _ = padded
    text = f'{{"objects": [{{"desc": "a cab", "bbox_2d": {coords(1, 2, 3, 4)}}}]}}'
    state = grammar.start
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        state = int(grammar.table[state, token])
        assert state >= 0, tokenizer.convert_ids_to_tokens(token)
    assert grammar.far[state] == 0


def test_constrained_answers_parse_and_are_what_the_tokenizer_decodes(
    padded: tuple[Any, Grammar, TokenBytes],
) -> None:
    tokenizer, grammar, tokens = padded
    rows, budget = 24, 160
    constraint = Constraint(DeviceGrammar(grammar, "cpu"), rows, budget=budget, max_objects=5, ordered=True)
    generator = torch.Generator().manual_seed(0)
    spaced = torch.tensor([float((tokens.text[index] or b"").startswith(b" ")) for index in range(len(tokenizer))])
    written = []
    for _ in range(budget):
        chosen = constraint.allow(torch.randn(rows, len(tokenizer), generator=generator) + 2 * spaced).argmax(-1)
        constraint.advance(chosen.numpy())
        written.append(chosen.numpy())
    found = 0
    for ids in np.stack(written, axis=1).tolist():
        answer = ids[: ids.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in ids else ids
        text = tokens.read(answer)[0]
        assert text == tokenizer.decode(answer)
        read = parse_answer(text)
        assert (text[:1], read.unread) == ("{", ())
        found += len(read.objects)
    assert found > 5
