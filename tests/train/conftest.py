"""Small real checkpoints, made once for the tests that need torch and transformers."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))  # the made-up plugins, fakes.py
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported, which torch may do

import torch

from coordcore_train.testing.tiny import tiny_qwen3vl

# One thread: the matrices are tiny, and test runs share their cores.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def plain_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny tied Qwen3-VL without coord tokens. Read only: tests that change it copy it."""
    return tiny_qwen3vl(tmp_path_factory.mktemp("plain") / "base", coord_tokens=False)


@pytest.fixture(scope="session")
def coord_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny tied Qwen3-VL with coord tokens. Read only: tests that change it copy it."""
    return tiny_qwen3vl(tmp_path_factory.mktemp("coord") / "base")


@pytest.fixture
def base(plain_base: Path, tmp_path: Path) -> Path:
    """A copy of `plain_base` that a test may change."""
    return Path(shutil.copytree(plain_base, tmp_path / "base"))
