"""The doctor's checks of manifest and data: the sample behind the real template, and what spoils it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from doctor_support import change_json, copied, doctor_plugin, examined, finding

from coordcore_doctor.examined import NotAvailableError
from coordcore_train.testing.tiny import tiny_qwen3vl


@pytest.fixture(scope="module", autouse=True)
def _plugin(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with doctor_plugin(tmp_path_factory.mktemp("plugin")):
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen3vl(tmp_path_factory.mktemp("tiny") / "base")


def look(name: str, folder: Path, base: Path, **sections: Any) -> Any:
    return finding(name, examined(folder, base, **sections))


# --- manifest -------------------------------------------------------------------------------------------------------


def test_what_check_reports(base: Path, tmp_path: Path) -> None:
    found = look("manifest", tmp_path, base, model={"dtype": "float16"}, tuner={"type": "full"})
    assert (found.state, found.seen.endswith("whose gradients would have to be scaled")) == ("error", True)
    assert found.cure == 'set "bfloat16" or "float32"'


def test_an_optimizer_that_there_is_not(base: Path, tmp_path: Path) -> None:
    found = look("optimizer name", tmp_path, base, train={"optim": "adamw_torch_fusd"})
    assert (found.state, found.cure) == ("error", 'set it to "adamw_torch_fused"')
    assert found.seen == "train.optim = 'adamw_torch_fusd', which transformers does not know"


def test_no_gpu(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = look("machine", tmp_path, base, train={"device": "cuda"})
    assert (found.state, "sees no GPU" in found.seen, 'train.device = "cpu"' in found.cure) == ("warning", True, True)


# --- size -----------------------------------------------------------------------------------------------------------


def test_a_limit_beyond_the_data(base: Path, tmp_path: Path) -> None:
    found = look("data size", tmp_path, base, data={"doctor_boxes": {"limit": 1_000_000}})
    assert (found.state, found.seen) == ("warning", "data.doctor_boxes.limit = 1000000, and there are 12 examples")


def test_a_limit_below_one_step(base: Path, tmp_path: Path) -> None:
    found = look("data size", tmp_path, base, data={"doctor_boxes": {"limit": 3}}, train={"batch_size": 8})
    assert (found.state, found.seen) == ("warning", "3 examples are fewer than one step takes (8)")
    assert found.cure.startswith("raise data.doctor_boxes.limit")


def test_a_limit_that_repeats_every_example(base: Path, tmp_path: Path) -> None:
    found = look("data size", tmp_path, base, data={"doctor_boxes": {"limit": 2}}, train={"steps": 5000})
    assert (found.state, found.seen) == ("warning", "each of 2 examples is seen 5000 times")


def test_no_example_at_all(base: Path, tmp_path: Path) -> None:
    found = look("data size", tmp_path, base, data={"doctor_boxes": {"count": 0}})
    assert (found.state, found.cure) == ("error", "look at [data.doctor_boxes]")


# --- reading and encoding -------------------------------------------------------------------------------------------


def test_a_record_that_cannot_be_read(base: Path, tmp_path: Path) -> None:
    found = look("data", tmp_path, base, data={"doctor_boxes": {"fault": "unread", "count": 8}})
    assert found.state == "error"
    assert found.seen == "1 of 8 examples cannot be read, the first: boxes.jsonl:4: objects[0]: no box"


def test_an_example_that_cannot_be_encoded(base: Path, tmp_path: Path) -> None:
    found = look("template", tmp_path, base, data={"doctor_boxes": {"fault": "uncounted", "count": 8}})
    assert found.state == "error"
    assert "1 of 8 examples cannot be encoded, the first: boxes.jsonl:4: the encoded answer has 4 coord" in found.seen


def test_letters_that_the_tokenizer_composes(base: Path, tmp_path: Path) -> None:
    """Qwen's tokenizers normalise to NFC: what is trained is another string than the record's."""
    found = look("template", tmp_path, base, data={"doctor_boxes": {"fault": "decomposed", "count": 8}})
    assert (found.state, found.cure) == (
        "warning",
        "write the records so, or metrics take the two spellings for two names",
    )
    assert found.seen.startswith("1 of 8 answers read back with other code points for the same letters")
    assert found.seen.endswith("boxes.jsonl:4")


def test_special_tokens_of_the_model_s_own_are_read_back(base: Path, tmp_path: Path) -> None:
    found = look("template", tmp_path, base, data={"doctor_boxes": {"fault": "special tokens", "count": 8}})
    assert (found.state, found.seen) == ("ok", "8 answers read back as they were given")


def test_a_template_that_changes_the_answer(base: Path, tmp_path: Path) -> None:
    found = look("template", tmp_path, base, template={"doctor_template": {"fault": "other text"}})
    assert (found.state, found.cure.startswith("look at the [template] adapter")) == ("error", True)
    assert found.seen.startswith("8 of 8 answers read back differ from what was given: boxes.jsonl:1, ")


def test_boxes_written_with_another_convention(base: Path, tmp_path: Path) -> None:
    found = look("round trip", tmp_path, base, data={"doctor_boxes": {"convention": "floor_999"}})
    assert found.state == "error"
    assert "are off by more than nearest_999 (version 1) makes them" in found.seen
    assert found.cure == "write them with the convention of [coords] quantisation"


def test_coord_tokens_that_are_no_labels(base: Path, tmp_path: Path) -> None:
    with pytest.raises(NotAvailableError, match=r"^template\.doctor_template .*: it makes the label \d+ where"):
        look("supervision", tmp_path, base, template={"doctor_template": {"fault": "other ids"}})


def test_an_answer_without_end(base: Path, tmp_path: Path) -> None:
    found = look("supervision", tmp_path, base, template={"doctor_template": {"fault": "no end"}})
    assert found.state == "warning"
    assert found.seen.startswith("8 of 8 answers have no end token among their labels")


def test_coord_positions_that_no_loss_charges(base: Path, tmp_path: Path) -> None:
    found = look("supervision", tmp_path, base, loss={"doctor_ce": {"weight": 0.0}})
    assert (found.state, found.seen) == ("error", "no loss with a weight above 0 sees coord positions")


def test_answers_that_predict_cannot_read(base: Path, tmp_path: Path) -> None:
    found = look("answer format", tmp_path, base, data={"doctor_boxes": {"fault": "own format", "count": 8}})
    assert (found.state, found.seen.startswith("1 places of 8 answers")) == ("warning", True)


# --- images and lengths ---------------------------------------------------------------------------------------------


def test_boxes_that_shrink_below_a_visual_token(base: Path, tmp_path: Path) -> None:
    sections = {"doctor_boxes": {"width": 640, "height": 320, "side": 40}}
    found = look("image sizes", tmp_path, base, data=sections, train={"max_pixels": 4096})
    assert found.state == "warning"
    assert found.seen == (
        "8 images, 8 reduced, 0 enlarged, most of all 640 x 320 to 96 x 48; "
        "8 of 8 boxes are narrower than one visual token (16 pixels)"
    )
    assert found.cure.startswith("raise train.max_pixels")


@pytest.mark.parametrize("width", [64, 2048])
def test_fractions_that_are_read_as_pixels(base: Path, tmp_path: Path, width: int) -> None:
    found = look("image sizes", tmp_path, base, data={"doctor_boxes": {"fractions": True, "width": width}})
    assert (found.state, found.cure[:44]) == ("warning", 'say what the numbers are: `space = "norm1"`,')
    assert "all 8 boxes lie within the first pixel of their images" in found.seen


UNMERGED = {"output": {"merge": False}}


def test_a_merged_model_is_asked_with_images_as_large(base: Path, tmp_path: Path) -> None:
    sections = {"data": {"doctor_boxes": {"width": 640, "height": 320}}, "output": {"merge": True}}
    found = look("served sizes", tmp_path, base, **sections)
    assert (found.state, found.seen.startswith("8 images are as large")) == ("ok", True)


def test_images_that_are_smaller_when_the_model_is_asked(base: Path, tmp_path: Path) -> None:
    found = look("served sizes", tmp_path, base, data={"doctor_boxes": {"width": 640, "height": 320}}, **UNMERGED)
    assert found.state == "warning"
    assert found.seen == (
        "8 of 8 images have another size for coordcore predict and servers: 640 x 320 in training, 80 x 32 there"
    )
    assert found.cure.startswith(
        'serve the merged model (output.merge = true), or set size to {"shortest_edge": 1024, "longest_edge": 4194304}'
    )


def test_images_that_only_training_reduces(base: Path, tmp_path: Path) -> None:
    """By their example's own limit, which neither a merged folder nor a record file knows."""
    sections = {"data": {"doctor_boxes": {"width": 640, "height": 320, "max_pixels": 2048}}, "output": {"merge": True}}
    found = look("served sizes", tmp_path, base, **sections)
    assert found.state == "warning"
    assert found.seen == (
        "8 of 8 images have another size for coordcore predict on records and for servers, which know no source's own "
        "max_pixels: 64 x 32 in training, 640 x 320 there"
    )
    assert found.cure.startswith("set train.max_pixels to the size")


def test_the_cure_for_images_of_two_sizes(base: Path, tmp_path: Path) -> None:
    mended = copied(base, tmp_path)
    size = {"shortest_edge": 1024, "longest_edge": 4194304}
    change_json(mended / "processor_config.json", lambda data: data["image_processor"].update(size=size))
    found = look("served sizes", tmp_path, mended, data={"doctor_boxes": {"width": 640, "height": 320}}, **UNMERGED)
    assert (found.state, found.seen.startswith("8 images are as large")) == ("ok", True)


def test_an_image_too_long_for_the_processor(base: Path, tmp_path: Path) -> None:
    found = look("template", tmp_path, base, data={"doctor_boxes": {"width": 8400, "height": 40}})
    assert (found.state, "aspect ratio must be smaller than 200" in found.seen) == ("error", True)


def test_answers_longer_than_max_length(base: Path, tmp_path: Path) -> None:
    found = look("token lengths", tmp_path, base, train={"max_length": 50})
    assert (found.state, found.seen.startswith("8 of 8 examples are too long and would stop the run")) == (
        "error",
        True,
    )
    assert found.cure.startswith("set train.max_length = 128")


# --- the question -----------------------------------------------------------------------------------------------------


def test_a_question_is_asked_as_it_is_trained(base: Path, tmp_path: Path) -> None:
    found = look("question", tmp_path, base)
    assert (found.state, found.seen.endswith("have the same tokens in training and when they are asked")) == (
        "ok",
        True,
    )


def test_a_chat_template_with_a_system_message_of_its_own(base: Path, tmp_path: Path) -> None:
    changed = copied(base, tmp_path / "changed")
    file = changed / "chat_template.jinja"
    file.write_text("<|im_start|>system\nBe brief.<|im_end|>\n" + file.read_text())

    found = look("question", tmp_path, changed)

    assert found.state == "warning"
    assert "are asked with other tokens than trained: training has '<|im_start|>user" in found.seen
    assert "servers have '<|im_start|>system\\nBe brief." in found.seen
    assert found.cure.startswith("set data.<name>.system")


def test_a_chat_template_that_is_broken(base: Path, tmp_path: Path) -> None:
    changed = copied(base, tmp_path / "changed")
    (changed / "chat_template.jinja").write_text("{{ raise_exception('no such turn') }}")

    found = look("question", tmp_path, changed)

    assert (found.state, found.seen) == ("warning", "the processor's chat template cannot ask it: no such turn")
