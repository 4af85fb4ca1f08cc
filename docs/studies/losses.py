"""Trains the demo with several losses and seeds, and writes docs/explanation/losses.md's table and plot.

    python docs/studies/losses.py --docs

Every run has the same base, pictures, steps, batches, optimizer and adapters; only the loss of the coord positions
differs. The seed of a run draws its pictures, their order and LoRA's start, and is shared by all losses, so that
differences are taken between runs that saw the same. A run that is finished is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import ROOT, STUDENT_95, Table, at_least_one, interval, train, write_measured

PAGE = ROOT / "docs/explanation/losses.md"
PLOT = ROOT / "docs/images/losses.png"
IMAGES = 200


def soft(**keys: float) -> Table:
    """A manifest's loss sections: text cross-entropy on words, `coord_soft_ce_w1` with these keys on coordinates."""
    return {"coord_soft_ce_w1": {"ce_weight": 0.0, "soft_ce_weight": 0.0, "w1_weight": 0.0, **keys}}


PLAIN = "plain CE"
LOSSES: Mapping[str, Table] = {
    PLAIN: {"text_ce": {"coord_positions": True}},
    "soft CE, σ = 2": soft(soft_ce_weight=1.0, sigma=2.0),
    "soft CE, σ = 10": soft(soft_ce_weight=1.0, sigma=10.0),
    "W1, σ = 10": soft(w1_weight=1.0, sigma=10.0),
    "CE + soft CE + W1, σ = 2": soft(ce_weight=1.0, soft_ce_weight=1.0, w1_weight=1.0, sigma=2.0),
    "soft CE + W1, σ = 10": soft(soft_ce_weight=1.0, w1_weight=1.0, sigma=10.0),
}
"""Name -> what replaces the loss sections of the demo's manifest. The gate on coord mass stays at its default, 1."""

READINGS = ("expectation", "argmax")
METRICS = {
    "agnostic_AP": "AP",
    "agnostic_AP50": "AP50",
    "agnostic_F1_95": "F1 at .95",
    "agnostic_mean_iou": "mean IoU",
    "AP": "AP by label",
}
"""Metric -> heading. Without labels but for the last: the losses differ in coordinates, not in words."""


def manifest(loss: Table, seed: int, steps: int) -> Table:
    """The demo's manifest with other losses."""
    sections = {"text_ce": {}, **loss}
    return {
        "extends": str(ROOT / "docs/examples/shapes.toml"),
        "drop": ["loss"],
        "loss": sections,
        "data": {"shapes": {"seed": seed, "validation_images": IMAGES}},
        "eval": {"detection": {"images": IMAGES}},
        "train": {"seed": seed, "steps": steps},
    }


def measure(run: Path, seed: int) -> dict[str, dict[str, float]]:
    """Reading of the coordinates -> metric -> value, from the boxes that the run's evaluation left."""
    import numpy as np

    from coordcore.quantisation import Quantisation
    from coordcore_demo.config import ShapesConfig
    from coordcore_demo.data import Pictures
    from coordcore_detection.evaluate.evaluation import evaluate
    from coordcore_detection.evaluate.truth_sources import truth_from_examples
    from coordcore_detection.predict.prediction_files import read

    header, rows = read(run / "eval/detection/predictions.jsonl")
    quantisation = Quantisation.from_dict(header.quantisation, source="predictions")
    pictures = Pictures(config=ShapesConfig(seed=seed), quantisation=quantisation, split="validation", count=len(rows))
    truth = truth_from_examples(pictures, quantisation)
    found = {}
    for reading in READINGS:
        if reading == "argmax":
            # The text of an answer is written greedily, so its bins are the most likely ones.
            for row in rows:
                for box in row.boxes:
                    corners = quantisation.decode(np.reshape(box.bins, (2, 2)), [row.width, row.height])
                    x1, y1, x2, y2 = corners.ravel().tolist()
                    box.box = (x1, y1, x2, y2)
        result = evaluate(truth, header, rows).result
        found[reading] = {name: float(result.metrics[name] or 0.0) for name in METRICS}
    return found


# --- the figures ------------------------------------------------------------------------------------------------------


def table(found: Mapping[str, Any], reading: str) -> str:
    """Markdown: the mean of every metric, and in brackets the difference to plain CE with its 95 % interval."""
    lines = [f"| loss | {' | '.join(METRICS.values())} |", f"|---|{'---|' * len(METRICS)}"]
    for name, runs in found.items():
        cells = []
        for metric in METRICS:
            values = [run[reading][metric] for run in runs]
            cell = f"{statistics.mean(values):.3f}"
            if name != PLAIN:
                mean, half = interval(
                    [value - run[reading][metric] for value, run in zip(values, found[PLAIN], strict=True)]
                )
                sure = abs(mean) > half
                cell += f" ({'**' if sure else ''}{mean:+.3f}{'**' if sure else ''} ± {half:.3f})"
            cells.append(cell)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(found: Mapping[int, Mapping[str, Any]], path: Path) -> None:
    """AP without labels of every loss: a point for each run, a bar for the interval of the mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 0.42 * len(LOSSES) + 1.2), layout="constrained")
    axes = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axis, (steps, losses) in zip(axes, found.items(), strict=True):
        for row, (_name, runs) in enumerate(losses.items()):
            for shift, reading, colour in ((-0.13, "expectation", "#0072b2"), (0.13, "argmax", "#d55e00")):
                values = [run[reading]["agnostic_AP"] for run in runs]
                mean, half = interval(values)
                axis.plot(values, [row + shift] * len(values), "o", color=colour, alpha=0.45, markersize=4)
                label = reading if row == 0 else None
                axis.errorbar(mean, row + shift, xerr=half, fmt="|", color=colour, capsize=3, label=label)
        axis.set_title(f"{steps} steps", fontsize=10)
        axis.set_xlabel("AP, labels aside")
        axis.grid(axis="x", alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(LOSSES)), list(LOSSES))
    axes[0].invert_yaxis()
    axes[-1].legend(title="coordinates read by", fontsize=8, title_fontsize=8, loc="best")
    figure.savefig(path, dpi=110)


def render(found: Mapping[int, Mapping[str, Any]], seeds: int) -> None:
    """Write the tables into the page, between its markers, and the plot beside it."""
    parts = []
    for steps, losses in found.items():
        for reading in READINGS:
            parts.append(f"### {steps} steps, coordinates read by {reading}\n\n{table(losses, reading)}\n")
    write_measured(PAGE, f"{seeds} seeds; {IMAGES} held-out pictures each.\n\n" + "\n".join(parts))
    plot(found, PLOT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, choices=sorted(STUDENT_95), help="runs of each loss")
    parser.add_argument("--steps", type=at_least_one, nargs="+", default=[100, 300], help="budgets in optimizer steps")
    parser.add_argument("--jobs", type=at_least_one, default=2, help="runs at a time, one core each")
    parser.add_argument("--folder", type=Path, default=Path("runs/losses"), help="where runs are kept")
    parser.add_argument("--docs", action="store_true", help="write the page's tables and plot")
    options = parser.parse_args()
    jobs = [(steps, name, seed) for steps in options.steps for seed in range(options.seeds) for name in LOSSES]

    def one(job: tuple[int, str, int]) -> dict[str, dict[str, float]]:
        steps, name, seed = job
        number = list(LOSSES).index(name)
        folder = options.folder / f"{steps}-{number}-{seed}"
        figures = measure(train(folder, manifest(LOSSES[name], seed, steps)), seed)
        print(f"{steps} steps, {name}, seed {seed}: AP {figures['expectation']['agnostic_AP']:.3f}", flush=True)
        return figures

    with ThreadPoolExecutor(options.jobs) as pool:
        figures = dict(zip(jobs, pool.map(one, jobs), strict=True))
    found = {
        steps: {name: [figures[steps, name, seed] for seed in range(options.seeds)] for name in LOSSES}
        for steps in options.steps
    }
    (options.folder / "figures.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    for steps, losses in found.items():
        for reading in READINGS:
            print(f"\n{steps} steps, coordinates read by {reading}\n{table(losses, reading)}")
    if options.docs:
        render(found, options.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
