"""Trains the tiny base checkpoints of this package from random weights: `python -m coordcore_demo.train_base`.

They answer with plain numbers and have no coord tokens: what a published Qwen3-VL is to a user, in small. One has seen
a shape a picture, the other several.
"""

from __future__ import annotations

import argparse
import itertools
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coordcore.errors import InputError
from coordcore.files import whole_folder
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_demo.config import PROMPT, ShapesConfig
from coordcore_demo.data import Pictures
from coordcore_train.testing.tiny import tiny_qwen3vl

SEED = 20250
PICTURES = 6000
STEPS = 900
BATCH_SIZE = 32
LEARNING_RATE = 2e-3
WARMUP = 50

# What the tokenizer should keep whole, as its pre-tokenizer splits the conversation ("Ġ" is a leading space).
WORDS = (
    *("user", "assistant", "Find", "Ġthe", "Ġshapes"),
    *('{"', "objects", '":', 'Ġ[{"', "desc", 'Ġ"', '",', "bbox", "Ġ[", "]},", 'Ġ{"', "]}]}"),
    *("red", "green", "blue", "yellow", "Ġsquare", "Ġring", "Ġcross"),
)


def merges_for(words: Sequence[str]) -> list[str]:
    """BPE merges, in order, that make one token of each word: the known merges first, then from the left."""
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        pieces = list(word)
        while len(pieces) > 1:
            pairs = list(itertools.pairwise(pieces))
            pair = next((merge for merge in merges if merge in pairs), pairs[0])
            merges[pair] = None
            at = pairs.index(pair)
            pieces[at : at + 2] = ["".join(pair)]
    return [" ".join(merge) for merge in merges]


def write_random_base(folder: Path) -> Path:
    """Write the base as it is before training to `folder`: about 0.7 million weights, seeded, float32."""
    return tiny_qwen3vl(
        folder,
        coord_tokens=False,
        merges=merges_for(WORDS),
        hidden_size=96,
        layers=3,
        heads=3,
        kv_heads=1,
        head_dim=32,
        ffn_size=288,
        rope_theta=1000.0,
        mrope_section=(8, 4, 4),
        initializer_range=0.05,
        vision_hidden_size=64,
        vision_layers=2,
        vision_heads=4,
        vision_ffn_size=128,
        deepstack=(0,),
        position_grid=8,
        max_pixels=256 * 256,
        seed=SEED,
    )


def pictures(count: int = PICTURES, **settings: Any) -> Pictures:
    """The pictures a base learns from: other ones than a run with the demo's default seed sees.

    settings: other keys of `[data.shapes]`.
    """
    config = ShapesConfig(seed=SEED, coord_tokens=False, **settings)
    return Pictures(config=config, quantisation=DEFAULT_QUANTISATION, split="train", count=count)


def conversation(answer: str) -> str:
    """One example as ms-swift's `qwen3_vl` template writes it, the picture's tokens still one placeholder."""
    return f"{question()}{answer}<|im_end|>\n"


def question() -> str:
    """The part of `conversation` that is given, up to where the answer starts."""
    return f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{PROMPT}<|im_end|>\n<|im_start|>assistant\n"


def encode(processor: Any, examples: Sequence[Any]) -> dict[str, Tensor]:
    """A right-padded batch for the model, with labels on the answer and its end."""
    texts = [conversation(example.messages[1]["content"]) for example in examples]
    images = [example.images[0] for example in examples]
    batch = dict(processor(text=texts, images=images, padding=True, padding_side="right", return_tensors="pt"))
    given = processor(text=[question()], images=images[:1], return_tensors="pt")["input_ids"].shape[1]
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    labels[:, :given] = -100
    return {**batch, "labels": labels}


def train(
    model: nn.Module,
    processor: Any,
    source: Pictures | None = None,
    *,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
) -> Iterator[tuple[int, float]]:
    """Train in place; yields (step, loss). The order of the pictures and every draw come from SEED."""
    source = source or pictures()
    order = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / WARMUP, 0.5 * (1 + math.cos(math.pi * step / steps))),
    )
    model.train()
    queue: list[int] = []
    for step in range(1, steps + 1):
        if len(queue) < BATCH_SIZE:
            queue += torch.randperm(len(source), generator=order).tolist()
        batch = encode(processor, [source[index] for index in queue[:BATCH_SIZE]])
        del queue[:BATCH_SIZE]
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield step, loss.item()


def write_base(
    output: Path,
    source: Pictures,
    *,
    start: Path | None = None,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    log_every: int = 50,
) -> None:
    """Train a base and write it to `output`, its weights rounded to bfloat16. start: the base to go on from."""
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    torch.set_num_threads(1)  # So that sums are taken in one order everywhere.
    with whole_folder(output) as folder:
        if start is None:
            write_random_base(folder)
        else:
            shutil.copytree(start, folder, dirs_exist_ok=True)
        model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        started = time.perf_counter()
        for step, loss in train(model, processor, source, steps=steps, learning_rate=learning_rate):
            if step % log_every == 0 or step == steps:
                print(f"step {step}/{steps}  loss {loss:.3f}  {time.perf_counter() - started:.0f} s", flush=True)
        for config in (model.config, model.config.text_config, model.config.vision_config):
            config.dtype = torch.bfloat16
        model.to(torch.bfloat16).save_pretrained(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m coordcore_demo.train_base", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write; it must not exist")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="how many are drawn (default: %(default)s)")
    parser.add_argument("--min-objects", type=int, default=1, help="fewest shapes on a picture (default: %(default)s)")
    parser.add_argument("--max-objects", type=int, default=1, help="most shapes on a picture (default: %(default)s)")
    called = parser.add_mutually_exclusive_group()
    called.add_argument(
        "--label-by-label",
        action="store_const",
        dest="named",
        const={"label": "colour", "object_order": "label"},
        help="the shapes are called by their colour alone, and all of one colour stand together",
    )
    called.add_argument(
        "--one-label",
        action="store_const",
        dest="named",
        const={"label": "object"},
        help="every shape is called object",
    )
    parser.add_argument("--start", type=Path, help="the base to go on from (default: random weights)")
    parser.add_argument(
        "--learning-rate", type=float, default=LEARNING_RATE, help="at its highest (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.start is not None and not (options.start / "config.json").is_file():
        parser.error(f"--start is {options.start}, where no config.json is; name the folder of a base")
    if options.pictures < BATCH_SIZE:
        parser.error(f"--pictures is {options.pictures}; a batch takes {BATCH_SIZE}")
    try:
        counts = {"min_objects": options.min_objects, "max_objects": options.max_objects}
        source = pictures(options.pictures, **counts, **(options.named or {}))
    except ValueError as error:
        parser.error(str(error))
    try:
        write_base(
            options.output, source, start=options.start, steps=options.steps, learning_rate=options.learning_rate
        )
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
