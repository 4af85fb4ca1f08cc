"""A run whose examples change: cut off in the middle of its second epoch and continued by workers, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from coordcore import Example
from coordcore.testing.training import train_briefly
from coordcore_coord_tokens.augment.source import AugmentedSource
from coordcore_train.testing.tiny import tiny_qwen3vl

IN_EPOCH = AugmentedSource.in_epoch
AUGMENT = {"flip": 0.5, "crop": [0.5, 1.0], "hue": 0.2, "shuffle_objects": True, "noise_objects": 1}


def records(folder: Path) -> Path:
    objects = [{"desc": "red", "bbox_2d": [4, 4, 30, 30]}, {"desc": "blue", "bbox_2d": [40, 20, 60, 60]}]
    image = Image.new("RGB", (64, 64), "white")
    for item in objects:
        ImageDraw.Draw(image).rectangle(item["bbox_2d"], fill=item["desc"])
    image.save(folder / "image.png")
    record = {"images": ["image.png"], "width": 64, "height": 64, "objects": objects}
    (folder / "train.jsonl").write_text((json.dumps(record) + "\n") * 5)
    return folder / "train.jsonl"


def test_a_cut_off_run_goes_on_with_the_examples_it_would_have_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, base = records(tmp_path), tiny_qwen3vl(tmp_path / "base")
    asked: list[tuple[int, int]] = []
    stop_at: list[int] = []

    def in_epoch(self: AugmentedSource, epoch: int, index: int) -> Example:
        asked.append((epoch, index))
        if [sum(epoch == 1 for epoch, _ in asked)] == stop_at:
            raise KeyboardInterrupt
        return IN_EPOCH(self, epoch, index)

    monkeypatch.setattr(AugmentedSource, "in_epoch", in_epoch)

    def run(name: str, **train: Any) -> Path:
        return train_briefly(
            tmp_path / name,
            base=base,
            loss={"text_ce": {"coord_positions": True}},
            data={"coord_jsonl": {"train": str(file), "space": "pixel", "augment": AUGMENT}},
            train={"steps": 7, "batch_size": 2, "save_every": 2, **train},
            merge=False,
        )

    whole = run("whole")
    assert asked[-1][0] == 2
    asked.clear()
    stop_at.append(4)
    with pytest.raises(KeyboardInterrupt):
        run("cut")
    stop_at.clear()
    continued = run("cut", workers=2)
    assert (continued / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    last = "checkpoints/checkpoint-7/model.safetensors"
    assert (continued / last).read_bytes() == (whole / last).read_bytes()
    assert_no_label_of_noise_s_places(whole)


def assert_no_label_of_noise_s_places(run: Path) -> None:
    from coordcore_train.run.plan import load_run
    from coordcore_train.swift.arguments import swift_arguments
    from coordcore_train.swift.pipeline import CoordSft
    from coordcore_train.swift.register import enter

    plan = load_run(run)
    enter(plan)
    pipeline = CoordSft(swift_arguments(plan, has_validation=False, resume=None), plan)
    dataset, _ = pipeline._prepare_dataset()
    assert plan.vocab is not None
    for index in range(5):
        example = IN_EPOCH(plan.data.train(), 0, index)
        row = dataset[index]
        written, charged = ([place for place in row[key] if place in plan.vocab.ids] for key in ("input_ids", "labels"))
        assert (len(example.uncharged), len(written) - len(charged)) == (1, 4)
        assert written[: len(charged)] == charged
        assert len(charged) == 4 * (len(example.geometries) - 1)
