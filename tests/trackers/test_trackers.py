"""TensorBoard, wandb, swanlab and mlflow themselves, in one run: each holds every metric in files, and none calls home.

Read by what these packages have to read their own files: a new version of one may want a change here.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from swanlab.proto.swanlab.record.v1 import record_pb2
from swanlab.sdk.internal.core_python.store import DataStoreReader
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

ROOT = Path(__file__).parents[2]
STEPS = 3

Told = dict[tuple[str, int], float]
"""(name, step) -> value."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that reports to all four. Whoever wants to leave this machine meets a proxy that only listens."""
    folder = tmp_path_factory.mktemp("trackers")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        proxies = {f"{name}_proxy": address for name in ("http", "https", "all")}
        proxies |= {name.upper(): value for name, value in proxies.items()}
        settings = (
            f"train.steps={STEPS}", "train.log_every=1", "train.threads=1", "drop=eval.detection", "output.merge=false",
            'train.report_to=["tensorboard","wandb","swanlab","mlflow"]',
        )  # fmt: skip
        options = [word for setting in settings for word in ("--set", setting)]
        example = ROOT / "docs/examples/shapes.toml"
        command = [sys.executable, "-m", "coordcore", "run", str(example), "--output", str(folder / "run"), *options]
        left_out = ("WANDB_", "SWANLAB_", "MLFLOW_", "TENSORBOARD_", "NO_PROXY", "no_proxy")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        done = subprocess.run(
            command, cwd=folder, env={**environment, **proxies}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        proxy.settimeout(0)
        with pytest.raises(BlockingIOError):  # nobody came
            proxy.accept()
    return folder / "run"


def expected(run: Path, training: str, evaluation: str) -> Told:
    """Every line of metrics.jsonl, with what stands before the names of each kind in a tracker."""
    found: Told = {}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for name, value in line.items():
            if name not in ("step", "epoch"):
                is_evaluated = name.startswith("eval_")
                label = f"{evaluation}{name.removeprefix('eval_')}" if is_evaluated else f"{training}{name}"
                found[label, line["step"]] = value
    steps = {step for name, step in found if name == f"{training}loss"}
    parts = {f"{training}text_ce/ce", f"{training}coord_soft_ce_w1/w1", f"{evaluation}coord_soft_ce_w1/w1"}
    assert (steps, parts - {name for name, _ in found}) == ({1, 2, 3}, set())
    return found


def agrees(told: Told, wanted: Told) -> bool:
    return {key: told.get(key) for key in wanted} == {
        key: pytest.approx(value, rel=1e-6, abs=1e-12) for key, value in wanted.items()
    }


def only(found: Iterator[Path]) -> Path:
    (path,) = found
    return path


def test_tensorboard(run: Path) -> None:
    events = EventAccumulator(str(run / "logs"))
    events.Reload()
    tags = events.Tags()["scalars"]
    told = {(tag, event.step): event.value for tag in tags for event in events.Scalars(tag)}
    assert agrees(told, expected(run, "train/", "eval/"))


def test_wandb(run: Path) -> None:
    told: Told = {}
    for data in logged(only((run / "logs/wandb").glob("offline-run-*/*.wandb")).read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            step = int(items.get("train/global_step", "0"))
            told |= {(name, step): float(value) for name, value in items.items() if not name.startswith("_")}
    assert agrees(told, expected(run, "train/", "eval/"))


def logged(data: bytes, header: int = 7, block: int = 2**15) -> Iterator[bytes]:
    """The records of a log as LevelDB writes it: pieces with a checksum, a length and whether a record ends there."""
    place, record = header, b""
    while place + 7 <= len(data):
        if (left := block - place % block) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def test_swanlab(run: Path) -> None:
    reader = DataStoreReader()
    reader.open(only((run / "logs/swanlab").glob("run-*/*.swanlab")))
    told: Told = {}
    for data in reader:
        record = record_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("scalar"):
            told[record.scalar.key, record.scalar.step] = record.scalar.value.number
    reader.close()
    assert agrees(told, expected(run, "train/", "eval/"))


def test_mlflow(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client: Any = MlflowClient((run / "logs/mlruns").as_uri())
    (found,) = client.search_runs(["0"])
    told = {
        (metric.key, metric.step): metric.value
        for name in found.data.metrics
        for metric in client.get_metric_history(found.info.run_id, name)
    }
    assert agrees(told, expected(run, "", "eval_"))
