"""`train.packing`: examples of a batch in one row cost what they cost alone, and none sees another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from checkpoints import FAMILIES
from PIL import Image, ImageDraw

from coordcore.check import check
from coordcore.manifest import load
from coordcore.records.example import Example, Geometry
from coordcore_train.swift.needs import PACKED

GROUPS = ("first", "second", "third")
ANSWERS = {"first": "A box.", "second": "Nothing at all is in it, as far as I can see.", "third": "Two."}


def manifest(folder: Path, base: Path, **train: Any) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "model": {"base": str(base), "dtype": "float32", "attention": train.pop("attention", "sdpa")},
        "vocab": {},
        "data": {"tiny_boxes": {"train": 6, "validation": 3}},
        "tuner": {"type": "full"},
        "loss": {"text_ce": {"coord_positions": True}},
        "train": {"steps": 3, "batch_size": 3, "log_every": 1, "device": "cpu", "threads": 1, **train},
        "output": {"dir": str(folder / "run"), "merge": False},
    }
    (folder / "m.toml").write_text(tomli_w.dumps(document))
    return load(folder / "m.toml")


def example(group: str, answer: str, side: int = 32) -> Example:
    image = Image.new("RGB", (side, 32), "black")
    ImageDraw.Draw(image).rectangle((4, 4, 20, 20), fill="white")
    bins = (100, 200, 300, 400) if group != "second" else ()
    text = answer + "".join(f"<|coord_{number}|>" for number in bins)
    return Example(
        messages=({"role": "user", "content": "<image>What is it?"}, {"role": "assistant", "content": text}),
        images=(image,),
        geometries=(Geometry(kind="bbox_2d", values=tuple(map(float, bins))),) if bins else (),
        source=group,
        group=group,
    )


@pytest.fixture(scope="module", params=PACKED)
def base(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES[request.param](tmp_path_factory.mktemp("base") / request.param)


@pytest.fixture(scope="module")
def kit() -> Any:
    from coordcore.testing.training import kit_plugin

    with kit_plugin():
        yield


def sums(trainer: Any, template: Any, examples: list[Example]) -> torch.Tensor:
    """[3] the summed loss of each example, as the trainer has it of one micro-batch."""
    from coordcore_train.swift.template import to_row

    batch = template.data_collator(
        [template.encode(to_row(item, groups=GROUPS), return_length=True) for item in examples]
    )
    trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    for sums in trainer.sums.values():
        sums.zero_()
    with torch.no_grad():
        trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch))
    mode = "train" if trainer.model.training else "eval"
    return trainer.sums[mode].view(4, -1)[1:].sum(1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_no_example_of_a_row_sees_another(tmp_path: Path, base: Path, kit: Any, attention: str) -> None:
    from coordcore_train.checkpoint.base import base_checkpoint
    from coordcore_train.swift.rehearse import rehearse

    loaded = manifest(tmp_path, base, packing=True, attention=attention)
    rehearsal = rehearse(loaded, base_checkpoint(loaded.manifest), tmp_path)
    rehearsal.plan.__dict__["groups"] = GROUPS
    examples = [example(group, ANSWERS[group]) for group in GROUPS]
    made = rehearsal.trainer(rehearsal.wrap(), examples[0])
    trainer, template = made.trainer, rehearsal.pipeline.template
    assert template.padding_free
    trainer.model.eval()
    together = sums(trainer, template, examples)

    changed = [examples[0], example("second", "Quite another answer here, and so much", side=64), examples[2]]
    other = sums(trainer, template, changed)
    assert other[[0, 2]].tolist() == pytest.approx(together[[0, 2]].tolist(), rel=1e-5)
    assert abs(other[1] - together[1]) > 0.1

    template.padding_free = False
    object.__setattr__(rehearsal.plan.manifest.train, "packing", False)
    assert sums(trainer, template, examples).tolist() == pytest.approx(together.tolist(), rel=1e-5)


def test_a_run_with_packing_has_the_losses_of_one_without(tmp_path: Path, kit: Any) -> None:
    from coordcore_train.run.session import run

    base = FAMILIES["qwen3_vl"](tmp_path / "base")
    lines = []
    for packing in (False, True):
        folder = run(manifest(tmp_path / str(packing), base, packing=packing))
        lines.append([json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()])
    assert len(lines[0]) == 4
    for apart, packed in zip(*lines, strict=True):
        assert packed == pytest.approx(apart, rel=1e-5)


@pytest.mark.parametrize("name", ["internvl", "gemma4"])
def test_a_family_that_cannot_is_refused_by_name(tmp_path: Path, kit: Any, name: str) -> None:
    base = FAMILIES[name](tmp_path / "base")
    problems = [str(problem) for problem in check(manifest(tmp_path, base, packing=True))]
    [problem] = [text for text in problems if "train.packing" in text]
    assert "would see each other in one row; it can be had for qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_vl_moe" in problem
