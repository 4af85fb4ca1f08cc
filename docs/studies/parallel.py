"""Answers with every way to take several tokens a pass, and writes a table: passes a box, boxes/s, AP.

    python docs/studies/parallel.py --docs
    python docs/studies/parallel.py --many BASE --docs

The checkpoints are those of docs/studies/formats.py, CoordJSON and grouped, with several seeds; heads are trained for
each of them. Beside each there is one that was trained with `train.parallel_boxes` and is otherwise the same. All ways
answer the same held-out pictures, in turns, in one process on one core.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import ROOT, STUDENT_95, at_least_one, interval, train, write_measured
from formats import IMAGES, STEPS, STEPS_MANY, Asked, fill, manifest

PAGE = ROOT / "docs/explanation/parallel-boxes.md"
FORMATS = {"coordjson": "coordjson", "grouped": "grouped"}
FORMATS_MANY = {"coordjson": "coordjson", "grouped": "grouped-2x"}
"""A format -> the row of the other study whose checkpoints answer."""

PLAIN = "a token a pass"
UNDER_GRAMMAR = "a token a pass, under the grammar"
WITHOUT = "verified, without heads"
ALL = 999

MODES: Mapping[str, dict[str, Any]] = {
    PLAIN: {"constrained": False},
    UNDER_GRAMMAR: {},
    "guessed format": {},
    WITHOUT: {"tolerance": 0},
    "verified": {"tolerance": 0},
    "fast, 20 bins": {"tolerance": 20},
    "fast, 50 bins": {"tolerance": 50},
    "fast, unchecked": {"tolerance": ALL},
}
"""A row of the table -> what is said in the settings of `coordcore predict`."""

MODES_TOGETHER = tuple(mode for mode in MODES if mode not in (UNDER_GRAMMAR, "guessed format", WITHOUT))
"""Those of a model that has learned to say the corners of a box together."""

BATCHES = {"one": 1, "many": 25}


class Trained(NamedTuple):
    """A group of rows. together: whether its models have learned to say the corners of a box together."""

    format: str
    together: bool

    def __str__(self) -> str:
        return f"`{self.format}`, together" if self.together else f"`{self.format}`"


class Middle:
    """Proposes the middle of the image, for a row without heads."""

    layers = (-1,)
    digest = ""

    def __call__(self, hidden: Any) -> Any:
        return hidden.new_full((len(hidden), 3), 500).long()


def heads(run: Path) -> float:
    """Train heads for a run, unless it has some; returns the seconds of a core it took, as kept beside the run."""
    kept = run.parent / "heads.json"
    if not kept.exists():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "coordcore", "heads", str(run), "--overwrite"], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        kept.write_text(json.dumps(seconds), encoding="utf-8")
    return float(json.loads(kept.read_text(encoding="utf-8")))


@contextmanager
def calls(model: Any) -> Iterator[list[int]]:
    """Within this context a list of one number counts the passes of a model."""
    counted = [0]

    def count(*_: Any) -> None:
        counted[0] += 1

    hook = model.register_forward_pre_hook(count)
    try:
        yield counted
    finally:
        hook.remove()


@contextmanager
def guessing(does: bool) -> Iterator[None]:
    """Within this context tokens are guessed, or not, as with a model that cannot be asked so."""
    from coordcore_detection.predict import ahead, asking

    def refuse(*_: Any) -> None:
        raise ahead.NotAheadError("for comparison")

    asking.write_ahead = ahead.write_ahead if does else refuse
    try:
        yield
    finally:
        asking.write_ahead = ahead.write_ahead


class Measured:
    """A checkpoint that answers in every way."""

    def __init__(self, run: Path, images: int) -> None:
        from coordcore_detection.predict.proposing import proposer_of

        self.asked = Asked(run)
        self.checkpoint = run / "merged"
        self.truth = self.asked.truth[:images]
        self.proposer = proposer_of(self.checkpoint, self.asked.loaded)
        self.modes = MODES_TOGETHER if self.asked.loaded.together else tuple(MODES)

    def answer(self, mode: str, batch: int, images: int | None = None) -> tuple[float, list[Any], list[int]]:
        """Seconds of a core, rows, and by image the passes behind the first, where they are asked one at a time."""
        from coordcore_detection.predict import asking

        loaded = self.asked.loaded
        started = time.process_time()  # whatever else the machine does
        passes, rows, before = [], [], 0
        with calls(loaded.model) as counted, guessing(mode != UNDER_GRAMMAR):
            for row in asking.predict(
                loaded.model,
                loaded.processor,
                self.truth[:images],
                self.settings(mode, batch),
                vocab=loaded.vocab,
                quantisation=loaded.quantisation,
                max_pixels=loaded.max_pixels,
                form=loaded.format,
                proposer=Middle() if mode == WITHOUT else self.proposer,
            ):
                rows.append(row)
                passes.append(counted[0] - before - 1)
                before = counted[0]
        return time.process_time() - started, rows, passes

    def settings(self, mode: str, batch: int) -> Any:
        from coordcore_detection.predict.settings import PredictSettings

        return PredictSettings(max_new_tokens=512, batch_size=batch, **MODES[mode])

    def metrics(self, mode: str, rows: Sequence[Any]) -> Mapping[str, Any]:
        from coordcore_detection.evaluate.evaluation import evaluate
        from coordcore_detection.predict import asking

        header = asking.header(self.checkpoint, self.asked.loaded, self.settings(mode, 25))
        found: Mapping[str, Any] = evaluate(self.truth, header, rows).result.metrics
        return found


def measured(run: Path, rounds: int, images: int) -> dict[str, dict[str, float]]:
    """Mode -> its figures for the checkpoint of a run."""
    checkpoint = Measured(run, images)
    found: dict[str, dict[str, float]] = {}
    for mode in checkpoint.modes:
        checkpoint.answer(mode, 25, 25)  # what the first batch costs once
    speeds: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for mode in checkpoint.modes:
            for name, batch in BATCHES.items():
                seconds, rows, passes = checkpoint.answer(mode, batch)
                boxes = [len(row.boxes) for row in rows]
                speeds.setdefault((mode, name), []).append(sum(boxes) / seconds)
                if mode in found or batch > 1:
                    continue
                metrics = checkpoint.metrics(mode, rows)
                found[mode] = {
                    "passes": sum(passes) / sum(boxes),
                    "further": float(np.polyfit(boxes, passes, 1)[0]),
                    "AP": metrics["AP"] or 0.0,
                    "F1_95": metrics["F1_95"] or 0.0,
                }
                texts = [row.text for row in rows]
                if mode == PLAIN:
                    plain = texts
                found[mode]["same"] = sum(a == b for a, b in zip(texts, plain, strict=True))
    for (mode, name), values in speeds.items():
        found[mode][name] = statistics.median(values)
    return found


Figures = Mapping[str, Mapping[str, float]]


def table(found: Mapping[Trained, Sequence[Figures]]) -> str:
    """Markdown: means over the seeds; in brackets how many times a token a pass of the model of that format and seed
    that was trained as usual, or the difference to it.
    """
    heads = ["passes a box", "passes a further box", "boxes/s, one picture", "boxes/s, 25 pictures", "AP", "F1 at .95"]
    lines = [f"| format | | {' | '.join(heads)} | same answers |", f"|---|---|{'---|' * (len(heads) + 1)}"]
    for trained, seeds in found.items():
        usual = found[Trained(trained.format, together=False)]
        for mode in seeds[0]:
            is_base = mode == PLAIN and not trained.together
            cells = []
            for key, digits in (("passes", 1), ("further", 1), ("one", 0), ("many", 0)):
                values, base = [seed[mode][key] for seed in seeds], [seed[PLAIN][key] for seed in usual]
                times = [a / b if key in BATCHES else b / a for a, b in zip(values, base, strict=True)]
                cells.append(
                    f"{statistics.mean(values):.{digits}f}" + ("" if is_base else f" (x {statistics.mean(times):.2f})")
                )
            for key in ("AP", "F1_95"):
                values, base = [seed[mode][key] for seed in seeds], [seed[PLAIN][key] for seed in usual]
                cell = f"{statistics.mean(values):.3f}"
                if not is_base and len(seeds) > 1:
                    mean, half = interval([a - b for a, b in zip(values, base, strict=True)])
                    cell += f" ({mean:+.3f} ± {half:.3f})"
                cells.append(cell)
            same = " ".join(f"{seed[mode]['same']:.0f}" for seed in seeds)
            lines.append(f"| {trained} | {mode} | {' | '.join(cells)} | {same} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--many", type=Path, metavar="BASE", help="six to nine shapes on a picture, from this base")
    parser.add_argument("--formats", nargs="+", default=[*FORMATS], choices=[*FORMATS], help="default: both")
    parser.add_argument("--images", type=at_least_one, default=IMAGES, help="held-out pictures")
    parser.add_argument("--seeds", type=int, default=3, choices=sorted(STUDENT_95), help="runs of each format")
    parser.add_argument(
        "--steps", type=at_least_one, help=f"optimizer steps (default: {STEPS}, {STEPS_MANY} with --many)"
    )
    parser.add_argument(
        "--rounds", type=at_least_one, default=3, help="how often every checkpoint answers in every way"
    )
    parser.add_argument(
        "--share", type=float, default=0.5, help="of the boxes, in train.parallel_boxes; another needs another --folder"
    )
    parser.add_argument("--jobs", type=at_least_one, default=2, help="trainings at a time, one core each")
    parser.add_argument("--folder", type=Path, help="where runs and figures are kept (default: runs/parallel)")
    parser.add_argument("--docs", action="store_true", help="write the page's table")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    fill(options, "parallel")
    jobs = [
        (Trained(name, together), seed)
        for name in options.formats
        for together in (False, True)
        for seed in range(options.seeds)
    ]

    def run(job: tuple[Trained, int]) -> Path:
        (name, together), seed = job
        row = (FORMATS_MANY if options.many else FORMATS)[name]
        given = manifest(row, seed, options.steps, many=options.many)
        if together:
            given["train"]["parallel_boxes"] = options.share
        done = train(options.folder / f"{row}{'-together' * together}-{seed}", given)
        print(f"{name}, seed {seed}{', together' * together}: trained", flush=True)
        return done

    with ThreadPoolExecutor(options.jobs) as pool:
        runs = dict(zip(jobs, pool.map(run, jobs), strict=True))
    found: dict[Trained, list[Any]] = {trained: [] for trained, _ in jobs}
    seconds = []
    for (trained, seed), folder in runs.items():
        if not trained.together:
            seconds.append(heads(folder))
        figures = folder.parent / "figures.json"  # what is measured already is not measured again
        if not figures.exists():
            figures.write_text(
                json.dumps(measured(folder, options.rounds, options.images), indent=1) + "\n", encoding="utf-8"
            )
        found[trained].append(json.loads(figures.read_text(encoding="utf-8")))
        print(f"{trained.format}, seed {seed}{', together' * trained.together}: measured", flush=True)
    shown = table(found)
    print(shown)
    if options.docs:
        trained = f"heads trained in {statistics.mean(seconds):.0f} s of a core"
        conditions = f"{options.seeds} seeds; {options.images} held-out pictures each; {trained}."
        write_measured(PAGE, f"{conditions}\n\n{shown}\n", "many" if options.many else "measured")
    return 0


if __name__ == "__main__":
    sys.exit(main())
