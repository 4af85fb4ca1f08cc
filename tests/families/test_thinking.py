"""Thoughts in training: what is supervised with one and without, and that its boxes are none of the answer's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import tomli_w
from checkpoints import FAMILIES
from PIL import Image

from coordcore.coords import ints_to_tokens
from coordcore.discovery import discover
from coordcore.manifest import load
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_detection.evaluate.truth_sources import truth_from_examples
from coordcore_train.chat import question_text
from coordcore_train.checkpoint.base import base_checkpoint
from coordcore_train.engine import IGNORE, Rehearsal, engine_of


def box(*bins: int) -> str:
    return f"[{', '.join(ints_to_tokens(bins))}]"


ANSWER = f'{{"objects": [{{"desc": "square", "bbox_2d": {box(100, 200, 300, 400)}}}]}}'
THOUGHT = f"<think>\nIs it at {box(1, 2, 3, 4)}? No.\n</think>\n\n"
EARLIER = f"<think>\nPerhaps {box(5, 6, 7, 8)}.\n</think>\n\nAt {box(9, 10, 11, 12)}."

ROWS = {
    "without": [("user", "<image>Find it."), ("assistant", ANSWER)],
    "with": [("user", "<image>Find it."), ("assistant", THOUGHT + ANSWER)],
    "empty": [("user", "<image>Find it."), ("assistant", "<think>\n\n</think>\n\n" + ANSWER)],
    "turns": [
        ("user", "<image>Where?"), ("assistant", EARLIER), ("user", "Find it."), ("assistant", THOUGHT + ANSWER),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    """A run on rows with and without thoughts, on a model that can do both."""
    folder = tmp_path_factory.mktemp("thinking")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COORDCORE_CACHE", str(folder / "cache"))
        patch.setenv("MODELSCOPE_CACHE", str(folder / "modelscope"))
        FAMILIES["qwen3_5"](folder / "base")
        Image.new("RGB", (80, 64), "white").save(folder / "a.png")
        lines = [
            json.dumps({"messages": [{"role": role, "content": text} for role, text in turns], "images": ["a.png"]})
            for turns in ROWS.values()
        ]
        (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
        (folder / "m.toml").write_text(
            tomli_w.dumps(
                {
                    "model": {"base": "base", "dtype": "float32"},
                    "vocab": {},
                    "data": {"chat_jsonl": {"train": "train.jsonl", "space": "bin"}},
                    "template": {"coord_template": {}},
                    "loss": {"text_ce": {}, "coord_soft_ce_w1": {}},
                    "train": {"steps": 1, "device": "cpu", "threads": 1},
                }
            )
        )
        loaded = load(folder / "m.toml")
        base = base_checkpoint(loaded.manifest)
        yield engine_of(discover()).rehearse(loaded, base, folder / "scratch")


def encoded(rehearsal: Rehearsal, name: str) -> tuple[str, str, str]:
    """The text before what is supervised, what is supervised, and what is not behind that."""
    encoder = rehearsal.encoder
    row = encoder.encode(rehearsal.plan.data.train()[[*ROWS].index(name)])
    places = [place for place, label in enumerate(row.labels) if label != IGNORE]
    supervised = encoder.tokenizer.decode([row.labels[place] for place in places])
    return (
        encoder.tokenizer.decode(row.ids[: places[0]]),
        supervised,
        encoder.tokenizer.decode(row.ids[places[-1] + 1 :]),
    )


def asked(rehearsal: Rehearsal, *, thinking: bool) -> str:
    """What `coordcore predict` puts before an answer, but for the number of image tokens."""
    return question_text(
        rehearsal.encoder.processor, [{"role": "user", "content": "<image>Find it."}], thinking=thinking
    )


@pytest.mark.parametrize("name", ["without", "empty"])
def test_an_answer_without_a_thought_is_trained_behind_an_empty_one(rehearsal: Rehearsal, name: str) -> None:
    before, supervised, _ = encoded(rehearsal, name)
    assert supervised.strip() == f"{ANSWER}<|im_end|>"
    ends = asked(rehearsal, thinking=False).rpartition("<|vision_end|>")[2]
    assert before.endswith(ends)
    assert ends.endswith("<think>\n\n</think>\n\n")


def test_a_thought_is_trained_with_its_answer(rehearsal: Rehearsal) -> None:
    before, supervised, _ = encoded(rehearsal, "with")
    assert supervised.strip() == f"{THOUGHT}{ANSWER}<|im_end|>"
    ends = asked(rehearsal, thinking=True).rpartition("<|vision_end|>")[2]
    assert ends == before.rpartition("<|vision_end|>")[2] + "<think>\n"


def test_thoughts_of_earlier_turns_are_trained_too(rehearsal: Rehearsal) -> None:
    supervised = encoded(rehearsal, "turns")[1]
    assert [supervised.count(text) for text in (EARLIER, THOUGHT, ANSWER)] == [1, 1, 1]


@pytest.mark.parametrize("name", ROWS)
def test_evaluation_reads_what_follows_the_thought(rehearsal: Rehearsal, name: str) -> None:
    truth: Any = truth_from_examples(rehearsal.plan.data.train(), DEFAULT_QUANTISATION)[[*ROWS].index(name)]
    assert truth.labels == ("square",)
    wanted = DEFAULT_QUANTISATION.decode([[100, 200, 300, 400]], (80, 64, 80, 64))
    assert truth.boxes.round(6).tolist() == wanted.round(6).tolist()
