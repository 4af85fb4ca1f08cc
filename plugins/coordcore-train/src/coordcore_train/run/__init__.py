"""Runs a plan inside ms-swift. Importing this package is cheap; its modules import torch and ms-swift."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordcore.manifest import Loaded


def run(loaded: Loaded, *, output: Path | None = None, overwrite: bool = False) -> Path:
    """Run a manifest to its merged checkpoint; see `coordcore_train.run.session.run`."""
    from coordcore_train.run.quiet import quiet

    quiet()
    from coordcore_train.run.session import run as run_loaded

    return run_loaded(loaded, output=output, overwrite=overwrite)
