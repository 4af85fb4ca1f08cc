"""The format as a regular expression against the automaton of this process, for every format that is offered."""

from __future__ import annotations

import random
import re

import pytest

from coordcore.coords import DEFAULT_COORDS
from coordcore.records.answers import COORDJSON, Format, Located, answer_text
from coordcore.records.geometry import COUNTS
from coordcore_coord_tokens.formats import COMPACT, GROUPED, QWEN, QWEN_NUMBERS, TAGGED
from coordcore_detection.decode.automaton import COORD, Automaton, answer_automaton
from coordcore_detection.decode.pattern import answer_pattern

FORMATS = [COORDJSON, COMPACT, GROUPED, TAGGED, QWEN, QWEN_NUMBERS]
COORD_TOKEN = rb"<\|coord_(?:0|[1-9][0-9]{0,2})\|>"


def automaton_takes(automaton: Automaton, text: str) -> bool:
    state = 0
    for piece in re.findall(COORD_TOKEN + rb"|.", text.encode(), re.DOTALL):
        takes = automaton.steps[state, COORD:]
        symbol = piece[0] if len(piece) == 1 else COORD + int((takes >= 0).argmax())
        state = int(automaton.steps[state, symbol])
        if state < 0:
            return False
    return state in automaton.ends


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize("seed", range(4))
def test_the_pattern_is_the_automaton(form: Format, seed: int) -> None:
    rng = random.Random(seed)
    items = []
    for _ in range(rng.randrange(4)):
        kind = rng.choice(list(form.places))
        count = COUNTS[kind] or 2 * rng.randrange(3, 6)
        label = "".join(rng.choice("ab c>é猫😀") for _ in range(rng.randrange(1, 5)))
        items.append(Located(desc=label, kind=kind, bins=tuple(rng.randrange(1000) for _ in range(count))))
    text = answer_text(items, form=form)
    pattern = re.compile(answer_pattern(form, DEFAULT_COORDS))
    assert pattern.fullmatch(text)
    if form.numbers:
        return
    automaton = answer_automaton(form=form)
    assert automaton_takes(automaton, text)
    pieces = [
        piece.decode() for piece in re.findall(COORD_TOKEN + rb"|[\x00-\x7f]|[\xc0-\xff][\x80-\xbf]*", text.encode())
    ]
    verdicts = []
    for _ in range(400):
        changed = list(pieces)
        at = rng.randrange(len(pieces))
        other = rng.choice([*pieces, "<|coord_7|>", "", "x", "\n", ","])
        changed[at : at + rng.randrange(2)] = [other]
        if "<|coord" in re.sub(r"[^<]*\[[^\]]*\]", "", "".join(changed)) and form.json:
            continue  # a coord token within a label: the automaton never sees one
        verdicts.append(automaton_takes(automaton, "".join(changed)))
        assert bool(pattern.fullmatch("".join(changed))) is verdicts[-1], "".join(changed)
    assert {*verdicts} == {True, False}
