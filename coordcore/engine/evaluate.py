"""Calls a run's evaluators on its merged checkpoint, and writes down what they found."""

from __future__ import annotations

import json

from rich.console import Console

from coordcore.components import Kind
from coordcore.engine.prepare import load_run, on_cpu
from coordcore.manifest import Loaded
from coordcore.protocols import Evaluation, EvaluationResult
from coordcore.rundir import RunDir, write_whole


def evaluate(loaded: Loaded, folder: RunDir, console: Console) -> None:
    """Run every `[eval]` section that has no result yet: `eval/<name>/metrics.json` is written last."""
    selected = loaded.manifest.of(Kind.EVAL)
    if not selected:
        return
    plan = load_run(folder.path)
    examples = plan.data.validation()
    if examples is None or len(examples) == 0:
        console.print("eval     skipped: the data builder holds no example out", highlight=False)
        return

    def log(text: str) -> None:
        console.print(f"eval     {text}", highlight=False, markup=False, soft_wrap=True)

    for one in selected:
        output = folder.path / "eval" / one.component.name
        done = output / "metrics.json"
        if done.exists():
            continue
        output.mkdir(parents=True, exist_ok=True)
        evaluator = plan.build(one)
        result: EvaluationResult = evaluator(
            Evaluation(
                checkpoint=folder.merged,
                output=output,
                run_dir=folder.path,
                examples=examples,
                quantisation=plan.quantisation,
                vocab=plan.vocab,
                device="cpu" if on_cpu(loaded.manifest) else "cuda",
                log=log,
            )
        )
        write_whole(done, json.dumps(dict(result.metrics), indent=2) + "\n")
        for name in result.shown:
            log(f"{name} {result.metrics[name]:.3f}")
        for file in result.files:
            log(str(file))
