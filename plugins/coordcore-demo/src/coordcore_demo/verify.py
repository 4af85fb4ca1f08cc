"""Tries a trained checkpoint on pictures it has not seen: `python -m coordcore_demo.verify FOLDER --images 50`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordcore.coords import int_to_token
from coordcore.errors import InputError
from coordcore.quantisation import DEFAULT_QUANTISATION, Quantisation
from coordcore.records.answers import COORDJSON, Format, parse_answer
from coordcore_demo.config import PROMPT
from coordcore_demo.scores import Scores, score
from coordcore_demo.shapes import MAX_OBJECTS, Shape, draw
from coordcore_train.checkpoint.folder import read_checkpoint_info

if TYPE_CHECKING:
    from PIL import Image

BATCH = 25
TOKENS_PER_OBJECT = 40

_PLAIN_BIN = re.compile(r"\b(?:0|[1-9]\d{0,2})(?=\s*[,\]])")


def answers(folder: Path, images: Sequence[Image.Image], *, max_new_tokens: int) -> list[str]:
    """What the checkpoint in `folder` says to each picture: greedy, in float32 on the CPU, by plain transformers."""
    import torch
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    model: Any = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    content = [{"type": "image"}, {"type": "text", "text": PROMPT}]
    question = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    texts: list[str] = []
    for start in range(0, len(images), BATCH):
        chunk = list(images[start : start + BATCH])
        # The pictures have one size and the question is the same, so that a batch needs no padding.
        batch = processor(text=[question] * len(chunk), images=chunk, return_tensors="pt")
        with torch.inference_mode():
            tokens = model.generate(**batch, do_sample=False, max_new_tokens=max_new_tokens)
        given = batch["input_ids"].shape[1]
        texts += processor.batch_decode(tokens[:, given:], skip_special_tokens=True)
    return [text.strip() for text in texts]


def to_shapes(
    text: str, *, image_size: int, quantisation: Quantisation, form: Format = COORDJSON
) -> list[Shape] | None:
    """An answer's objects with their boxes in pixels, or None when a part of it is no box.

    Plain numbers, in which the base answers, count as the coord tokens of the same bins.
    """
    plain = form is COORDJSON
    answer = parse_answer(_PLAIN_BIN.sub(lambda match: int_to_token(int(match[0])), text) if plain else text, form)
    if answer.unread or any(found.kind != "bbox_2d" for found in answer.objects):
        return None
    boxes = [quantisation.decode(found.bins or found.numbers, image_size).tolist() for found in answer.objects]
    return [Shape(found.desc, (x1, y1, x2, y2)) for found, (x1, y1, x2, y2) in zip(answer.objects, boxes, strict=True)]


def verify(
    folder: Path, *, images: int = 50, seed: int = 0, max_objects: int = 1, sheet: Path | None = None
) -> tuple[Scores, list[str]]:
    """Score the checkpoint in `folder` on held-out pictures; gives the scores and its answers as they are.

    The quantisation is the one that the checkpoint records, nearest_999 for one that records none, such as the base.
    sheet: a PNG to write, truth and answer drawn.
    Raises InputError when `folder` is no checkpoint, ValueError for counts `draw` refuses.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json; give the folder of a merged checkpoint (runs/<name>/merged)")
    info = read_checkpoint_info(folder)
    drawn = [draw(seed, index, max_objects=max_objects) for index in range(images)]
    pictures = [picture for picture, _ in drawn]
    truths = [shapes for _, shapes in drawn]
    texts = answers(folder, pictures, max_new_tokens=TOKENS_PER_OBJECT * max_objects)
    quantisation = info.quantisation if info else DEFAULT_QUANTISATION
    form = info.format if info else COORDJSON
    size = pictures[0].width
    read_back = [to_shapes(text, image_size=size, quantisation=quantisation, form=form) for text in texts]
    if sheet is not None:
        from coordcore_demo.sheet import write_sheet

        write_sheet(sheet, pictures, truths, read_back)
    return score(truths, read_back), texts


def _print(scores: Scores) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{scores.images} held-out pictures")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_row("answers that parse to the right number of boxes", f"{scores.parsed:.0%}")
    table.add_row("mean IoU, whatever the description", f"{scores.class_agnostic_iou:.3f}")
    table.add_row("mean IoU, 0 for a wrong description", f"{scores.mean_iou:.3f}")
    table.add_row("F1 at IoU .50", f"{scores.f1_50:.3f}")
    table.add_row("F1 at IoU .75", f"{scores.f1_75:.3f}")
    Console().print(table)


def _at_least(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
        return int(text)

    return read


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. Exits with 1 when a `--min-*` bound is missed, with 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="python -m coordcore_demo.verify", description=__doc__)
    parser.add_argument("folder", type=Path, help="merged checkpoint")
    parser.add_argument("--images", type=_at_least(1), default=50, help="held-out pictures (default: %(default)s)")
    parser.add_argument("--seed", type=_at_least(0), default=0, help="seed of the pictures (default: %(default)s)")
    parser.add_argument(
        "--max-objects",
        type=int,
        choices=range(1, MAX_OBJECTS + 1),
        default=1,
        metavar="N",
        help=f"most shapes on one, 1 to {MAX_OBJECTS} (default: %(default)s)",
    )
    parser.add_argument("--sheet", type=Path, help="PNG to write: pictures with the true and the answered boxes")
    parser.add_argument("--min-parsed", type=float, default=0.0, help="fail below this share of parsed answers")
    parser.add_argument("--min-iou", type=float, default=0.0, help="fail below this class-agnostic mean IoU")
    options = parser.parse_args(arguments)
    # A local folder needs no network, and its loading no progress bar.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        scores, _ = verify(
            options.folder,
            images=options.images,
            seed=options.seed,
            max_objects=options.max_objects,
            sheet=options.sheet,
        )
    except InputError as error:
        parser.error(str(error))
    _print(scores)
    if scores.parsed < options.min_parsed or scores.class_agnostic_iou < options.min_iou:
        sys.exit(f"below the bounds: parsed {options.min_parsed}, class-agnostic mean IoU {options.min_iou}")


if __name__ == "__main__":
    main()
