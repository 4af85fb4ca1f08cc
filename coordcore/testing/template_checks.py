"""Checks of template adapters, on ms-swift's Qwen3-VL template of a tiny checkpoint."""

from __future__ import annotations

from typing import Any

from coordcore.components import Component
from coordcore.testing.building import build
from coordcore.testing.plugin import TinyBoxes
from coordcore.testing.surgery_checks import tiny_base
from coordcore_train.checkpoint.folder import read_vocab
from coordcore_train.run.quiet import quiet


def _template(component: Component, config: Any, *, times: int) -> Any:
    """A fresh ms-swift template in training mode, adapted `times` times."""
    quiet()
    from swift.model import get_processor
    from swift.template import get_template

    folder = tiny_base(tied=True)
    template = get_template(get_processor(str(folder), model_type="qwen3_vl", use_hf=True))
    template.set_mode("train")
    adapter = build(component, config, vocab=read_vocab(folder))
    for _ in range(times):
        adapter.apply(template)
    return template


def _row() -> dict[str, Any]:
    example = TinyBoxes(count=1)[0]
    return {"messages": [dict(message) for message in example.messages], "images": list(example.images)}


def check_template_encodes(component: Component, config: Any = None) -> None:
    """An adapted template supervises the whole answer and nothing before it."""
    template = _template(component, config, times=1)
    row = _row()
    answer = template.tokenizer.decode([one for one in template.encode(row)["labels"] if one != -100])
    wanted = row["messages"][-1]["content"]
    assert answer.startswith(wanted), f"the labels say {answer!r} where the answer is {wanted!r}"


def check_template_applies_twice(component: Component, config: Any = None) -> None:
    """Applied a second time, it changes nothing: ms-swift may copy a template and set it up again."""
    once, twice = (_template(component, config, times=times).encode(_row()) for times in (1, 2))
    for key in ("input_ids", "labels"):
        assert twice[key] == once[key], f"applied twice, the template gives other {key}"


CHECKS = (check_template_encodes, check_template_applies_twice)
