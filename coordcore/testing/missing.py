"""What to install where a check needs more than the core. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_OF_TRAIN = ("coordcore_train", "torch", "transformers", "peft", "swift", "safetensors", "PIL")


@contextmanager
def needs_train() -> Iterator[None]:
    """Within it, or in a function it decorates, a missing part of `coordcore[train]` says how to get it.

    Raises ModuleNotFoundError with the cure; one about any other module stays as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _OF_TRAIN:
            raise
        message = (
            f'{package} is not installed, and this part of the kit needs it: pip install "coordcore[train,testing]"'
        )
        raise ModuleNotFoundError(message, name=error.name) from error
