"""Trains the demo with every answer format and several seeds, and writes a table: tokens, times, boxes/s, AP.

    python docs/studies/formats.py --docs
    python docs/studies/formats.py --labels one --docs
    python docs/studies/formats.py --many BASE --docs
    python docs/studies/formats.py --many BASE --labels in_turn --docs

The second takes the base beside this file. Every run of a table has the same base, pictures, loss and adapters; only
the way the answer is written differs, and in rows that say so how many steps it had. A row of plain numbers has
neither loss nor adapters of coord tokens. The seed of a run draws its pictures, their order and LoRA's start, and is
shared by all formats, so that differences are taken within a seed. Tokens are counted with Qwen3's own tokenizer too,
which npm fetches once."""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from common import ROOT, STUDENT_95, Table, at_least_one, interval, train, write_measured

PAGE = ROOT / "docs/explanation/formats.md"
IMAGES = 200
ONE_LABEL = Path(__file__).with_name("tiny_qwen3vl_one_label")
"""The base of `--labels one`; the page has the commands that made it."""

STEPS = 1000
STEPS_MANY = 400
"""Where there are many shapes on a picture, from which a step learns more."""

TIMED = 60
"""Steps whose time is taken."""

LIST = "coordjson"


class Row(NamedTuple):
    """Of the table. section, settings: `[format.<section>]` and its keys. times: how many times the steps.

    answer: what one looks like. coord_tokens: False for plain numbers, which no loss but cross-entropy reads.
    """

    section: str
    answer: str
    times: int = 1
    settings: Table = {}  # noqa: RUF012 - read, never written
    coord_tokens: bool = True


FORMATS: Mapping[str, Row] = {
    LIST: Row(LIST, '`{"objects": [{"desc": "red", "bbox_2d": [c, c, c, c]}, ...]}`'),
    "qwen": Row("qwen", '`[{"bbox_2d": [c, c, c, c], "label": "red"}, ...]`'),
    "qwen_numbers": Row("qwen_numbers", '`[{"bbox_2d": [12, 40, 500, 999], "label": "red"}, ...]`', coord_tokens=False),
    "compact": Row("compact", "`red` and four coord tokens, an object a line"),
    "grouped": Row("grouped", "`red` and the coord tokens of all that is red, a label a line"),
    "grouped-tags": Row("grouped", "the same between Qwen's own tags, as Rex-Omni writes it", settings={"tags": True}),
    "grouped-2x": Row("grouped", "`grouped`, trained for twice the steps", 2),
    "grouped-3x": Row("grouped", "`grouped`, trained for three times the steps", 3),
}
"""What the rows of a table are called."""

USUAL = ("qwen", "qwen_numbers", "compact", "grouped", "grouped-tags")
"""Beside `LIST`, where nobody names others."""

NUMBERS: Table = {
    "drop": ["loss.coord_soft_ce_w1", "surgery.coord_offset", "vocab"],
    "coords": {"quantisation": "qwen_1000"},
    "template": {"coord_template": {"coord_tokens": False}},
}
"""What a run without coord tokens does without, and how Qwen3-VL counts."""

MANY = {"min_objects": 6, "max_objects": 9}
"""Shapes on a picture for a base that has seen so many."""

LABELS: Mapping[str, tuple[str, Table]] = {
    "colours": ("many", {}),
    "in_turn": ("many-by-label", {"object_order": "label"}),
    "one": ("many-one-label", {"label": "object"}),
}
"""What every format calls the objects and in which order, as the base of `--many` has learned it: a part of the page,
and keys of `[data.shapes]`.
"""

TOKENS = ("tokens a box, demo's", "tokens a box, Qwen3's")
"""Counted with the demo's tokenizer, by which it decodes, and with the real one."""

METRICS = {"AP": "AP", "AP50": "AP50", "F1_95": "F1 at .95"}


def manifest(
    name: str,
    seed: int,
    steps: int = STEPS,
    *,
    images: int = IMAGES,
    many: Path | None = None,
    labels: str = "colours",
) -> Table:
    """The manifest of several shapes to a picture with the format of a row.

    many: a base, for pictures with many. labels: a row of `LABELS`.
    """
    row = FORMATS[name]
    given: Table = {
        "extends": str(ROOT / "docs/examples/shapes-many.toml"),
        "format": {row.section: row.settings},
        "data": {
            "shapes": {
                "seed": seed,
                "validation_images": images,
                "label": "colour",
                "coord_tokens": row.coord_tokens,
                **LABELS[labels][1],
            }
        },
        "eval": {"detection": {"images": images}},
        "train": {"seed": seed, "steps": row.times * steps, "learning_rate": 3e-3},
    }
    if not row.coord_tokens:
        given |= NUMBERS
    if many is not None:
        given["model"] = {"base": str(many.resolve())}
        given["data"]["shapes"] |= MANY
    return given


def training_seconds(folder: Path, name: str, seed: int, **settings: Any) -> float:
    """Of a hundred steps, twice as many where a row has twice the steps, in a run that does little else.

    settings: as `manifest` takes them.
    """
    train(folder, manifest(name, seed, TIMED, images=4, **settings))
    log = (folder / "run.log").read_text(encoding="utf-8")
    return 100 / TIMED * float(re.findall(r"^step (\d+)/\1 .*?  (\d+) s\b", log, re.MULTILINE)[-1][1])


class Asked:
    """A merged checkpoint that answers, with the pictures that its run held out."""

    def __init__(self, run: Path) -> None:
        import tomli

        from coordcore_demo.config import ShapesConfig
        from coordcore_demo.data import Pictures
        from coordcore_detection.evaluate.truth_sources import truth_from_examples
        from coordcore_detection.predict import asking

        settings = tomli.loads((run / "manifest.resolved.toml").read_text(encoding="utf-8"))["data"]["shapes"]
        self.loaded = asking.load(run, "cpu")
        pictures = Pictures(
            config=ShapesConfig(**settings),
            quantisation=self.loaded.quantisation,
            split="validation",
            count=IMAGES,
            form=self.loaded.format,
        )
        self.truth = list(truth_from_examples(pictures, self.loaded.quantisation, form=self.loaded.format))  # painted

    def answer(self, images: int, *, free: bool = False) -> tuple[float, int, list[str]]:
        """Seconds of a core, boxes and texts of the answers to the first so many pictures.

        free: without the grammar, a token a pass.
        """
        from coordcore_detection.predict import asking

        loaded = self.loaded
        started = time.process_time()  # whatever else the machine does
        rows = list(
            asking.predict(
                loaded.model,
                loaded.processor,
                self.truth[:images],
                asking.PredictSettings(constrained=not free, max_new_tokens=512),
                vocab=loaded.vocab,
                quantisation=loaded.quantisation,
                max_pixels=loaded.max_pixels,
                form=loaded.format,
            )
        )
        seconds = time.process_time() - started
        return seconds, sum(len(row.boxes) for row in rows), [row.text for row in rows]


def qwen3() -> Any:
    """Qwen3's own tokenizer with the coord tokens. Raises NotFetchedError where npm gets none."""
    from transformers import AutoTokenizer

    from coordcore.coords import ints_to_tokens

    sys.path.insert(0, str(ROOT / "tests/real"))
    from published import tokenizer_folder

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder())
    tokenizer.add_tokens(list(ints_to_tokens(range(1000))))
    return tokenizer


def tokens(tokenizer: Any, texts: Sequence[str]) -> int:
    """How many all of them have."""
    return sum(map(len, tokenizer(list(texts))["input_ids"]))


def speeds(runs: Mapping[str, Sequence[Path]], rounds: int, real: Any) -> dict[str, list[dict[str, float]]]:
    """Format -> for each seed boxes a second (the median round), also of free decoding, and tokens a box.

    real: Qwen3's tokenizer.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for seed in range(len(runs[LIST])):
        asked = {name: Asked(folders[seed]) for name, folders in runs.items()}
        for checkpoint in asked.values():
            checkpoint.answer(25)  # what the first batch costs once
        turns = [
            {(name, free): asked[name].answer(IMAGES, free=free) for name in asked for free in (False, True)}
            for _ in range(rounds)
        ]
        for name in runs:
            _, boxes, texts = turns[0][name, False]
            counted = (tokens(each, texts) / boxes for each in (asked[name].loaded.processor.tokenizer, real))
            rates = (statistics.median(turn[name, free][1] / turn[name, free][0] for turn in turns) for free in (0, 1))
            found[name].append(
                dict(zip(("boxes/s", "free"), rates, strict=True)) | dict(zip(TOKENS, counted, strict=True))
            )
    return found


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Markdown: means over the seeds; in brackets how many times CoordJSON's, or the difference and its interval."""
    heads = [*TOKENS, "training, s", "boxes/s", "boxes/s, a token a pass", *METRICS.values()]
    lines = [f"| format | an answer | {' | '.join(heads)} |", f"|---|---|{'---|' * len(heads)}"]
    for name, runs in found.items():
        cells = []
        for key, digits in (*((key, 1) for key in TOKENS), ("training", 0), ("boxes/s", 0), ("free", 0)):
            values, base = ([run[key] for run in side] for side in (runs, found[LIST]))
            cell = f"{statistics.mean(values):.{digits}f}"
            if name != LIST:
                times = [a / b if b else math.nan for a, b in zip(values, base, strict=True)]  # 0 boxes after few steps
                cell += f" (x {statistics.mean(times):.2f})"
            cells.append(cell)
        for metric in METRICS:
            values = [run[metric] for run in runs]
            cell = f"{statistics.mean(values):.3f}"
            if name != LIST:
                mean, half = interval([value - run[metric] for value, run in zip(values, found[LIST], strict=True)])
                cell += f" ({mean:+.3f} ± {half:.3f})"
            cells.append(cell)
        lines.append(f"| `{name}` | {FORMATS[name].answer} | {' | '.join(cells)} |")
    return "\n".join(lines)


def fill(options: argparse.Namespace, study: str, many: str = "many") -> None:
    """Set steps and folder where the command line gives none. many: what runs with many objects are called."""
    options.steps = options.steps or (STEPS_MANY if options.many else STEPS)
    options.folder = options.folder or Path("runs", f"{study}-{many}" if options.many else study)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--many", type=Path, metavar="BASE", help="six to nine shapes on a picture, from this base")
    parser.add_argument(
        "--labels", default="colours", choices=[*LABELS], help="of the objects, and their order, as BASE has learned"
    )
    parser.add_argument("--seeds", type=int, default=3, choices=sorted(STUDENT_95), help="runs of each format")
    parser.add_argument("--formats", nargs="+", choices=[*FORMATS], help="beside coordjson")
    parser.add_argument(
        "--steps", type=at_least_one, help=f"optimizer steps (default: {STEPS}, {STEPS_MANY} with --many)"
    )
    parser.add_argument("--jobs", type=at_least_one, default=2, help="runs at a time, one core each")
    parser.add_argument("--rounds", type=at_least_one, default=3, help="how often every checkpoint answers")
    parser.add_argument("--folder", type=Path, help="where runs are kept (default: runs/formats)")
    parser.add_argument("--docs", action="store_true", help="write the page's table")
    options = parser.parse_args()
    if options.labels == "one" and not options.many:
        options.many = ONE_LABEL
    if options.labels != "colours" and not options.many:
        parser.error("--labels is what the base of --many has learned; give both")
    import torch

    torch.set_num_threads(1)
    part, _ = LABELS[options.labels]
    fill(options, "formats", part)
    settings = {"many": options.many, "labels": options.labels}
    usual = ("grouped-3x" if options.labels == "one" else "grouped-2x",) if options.many else USUAL
    chosen = [name for name in FORMATS if name == LIST or name in (options.formats or usual)]
    real = qwen3()  # before hours of training
    jobs = [(seed, name) for seed in range(options.seeds) for name in chosen]

    def run(job: tuple[int, str]) -> dict[str, float]:
        seed, name = job
        done = train(options.folder / f"{name}-{seed}", manifest(name, seed, options.steps, **settings))
        metrics: dict[str, Any] = json.loads((done / "eval/detection/metrics.json").read_text())
        print(f"{name}, seed {seed}: AP {metrics['AP']:.3f}", flush=True)
        return {key: metrics[key] or 0.0 for key in METRICS}

    with ThreadPoolExecutor(options.jobs) as pool:
        figures = dict(zip(jobs, pool.map(run, jobs), strict=True))
    seeds = range(options.seeds)
    for seed, name in jobs:
        figures[seed, name]["training"] = training_seconds(
            options.folder / f"timed/{name}-{seed}", name, seed, **settings
        )
    folders = {name: [options.folder / f"{name}-{seed}/run" for seed in seeds] for name in chosen}
    rates = speeds(folders, options.rounds, real)
    found = {name: [{**figures[seed, name], **rates[name][seed]} for seed in seeds] for name in chosen}
    (options.folder / "figures.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    if options.docs:
        shown = f"{options.seeds} seeds; {IMAGES} held-out pictures each.\n\n{table(found)}\n"
        write_measured(PAGE, shown, part if options.many else "measured")
    return 0


if __name__ == "__main__":
    sys.exit(main())
