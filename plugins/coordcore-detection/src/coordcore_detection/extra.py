"""What comes with `coordcore-detection[model]`: coordcore-train, which loads checkpoints and runs. Torch-free."""

from __future__ import annotations

from importlib.util import find_spec

from coordcore import InputError

INSTALL = "pip install 'coordcore-detection[model]'"


def has_train() -> bool:
    """Whether coordcore-train is installed."""
    return find_spec("coordcore_train") is not None


def require_train(what: str) -> None:
    """Raise InputError, with what to install, unless coordcore-train is: `what` cannot do without."""
    if not has_train():
        raise InputError(f"{what} needs coordcore-train, which is not installed: {INSTALL}")
