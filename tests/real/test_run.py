"""From the published vocabulary to answers: doctor, run, merge, predict, and ms-swift's own commands unpatched."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import tomli_w
from PIL import Image, ImageDraw
from published import ENTRIES, IMAGE
from typer.testing import CliRunner

from coordcore.cli import app

PROMPT = "Find everything."
LABELS = ("red square", "猫", "cafe\u0301", 'the "first"', "🙂", "3.5mm jack")
"""One for each picture; the third is not as Unicode composes it, and the tokenizer composes it."""


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one square each, their records, and the manifest of a run over them."""
    folder = tmp_path_factory.mktemp("run")
    lines = []
    for index, label in enumerate(LABELS):
        left, top, side = 16 + 28 * index % 80, 24 + 20 * index % 96, 96 + 12 * index
        picture = Image.new("RGB", (320, 256), (20, 20, 30))
        ImageDraw.Draw(picture).rectangle((left, top, left + side - 1, top + side - 1), fill=(220, 60, 40))
        picture.save(folder / f"{index}.png")
        objects = [{"desc": label, "bbox_2d": [left, top, left + side, min(top + side, 256)]}]
        lines.append({"images": [f"{index}.png"], "width": 320, "height": 256, "objects": objects})
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    manifest: dict[str, Any] = {
        "model": {"base": str(base), "dtype": "float32"},
        "vocab": {"initialiser": "digits"},
        "data": {"coord_jsonl": {"train": "train.jsonl", "space": "pixel", "prompt": PROMPT}},
        "template": {"coord_template": {}},
        "surgery": {"coord_offset": {}},
        "loss": {"text_ce": {}, "coord_soft_ce_w1": {}},
        "optimizer": {"multimodal_coord_offset": {}},
        "tuner": {"rank": 4, "alpha": 8.0},
        "train": {
            "steps": 6, "batch_size": 3, "learning_rate": 1e-2, "schedule": "constant", "log_every": 1, "device": "cpu",
            "threads": 1,
        },
    }  # fmt: skip
    (folder / "manifest.toml").write_text(tomli_w.dumps(manifest))
    return folder


@pytest.fixture(scope="module", autouse=True)
def _caches(folder: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COORDCORE_CACHE", str(folder / "cache"))
        patch.setenv("MODELSCOPE_CACHE", str(folder / "modelscope"))
        yield


def coordcore(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def swift(command: str, *arguments: str | Path) -> None:
    """ms-swift's own command, as a user gives it."""
    program = str(Path(sys.executable).with_name("swift"))
    given = [*map(str, arguments), "--use_hf", "true", "--torch_dtype", "float32"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([program, command, *given], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """The run folder, trained and merged."""
    coordcore("run", folder / "manifest.toml", "--output", folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def rows(folder: Path) -> Path:
    """The first pictures as rows of ms-swift's."""
    lines = []
    for index in range(3):
        answer = f'{{"objects": [{{"desc": "{LABELS[0]}", "bbox_2d": [<|coord_{index}|>, <|coord_5|>'
        answer += ", <|coord_400|>, <|coord_999|>]}]}"
        messages = [{"role": "user", "content": f"<image>{PROMPT}"}, {"role": "assistant", "content": answer}]
        lines.append({"messages": messages, "images": [str(folder / f"{index}.png")]})
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "rows.jsonl"


# --- ours -------------------------------------------------------------------------------------------------------------


def test_the_doctor_finds_the_decomposed_letter_and_nothing_else(folder: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", str(folder / "manifest.toml"), "--json"])
    findings = json.loads(done.stdout)["findings"]
    found = {
        finding["name"]: finding["seen"] for finding in findings if finding["state"] not in ("ok", "not applicable")
    }
    assert found.keys() == {"template"}
    assert found["template"].startswith("1 of 6 answers read back with other code points")


def test_the_loss_falls(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] - 2


def test_answers_are_of_the_format(run: Path, folder: Path) -> None:
    out = folder / "constrained.jsonl"
    coordcore(
        "predict", run, folder / "train.jsonl", "--space", "pixel", "--output", out, "--max-new-tokens", "80",
        "--device", "cpu",
    )  # fmt: skip
    rows = [row for row in map(json.loads, out.read_text().splitlines()) if "text" in row]
    assert len(rows) == len(LABELS)
    assert [row["text"] for row in rows if row.get("unread")] == []


# --- ms-swift's, without anything of ours -----------------------------------------------------------------------------


def test_swift_infer_says_the_same_of_the_merged_folder(run: Path, rows: Path, folder: Path) -> None:
    """Its own `qwen3_vl`, whose image token is the number 151655."""
    assert json.loads((run / "merged/config.json").read_text())["image_token_id"] == IMAGE
    swift(
        "infer", "--model", run / "merged", "--model_type", "qwen3_vl", "--infer_backend", "transformers",
        "--max_new_tokens", "16", "--temperature", "0", "--val_dataset", rows, "--result_path", folder / "infer.jsonl",
    )  # fmt: skip
    theirs = [json.loads(line)["response"] for line in (folder / "infer.jsonl").read_text().splitlines()]
    coordcore(
        "predict", run / "merged", folder / "train.jsonl", "--space", "pixel", "--output", folder / "free.jsonl",
        "--max-new-tokens", "16", "--device", "cpu", "--free", "--question", PROMPT,
    )  # fmt: skip
    read = [json.loads(line) for line in (folder / "free.jsonl").read_text().splitlines()]
    assert theirs == [row["text"] for row in read if "text" in row][: len(theirs)]


@pytest.fixture
def deployed(run: Path) -> Iterator[str]:
    """The address of ms-swift's own server, which has the merged folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("swift")), "deploy", "--model", str(run / "merged"), "--use_hf", "true",
        "--model_type", "qwen3_vl", "--infer_backend", "transformers", "--torch_dtype", "float32",
        "--served_model_name", "run", "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with (run.parent / "deploy.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    address = f"http://127.0.0.1:{port}/v1"
    try:
        for _ in range(600):
            try:
                urlopen(f"{address}/models", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (run.parent / "deploy.log").read_text()[-3000:]
                time.sleep(1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_swift_deploy_says_to_our_client_what_this_process_says(run: Path, folder: Path, deployed: str) -> None:
    about = ("predict", run, folder / "train.jsonl", "--space", "pixel", "--max-new-tokens", "40")
    coordcore(*about, "--output", folder / "here.jsonl", "--device", "cpu", "--free")
    coordcore(*about, "--output", folder / "there.jsonl", "--server", deployed, "--model", "run", "--concurrency", "2")
    here, there = (
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()[1:]]
        for name in ("here", "there")
    )
    assert [(row["image"], row["text"]) for row in there] == [(row["image"], row["text"]) for row in here]
    assert len(here) == len(LABELS)
    assert any(row["text"] for row in here)


def test_swift_sft_trains_the_merged_folder(run: Path, rows: Path, folder: Path) -> None:
    swift(
        "sft", "--model", run / "merged", "--model_type", "qwen3_vl", "--dataset", rows, "--output_dir", folder / "sft",
        "--max_steps", "2", "--logging_steps", "1", "--per_device_train_batch_size", "3",
        "--gradient_accumulation_steps", "1", "--fp16", "false", "--use_cpu", "true", "--report_to", "none",
        "--save_steps", "2", "--add_version", "false", "--check_model", "false",
    )  # fmt: skip
    arguments = json.loads((folder / "sft/args.json").read_text())
    assert (arguments["model_type"], arguments["template"]) == ("qwen3_vl", "qwen3_vl")
    lines = [json.loads(line) for line in (folder / "sft/logging.jsonl").read_text().splitlines()]
    assert [line["loss"] > 0 for line in lines if "loss" in line] == [True] * 2


def test_the_answer_that_stock_swift_sees_has_whole_coord_tokens(run: Path) -> None:
    from transformers import AutoProcessor

    tokenizer = AutoProcessor.from_pretrained(run / "merged").tokenizer
    ids = tokenizer("[<|coord_7|>, <|coord_999|>]", add_special_tokens=False).input_ids
    assert [id_ - ENTRIES for id_ in ids if id_ >= ENTRIES] == [7, 999]
    assert re.findall(r"<\|coord_\d+\|>", tokenizer.decode(ids, skip_special_tokens=True)) == [
        "<|coord_7|>",
        "<|coord_999|>",
    ]


# --- ms-swift's, with the run's plugin --------------------------------------------------------------------------------


def test_swift_sft_with_the_runs_plugin(run: Path, rows: Path, folder: Path) -> None:
    """On the expanded base: the run's loader, template, objective and optimizer."""
    expanded = json.loads((run / "state.json").read_text())["base"]
    swift(
        "sft", "--model", expanded, "--external_plugins", run / "swift_plugin.py", "--model_type",
        "coordcore_qwen3_vl", "--template", "coordcore_qwen3_vl", "--optimizer", "coordcore", "--modules_to_save",
        "coord_offset_adapter", "--dataset", rows, "--output_dir", folder / "own", "--max_steps", "2",
        "--per_device_train_batch_size", "3", "--gradient_accumulation_steps", "1", "--fp16", "false", "--use_cpu",
        "true", "--report_to", "none", "--save_steps", "2", "--add_version", "false", "--check_model", "false",
    )  # fmt: skip
    assert (folder / "own/checkpoint-2/adapter_model.safetensors").is_file()
