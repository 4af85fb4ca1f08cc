"""ms-swift's supervised fine-tuning pipeline over a run's examples, and one training of it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from swift.pipelines.train.sft import SwiftSft
from torch.utils.data import Dataset
from transformers import TrainerCallback

from coordcore.errors import InputError
from coordcore.plugins import Hooks
from coordcore.protocols import ExampleSource
from coordcore_train.run.evaluate import EvaluateCallback
from coordcore_train.run.folder import RunDir, checkpoint_step
from coordcore_train.run.plan import Plan
from coordcore_train.run.progress import ProgressCallback
from coordcore_train.surgery.saved import require_saved
from coordcore_train.swift.active import active_plan
from coordcore_train.swift.arguments import swift_arguments
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
    """Feeds the active run's data builder to ms-swift."""

    callbacks: Sequence[TrainerCallback]

    def _get_dataset(self) -> tuple[Any, Any]:
        data = active_plan().data
        train, validation = data.train(), data.validation()
        if len(train) == 0:
            raise InputError("the data builder gave no training example; look at the [data] section")
        batch = (
            self.args.per_device_eval_batch_size * self.args.global_world_size if self.args.global_world_size > 0 else 1
        )
        has_validation = validation is not None and len(validation) > 0
        return Rows(train), Rows(validation, batch) if has_validation and validation is not None else None

    def _show_dataset(self, train_dataset: Any, val_dataset: Any) -> None:
        """ms-swift prints a sample here; the first batch is encoded in training anyway."""

    def train(self, trainer: Any) -> Any:
        for callback in list(trainer.callback_handler.callbacks):
            if type(callback).__name__ in ("PrinterCallbackNew", "ProgressCallbackNew", "PrinterCallback"):
                trainer.remove_callback(callback)
        for callback in self.callbacks:
            trainer.add_callback(callback)
        return super().train(trainer)


def train(plan: Plan, hooks: Hooks, console: Console) -> None:
    """Train the active run to its last step, from its last complete checkpoint if it has one."""
    folder = RunDir(plan.run_dir)
    last = folder.last_checkpoint()
    if last is not None:
        require_saved(plan.modules_to_save, last)
        state = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))
        if state["global_step"] >= state["max_steps"]:  # the trainer would take one step more before it looks
            return
    validation = plan.data.validation()
    evaluates = validation is not None and len(validation) > 0
    arguments = swift_arguments(plan, has_validation=evaluates, resume=None if last is None else str(last))
    if arguments.rank in (-1, 0):
        folder.discard_after(0 if last is None else checkpoint_step(last))
    pipeline = CoordSft(arguments)
    progress = ProgressCallback(folder, hooks, console, evaluates=evaluates)
    pipeline.callbacks = [progress]
    if plan.manifest.train.evaluate_checkpoints:
        pipeline.callbacks = [progress, EvaluateCallback(folder, progress.say, progress.write)]
    try:
        pipeline.run()
    except InputError as error:
        # A data-loader process sends its traceback as the message; what the user should read ends it.
        text = str(error)
        if not text.startswith("Caught InputError in DataLoader worker"):
            raise
        raise InputError(text.rpartition("InputError: ")[2].strip()) from error
    finally:
        progress.close()
