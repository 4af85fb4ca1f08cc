"""One thread, no hub; and the tiny BERT."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from embedding_support import tiny_bert

    return tiny_bert(tmp_path_factory.mktemp("bert"))
