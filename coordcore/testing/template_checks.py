"""Checks of template adapters, on the engine's own template of a tiny checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coordcore.components import Component
from coordcore.discovery import discover
from coordcore.testing.building import build
from coordcore.testing.plugin import TinyBoxes
from coordcore.testing.surgery_checks import tiny_base

if TYPE_CHECKING:
    from coordcore_train.engine import EncodedRow


def _encoded(component: Component, config: Any, *, times: int) -> tuple[EncodedRow, Any]:
    """The kit's example behind a fresh template, adapted `times` times, and the tokenizer."""
    from coordcore_train.checkpoint.folder import read_vocab
    from coordcore_train.engine import engine_of
    from coordcore_train.run.quiet import quiet

    quiet()
    folder = tiny_base(tied=True)
    adapter = build(component, config, vocab=read_vocab(folder))
    encoder = engine_of(discover()).encoder(folder, [adapter] * times)
    return encoder.encode(TinyBoxes(count=1)[0]), encoder.tokenizer


def check_template_encodes(component: Component, config: Any = None) -> None:
    """An adapted template supervises the whole answer and nothing before it."""
    row, tokenizer = _encoded(component, config, times=1)
    answer = tokenizer.decode(row.answer)
    wanted = TinyBoxes(count=1)[0].messages[-1]["content"]
    assert answer.startswith(wanted), f"the labels say {answer!r} where the answer is {wanted!r}"


def check_template_applies_twice(component: Component, config: Any = None) -> None:
    """Applied a second time, it changes nothing: ms-swift may copy a template and set it up again."""
    (once, _), (twice, _) = (_encoded(component, config, times=times) for times in (1, 2))
    for key in ("ids", "labels"):
        assert getattr(twice, key) == getattr(once, key), f"applied twice, the template gives other {key}"


CHECKS = (check_template_encodes, check_template_applies_twice)
