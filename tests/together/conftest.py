"""Every plugin installed, training for real on one thread; nothing from the network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).parents[2]


def coordcore(*arguments: str, cwd: Path, expect: int = 0) -> str:
    """Run the `coordcore` command as a user does; its output, standard error included."""
    command = [str(Path(sys.executable).with_name("coordcore")), *arguments]
    done = subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == expect, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3-VL without coord tokens."""
    from coordcore_train.testing.tiny import tiny_qwen3vl

    return tiny_qwen3vl(tmp_path_factory.mktemp("base") / "tiny", coord_tokens=False)
