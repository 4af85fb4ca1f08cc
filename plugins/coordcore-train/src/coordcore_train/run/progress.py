"""What a run shows and keeps while it trains: a progress bar or plain lines, and metrics.jsonl."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from coordcore.errors import printable
from coordcore.lifecycle import Hooks
from coordcore_train.run.folder import RunDir

EXAMPLES_PER_SECOND, BOXES_PER_SECOND = "examples_per_second", "boxes_per_second"
"""What a line of training says of its speed; trackers are told, metrics.jsonl is not."""

_SHOWN = ("loss", "eval_loss")


def speed_of(logs: Mapping[str, Any]) -> str:
    """`87 examples/s  170 boxes/s`; nothing of an evaluation, and no boxes of a run without."""
    said = []
    for key, noun in ((EXAMPLES_PER_SECOND, "examples/s"), (BOXES_PER_SECOND, "boxes/s")):
        if rate := logs.get(key):
            said.append(f"{rate:.0f} {noun}" if rate >= 10 else f"{rate:.2g} {noun}")
    return "  ".join(said)


def time_of(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


class ProgressCallback(TrainerCallback):
    """Rank 0 writes metrics, tells the plugins and draws; other ranks stay silent."""

    def __init__(self, folder: RunDir, hooks: Hooks, console: Console, *, evaluates: bool) -> None:
        self.folder = folder
        self.hooks = hooks
        self.console = console
        self.evaluates = evaluates
        self.bar: Progress | None = None
        self.started, self.first = time.monotonic(), 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started, self.first = time.monotonic(), state.global_step
        if state.is_world_process_zero and self.console.is_terminal:
            self.bar = Progress(
                TextColumn("[bold]train"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[speed]}"),
                TextColumn("{task.fields[loss]}"),
                console=self.console,
            )
            self.bar.start()
            self.bar.add_task("train", total=state.max_steps, completed=state.global_step, loss="", speed="")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=state.global_step)
        if state.global_step == state.max_steps:
            # The last step is worth a line and an evaluation, whatever log_every and eval_every say.
            control.should_log = True
            control.should_evaluate = self.evaluates

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar down; safe to call twice."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def say(self, text: str) -> None:
        """Print a line about an evaluation, above the bar if there is one."""
        self.console.print(f"eval     {printable(text)}", highlight=False, markup=False, soft_wrap=True)

    def write(self, state: Any, metrics: Mapping[str, float]) -> None:
        """Add a line to metrics.jsonl."""
        with self.folder.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, "epoch": state.epoch, **metrics}) + "\n")

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        # The trainer's last log holds run totals (train_runtime ...), which are no metrics of a step.
        if not state.is_world_process_zero or logs is None or not any(key in logs for key in _SHOWN):
            return
        metrics = {
            key: float(value)
            for key, value in logs.items()
            if isinstance(value, int | float) and not key.endswith(("_runtime", "_per_second")) and key != "epoch"
        }
        self.write(state, metrics)
        self.hooks.step_ended(state.global_step, metrics)
        text = "  ".join(f"{key} {metrics[key]:.4f}" for key in _SHOWN if key in metrics)
        speed = speed_of(logs)
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], loss=text)
            if speed:
                self.bar.update(self.bar.task_ids[0], speed=speed)
            return
        seconds = time.monotonic() - self.started
        said = [f"step {state.global_step}/{state.max_steps}", text, f"{seconds:.0f} s", *([speed] if speed else [])]
        done, left = state.global_step - self.first, state.max_steps - state.global_step
        if speed and done and left:
            said.append(f"{time_of(seconds / done * left)} left")
        self.console.print("  ".join(said), highlight=False, soft_wrap=True)
