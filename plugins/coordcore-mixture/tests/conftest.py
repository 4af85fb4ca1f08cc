"""One thread, no network, and the kit's data builder `tiny_boxes` as an installed plugin's: the tests' sources."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LOG_LEVEL"] = "ERROR"  # ms-swift's

import pytest
import torch

from coordcore.testing.training import kit_plugin

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)

_STACK = ExitStack()
_STACK.enter_context(kit_plugin())  # already when tests are collected, which makes configs


def pytest_unconfigure(config: pytest.Config) -> None:
    _STACK.close()
