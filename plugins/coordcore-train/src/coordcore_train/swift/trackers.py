"""Trackers that a run reports to: which there are, what they need, and that they stay on this machine. Torch-free."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from coordcore.errors import did_you_mean
from coordcore_train.swift.known import of_transformers

_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "azure_ml": ("azureml",),
    "flyte": ("flytekit",),
    "tensorboard": ("tensorboard", "tensorboardX"),
}
"""Name of a tracker -> the packages of which it needs one, where that is not its name."""


def problem(names: Sequence[str]) -> str | None:
    """What is wrong with `train.report_to`: trackers that transformers does not know, or that are not installed."""
    known = tracker_names()
    for name in names:
        if known and name not in known:
            return f"transformers knows no tracker {name!r}; {did_you_mean(name, known)}"
        packages = _PACKAGES.get(name, (name,))
        if all(find_spec(package) is None for package in packages):
            return f"the tracker {name!r} needs the package {packages[0]}, which is not installed: pip install it"
    return None


def tracker_names() -> list[str]:
    """What transformers takes for `report_to`, from its source. Empty where unknown."""
    for node in of_transformers("integrations/integration_utils.py"):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Dict):
            continue
        if any(isinstance(target, ast.Name) and target.id == "INTEGRATION_TO_CALLBACK" for target in node.targets):
            return [str(key.value) for key in node.value.keys if isinstance(key, ast.Constant)]
    return []


def keep_here(names: Sequence[str], logs: Path) -> None:
    """Let the trackers write below the folder `logs` and send nothing, unless their own variables say otherwise."""
    settings = {
        "tensorboard": {"TENSORBOARD_LOGGING_DIR": str(logs)},
        "wandb": {"WANDB_MODE": "offline", "WANDB_DIR": str(logs)},
        "swanlab": {"SWANLAB_MODE": "local", "SWANLAB_LOG_DIR": str(logs / "swanlab")},
        # mlflow 3 writes to files only if it is told that this is meant; its other stores are servers' and databases.
        "mlflow": {"MLFLOW_TRACKING_URI": (logs / "mlruns").absolute().as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"},
    }
    for name in names:
        for variable, value in settings.get(name, {}).items():
            os.environ.setdefault(variable, value)
    if names:
        logs.mkdir(parents=True, exist_ok=True)
