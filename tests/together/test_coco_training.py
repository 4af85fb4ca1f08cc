"""Real boxes train: 20 steps through the JSONL builder, and the first batch still shows the source boxes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from coco import ANNOTATIONS, corners, write_coco_records
from conftest import coordcore
from coordcore.quantisation import DEFAULT_QUANTISATION

MANIFEST = """
name = "coco"

[model]
base = "{base}"
dtype = "float32"

[vocab]

[data.coord_jsonl]
train = "data/train.jsonl"
space = "pixel"

[template.coord_template]

[surgery.coord_offset]

[loss.text_ce]

[loss.coord_soft_ce_w1]

[optimizer.multimodal_coord_offset]
offset_lr = 1e-2

[train]
steps = 20
batch_size = 4
learning_rate = 1e-3
log_every = 1
max_pixels = 65536
max_length = 4096
device = "cpu"
threads = 1
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    folder = tmp_path_factory.mktemp("coco-run")
    write_coco_records(folder / "data")
    (folder / "coco.toml").write_text(MANIFEST.format(base=tiny_base))
    coordcore("run", "coco.toml", cwd=folder)
    return folder / "runs" / "coco"


def test_twenty_steps_lower_the_loss(run: Path) -> None:
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in entries]
    assert [entry["step"] for entry in entries] == list(range(1, 21))
    assert all(math.isfinite(loss) for loss in losses)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_the_first_batch_decoded_from_its_labels_shows_the_source_boxes(run: Path) -> None:
    """What the trainer's own data loader hands to the model, back to pixels, drawn beside the run."""
    from swift.arguments import SftArguments  # noqa: F401 - registers ms-swift before our classes join it

    from coordcore_train.objective import make_targets
    from coordcore_train.run.plan import load_run
    from coordcore_train.swift.arguments import swift_arguments
    from coordcore_train.swift.pipeline import CoordSft
    from coordcore_train.swift.register import enter

    plan = load_run(run)
    enter(plan)
    assert plan.vocab is not None
    pipeline = CoordSft(swift_arguments(plan, has_validation=False, resume=None), plan)
    dataset, _ = pipeline._prepare_dataset()
    order = np.arange(4)
    batch = pipeline.template.data_collator([dataset[int(index)] for index in order])
    targets = make_targets(batch["labels"], plan.vocab)
    coco = json.loads(ANNOTATIONS.read_text())
    images = [coco["images"][index] for index in order]
    source = [
        (corners(annotation["bbox"]), image)
        for image in images
        for annotation in coco["annotations"]
        if annotation["image_id"] == image["id"]
    ]
    bins = targets["bins"].reshape(-1, 4).numpy()
    assert len(bins) == len(source)
    sizes = np.array([[image["width"], image["height"]] * 2 for _, image in source])
    decoded = DEFAULT_QUANTISATION.decode(bins, sizes)
    error = np.abs(decoded - np.array([box for box, _ in source])) / sizes * 999
    assert float(error.max()) <= 0.5 + 1e-9
    # The real-valued targets of the loss are the source boxes themselves.
    values = batch["targets"]["values"].reshape(-1, 4).numpy() / 999 * sizes
    np.testing.assert_allclose(values, [box for box, _ in source], rtol=0, atol=1e-3)
    assert batch["targets"]["boxes"].shape == (len(source), 4)
    for image in images:
        picture = Image.open(run.parents[1] / "data" / "images" / image["file_name"]).convert("RGB")
        draw = ImageDraw.Draw(picture)
        for box, (_, owner) in zip(decoded, source, strict=True):
            if owner is image:
                draw.rectangle(tuple(box), outline="black", width=2)
        picture.save(run / f"first-batch-{image['id']}.png")


def test_the_merged_checkpoint_records_the_quantisation(run: Path) -> None:
    info = json.loads((run / "merged" / "coordcore.json").read_text())
    assert info["quantisation"] == DEFAULT_QUANTISATION.as_dict()
