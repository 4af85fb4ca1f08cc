"""Environment for a quiet, offline-safe start. Imported before torch, transformers or ms-swift."""

from __future__ import annotations

import logging
import os
import warnings

from coordcore.errors import printable

_DEFAULTS = {
    "LOG_LEVEL": "ERROR",  # ms-swift
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore",  # data-loader workers and torchrun's children
}


class _Record(logging.LogRecord):
    """What a library logs, as a terminal may show it."""

    def getMessage(self) -> str:  # noqa: N802 - logging's name
        return printable(super().getMessage())


def quiet() -> None:
    """Silence the libraries underneath, unless the user's environment or COORDCORE_VERBOSE says otherwise.

    What they log all the same steers no terminal, whatever input they repeat in it.
    """
    logging.setLogRecordFactory(_Record)
    if os.environ.get("COORDCORE_VERBOSE"):
        return
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore")
    for name in ("torch.distributed", "torch.distributed.elastic", "datasets", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)


def quiet_transformers() -> None:
    """Take down the progress bars that transformers draws while it loads and writes weights."""
    if os.environ.get("COORDCORE_VERBOSE"):
        return
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
