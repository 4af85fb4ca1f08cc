"""Folders of real size: expand and merge of a Qwen3-VL-2B beside `cp` of it, and the doctor on published sizes.

    python tests/benchmarks/real_sized.py FOLDER [--rounds 3] [--doctor NAME ...]

Needs npm for the real tokenizer (`tests/real`), and 14 GB in FOLDER, of which it leaves nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs

sys.path.insert(0, str(Path(__file__).parents[1] / "real"))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

SHARD_BYTES = 1_000_000_000
COORD_ROWS = 152_704
"""Of a matrix of 151,936 rows behind `coordcore expand`."""


@attrs.frozen(kw_only=True)
class Size:
    """A published size, as its config.json has it; what is not said is a default of transformers' class.

    first: the id of `<|endoftext|>`, from which on the added tokens lie. rows: of the matrices, with coord tokens.
    """

    config: str
    text: dict[str, Any]
    vision: dict[str, Any]
    tied: bool
    first: int = 151_643
    rows: int = COORD_ROWS


_MROPE = {
    "rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": True, "mrope_section": [24, 20, 20],
}  # fmt: skip

SIZES = {
    "Qwen3-VL-2B": Size(
        config="Qwen3VLConfig",
        text={
            "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
            "num_key_value_heads": 8, "head_dim": 128, "rope_parameters": _MROPE,
        },
        vision={
            "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        tied=True,
    ),
    "Qwen3-VL-8B": Size(
        config="Qwen3VLConfig",
        text={
            "hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36, "num_attention_heads": 32,
            "num_key_value_heads": 8, "head_dim": 128, "rope_parameters": _MROPE,
        },
        vision={
            "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": 4096,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        tied=False,
    ),
    "Qwen3.5-4B": Size(
        config="Qwen3_5Config",
        text={
            "hidden_size": 2560, "intermediate_size": 9216, "num_hidden_layers": 32, "num_attention_heads": 16,
            "num_key_value_heads": 4, "head_dim": 256, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
        },
        vision={
            "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2560,
        },
        tied=True,
        first=248_044,
        rows=249_088,
    ),
}  # fmt: skip

MANIFEST = """
[model]
base = {base}
dtype = "bfloat16"
[tuner]
rank = 16
[data.coord_jsonl]
train = "train.jsonl"
space = "pixel"
[template.coord_template]
[surgery.coord_offset]
[loss.text_ce]
[loss.coord_soft_ce_w1]
[optimizer.multimodal_coord_offset]
[train]
steps = 10
device = "cpu"
"""


# --- folders ----------------------------------------------------------------------------------------------------------


def write_base(folder: Path, size: Size, *, coord_tokens: bool) -> dict[str, tuple[int, ...]]:
    """Everything of a checkpoint but its weights, in `folder`; the shapes of these.

    coord_tokens: the tokens are in the vocabulary, as `coordcore expand` leaves it.
    """
    import transformers
    from published import ROWS, tokenizer_folder, write_tokenizer
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    from coordcore.coords import CoordVocab, ints_to_tokens
    from coordcore.quantisation import DEFAULT_QUANTISATION
    from coordcore_train.checkpoint.folder import write_checkpoint_info

    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "tokenizer"
        shutil.copytree(tokenizer_folder(), source)
        _move_added(source, size.first)
        write_tokenizer(folder, source)
    rows = size.rows if coord_tokens else ROWS
    config = getattr(transformers, size.config)(
        text_config={**size.text, "vocab_size": rows, "tie_word_embeddings": size.tied},
        vision_config=size.vision,
        tie_word_embeddings=size.tied,
    )
    config.architectures = [size.config.replace("Config", "ForConditionalGeneration")]
    config.dtype = "bfloat16"
    config.save_pretrained(folder)
    if coord_tokens:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        from tokenizers import AddedToken

        tokens = ints_to_tokens(range(1000))
        tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in tokens])
        tokenizer.save_pretrained(folder)
        vocab = CoordVocab(ids=tokenizer.convert_tokens_to_ids(tokens))
        write_checkpoint_info(folder, quantisation=DEFAULT_QUANTISATION, vocab=vocab)
    import torch

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    tied = model.all_tied_weights_keys
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}


def _move_added(folder: Path, first: int) -> None:
    """Let the added tokens of a Qwen3 tokenizer begin at `first`, with entries that nothing merges into before them."""
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    vocabulary, shift = data["model"]["vocab"], first - len(data["model"]["vocab"])
    vocabulary |= {f"filler{number}": number for number in range(len(vocabulary), first)}
    for token in data["added_tokens"]:
        token["id"] += shift
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["added_tokens_decoder"] = {str(int(key) + shift): item for key, item in data["added_tokens_decoder"].items()}
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def gigabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e9


# --- expand and merge -------------------------------------------------------------------------------------------------


def work(what: str, source: Path, output: Path) -> dict[str, float]:
    """`coordcore expand` or `merge` in this process, its libraries loaded: seconds, and megabytes beyond them."""
    import peft
    import torch
    import transformers  # noqa: F401 - and peft: loaded before anything is measured
    from measure import PeakRSS
    from transformers import Qwen3VLForConditionalGeneration  # noqa: F401

    from coordcore_train.checkpoint.expand import expand
    from coordcore_train.checkpoint.merge.run import merge_run

    assert peft
    torch.set_num_threads(2)
    started = time.perf_counter()
    with PeakRSS() as peak:
        if what == "expand":
            expand(source, output)
        else:
            report = merge_run(source, output)
            assert report.proof is not None, report.in_memory
    return {"seconds": time.perf_counter() - started, "megabytes": peak.megabytes}


def measure_work(folder: Path, rounds: int) -> None:
    """The table of `cp`, expand and merge."""
    from merge_case import write_run, write_weights

    size = SIZES["Qwen3-VL-2B"]
    base, expanded, run, output = (folder / name for name in ("base", "expanded", "run", "output"))
    shapes = write_base(base, size, coord_tokens=False)
    write_weights(base, shapes, shard_bytes=SHARD_BYTES)
    elsewhere("expand", base, expanded)
    write_run(run, expanded, shapes, size.text["hidden_size"])
    shards = sorted(file.stat().st_size / 1e6 for file in expanded.glob("*.safetensors"))
    print(f"{gigabytes(base):.2f} GB, {len(shards)} shards, the largest {shards[-1]:.0f} MB", flush=True)
    found: dict[str, list[dict[str, float]]] = {"cp": [], "expand": [], "merge": []}
    for number in range(rounds + 1):  # the first round does not count
        for name in [*found][number % 3 :] + [*found][: number % 3]:
            os.sync()
            sample = elsewhere(name, run if name == "merge" else base, output)
            shutil.rmtree(output)
            if number:
                found[name].append(sample)
            print(number, name, {key: round(value, 2) for key, value in sample.items()}, flush=True)
    copy = statistics.median(item["seconds"] for item in found["cp"])
    for name, samples in found.items():
        seconds, whole = (statistics.median(item[key] for item in samples) for key in ("seconds", "command"))
        megabytes = max(item.get("megabytes", 0.0) for item in samples)
        print(
            f"{name}: {seconds:.2f} s, {seconds / copy:.2f} x cp (with its process {whole:.2f} s); "
            f"peak {megabytes:.0f} MB, largest shard + {megabytes - shards[-1]:.0f} MB"
        )


def elsewhere(what: str, source: Path, output: Path) -> dict[str, float]:
    """One of the three in a process of its own. command: seconds of the process."""
    command = ["cp", "-r", str(source), str(output)]
    if what != "cp":
        command = [sys.executable, __file__, str(source), "--work", what, "--output", str(output)]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **_MALLOC})
    seconds = time.perf_counter() - started
    said = json.loads(done.stdout.splitlines()[-1]) if what != "cp" else {"seconds": seconds}
    return {**said, "command": seconds}


_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
"""As `measure.extra_peak_elsewhere`: what is freed is given back."""


# --- the doctor -------------------------------------------------------------------------------------------------------


def examine(folder: Path, name: str) -> None:
    """`coordcore doctor` on a folder of this size, of whose weights only embedding and head are written."""
    import resource

    from merge_case import write_weights
    from PIL import Image, ImageDraw
    from typer.testing import CliRunner

    from coordcore.cli import app
    from coordcore_train.run.quiet import quiet

    quiet()
    folder.mkdir(parents=True)
    base = folder / "base"
    shapes = write_base(base, SIZES[name], coord_tokens=True)
    matrices = [shape for shape in shapes if shape.endswith(("embed_tokens.weight", "lm_head.weight"))]
    write_weights(base, shapes, shard_bytes=5_000_000_000, only=matrices)
    lines = []
    for index in range(8):
        box = [40 + 30 * index, 60 + 20 * index, 200 + 30 * index, 260 + 20 * index]
        picture = Image.new("RGB", (640, 480), (20, 20, 30))
        ImageDraw.Draw(picture).rectangle(box, fill=(220, 60, 40))
        picture.save(folder / f"{index}.png")
        objects = [{"desc": "square", "bbox_2d": box}]
        lines.append({"images": [f"{index}.png"], "width": 640, "height": 480, "objects": objects})
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "manifest.toml").write_text(MANIFEST.format(base=json.dumps(str(base))))
    started = time.perf_counter()
    done = CliRunner().invoke(app, ["doctor", str(folder / "manifest.toml"), "--json"])
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{name}: {gigabytes(base):.1f} GB, {seconds:.1f} s, exit {done.exit_code}, process peak {peak:.0f} MB")
    try:
        findings = json.loads(done.stdout)["findings"]
    except ValueError:
        print(done.output, repr(done.exception))
        return
    print(f"  {len(findings)} findings, {sum(finding['state'] == 'ok' for finding in findings)} ok")
    for finding in findings:
        if finding["state"] not in ("ok", "not applicable"):
            print(f"  {finding['state']}: {finding['name']}: {finding['seen']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--doctor", nargs="+", choices=[*SIZES], help="only this, on these sizes")
    parser.add_argument("--work", choices=["expand", "merge"], help="only this, on FOLDER, in this process")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(options.work, options.folder, options.output)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        if options.doctor:
            for name in options.doctor:
                examine(Path(scratch) / name, name)
                shutil.rmtree(Path(scratch) / name)
        else:
            measure_work(Path(scratch), options.rounds)


if __name__ == "__main__":
    main()
