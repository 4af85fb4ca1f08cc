"""The data builder and the template adapter keep the promises of their kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordcore.testing import checks_for, components_of
from coordcore_coord_tokens import ChatJsonlConfig, CoordJsonlConfig, plugin

COMPONENTS = {component.name: component for _, component in components_of(plugin)}


@pytest.fixture(params=["tokens", "numbers", "summary"])
def config(request: pytest.FixtureRequest, folder: Path, write: Any) -> CoordJsonlConfig:
    """One picture with a box and a polygon, as its settings write them."""
    record = {
        "images": ["photo.png"],
        "width": 640,
        "height": 480,
        "summary": "a circle and a kite",
        "objects": [
            {"desc": "circle", "bbox_2d": [12, 40, 300, 412]},
            {"desc": "kite", "poly": [10, 20, 110, 40, 90, 140, 20, 100]},
        ],
    }
    mode = "summary" if request.param == "summary" else "dense"
    train, validation = write(record, record), write(record, name="validation.jsonl")
    return CoordJsonlConfig(
        train=train.absolute(),
        validation=validation.absolute(),
        mode=mode,
        coord_tokens=request.param != "numbers",
    )


@pytest.mark.parametrize("check", checks_for("data"), ids=lambda check: check.__name__)
def test_coord_jsonl(check: Callable[..., None], config: CoordJsonlConfig) -> None:
    check(COMPONENTS["coord_jsonl"], config)


@pytest.mark.parametrize("check", checks_for("template"), ids=lambda check: check.__name__)
def test_coord_template(check: Callable[..., None]) -> None:
    check(COMPONENTS["coord_template"])


@pytest.fixture(params=["objects", "text", "tokens"])
def chat(request: pytest.FixtureRequest, folder: Path, write: Any) -> ChatJsonlConfig:
    """Two pictures and two turns, with boxes in questions and answers."""
    text = {
        "text": "[0.1, 0.2, 0.3, 0.4]",
        "objects": "<bbox>",
        "tokens": "<|coord_1|><|coord_2|><|coord_3|><|coord_4|>",
    }
    box = text[request.param]
    said = ["<image>And <image>?", f"a dog at {box}", f"What is at {box}?", f"a cat, beside {box}"]
    messages = [{"role": ("user", "assistant")[number % 2], "content": item} for number, item in enumerate(said)]
    row = {"messages": messages, "images": ["photo.png", "photo.png"]}
    if request.param == "objects":
        row["objects"] = {"bbox": [[64, 48.5, 320, 240], [1, 2, 3, 4], [5, 6, 7, 8]], "image_id": [0, 1, 1]}
    train, validation = write(row, row), write(row, name="validation.jsonl")
    return ChatJsonlConfig(train=train.absolute(), validation=validation.absolute(), space="norm1")


@pytest.mark.parametrize("check", checks_for("data"), ids=lambda check: check.__name__)
def test_chat_jsonl(check: Callable[..., None], chat: ChatJsonlConfig) -> None:
    check(COMPONENTS["chat_jsonl"], chat)
