"""A merge to measure: a 2 GB sharded checkpoint, LoRA on every language-model linear, coord offsets; and three ways."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import attrs
import torch

# Half of Qwen3-VL-2B: its widths and its vocabulary with coord tokens, 12 of 28 language and 6 of 24 vision layers.
TEXT = {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 12, "num_attention_heads": 16}
TEXT |= {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 152_704}
VISION = {"hidden_size": 1024, "intermediate_size": 4096, "depth": 6, "num_heads": 16}
SHARD_BYTES = 700_000_000
RANK = 16

MANIFEST = """
name = "merge"
[model]
base = {base}
dtype = "bfloat16"
[tuner]
rank = {rank}
[data.coord_jsonl]
train = "train.jsonl"
space = "bin"
[surgery.coord_offset]
[loss.text_ce]
coord_positions = true
"""


@attrs.frozen(kw_only=True)
class Case:
    """base: the checkpoint. run: a run folder with one checkpoint of it."""

    base: Path
    run: Path


# --- the case ---------------------------------------------------------------------------------------------------------


def make_case(folder: Path, *, text: dict[str, int] = TEXT, vision: dict[str, int] = VISION) -> Case:
    """Write the base and the run to `folder`, which must be empty or missing. Takes seconds and little memory."""
    base, run = folder / "base", folder / "run"
    base.mkdir(parents=True)
    shapes = _write_config(base, text, vision)
    write_weights(base, shapes)
    write_run(run, base, shapes, text["hidden_size"])
    return Case(base=base, run=run)


def _write_config(base: Path, text: dict[str, int], vision: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """A tiny checkpoint's files with larger sizes in the config; the shapes of the weights that belong to it."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    from coordcore_train.run.quiet import quiet_transformers
    from coordcore_train.testing.tiny import tiny_qwen3vl

    quiet_transformers()
    tiny_qwen3vl(base, dtype="bfloat16", head_dim=text["head_dim"], mrope_section=(24, 20, 20))
    (base / "model.safetensors").unlink()
    config = json.loads((base / "config.json").read_text())
    config["text_config"] |= text
    config["vision_config"] |= {**vision, "out_hidden_size": text["hidden_size"]}
    (base / "config.json").write_text(json.dumps(config, indent=2))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(base))
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name != "lm_head.weight"}


def write_weights(
    base: Path, shapes: dict[str, tuple[int, ...]], *, shard_bytes: int = SHARD_BYTES, only: Collection[str] = ()
) -> None:
    """Normal weights in bfloat16, in shards as transformers names them.

    only: tensors to write, if not all; the others are holes in their files, which read as zeros and take no room.
    """
    from coordcore_train.checkpoint.tensorfile import TensorSpec, WeightFile

    shards: list[list[TensorSpec]] = [[]]
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        if shards[-1] and sum(item.size for item in shards[-1]) + size > shard_bytes:
            shards.append([])
        shards[-1].append(TensorSpec(name=name, dtype="BF16", shape=shape, size=size))
    files = {f"model-{i:05}-of-{len(shards):05}.safetensors": shard for i, shard in enumerate(shards, 1)}
    generator = torch.Generator().manual_seed(0)
    noise: Any = (0.02 * torch.randn(1 << 24, generator=generator)).bfloat16().view(torch.uint8).numpy()
    for name, specs in files.items():
        file = WeightFile(base / name, specs, {"format": "pt"})
        for spec in specs:
            for at in range(0, spec.size, len(noise)) if not only or spec.name in only else ():
                file.write(spec.name, memoryview(noise)[: spec.size - at], at)
        if only:
            file.abandon()
        else:
            file.close()
    weight_map = {spec.name: name for name, specs in files.items() for spec in specs}
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_run(run: Path, base: Path, shapes: dict[str, tuple[int, ...]], hidden: int) -> None:
    from peft import LoraConfig
    from safetensors.torch import save_file

    from coordcore.manifest import load
    from coordcore_train.run.folder import RunDir
    from coordcore_train.run.resolved import fingerprint

    targets = [
        name.removesuffix(".weight")
        for name, shape in shapes.items()
        if ".language_model.layers." in name and len(shape) == 2
    ]
    generator = torch.Generator().manual_seed(1)
    tensors = {
        "base_model.model.coord_offset_adapter.embed_offset": torch.randn(1000, hidden, generator=generator) / 50
    }
    for target in targets:
        rows, columns = shapes[f"{target}.weight"]
        for matrix, shape in (("A", (RANK, columns)), ("B", (rows, RANK))):
            value = torch.randn(shape, generator=generator) / 50
            tensors[f"base_model.model.{target}.lora_{matrix}.weight"] = value
    folder = RunDir(run)
    checkpoint = folder.checkpoints / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    save_file(tensors, checkpoint / "adapter_model.safetensors", {"format": "pt"})
    LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules=targets, modules_to_save=["coord_offset_adapter"]
    ).save_pretrained(checkpoint)
    (checkpoint / "trainer_state.json").write_text("{}")
    folder.manifest.write_text(MANIFEST.format(base=json.dumps(str(base)), rank=RANK))
    folder.write_state(fingerprint=fingerprint(load(folder.manifest).manifest), base=str(base), done=True)


# --- the variants: each writes a folder that must not exist -----------------------------------------------------------


def copy_files(case: Case, output: Path) -> None:
    """Copy the base's files: what no merge can do without."""
    output.mkdir()
    for file in sorted(case.base.iterdir()):
        shutil.copyfile(file, output / file.name)


def merge_ours(case: Case, output: Path) -> None:
    """`coordcore merge`."""
    from coordcore_train.checkpoint.merge.run import merge_run

    report = merge_run(case.run, output)
    assert report.proof is not None, report.in_memory


def merge_peft(case: Case, output: Path) -> None:
    """What PEFT's documentation tells: load the base, `merge_and_unload`, `save_pretrained`. Without the offsets."""
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    model: Any = AutoModelForImageTextToText.from_pretrained(case.base, dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(model, case.run / "checkpoints/checkpoint-1").merge_and_unload()
    model.save_pretrained(output, max_shard_size=SHARD_BYTES)


VARIANTS: dict[str, Callable[[Case, Path], None]] = {"copy": copy_files, "ours": merge_ours, "peft": merge_peft}
