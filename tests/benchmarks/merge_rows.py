"""The merge of `merge_case` as a row."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import merge_case
from measure import MEGABYTE, Case, Reach, Sample, Setting, Variant

COPY = "copying the files"
PEFT = "peft merge_and_unload, save_pretrained (no offsets)"
NAMES = {"ours": "ours", COPY: "copy", PEFT: "peft"}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}


def variants(setting: Setting) -> Mapping[str, Variant]:
    """Each writes a whole folder, which is taken away again outside the measured time."""
    scratch = tempfile.TemporaryDirectory(prefix="coordcore-merge-")  # gone when the variants are
    text = merge_case.TEXT | (TINY if setting.quick else {})
    case = merge_case.make_case(Path(scratch.name) / "case", text=text)

    def variant(name: str) -> Variant:
        def run() -> Sample:
            output = Path(scratch.name) / f"out-{name}"
            os.sync()  # what the variant before has left to be written is its own time
            started = time.perf_counter()
            merge_case.VARIANTS[name](case, output)
            seconds = time.perf_counter() - started
            shutil.rmtree(output)
            return Sample(seconds=seconds)

        return run

    return {shown: variant(name) for shown, name in NAMES.items()}


CASES = [
    Case(
        name="merge",
        title="merging LoRA and coord rows into a 2 GB sharded checkpoint",
        build=variants,
        rounds=6,
        devices=["cpu"],
        reaches=[
            Reach(what="time", against=COPY, at_most=1.5, text="<= 1.5x the time"),
            Reach(what="memory", at_most=merge_case.SHARD_BYTES / MEGABYTE + 300, text="<= largest shard + 300 MB"),
        ],
    )
]
