"""The real tokenizer and a narrow Qwen3-VL around it, made once. Everything is skipped where npm gets no tokenizer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import torch
from published import NotFetchedError, narrow_qwen3vl, tokenizer_folder

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def source() -> Path:
    """The folder with the files of the published tokenizer."""
    try:
        return tokenizer_folder()
    except NotFetchedError as error:
        pytest.skip(f"SKIPPED: the real tokenizer is not here: {error}")


@pytest.fixture(scope="session")
def base(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow Qwen3-VL with the published vocabulary, without coord tokens."""
    return narrow_qwen3vl(tmp_path_factory.mktemp("published") / "base", source)


@pytest.fixture(scope="session")
def expanded(base: Path) -> Path:
    """The same with coord tokens."""
    from coordcore_train.checkpoint.expand import expand

    return expand(base, base.with_name("expanded")).output
