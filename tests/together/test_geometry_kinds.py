"""Every kind of geometry in every shipped format: what is written is allowed, and what is allowed can be read."""

from __future__ import annotations

import re
from itertools import chain

import numpy as np
import pytest
import torch

from coordcore.coords import CoordFormat, CoordVocab, ints_to_tokens, is_coord_token
from coordcore.records.answers import COORDJSON, Format, Located, answer_text, parse_answer
from coordcore_coord_tokens.formats import COMPACT, GROUPED, QWEN, TAGGED
from coordcore_detection.decode.grammar import Constraint, DeviceGrammar, Grammar, compile_grammar
from coordcore_detection.decode.tokens import TokenBytes

torch.set_num_threads(1)

FORMATS = {form.name: form for form in (COORDJSON, COMPACT, GROUPED, TAGGED, QWEN)}
BINS = {"bbox_2d": (1, 2, 3, 4), "poly": (5, 1, 9, 1, 7, 0, 8, 8), "point": (12, 999), "quad": (2, 1, 6, 3, 5, 5, 1, 3)}
END = 1256
SIZE = END + 1
TOKENS = TokenBytes(
    text=tuple(bytes([byte]) for byte in range(256)) + (None,) * 1001,
    added={**{256 + k: token for k, token in enumerate(ints_to_tokens(range(1000)))}, END: "<|im_end|>"},
)


def compiled(form: Format, order: str = "xy") -> Grammar:
    coords = CoordFormat(order=order)
    vocab = CoordVocab(ids=range(256, END), format=coords)
    return compile_grammar(TOKENS, vocab, size=SIZE, end_tokens=[END], geometry=tuple(form.places), form=form)


def tokens_of(text: str) -> list[int]:
    """Byte by byte, but for coord tokens."""
    ids = {token: index for index, token in TOKENS.added.items()}
    parts = re.split(r"(<\|coord_\d+\|>)", text)
    return [*chain.from_iterable([ids[part]] if is_coord_token(part) else part.encode() for part in parts)]


@pytest.mark.parametrize("order", ["xy", "yx"])
@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_is_allowed(name: str, order: str) -> None:
    form = FORMATS[name]
    coords = CoordFormat(order=order)
    tables = DeviceGrammar(compiled(form, order), "cpu")
    kinds = [kind for kind in form.places for _ in range(2)]
    objects = [Located(desc="épée", kind=kind, bins=BINS[kind]) for kind in kinds]
    constraint = Constraint(tables, 1, budget=2000, max_objects=len(objects), ordered=True)
    for token in [*tokens_of(answer_text(objects, form=form, coords=coords)), END]:
        assert torch.isfinite(constraint.allow(torch.zeros(1, SIZE))[0, token])
        constraint.advance(np.array([token]))
    assert constraint.places[0].objects == len(objects)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_allowed_can_be_read(name: str) -> None:
    form, steps, rows = FORMATS[name], 400, 24
    constraint = Constraint(DeviceGrammar(compiled(form), "cpu"), rows, budget=steps, max_objects=6, ordered=True)
    generator = torch.Generator().manual_seed(0)
    written = []
    for _ in range(steps):
        scores = torch.randn(rows, SIZE, generator=generator)
        scores[:, END] -= 3.0
        scores[:, 128:256] -= 9.0
        likely = '"|<.#>qp,' if form.before else "|.#\n"
        scores[:, [ord(letter) for letter in likely]] += 2.0 if form.before else 4.0
        chosen = constraint.allow(scores).argmax(-1).numpy()
        constraint.advance(chosen)
        written.append(chosen)
    found = set()
    for row in np.array(written).T.tolist():
        answer = parse_answer(TOKENS.read(row[: row.index(END)] if END in row else row)[0], form)
        assert (answer.unread, len(answer.objects) <= 6) == ((), True)
        found |= {item.kind for item in answer.objects}
    assert found == set(form.places)
