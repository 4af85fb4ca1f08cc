"""Counts the tokens that training computes as padding, with and without `train.group_by_length`, and prints a table.

    python docs/studies/padding.py BASE

BASE: a checkpoint folder with coord tokens, of which the tokenizer and the image processor are used (no weights). The
records are those of tests/data, with blank images of the right sizes, and the same twenty times over, as a data set of
2,000 that looks like it. Lengths are counted on the encoded examples; the order follows from what the records tell.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import ROOT

COCO = ROOT / "tests/data/coco_val2014_100_boxes.json"
BATCHES = (4, 8, 16)
EPOCHS = 5
TIMES = 20


def write_records(folder: Path) -> Path:
    """The records of `COCO`, with blank images; the path of their file."""
    from PIL import Image

    coco = json.loads(COCO.read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in coco["categories"]}
    lines = []
    for image in coco["images"]:
        Image.new("RGB", (image["width"], image["height"])).save(folder / f"{image['id']}.png")
        corners = [
            (names[item["category_id"]], (x, y, x + width, y + height))
            for item in coco["annotations"]
            if item["image_id"] == image["id"]
            for x, y, width, height in [item["bbox"]]
        ]
        objects = [{"desc": name, "bbox_2d": box} for name, box in corners]
        size = {"width": image["width"], "height": image["height"]}
        lines.append(json.dumps({"images": [f"{image['id']}.png"], **size, "objects": objects}) + "\n")
    records = folder / "train.jsonl"
    records.write_text("".join(lines), encoding="utf-8")
    return records


def padding(lengths: Sequence[int], orders: Sequence[Sequence[int]], batch: int) -> tuple[int, float]:
    """Tokens of an epoch that fill examples up to the longest of their batch, and their share of all."""
    computed = told = 0
    for order in orders:
        for start in range(0, len(order), batch):
            found = [lengths[index % len(lengths)] for index in order[start : start + batch]]
            computed, told = computed + max(found) * len(found), told + sum(found)
    return round((computed - told) / len(orders)), 1 - told / computed


def measured(base: Path, folder: Path, form: str) -> Mapping[tuple[int, int, bool], tuple[int, float]]:
    """Records, batch size and whether they are grouped -> the padding, with one answer format."""
    import torch

    from coordcore import BuildContext
    from coordcore.quantisation import DEFAULT_QUANTISATION
    from coordcore_coord_tokens import CoordJsonl, CoordJsonlConfig
    from coordcore_coord_tokens.formats import components
    from coordcore_train.swift.encode import grouping_of, stock_encoder

    chosen: dict[str, Any] = {item.name: item for item in components()}
    context: dict[str, Any] = {"run_dir": folder, "seed": 0, "quantisation": DEFAULT_QUANTISATION, "vocab": None}
    if form in chosen:
        context["format"] = chosen[form].build(chosen[form].config(), BuildContext(**context))
    settings = CoordJsonlConfig(train=folder / "train.jsonl", space="pixel")
    source = CoordJsonl.open(settings, BuildContext(**context)).train()
    encoder = stock_encoder(base, ())
    lengths = [len(encoder.encode(source[index]).ids) for index in range(len(source))]
    said = grouping_of(source, encoder.template, 1).length

    class Again:
        """The records again and again; what they tell is told as often."""

        def length(self, epoch: int, index: int) -> tuple[float, list[tuple[int, int]]]:
            return said(epoch, index % len(lengths)), []

    found = {}
    for count in (len(lengths), TIMES * len(lengths)):
        seeds = [torch.Generator().manual_seed(epoch) for epoch in range(EPOCHS)]
        plain = [torch.randperm(count, generator=seed).tolist() for seed in seeds]
        for batch in BATCHES:
            grouping = grouping_of(Again(), encoder.template, batch)
            grouped = [[*grouping.ordered(order, 0, key=str(epoch))] for epoch, order in enumerate(plain)]
            found[count, batch, False] = padding(lengths, plain, batch)
            found[count, batch, True] = padding(lengths, grouped, batch)
    print(f"{form}: {min(lengths)} to {max(lengths)} tokens, {sum(lengths) / len(lengths):.0f} on average")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="checkpoint folder with coord tokens")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write_records(Path(name))
        print(
            "| answers | records | `batch_size` | padding in an epoch | with `group_by_length` |\n|---|---|---|---|---|"
        )
        for form in ("coordjson", "grouped"):
            found = measured(options.base, Path(name), form)
            for count, batch in sorted({key[:2] for key in found}):
                cells = [
                    f"{found[count, batch, grouped][0]:,} ({found[count, batch, grouped][1]:.0%})" for grouped in (0, 1)
                ]
                print(f"| `{form}` | {count:,} | {batch} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
