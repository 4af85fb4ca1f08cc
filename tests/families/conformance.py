"""One family from a base without coord tokens to answers: what was shown, and where it ended.

    python tests/families/conformance.py qwen3_5 --out result.json

Each stage is a command as a user gives it, run in this process; `swift infer` is ms-swift's own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).parent))

from coordcore_train.run.quiet import quiet

quiet()

import tomli_w  # noqa: E402 - after `quiet`, which speaks to libraries that listen when they are imported
import torch  # noqa: E402
from checkpoints import EXPERTS, FAMILIES, SYSTEM, TEMPLATES, TYPES  # noqa: E402
from PIL import Image, ImageDraw  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from coordcore.cli import app  # noqa: E402

STAGES = ("check", "expand", "doctor", "lora", "merged", "predict", "infer", "full")
"""In order; each needs those before it, but for `doctor`, `predict`, `infer` and `full`."""

PROMPT = "Find the square."
"""What is asked of each image, which the builder puts before it."""


def system(name: str) -> dict[str, str]:
    """The key of the data section, and the option of predict, for the system message of a family."""
    return {"system": SYSTEM[name]} if name in SYSTEM else {}


class StageError(Exception):
    """A command that did not end with 0, with what it said."""


def write_data(folder: Path, count: int = 6) -> None:
    """`count` pictures with one square each, and records of them."""
    lines = []
    for index in range(count):
        left, top, side = 4 + 7 * index % 20, 6 + 5 * index % 24, 24 + 3 * index
        image = Image.new("RGB", (80, 64), (20, 20, 30))
        ImageDraw.Draw(image).rectangle((left, top, left + side - 1, top + side - 1), fill=(220, 60, 40))
        image.save(folder / f"{index}.png")
        box = [left, top, left + side, min(top + side, 64)]
        record = {
            "images": [f"{index}.png"],
            "width": 80,
            "height": 64,
            "objects": [{"desc": "square", "bbox_2d": box}],
        }
        lines.append(json.dumps(record) + "\n")
    (folder / "train.jsonl").write_text("".join(lines))


def manifest(folder: Path, name: str, tuner: str) -> Path:
    """The manifest of a run of 6 steps: soft CE + W1 on coord tokens, offsets, and the tuner."""
    document: dict[str, Any] = {
        "name": name,
        "model": {"base": "base", "dtype": "float32", "template": TEMPLATES.get(name, "auto")}
        | {"type": TYPES.get(name, "auto")},
        "vocab": {"initialiser": "digits"},
        "data": {"coord_jsonl": {"train": "train.jsonl", "space": "pixel", "prompt": PROMPT, **system(name)}},
        "template": {"coord_template": {}},
        "surgery": {"coord_offset": {}},
        "loss": {"text_ce": {}, "coord_soft_ce_w1": {}},
        "optimizer": {"multimodal_coord_offset": {}},
        "tuner": {"type": tuner, "rank": 4, "alpha": 8.0},
        "train": {
            "steps": 6, "batch_size": 3, "learning_rate": 1e-2, "schedule": "constant", "log_every": 1, "device": "cpu",
            "threads": 1,
        },
        "output": {"dir": f"runs/{tuner}"},
    }  # fmt: skip
    if tuner == "lora" and name in EXPERTS:
        tensors = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
        document["train"]["swift"] = {"target_parameters": tensors}
    path = folder / f"{tuner}.toml"
    path.write_text(tomli_w.dumps(document))
    return path


def coordcore(*arguments: str | Path) -> str:
    """What a command of coordcore prints. Raises StageError when it fails."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exit_code:
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise StageError(where(result.exception))
        raise StageError(f"exit code {result.exit_code}: {result.output.strip()[-1500:]}")
    return result.output


def losses(run: Path) -> list[float]:
    """The loss of each step."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


def where(error: BaseException) -> str:
    """The error and the places of this project and of transformers that it came through."""
    frames = [
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if "coordcore" in frame.filename or "transformers" in frame.filename or "swift" in frame.filename
    ]
    return f"{type(error).__name__}: {error} ({' > '.join(frames[-8:])})"


class Family:
    """The stages of one family, in a folder of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        FAMILIES[name](folder / "base")
        write_data(folder)
        self.lora_manifest, self.full_manifest = manifest(folder, name, "lora"), manifest(folder, name, "full")
        self.answers: list[str] = []

    def check(self) -> str:
        coordcore("check", self.lora_manifest)
        return "no problems found"

    def expand(self) -> str:
        coordcore("expand", self.folder / "base", "--output", self.folder / "expanded")
        return "the 1000 tokens"

    def doctor(self) -> str:
        result = CliRunner().invoke(app, ["doctor", str(self.lora_manifest), "--json"])
        try:
            findings = json.loads(result.stdout)["findings"]
        except ValueError as error:
            raise StageError(result.output[-1500:]) from error
        bad = [finding for finding in findings if finding["state"] in ("error", "not checked")]
        if bad:
            raise StageError("; ".join(f"{item['name']}: {item['seen']}" for item in bad)[:1500])
        warned = [finding["name"] for finding in findings if finding["state"] == "warning"]
        return f"{len(findings)} checks" + (f", warned of {', '.join(warned)}" if warned else "")

    def lora(self) -> str:
        coordcore("run", self.lora_manifest)
        found = losses(self.folder / "runs/lora")
        if not found[-1] < found[0]:
            raise StageError(f"the loss does not fall: {found}")
        return f"loss {found[0]:.2f} to {found[-1]:.2f}"

    def merged(self) -> str:
        """Live and merged logits are compared by `run`; here: plain transformers loads the folder, nothing missing."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        folder = self.folder / "runs/lora/merged"
        _, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
        AutoProcessor.from_pretrained(folder)
        if report["missing_keys"] or report["unexpected_keys"]:
            raise StageError(f"missing {report['missing_keys']}, unexpected {report['unexpected_keys']}")
        return "loads in plain transformers"

    def predict(self) -> str:
        out = self.folder / "predictions.jsonl"
        coordcore(
            "predict", self.folder / "runs/lora", self.folder / "train.jsonl", "--space", "pixel", "--output", out,
            "--max-new-tokens", "60", "--device", "cpu",
        )  # fmt: skip
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        rows = [row for row in rows if "text" in row]
        unread = [row["text"] for row in rows if row.get("unread")]
        if unread or not rows:
            raise StageError(f"answers that cannot be read: {unread}")
        return f"{len(rows)} answers parse"

    def infer(self) -> str:
        """ms-swift's own inference of the merged folder, greedy, and ours without the grammar, say the same."""
        from swift.pipelines.infer.infer import SwiftInfer

        rows = self.folder / "rows.jsonl"
        messages = [{"role": role, "content": text} for role, text in system(self.name).items()]
        messages.append({"role": "user", "content": f"<image>{PROMPT}"})
        pictures = [str(self.folder / f"{index}.png") for index in range(3)]
        rows.write_text("".join(json.dumps({"messages": messages, "images": [picture]}) + "\n" for picture in pictures))
        run = self.folder / "runs/lora"
        result = self.folder / "infer.jsonl"
        from coordcore_train.run.plan import load_run
        from coordcore_train.swift.families import family_of_plan
        from coordcore_train.swift.names import ours

        family = family_of_plan(load_run(run))
        SwiftInfer([
            "--model", str(run / "merged"), "--external_plugins", str(run / "swift_plugin.py"),
            "--model_type", ours(family.type), "--template", ours(family.template), "--infer_backend", "transformers",
            "--max_new_tokens", "24", "--temperature", "0", "--val_dataset", str(rows), "--result_path", str(result),
            "--use_hf", "true", "--enable_thinking", "false", "--torch_dtype", "float32",
        ]).main()  # fmt: skip
        theirs = [json.loads(line)["response"] for line in result.read_text().splitlines()]
        out = self.folder / "free.jsonl"
        coordcore(
            "predict", run / "merged", self.folder / "train.jsonl", "--space", "pixel", "--output", out,
            "--max-new-tokens", "24", "--device", "cpu", "--free", "--question", PROMPT,
            *(argument for key, text in system(self.name).items() for argument in (f"--{key}", text)),
        )  # fmt: skip
        read = [json.loads(line) for line in out.read_text().splitlines()]
        mine = [row["text"] for row in read if "text" in row][:3]
        # With thinking off ms-swift counts what begins such an answer to the answer, and its tokens too.
        theirs = [
            re.sub(r"^(<think>\s*</think>|<\|channel>thought\s*<channel\|>)", "", text).strip() for text in theirs
        ]
        pairs = zip(theirs, (text.strip() for text in mine), strict=True)
        if not all(item.startswith(other) or other.startswith(item) for item, other in pairs):
            raise StageError(f"swift infer says {theirs}, coordcore predict {mine}")
        return "stock swift infer says the same"

    def full(self) -> str:
        coordcore("run", self.full_manifest)
        found = losses(self.folder / "runs/full")
        if not found[-1] < found[0]:
            raise StageError(f"the loss does not fall: {found}")
        return f"loss {found[0]:.2f} to {found[-1]:.2f}"


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    os.environ["COORDCORE_CACHE"] = str(folder / "cache")
    os.environ["MODELSCOPE_CACHE"] = str(folder / "modelscope")
    try:
        yield
    finally:
        os.chdir(before)


def conform(name: str, stages: tuple[str, ...] = STAGES) -> dict[str, dict[str, Any]]:
    """Stage -> {"ok": whether it was reached and shown, "seen": what it showed, or the reason}."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix=f"family-{name}-") as folder, _inside(Path(folder).resolve()):
        family = Family(name, Path.cwd())
        for stage in stages:
            action: Callable[[], str] = getattr(family, stage)
            try:
                found[stage] = {"ok": True, "seen": action()}
            # Whatever a library raises over a family is what the table is there to tell.
            except Exception as error:
                text = str(error) if isinstance(error, StageError) else where(error)
                found[stage] = {"ok": False, "seen": text.replace(str(Path.cwd()), ".")}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=[*FAMILIES])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--stages", default=",".join(STAGES))
    arguments = parser.parse_args()
    found = conform(arguments.family, tuple(arguments.stages.split(",")))
    for stage, item in found.items():
        print(f"{arguments.family} {stage}: {'ok' if item['ok'] else 'FAILED'}: {item['seen']}")
    if arguments.out:
        arguments.out.write_text(json.dumps({arguments.family: found}, indent=1))


if __name__ == "__main__":
    main()
