"""The template adapter on ms-swift's own Qwen3-VL template, with a tiny checkpoint."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coordcore import BuildContext
from coordcore_coord_tokens import CoordJsonl, CoordJsonlConfig, apply_coord_template_adapter
from coordcore_train.testing.tiny import tiny_qwen3vl


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)
    return tiny_qwen3vl(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def template(checkpoint: Path) -> Any:
    from swift.model import get_processor
    from swift.template import get_template

    template = get_template(get_processor(str(checkpoint), model_type="qwen3_vl", use_hf=True))
    template.set_mode("train")
    return template


@pytest.fixture
def row(build: Any, record: dict[str, Any]) -> dict[str, Any]:
    """An ms-swift row of the JSONL builder's example."""
    example = build(record).train()[0]
    return {"messages": list(example.messages), "images": list(example.images)}


def answer(template: Any, encoded: Any) -> str:
    return template.tokenizer.decode([label for label in encoded["labels"] if label != -100])


def test_the_answer_is_what_the_labels_say(template: Any, row: dict[str, Any]) -> None:
    apply_coord_template_adapter(template, coord_tokens=True, skip_bbox_norm=True)
    assert answer(template, template.encode(row)) == row["messages"][-1]["content"] + "<|im_end|>\n"


def test_image_tokens_fill_the_image(template: Any, row: dict[str, Any]) -> None:
    apply_coord_template_adapter(template, coord_tokens=True, skip_bbox_norm=True)
    encoded = template.encode(row)
    pad = template.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    patches = int(encoded["image_grid_thw"].prod())
    assert (encoded["input_ids"].count(pad), len(encoded["pixel_values"])) == (patches // 4, patches)


def test_without_the_adapter_the_image_is_lost(template: Any, row: dict[str, Any]) -> None:
    # Why the ids are resolved: ms-swift's fixed 151655 is no token of this tokenizer.
    pad = template.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert template.encode(row)["input_ids"].count(pad) == 1


def boxed(template: Any) -> str:
    """The answer that ms-swift makes of a box in its own `objects` column."""
    row = {
        "messages": [{"role": "user", "content": "<image>Where?"}, {"role": "assistant", "content": "<bbox>"}],
        "images": [Image.new("RGB", (640, 480))],
        "objects": {"bbox": [[12, 40, 300, 412]]},
    }
    return answer(template, template.encode(row))


def test_boxes_of_the_objects_column_stay_bins(template: Any) -> None:
    apply_coord_template_adapter(template, coord_tokens=True, skip_bbox_norm=True)
    assert boxed(template) == "<|box_start|>(12,40),(300,412)<|box_end|><|im_end|>\n"


def test_boxes_are_scaled_when_asked(template: Any) -> None:
    apply_coord_template_adapter(template, coord_tokens=True, skip_bbox_norm=False)
    assert boxed(template) == "<|box_start|>(19,83),(469,858)<|box_end|><|im_end|>\n"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda template: pickle.loads(pickle.dumps(template))])
def test_a_copied_template_encodes_the_same(template: Any, row: dict[str, Any], copied: Any) -> None:
    apply_coord_template_adapter(template, coord_tokens=True, skip_bbox_norm=True)
    assert copied(template).encode(row)["input_ids"] == template.encode(row)["input_ids"]


def test_a_turned_photograph_reaches_the_model_upright(
    template: Any, folder: Path, write: Any, context: BuildContext
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 32), "white").save("turned.png", exif=exif)
    item = {"images": ["turned.png"], "width": 32, "height": 64, "objects": []}
    example = CoordJsonl.open(CoordJsonlConfig(train=write(item)), context).train()[0]
    apply_coord_template_adapter(template, coord_tokens=True, skip_bbox_norm=True)
    encoded = template.encode({"messages": list(example.messages), "images": list(example.images)})
    _, rows, columns = encoded["image_grid_thw"][0].tolist()
    assert rows > columns
