"""Runs families from base to answers, each in a process of its own, and writes docs/reference/families.md.

python tests/families/run.py                 # all of them, some 12 minutes on one core
python tests/families/run.py gemma4 glm4v    # these; the page is left alone
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "families.md"
SHOWN = {
    "check": "check",
    "expand": "expand",
    "doctor": "doctor",
    "lora": "LoRA + offsets",
    "merged": "merged",
    "predict": "predict",
    "infer": "swift infer",
    "full": "full",
}
"""Stage of `conformance` -> its column."""

NOT_RUN = {
    "encoder-decoders (Florence-2, T5)": "encoder and decoder have an embedding each; coord rows would reach only one",
    "quantised weights (FP8, AWQ, GPTQ, bitsandbytes)": "neither new rows nor the adapter can be written into them",
    "block diffusion (DiffusionGemma)": "it fills a canvas in, and predicts no next token",
    "embedding models and rerankers": "they give a vector or a score, and write no answer",
    "code of their own (InternVL-Chat, MiniCPM-V up to 4.5, Ovis, Molmo, Kimi-VL)": "only with "
    "`model.trust_remote_code = true`, and with the transformers that their code was written for: never run here",
    "audio and video": "images are what is trained; a family that also hears or films is trained on its images",
}
"""What `coordcore check` refuses, or nobody has run -> why."""

LIMITS = {
    "limits the pixels of an image and cuts it into patches (Qwen, GLM-4.xV)": "is kept in training, and written into "
    "the files of the merged folder, so that a server shows images of the same size, but for one visual token",
    "works with tiles, slices, a fixed size, a longest side or a number of tokens (InternVL, Gemma, LLaVA, "
    "Mistral 3, MiniCPM-V)": "is refused by `coordcore check`, which names the key of the base's processor file that "
    "limits images there: set that, for training and for the server",
}
"""Kind of image processor -> what a limit of pixels comes to."""


def conform(family: str) -> dict[str, dict[str, Any]]:
    """What `conformance.py` found for `family`. Raises RuntimeError when it ended without an answer."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, str(Path(__file__).with_name("conformance.py")), family, "--out", str(out)]
        done = subprocess.run(
            command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
        )
        if not out.is_file():
            raise RuntimeError(f"{family}: {done.stderr[-2000:]}")
        found: dict[str, dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))[family]
        return found


def page(results: dict[str, dict[str, dict[str, Any]]], details: dict[str, str]) -> str:
    """docs/reference/families.md."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("ms-swift", "transformers", "peft", "torch"))
    lines = [
        "# Model families",
        "",
        "Any vision-language model type of ms-swift can be named in `[model] type`; `auto` reads it off the",
        "checkpoint's `config.json`. Loader, template and prompt are ms-swift's own. What was shown for which family,",
        "each with a tiny random checkpoint of transformers' own classes on the CPU, with its special tokens and the",
        f"shape of its chat template ({versions}):",
        "",
        "| type | what is special | " + " | ".join(SHOWN.values()) + " |",
        "|---|---|" + "---|" * len(SHOWN),
    ]
    for family, found in results.items():
        cells = ["yes" if found[stage]["ok"] else "no" for stage in SHOWN]
        lines.append(f"| `{family}` | {details[family]} | " + " | ".join(cells) + " |")
    for family, found in results.items():
        failed = {stage: item["seen"] for stage, item in found.items() if not item["ok"]}
        lines += [f"- `{family}`, {SHOWN[stage]}: {' '.join(seen.split())[:300]}" for stage, seen in failed.items()]
    lines += [
        "",
        "- **check, expand, doctor**: the commands of these names, on a base without coord tokens; no error.",
        "- **LoRA + offsets**: six steps of `coordcore run`, the loss falls, live and merged logits agree.",
        "- **merged**: plain transformers loads the merged folder, and no weight is missing or left over.",
        "- **predict**: every answer under the grammar parses.",
        "- **swift infer**: ms-swift's own inference of the merged folder, with the run's `swift_plugin.py` for",
        "  the ids of a tiny tokenizer, answers as `coordcore predict --free` does.",
        "- **full**: six steps of the full tuner, the loss falls, merged.",
        "",
        "A tiny checkpoint shows that every name, hook, template and file fits. It says nothing of accuracy, and",
        "nothing of a published checkpoint whose files differ from what its class writes: `coordcore doctor` looks",
        "into yours.",
        "",
        "## Limits of image sizes",
        "",
        "| the image processor | `train.max_pixels` |",
        "|---|---|",
        *(f"| {what} | {how} |" for what, how in LIMITS.items()),
        "",
        "## Thoughts",
        "",
        "Answers may hold a thought (`<think>...</think>`) before what they say: it is trained as it is written,",
        "with the boxes in it. An answer without one is trained behind the empty thought with which `coordcore",
        "predict` asks, which is no target. Evaluation reads what follows the thought; `predict --thinking 512`",
        "lets a model write one.",
        "",
        "## Not trained",
        "",
        "| what | why |",
        "|---|---|",
        *(f"| {what} | {why} |" for what, why in NOT_RUN.items()),
        "",
        "Written by `python tests/families/run.py`.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*")
    arguments = parser.parse_args()
    from checkpoints import DETAILS, FAMILIES

    wanted: Iterable[str] = arguments.families or FAMILIES
    results = {}
    for family in wanted:
        results[family] = conform(family)
        bad = {stage: item["seen"] for stage, item in results[family].items() if not item["ok"]}
        print(f"{family}: {bad or 'all shown'}", flush=True)
    if not arguments.families:
        PAGE.write_text(page(results, DETAILS), encoding="utf-8")


if __name__ == "__main__":
    main()
