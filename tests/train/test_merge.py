"""Merging a run: ordinary weights, which plain transformers loads without coordcore and with the same logits."""

from __future__ import annotations

import json
import os
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import attrs
import pytest
import support
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from coordcore.errors import InputError, RunError
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore.testing.closeness import assert_close_to_scale
from coordcore_train.checkpoint.folder import read_checkpoint_info
from coordcore_train.run.folder import RunDir
from coordcore_train.testing.tiny import tiny_qwen3vl

TRAIN = {"steps": 2, "learning_rate": 1e-2, "schedule": "constant", "warmup": 0.0}

PLAIN = """
import sys
for name in ("coordcore", "peft", "swift"):
    sys.modules[name] = None
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
torch.set_num_threads(1)
inputs, *folders = sys.argv[1:]
for folder in folders:
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not any(info.values()), info
    AutoProcessor.from_pretrained(folder)
    with torch.no_grad():
        torch.save(model.eval()(**torch.load(inputs)).logits, f"{folder}/logits.pt")
"""


@attrs.frozen(kw_only=True)
class Merged:
    """A merged run: its folder, and the logits of base, live model and merged folder on one image."""

    tied: bool
    sharded: bool
    folder: Path
    base: Tensor
    live: Tensor
    plain: Tensor


CASES = list(product(("tied", "untied"), ("lora", "full"), ("one", "sharded")))


def inputs_of(base: Path) -> dict[str, Tensor]:
    """An image, a question and an answer with coord tokens."""
    from transformers import AutoProcessor

    content = [{"type": "image", "image": Image.linear_gradient("L").resize((32, 32)).convert("RGB")}]
    answer = [{"type": "text", "text": "[<|coord_5|>, <|coord_37|>, <|coord_500|>, <|coord_999|>]"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    processor = AutoProcessor.from_pretrained(base)
    return dict(processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt"))


@torch.no_grad()
def logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    return model.eval()(**inputs).logits


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Merged]:
    from transformers import AutoModelForImageTextToText

    from coordcore_train.checkpoint.merge.in_memory import load_live
    from coordcore_train.checkpoint.merge.run import merge_run
    from coordcore_train.run.plan import load_run

    root = tmp_path_factory.mktemp("merge")
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for case in CASES:
        tied, tuner, layout = case
        folder, base = root / "-".join(case), root / f"base-{tied}-{layout}"
        if not base.exists():
            size = "150KB" if layout == "sharded" else None
            tiny_qwen3vl(base, tie_word_embeddings=tied == "tied", max_shard_size=size)
        run = support.train(folder, base, train=TRAIN, tuner={"type": tuner})
        report = merge_run(run.path, folder / "merged")
        inputs = inputs_of(base)
        torch.save(inputs, root / "inputs.pt")
        found[case] = {
            "tied": tied == "tied",
            "sharded": layout == "sharded",
            "folder": report.output,
            "base": logits(AutoModelForImageTextToText.from_pretrained(base), inputs),
            "live": logits(load_live(load_run(run.path), report.checkpoint), inputs),
        }
    script = root / "plain.py"
    script.write_text(PLAIN)
    plain = support.python(str(script), str(root / "inputs.pt"), *(str(item["folder"]) for item in found.values()))
    assert plain.returncode == 0, plain.stderr
    return {case: Merged(**item, plain=torch.load(item["folder"] / "logits.pt")) for case, item in found.items()}


@pytest.mark.parametrize("case", CASES)
def test_plain_transformers_gives_the_live_logits(
    merged: dict[tuple[str, str, str], Merged], case: tuple[str, str, str]
) -> None:
    item = merged[case]
    # Merged weights are other numbers, and their rounding goes through every layer.
    assert_close_to_scale(item.plain, item.live, ulps=64.0, what="the logits")
    # What was trained matters by far more than that.
    assert (item.live - item.base).abs().max() > 0.05


@pytest.mark.parametrize("case", CASES)
def test_ties_and_shards_stay_as_they_were(
    merged: dict[tuple[str, str, str], Merged], case: tuple[str, str, str]
) -> None:
    item = merged[case]
    config = json.loads((item.folder / "config.json").read_text())
    keys = {key for file in item.folder.glob("*.safetensors") for key in load_file(file)}
    assert config["tie_word_embeddings"] is item.tied
    assert ("lm_head.weight" in keys) is not item.tied
    assert (item.folder / "model.safetensors.index.json").exists() is item.sharded
    assert not [key for key in keys if "row_offset" in key or "lora" in key]


def test_the_merged_folder_says_how_its_coordinates_are_meant(merged: dict[tuple[str, str, str], Merged]) -> None:
    info = read_checkpoint_info(merged[CASES[0]].folder)
    assert info is not None
    assert info.quantisation == DEFAULT_QUANTISATION


def test_a_bfloat16_base_stays_bfloat16(tmp_path: Path) -> None:
    base = tiny_qwen3vl(tmp_path / "base", dtype="bfloat16")
    run = support.train(tmp_path, base, model={"dtype": "bfloat16"}, train=TRAIN, output={"merge": True})
    assert {tensor.dtype for tensor in load_file(run.merged / "model.safetensors").values()} == {torch.bfloat16}
    rows = {key: tensor.dtype for key, tensor in support.weights(run).items() if "row_offset" in key}
    assert list(rows.values()) == [torch.float32]


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, coord_base: Path) -> RunDir:
    return support.train(tmp_path_factory.mktemp("trained"), coord_base, train=TRAIN)


def copy_of(run: RunDir, folder: Path, **replaced: str) -> RunDir:
    """A copy of a run folder that a test may change, with texts of its manifest replaced."""
    copied = RunDir(Path(shutil.copytree(run.path, folder / "run")))
    text = copied.manifest.read_text()
    for old, new in replaced.items():
        assert f"{old} = " in text
        text = "\n".join(f"{old} = {new}" if line.startswith(f"{old} = ") else line for line in text.splitlines())
    copied.manifest.write_text(text)
    return copied


def merge(run: RunDir, output: Path) -> None:
    from coordcore_train.checkpoint.merge.run import merge_run

    merge_run(run.path, output)


def test_existing_output_is_not_touched(trained: RunDir, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="mine: already exists, and a merge replaces nothing; name a folder"):
        merge(trained, tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a coordcore run folder: it has no manifest\.resolved\.toml"):
        merge(RunDir(tmp_path), tmp_path / "merged")


def test_a_run_without_a_checkpoint(trained: RunDir, tmp_path: Path) -> None:
    run = copy_of(trained, tmp_path)
    shutil.rmtree(run.checkpoints / "checkpoint-2")
    with pytest.raises(InputError, match="has no complete checkpoint yet; train it with `coordcore run`"):
        merge(run, tmp_path / "merged")


def test_a_damaged_checkpoint_is_named_with_the_cure(trained: RunDir, tmp_path: Path) -> None:
    run = copy_of(trained, tmp_path)
    (run.checkpoints / "checkpoint-2" / "adapter_config.json").unlink()
    with pytest.raises(
        InputError, match=r"adapter_config\.json: no such file(.|\n)*name an older one with --checkpoint"
    ):
        merge(run, tmp_path / "merged")


def test_nobody_waits_for_a_pipe_in_a_checkpoint(trained: RunDir, tmp_path: Path) -> None:
    from coordcore_train.checkpoint.merge.in_memory import load_live
    from coordcore_train.run.plan import load_run

    run = copy_of(trained, tmp_path)
    file = run.checkpoints / "checkpoint-2" / "adapter_config.json"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(InputError, match=r"adapter_config\.json: cannot be read: is a pipe or a device"):
        load_live(load_run(run.path), file.parent)  # as predict does


def test_a_checkpoint_that_lost_the_surgery(trained: RunDir, tmp_path: Path) -> None:
    run = copy_of(trained, tmp_path)
    file = run.checkpoints / "checkpoint-2" / "adapter_model.safetensors"
    save_file({key: tensor for key, tensor in load_file(file).items() if "row_offset" not in key}, file)
    with pytest.raises(RunError, match="holds no tensor of row_offset; what that surgery learned is not there"):
        merge(run, tmp_path / "merged")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            {"merging": '"nothing"', "free": "true"},
            "the merged checkpoint's logits differ from the live model's by .* it was not written",
        ),
        (
            {"merging": '"leftover"', "free": "true"},
            "surgery left row_offset in the merged model; its merge\\(\\) must remove its modules",
        ),
    ],
)
def test_a_surgery_that_merges_badly(trained: RunDir, tmp_path: Path, what: dict[str, str], message: str) -> None:
    run = copy_of(trained, tmp_path, **what)
    with pytest.raises(RunError, match=message):
        merge(run, tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
