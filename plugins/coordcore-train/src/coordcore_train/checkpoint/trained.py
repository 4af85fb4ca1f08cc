"""A checkpoint that a run saved: whether its files can be read, before torch and PEFT meet them. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from coordcore.errors import InputError
from coordcore.files import require_regular
from coordcore_train.checkpoint.folder import read_json
from coordcore_train.checkpoint.origin import read_origin
from coordcore_train.checkpoint.tensorfile import tensors_in

TRAINER_STATE = "trainer_state.json"
ADAPTER_CONFIG = "adapter_config.json"

_Count = Annotated[int, msgspec.Meta(ge=0)]


class TrainerState(msgspec.Struct):
    """What the trainer goes on from; the rest of its state it only keeps."""

    global_step: _Count
    max_steps: _Count
    num_train_epochs: _Count
    epoch: float | None = None
    train_batch_size: int | None = None
    log_history: list[dict[str, Any]] = []
    stateful_callbacks: dict[str, Any] = {}

    @property
    def is_last(self) -> bool:
        """Whether training had come to its end here: the trainer would take one step more before it looks."""
        return self.global_step >= self.max_steps


class _Adapter(msgspec.Struct):
    """What PEFT builds the adapter from."""

    peft_type: str
    target_modules: list[str] | str
    r: Annotated[int, msgspec.Meta(gt=0)]
    lora_alpha: float


def require_readable(checkpoint: Path, *, adapter: bool) -> None:
    """Raise InputError naming the file where what a run's checkpoint learned, or what it says of itself, is missing or
    damaged, and for a pipe or a device under any name: PEFT and ms-swift have files of their own there.

    adapter: whether the run trains LoRA, and not the whole model. Whether the tensors fit the model is seen when they
    are loaded.
    """
    for path in sorted(checkpoint.iterdir()):
        try:
            require_regular(path)
        except FileNotFoundError:  # a link to nothing: nothing reads it
            continue
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    read_origin(checkpoint)
    if adapter:
        _decoded(checkpoint / ADAPTER_CONFIG, _Adapter)
    for file in sorted(checkpoint.glob("*.safetensors")):
        tensors_in(file)


def trainer_state(checkpoint: Path) -> TrainerState:
    """How far a checkpoint had come. Raises InputError for a damaged trainer state."""
    state: TrainerState = _decoded(checkpoint / TRAINER_STATE, TrainerState)
    return state


def _decoded(path: Path, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(read_json(path), kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {str(error).replace('`', '')}") from error
