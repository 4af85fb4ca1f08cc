"""Constrained decoding of a format that is nothing but a description."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from prediction_support import END, SIZE, TOKENS, VOCAB

from coordcore.coords import is_coord_token
from coordcore.records.answers import Format, Located, answer_text, parse_answer
from coordcore.records.answers.format import Coords, Label
from coordcore_detection.decode.automaton import COORD, answer_automaton
from coordcore_detection.decode.grammar import Constraint, DeviceGrammar, Grammar, compile_grammar

torch.set_num_threads(1)

LINES = Format(
    name="lines",
    label=(Label(without="<@"),),
    places={"bbox_2d": (Coords("bbox_2d", between=""),), "poly": ("@", Coords("poly", between=""))},
    between="\n",
)
"""One object a line. An answer may end behind any of them, and have none."""


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return compile_grammar(TOKENS, VOCAB, size=SIZE, end_tokens=[END], form=LINES)


def tokens_of(text: str) -> list[int]:
    """Byte by byte, but for coord tokens."""
    ids = {token: index for index, token in TOKENS.added.items()}
    found: list[int] = []
    for part in re.split(r"(<\|coord_\d+\|>)", text):
        found += [ids[part]] if is_coord_token(part) else part.encode()
    return found


@pytest.mark.parametrize("kinds", [[], ["bbox_2d"], ["poly", "bbox_2d", "bbox_2d"]])
def test_what_the_writer_writes_is_accepted(grammar: Grammar, kinds: list[str]) -> None:
    bins = {"bbox_2d": (1, 2, 3, 4), "poly": (5, 1, 9, 1, 7, 0, 8, 8)}
    text = answer_text([Located(desc="épée 5", kind=kind, bins=bins[kind]) for kind in kinds], form=LINES)
    constraint = Constraint(DeviceGrammar(grammar, "cpu"), 1, budget=999, max_objects=9, ordered=True)
    for token in [*tokens_of(text), END]:
        assert torch.isfinite(constraint.allow(torch.zeros(1, SIZE))[0, token])
        constraint.advance(np.array([token]))


@pytest.mark.parametrize("budget", [0, 1, 9, 40, 200])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_it_allows_can_be_read(grammar: Grammar, budget: int, seed: int) -> None:
    constraint = Constraint(DeviceGrammar(grammar, "cpu"), 16, budget=budget, max_objects=5, ordered=True)
    generator = torch.Generator().manual_seed(seed)
    written = []
    for _ in range(budget):
        scores = torch.randn(16, SIZE, generator=generator)
        scores[:, END] -= 3.0
        chosen = constraint.allow(scores).argmax(-1).numpy()
        constraint.advance(chosen)
        written.append(chosen)
    for row in np.array(written, dtype=np.int64).reshape(budget, 16).T.tolist():
        answer = parse_answer(TOKENS.read(row[: row.index(END)] if END in row else row)[0], LINES)
        assert (answer.unread, len(answer.objects) <= 5) == ((), True)


def test_some_of_that_are_several_objects(grammar: Grammar) -> None:
    constraint = Constraint(DeviceGrammar(grammar, "cpu"), 1, budget=200, max_objects=5, ordered=True)
    likely = torch.zeros(1, SIZE)
    likely[:, ord("\n")] = likely[:, END - 1000 : END] = 1.0
    likely[:, END] = 0.5
    written = []
    while constraint.state[0] != len(grammar.slot) - 1:
        written.append(int(constraint.allow(likely).argmax(-1)))
        constraint.advance(np.array(written[-1:]))
    assert len(parse_answer(TOKENS.read(written[:-1])[0], LINES).objects) == 5


def test_closing_allows_nothing_but_the_end_behind_an_object(grammar: Grammar) -> None:
    constraint = Constraint(DeviceGrammar(grammar, "cpu"), 1, budget=200, max_objects=5, ordered=True)
    for token in tokens_of(answer_text([Located(desc="a", kind="bbox_2d", bins=(1, 2, 3, 4))], form=LINES)):
        constraint.advance(np.array([token]))
    constraint.closing[:] = True
    allowed = torch.isfinite(constraint.allow(torch.zeros(1, SIZE))[0])
    assert torch.nonzero(allowed).ravel().tolist() == [END]


def test_a_format_in_which_a_coordinate_could_be_two_things_is_refused() -> None:
    places = {kind: (Coords(kind, between=""),) for kind in ("bbox_2d", "poly")}
    either = Format(name="either", label=(Label(without="<"),), places=places, between="\n")
    with pytest.raises(ValueError, match="the format is ambiguous"):
        compile_grammar(TOKENS, VOCAB, size=SIZE, end_tokens=[END], form=either)


def test_the_first_byte_between_objects_is_kept_apart() -> None:
    automaton = answer_automaton(("bbox_2d",), form=LINES)
    state = int(automaton.steps[0, ord("a")])
    for slot in range(4):
        state = int(automaton.steps[state, COORD + slot])
    assert state in automaton.ends
    assert (automaton.steps[state, ord("\n")] >= 0, automaton.last_steps[state, ord("\n")]) == (True, -1)
