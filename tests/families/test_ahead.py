"""Several tokens a pass: the answers of one at a time, for families whose cache allows it; the others write one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import FAMILIES
from PIL import Image

from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict import asking
from coordcore_detection.predict.ahead import NotAheadError
from coordcore_train.checkpoint.expand import expand

torch.set_num_threads(1)


def picture(number: int) -> TruthImage:
    pixels = np.random.default_rng(number).integers(0, 256, (48 + 8 * number, 64, 3), dtype=np.uint8)
    return TruthImage(
        key=f"{number}.png",
        width=64,
        height=48 + 8 * number,
        labels=(),
        boxes=np.zeros((0, 4)),
        crowd=np.zeros(0, dtype=bool),
        open=lambda: Image.fromarray(pixels),
        messages=({"role": "user", "content": "<image>Find."},),
    )


@pytest.mark.parametrize(
    ("family", "can"),
    [
        ("qwen2_vl", True),
        ("internvl", True),
        ("glm4v", True),
        ("llava1_5_hf", True),
        ("mistral3", False),  # with the sliding window that its class has by itself, and published ones have not
        ("qwen3_5", False),
        ("gemma4", False),
    ],
)
def test_what_is_guessed_changes_no_answer(
    family: str, can: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expand(FAMILIES[family](tmp_path / "base"), tmp_path / "expanded")
    loaded = asking.load(tmp_path / "expanded", "cpu")
    write_ahead, used = asking.write_ahead, []

    def answers() -> list[Any]:
        settings = asking.PredictSettings(max_new_tokens=90, batch_size=3)
        rows = asking.predict(
            loaded.model,
            loaded.processor,
            [picture(number) for number in range(3)],
            settings,
            vocab=loaded.vocab,
            quantisation=loaded.quantisation,
        )
        return [(row.text, row.stopped, [box.bins for box in row.boxes]) for row in rows]

    def notes(*arguments: Any) -> Any:
        found = write_ahead(*arguments)
        used.append(found)
        return found

    def refuses(*_arguments: Any) -> Any:
        raise NotAheadError

    monkeypatch.setattr(asking, "write_ahead", notes)
    ahead = answers()
    monkeypatch.setattr(asking, "write_ahead", refuses)
    assert ahead == answers()
    assert bool(used) == can
