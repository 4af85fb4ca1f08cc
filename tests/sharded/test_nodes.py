"""Two nodes, each started by its own `coordcore run`, meet at the address of the first and share a run folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ranks

from coordcore_train.run.folder import RunDir


def _own_address() -> str:
    """An address of this machine that is not the loopback, which `[launch]` refuses of several nodes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no network interface")
        return str(probe.getsockname()[0])


def _start(node: int, folder: Path, *settings: str) -> subprocess.Popen[str]:
    """From a working directory of its own, as on a machine of its own; only the run folder is shared."""
    (folder / str(node)).mkdir()
    manifest = folder / str(node) / "m.toml"
    manifest.write_text(ranks.MANIFEST)
    options = [word for setting in (*settings, f"launch.node_rank={node}") for word in ("--set", setting)]
    command = [sys.executable, "-m", "coordcore", "run", str(manifest), "--output", str(folder / "run"), *options]
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        command, cwd=folder / str(node), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_two_nodes_are_two_ranks(shared: Callable[..., RunDir], tmp_path: Path) -> None:
    expected = shared("launch.fsdp=fsdp2", "tuner.type=lora")
    settings = ("launch.nnodes=2", f"launch.master_addr={_own_address()}", f"launch.master_port={ranks.free_port()}")
    nodes = [_start(node, tmp_path, *settings, "launch.fsdp=fsdp2", "tuner.type=lora") for node in (1, 0)]
    said = [node.communicate(timeout=570)[0] for node in nodes]

    assert [node.returncode for node in nodes] == [0, 0], said
    assert ranks.losses(RunDir(tmp_path / "run")) == ranks.losses(expected)
    assert ranks.merged(RunDir(tmp_path / "run")).keys() == ranks.merged(expected).keys()
