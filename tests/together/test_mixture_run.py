"""A run of boxes and chat rows side by side: both train, with an image limit of one, and metrics of each."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import coordcore
from coordcore_train.testing.tiny import tiny_qwen3vl

MANIFEST = """
name = "mixed"

[model]
base = "{base}"
dtype = "float32"

[data.mixture.sources.boxes]
builder = "coord_jsonl"
max_pixels = 1024
settings = {{ train = "boxes.jsonl", validation = "boxes.jsonl", space = "pixel" }}

[data.mixture.sources.talk]
builder = "chat_jsonl"
records = 3
settings = {{ train = "talk.json", space = "pixel" }}

[template.coord_template]

[loss.text_ce]

[loss.coord_soft_ce_w1]

[train]
steps = 4
batch_size = 3
learning_rate = 1e-3
log_every = 4
device = "cpu"
threads = 1

[output]
merge = false
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    Image.new("RGB", (64, 64)).save(folder / "image.png")
    boxes = [
        {
            "images": ["image.png"],
            "width": 64,
            "height": 64,
            "objects": [{"desc": "cup", "bbox_2d": [8 * k, 8, 40, 40]}] * k,
        }
        for k in range(1, 5)
    ]
    messages = [{"role": "user", "content": "<image>Where is the cup?"}, {"role": "assistant", "content": "At <bbox>."}]
    talk = {"messages": messages, "images": ["image.png"], "objects": {"ref": [], "bbox": [[8, 8, 40, 40]]}}
    words = {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]}
    write(folder / "boxes.jsonl", boxes)
    (folder / "talk.json").write_text(json.dumps([talk, words], indent=2), encoding="utf-8")
    base = tiny_qwen3vl(folder / "base")
    (folder / "mixed.toml").write_text(MANIFEST.format(base=base), encoding="utf-8")
    coordcore("run", "mixed.toml", cwd=folder)
    return folder / "runs/mixed"


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_format_is_that_of_the_sources_which_write_answers(run: Path) -> None:
    manifest = run.parents[1] / "mixed.toml"
    (manifest.parent / "grouped.toml").write_text(f"{manifest.read_text()}\n[format.grouped]\n", encoding="utf-8")
    assert "no problems found" in coordcore("check", "grouped.toml", cwd=manifest.parent)


def test_metrics_tell_the_sources_apart(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    [last] = [line for line in lines if "loss" in line and line["step"] == 4]
    held_out = [line for line in lines if "eval_loss" in line][-1]
    for source in ("boxes", "talk"):
        names = [name for name in last if name.endswith(f"@{source}")]
        assert {f"loss@{source}", f"text_ce/ce@{source}", f"coord_soft_ce_w1/soft_ce@{source}"} <= set(names)
        assert all(math.isfinite(last[name]) for name in names)
    # Only the boxes hold examples out.
    assert held_out["eval_loss@boxes"] == pytest.approx(held_out["eval_loss"])
    assert "eval_loss@talk" not in held_out


def test_the_image_limit_of_a_source_holds_for_it_alone(run: Path) -> None:
    from swift.arguments import SftArguments  # noqa: F401 - registers ms-swift before our classes join it

    from coordcore_train.run.plan import load_run
    from coordcore_train.swift.arguments import swift_arguments
    from coordcore_train.swift.pipeline import CoordSft
    from coordcore_train.swift.register import enter

    plan = load_run(run)
    enter(plan)
    pipeline = CoordSft(swift_arguments(plan, has_validation=False, resume=None), plan)
    dataset, _ = pipeline._prepare_dataset()
    examples = plan.data.train()
    patches: dict[str, set[int]] = {"boxes": set(), "talk": set()}
    for index in range(len(examples)):
        if examples[index].images:
            patches[examples[index].group].add(int(dataset[index]["image_grid_thw"].prod()))
    assert patches == {"boxes": {16}, "talk": {64}}


def test_an_evaluation_shows_images_in_the_size_of_their_source(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coordcore_detection.evaluate.truth_sources import truth_from_examples
    from coordcore_detection.predict import asking
    from coordcore_train.run.plan import load_run

    held_out = load_run(run).data.validation()
    assert held_out is not None
    loaded = asking.load(run, "cpu")
    patches: list[int] = []
    whole = asking._Asker._inputs

    def noted(asker: Any, *given: Any) -> Any:
        inputs = whole(asker, *given)
        patches.extend(inputs["image_grid_thw"].prod(-1).tolist())
        return inputs

    monkeypatch.setattr(asking._Asker, "_inputs", noted)
    settings = asking.PredictSettings(max_new_tokens=40, max_objects=1)
    truth = truth_from_examples(held_out, loaded.quantisation, loaded.coords)
    given = (loaded.model, loaded.processor, truth, settings)
    assert len([*asking.predict(*given, vocab=loaded.vocab, quantisation=loaded.quantisation)]) == 4
    assert patches == [16] * 4  # as in training; the image has 64


def losses(folder: Path, name: str, *settings: str) -> list[dict[str, float]]:
    """The losses of every step, and of each source in it, over two epochs of a run with other settings."""
    words = [word for setting in ("train.steps=7", "train.log_every=1", *settings) for word in ("--set", setting)]
    coordcore("run", "mixed.toml", "--output", name, *words, cwd=folder)
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key.startswith("loss")} for line in lines]


def test_a_mixture_is_the_same_for_any_number_of_workers_and_ranks(run: Path) -> None:
    folder = run.parents[1]
    alone = losses(folder, "alone", "train.batch_size=2")
    assert len({line["loss"] for line in alone if line}) == 7
    shared = losses(folder, "shared", "train.batch_size=1", "launch.nproc_per_node=2", "train.workers=1")
    assert shared == [pytest.approx(line, rel=1e-5) for line in alone]
