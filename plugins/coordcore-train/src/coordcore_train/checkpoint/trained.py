"""A checkpoint that a run saved: whether its files can be read, before torch and PEFT meet them. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec

from coordcore.errors import InputError
from coordcore_train.checkpoint.folder import read_json
from coordcore_train.checkpoint.tensorfile import tensors_in

TRAINER_STATE = "trainer_state.json"
ADAPTER_CONFIG = "adapter_config.json"

_Count = Annotated[int, msgspec.Meta(ge=0)]


class _State(msgspec.Struct):
    """What the trainer goes on from; the rest of its state it only keeps."""

    global_step: _Count
    max_steps: _Count
    num_train_epochs: _Count
    epoch: float | None = None
    train_batch_size: int | None = None
    log_history: list[dict[str, Any]] = []
    stateful_callbacks: dict[str, Any] = {}


class _Adapter(msgspec.Struct):
    """What PEFT builds the adapter from."""

    peft_type: str
    target_modules: list[str] | str
    r: Annotated[int, msgspec.Meta(gt=0)]
    lora_alpha: float


def require_readable(checkpoint: Path, *, adapter: bool) -> None:
    """Raise InputError where what a run's checkpoint learned is missing or damaged.

    adapter: whether the run trains LoRA, and not the whole model. Whether the tensors fit the model is seen when they
    are loaded.
    """
    with _told(checkpoint):
        if adapter:
            _decoded(checkpoint / ADAPTER_CONFIG, _Adapter)
        for file in sorted(checkpoint.glob("*.safetensors")):
            tensors_in(file)


def is_last_step(checkpoint: Path) -> bool:
    """Whether training had come to its end here: the trainer would take one step more before it looks.

    Raises InputError for a damaged trainer state.
    """
    with _told(checkpoint):
        state = _decoded(checkpoint / TRAINER_STATE, _State)
    return bool(state.global_step >= state.max_steps)


def _decoded(path: Path, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(read_json(path), kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {str(error).replace('`', '')}") from error


@contextmanager
def _told(checkpoint: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        cure = f"{checkpoint} is damaged: copy it anew, or remove it to go on from the checkpoint before it"
        raise InputError(f"{error}\n{cure}") from error
