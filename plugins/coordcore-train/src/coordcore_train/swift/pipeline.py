"""ms-swift's supervised fine-tuning pipeline over a run's examples, and one training of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from swift.pipelines.train.sft import SwiftSft
from torch.utils.data import Dataset
from transformers import TrainerCallback

from coordcore.errors import InputError
from coordcore.protocols import ExampleSource
from coordcore_train.run.folder import RunDir
from coordcore_train.run.plan import Plan
from coordcore_train.swift.arguments import swift_arguments
from coordcore_train.swift.encode import image_tokens
from coordcore_train.swift.register import enter
from coordcore_train.swift.template import to_row


class Rows(Dataset[dict[str, Any]]):
    """A run's examples as ms-swift rows, made per access.

    `multiple`: the length is filled up to a multiple of it with rows that are not charged, so that every rank
    evaluates the same number of batches and no example counts twice.
    """

    def __init__(self, source: ExampleSource, multiple: int = 1) -> None:
        self.source = source
        self.real = len(source)
        self.length = math.ceil(self.real / multiple) * multiple

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return to_row(self.source[index % self.real], padding=index >= self.real)


class CoordSft(SwiftSft):  # type: ignore[misc]
    """Feeds a run's data builder to ms-swift. callbacks: told of the training, beside ms-swift's own silent ones."""

    def __init__(self, arguments: Any, plan: Plan, callbacks: Sequence[TrainerCallback] = ()) -> None:
        self.plan = plan
        self.callbacks = callbacks
        super().__init__(arguments)

    def _get_dataset(self) -> tuple[Any, Any]:
        train, validation = self.plan.data.train(), self.plan.validation
        if len(train) == 0:
            raise InputError("the data builder gave no training example; look at the [data] section")
        batch = (
            self.args.per_device_eval_batch_size * self.args.global_world_size if self.args.global_world_size > 0 else 1
        )
        return Rows(train), None if validation is None else Rows(validation, batch)

    def _show_dataset(self, train_dataset: Any, val_dataset: Any) -> None:
        """ms-swift prints a sample here; the first batch is encoded in training anyway."""

    def train(self, trainer: Any) -> Any:
        for callback in list(trainer.callback_handler.callbacks):
            if type(callback).__name__ in ("PrinterCallbackNew", "ProgressCallbackNew", "PrinterCallback"):
                trainer.remove_callback(callback)
        for callback in self.callbacks:
            trainer.add_callback(callback)
        limits = image_tokens(self.processor)
        if trainer.is_world_process_zero():
            RunDir(self.plan.run_dir).write_state(image_tokens=None if limits is None else attrs.asdict(limits))
        return super().train(trainer)


def train(plan: Plan, *, resume: Path | None, callbacks: Sequence[TrainerCallback]) -> None:
    """Train a run to its last step. See `coordcore_train.engine.TrainingEngine.train`."""
    enter(plan)
    arguments = swift_arguments(plan, has_validation=plan.validation is not None, resume=resume)
    try:
        CoordSft(arguments, plan, callbacks).run()
    except InputError as error:
        # A data-loader process sends its traceback as the message; what the user should read ends it.
        text = str(error)
        if not text.startswith("Caught InputError in DataLoader worker"):
            raise
        raise InputError(text.rpartition("InputError: ")[2].strip()) from error
