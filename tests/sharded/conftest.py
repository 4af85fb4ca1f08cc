"""Runs on two CPU ranks that share weights, gradients or optimizer, made once for the tests that look at them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LOG_LEVEL", "ERROR")  # ms-swift's, read when it is imported
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import ranks
import torch

from coordcore_train.run.folder import RunDir

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunDir]:
    """Makes a run that tests only read: `shared(*settings, ranks=2)`."""
    os.environ.setdefault("COORDCORE_CACHE", str(tmp_path_factory.mktemp("cache")))
    ranks.load()

    @cache
    def made(*settings: str, ranks_: int = 2) -> RunDir:
        return ranks.train(tmp_path_factory.mktemp("shared"), *settings, ranks=ranks_)

    return made


@pytest.fixture(scope="session")
def alone(shared: Callable[..., RunDir]) -> Callable[[str], RunDir]:
    """The run of one rank with the batch of both, and of all that they accumulate: `alone(tuner)`."""
    return lambda tuner: shared("train.batch_size=8", "train.accumulation=1", f"tuner.type={tuner}", ranks_=1)
