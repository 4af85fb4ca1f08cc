"""Calls a run's evaluators, on its merged checkpoint and on those saved in training, and keeps what they found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from transformers import TrainerCallback

from coordcore import kinds
from coordcore.components import Selected
from coordcore.errors import InputError, RunError, printable
from coordcore.files import write_whole
from coordcore.manifest import Loaded
from coordcore.manifest.types import show
from coordcore.protocols import Evaluation, EvaluationResult
from coordcore_train.run import launch
from coordcore_train.run.built import asked, named
from coordcore_train.run.folder import RunDir
from coordcore_train.run.plan import Plan, load_run

DONE = "metrics.json"
Log = Callable[[str], None]


def evaluate(loaded: Loaded, folder: RunDir, console: Console) -> None:
    """Run every `[eval]` section that has no result yet: `eval/<name>/metrics.json` is written last."""
    if not loaded.manifest.of(kinds.EVAL):
        return

    def log(text: str) -> None:
        console.print(f"eval     {printable(text)}", highlight=False, markup=False, soft_wrap=True)

    for _name, result in _evaluated(load_run(folder.path), folder.merged, "", log):
        for name in result.shown:
            log(f"{name} {result.metrics[name]:.3f}")
        for file in result.files:
            log(str(file))


def _evaluated(plan: Plan, checkpoint: Path, step: str, log: Log) -> Iterator[tuple[str, EvaluationResult]]:
    """The results of a merged checkpoint by evaluator, but for those that lie in `eval/<name>/<step>` already."""
    missing = _missing(plan, step)
    examples = plan.validation
    if examples is None:
        log("skipped: the data builder holds no example out")
        return
    for evaluator, output in missing:
        output.mkdir(parents=True, exist_ok=True)
        evaluation = Evaluation(
            checkpoint=checkpoint,
            output=output,
            run_dir=plan.run_dir,
            examples=examples,
            quantisation=plan.quantisation,
            vocab=plan.vocab,
            device="cpu" if launch.on_cpu(plan.manifest) else "cuda",
            log=log,
        )
        found = asked(named(evaluator), partial(plan.build(evaluator), evaluation), "the evaluation")
        result = _result(named(evaluator), found)
        write_whole(output / DONE, json.dumps(dict(result.metrics), indent=2) + "\n")
        yield evaluator.component.name, result


def _result(who: str, found: Any) -> EvaluationResult:
    """What an evaluator found, its metrics as plain numbers. Raises RunError, with `who`, for another thing."""
    if not isinstance(found, EvaluationResult) or not isinstance(found.metrics, Mapping):
        raise RunError(f"{who}: it gave {show(found)}; return a coordcore.protocols.EvaluationResult")
    metrics = {}
    for name, value in found.metrics.items():
        try:
            metrics[str(name)] = value if isinstance(value, int) else float(value)
        except (TypeError, ValueError) as error:
            raise RunError(f"{who}: metric {name!r} must be a number, got {show(value)}; leave it out") from error
    unknown = [found.shown] if isinstance(found.shown, str) else [name for name in found.shown if name not in metrics]
    if unknown:
        raise RunError(f"{who}: shown must be a list of names of its metrics ({', '.join(metrics)}), got {unknown}")
    if isinstance(found.files, str):
        raise RunError(f"{who}: files must be a list of paths, got {found.files!r}")
    return attrs.evolve(found, metrics=metrics)


def _missing(plan: Plan, step: str) -> list[tuple[Selected, Path]]:
    """The evaluators that have no result of this step, with the folder for it."""
    selected = plan.manifest.of(kinds.EVAL)
    folders = [plan.run_dir / "eval" / evaluator.component.name / step for evaluator in selected]
    return [pair for pair in zip(selected, folders, strict=True) if not (pair[1] / DONE).exists()]


def _as_logged(name: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"eval/{name}/{metric}": value for metric, value in metrics.items()}


class EvaluateCallback(TrainerCallback):
    """Evaluates each checkpoint when it is saved, but for the last one, which is evaluated merged.

    Rank 0 merges it into a folder of its own for as long as that takes; the other ranks wait. An evaluator that fails
    is told of, and training goes on; a run that is continued from there tries again.
    """

    def __init__(self, folder: RunDir, log: Log, write: Callable[[Any, dict[str, float]], None]) -> None:
        self.folder = folder
        self.log = log
        self.write = write

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # The run may have been cut off while the checkpoint that it continues from was evaluated.
        if state.global_step > 0:
            if state.is_world_process_zero:
                self._write_untold(state)
            self.on_save(args, state, control)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            return
        if state.is_world_process_zero:
            plan = load_run(self.folder.path)
            if _missing(plan, f"step-{state.global_step}"):
                self._evaluate(plan, state)
        launch.barrier()

    def _write_untold(self, state: Any) -> None:
        """Log the evaluations of this step that were done, but not yet logged when the run was cut off."""
        lines = self.folder.metrics.read_text(encoding="utf-8").splitlines() if self.folder.metrics.exists() else []
        told = {key for line in map(json.loads, lines) if line["step"] == state.global_step for key in line}
        for file in sorted(self.folder.path.glob(f"eval/*/step-{state.global_step}/{DONE}")):
            name = file.parent.parent.name
            metrics = _as_logged(name, json.loads(file.read_text(encoding="utf-8")))
            if metrics and not told.intersection(metrics):
                self.write(state, metrics)

    def _evaluate(self, plan: Plan, state: Any) -> None:
        import torch

        from coordcore_train.checkpoint.merge.run import merge_run

        step = f"step-{state.global_step}"
        checkpoint = self.folder.checkpoints / f"checkpoint-{state.global_step}"
        merged = self.folder.path / "eval" / f".{step}"
        shutil.rmtree(merged, ignore_errors=True)
        # An evaluator may draw random numbers; training must go on as if it had not been there.
        with torch.random.fork_rng():
            try:
                merge_run(self.folder.path, merged, checkpoint=checkpoint)
                for name, result in _evaluated(plan, merged, step, self.log):
                    self.write(state, _as_logged(name, result.metrics))
                    shown = "  ".join(f"{metric} {result.metrics[metric]:.3f}" for metric in result.shown)
                    self.log(f"{step}  {shown}")
            except (InputError, RunError) as error:
                # Days of training are worth more than one evaluation; the one at the end says it again, and stops.
                self.log(f"{step}  not evaluated: {error}")
            finally:
                shutil.rmtree(merged, ignore_errors=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
