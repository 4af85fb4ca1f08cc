"""Constrained decoding of a format that is nothing but a description."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from prediction_support import END, SIZE, TOKENS, VOCAB

from coordcore.coords import DEFAULT_COORDS, is_coord_token
from coordcore.records.answers import COORDJSON, Format, Located, answer_text, parse_answer
from coordcore.records.answers.format import Coords, Label
from coordcore_detection.decode.automaton import COORD, answer_automaton
from coordcore_detection.decode.grammar import Constraint, DeviceGrammar, Grammar, compile_grammar
from coordcore_detection.predict.asking import _Asker

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
    while constraint.places[0].state != len(grammar.slot) - 1:
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


# --- several places under one label -----------------------------------------------------------------------------------

GROUPED = attrs.evolve(LINES, name="grouped", again="", nothing="none")
TAGS = Format(
    name="tags",
    before="<|object_ref_start|>",
    label=(Label(without="<"),),
    amid="<|object_ref_end|><|box_start|>",
    places={"bbox_2d": (Coords("bbox_2d", between=""),)},
    after="<|box_end|>",
    between=", ",
    again=",",
    nothing="none",
)
NAMES = ("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|vision_start|>")
TAGGED_SIZE = SIZE + len(NAMES)
TAGGED_TOKENS = attrs.evolve(TOKENS, added={**TOKENS.added, **{SIZE + place: name for place, name in enumerate(NAMES)}})


@pytest.fixture(scope="module", params=[GROUPED, TAGS], ids=lambda form: form.name)
def grouped(request: pytest.FixtureRequest) -> tuple[Format, Grammar]:
    kinds = tuple(request.param.places)
    made = compile_grammar(TAGGED_TOKENS, VOCAB, size=TAGGED_SIZE, end_tokens=[END], form=request.param, geometry=kinds)
    return request.param, made


def grouped_tokens(text: str) -> list[int]:
    ids = {token: index for index, token in TAGGED_TOKENS.added.items()}
    parts = re.split(r"(<\|[^|]*\|>)", text)
    return [token for part in parts for token in ([ids[part]] if part in ids else part.encode())]


@pytest.mark.parametrize("labels", ["", "a", "aa", "aba", "aabbb"])
def test_groups_that_the_writer_writes_are_accepted(grouped: tuple[Format, Grammar], labels: str) -> None:
    form, grammar = grouped
    text = answer_text([Located(desc=label, kind="bbox_2d", bins=(1, 2, 3, 4)) for label in labels], form=form)
    constraint = Constraint(DeviceGrammar(grammar, "cpu"), 1, budget=999, max_objects=9, ordered=True)
    for token in [*grouped_tokens(text), END]:
        assert torch.isfinite(constraint.allow(torch.zeros(1, TAGGED_SIZE))[0, token])
        constraint.advance(np.array([token]))
    assert constraint.places[0].objects == len(labels)


@pytest.mark.parametrize("budget", [5, 9, 40, 200])
@pytest.mark.parametrize("seed", range(3))
def test_groups_that_it_allows_can_be_read(grouped: tuple[Format, Grammar], budget: int, seed: int) -> None:
    form, grammar = grouped
    constraint = Constraint(DeviceGrammar(grammar, "cpu"), 16, budget=budget, max_objects=5, ordered=True)
    generator = torch.Generator().manual_seed(seed)
    written = []
    for _ in range(budget):
        scores = torch.randn(16, TAGGED_SIZE, generator=generator)
        scores[:, END] -= 3.0
        scores[:, SIZE:] += 3.0
        chosen = constraint.allow(scores).argmax(-1).numpy()
        constraint.advance(chosen)
        written.append(chosen)
    several = 0
    for row in np.array(written, dtype=np.int64).T.tolist():
        row = row[: row.index(END)] if END in row else row
        assert SIZE + NAMES.index("<|vision_start|>") not in row
        answer = parse_answer(TAGGED_TOKENS.read(row)[0], form)
        assert (answer.unread, len(answer.objects) <= 5) == ((), True)
        several += len(answer.objects) > 1
    assert several or budget < 200


def test_no_further_place_where_there_are_enough(grouped: tuple[Format, Grammar]) -> None:
    form, grammar = grouped
    item = [Located(desc="a", kind="bbox_2d", bins=(1, 2, 3, 4))]
    for most, further in ((1, False), (2, True)):
        constraint = Constraint(DeviceGrammar(grammar, "cpu"), 1, budget=200, max_objects=most, ordered=True)
        for token in grouped_tokens(answer_text(item, form=form).removesuffix(form.after)):
            constraint.advance(np.array([token]))
        allowed = torch.isfinite(constraint.allow(torch.zeros(1, TAGGED_SIZE))[0])
        assert bool(allowed[list(VOCAB.ids)].any() or allowed[ord(",")]) is further


def test_a_format_that_says_no_boxes_is_guessed_ahead_in_its_own_kinds() -> None:
    form = attrs.evolve(COORDJSON, name="outlines", places={"poly": COORDJSON.places["poly"]})
    texts: list[str] = []
    processor = SimpleNamespace(tokenizer=lambda text, **_: texts.append(text) or {"input_ids": [1, 2]})
    asker: Any = SimpleNamespace(form=form, processor=processor, end_tokens=[0])
    assert _Asker._some_answer(asker, SimpleNamespace(format=DEFAULT_COORDS)) == [1, 2, 0]
    assert texts[0].count('"poly": [<|coord_0|>, <|coord_0|>, <|coord_1|>') == 2
