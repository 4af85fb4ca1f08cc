"""One thread and no network for every test."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LOG_LEVEL"] = "ERROR"  # ms-swift's

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base() -> Path:
    """The checkpoint as it is installed."""
    return Path(str(files("coordcore_demo") / "tiny_qwen3vl"))


@pytest.fixture(scope="session")
def several() -> Path:
    """The checkpoint that has seen several shapes, as it is installed."""
    return Path(str(files("coordcore_demo") / "tiny_qwen3vl_several"))
