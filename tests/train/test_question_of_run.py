"""What a run says that it asked: for `coordcore.json` of its merged checkpoint, by which `predict` asks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from coordcore import Example
from coordcore_train.chat import Question
from coordcore_train.swift.pipeline import question_of_run

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "<image>Find the ring."},
    {"role": "assistant", "content": "[]"},
]


def data(task: str, **more: Any) -> Any:
    return SimpleNamespace(train=lambda: [Example(messages=MESSAGES, task=task)], **more)


def test_a_run_on_detection_asks_what_its_first_example_asks() -> None:
    assert question_of_run(data("detect")) == Question("Find the ring.", "Be brief.")
    assert question_of_run(data("detect", prompts=None)) == Question("Find the ring.", "Be brief.")


def test_the_question_of_one_record_is_not_that_of_the_run() -> None:
    assert question_of_run(data("refer")) is None


def test_a_builder_says_what_its_tasks_ask() -> None:
    prompts = {"detect": "All.", "refer": "Find {phrase}."}
    assert question_of_run(data("refer", prompts=prompts)) == Question("All.", "Be brief.", prompts)
