"""Answers of a trained demo: a box by format and way of decoding, a folder by processes, and a server's client."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock
from weakref import finalize

import attrs
import tomli_w
from measure import Case, Reach, Sample, Setting, Variant

from coordcore_train.run.quiet import quiet_transformers

EXAMPLE = Path(__file__).parents[2] / "docs/examples/shapes-many.toml"
FORMATS = ("coordjson", "compact", "grouped")
BATCH = 25

PLAIN = "CoordJSON under the grammar, a token a pass"
AHEAD = "CoordJSON under the grammar, what is likely guessed ahead"
NAMES = {"coordjson": "CoordJSON", "grouped": "grouped"}
PARALLEL = {"verified": 0, "fast, 20 bins": 20, "fast, unchecked": 999}
"""How corners that heads propose are taken -> the bins that they may be off (`--parallel`)."""
TOGETHER = {"verified": 0, "unchecked": 999}
"""The same for a model that has learned to say them together (`[train] parallel_boxes`)."""
SERVER = Path(__file__).with_name("answer_server.py")


def trained(folder: Path, form: str, setting: Setting, *, together: bool = False) -> Path:
    """A run on one to three shapes a picture, in the format: as many steps as an answer needs to be of it.

    together: with half of the boxes hidden.
    """
    manifest: dict[str, Any] = {
        "extends": str(EXAMPLE),
        "format": {form: {}},
        "data": {"shapes": {"label": "colour", "validation_images": 4}},
        "eval": {"detection": {"images": 4}},
        "train": {"steps": setting.size(200, 2), "threads": 1, "parallel_boxes": 0.5 if together else 0.0},
    }
    path = folder / f"{form}.toml"
    path.write_text(tomli_w.dumps(manifest), encoding="utf-8")
    command(["run", str(path), "--output", str(folder / form)])
    return folder / form


def command(words: list[str]) -> None:
    """A command of ours in a process of its own, on one thread. Raises RuntimeError with what it said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "coordcore", *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"coordcore {' '.join(words)} failed:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")


@attrs.frozen(kw_only=True)
class Asked:
    """A trained run and pictures that are drawn already. scratch: the folder of the run, which goes with this."""

    scratch: tempfile.TemporaryDirectory[str]
    run: Path
    loaded: Any
    truth: list[Any]

    @classmethod
    def about(cls, form: str, setting: Setting, *, together: bool = False) -> Asked:
        from coordcore_demo.config import ShapesConfig
        from coordcore_demo.data import Pictures
        from coordcore_detection.evaluate.truth_sources import truth_from_examples
        from coordcore_detection.predict import asking

        quiet_transformers()
        scratch = tempfile.TemporaryDirectory(prefix="coordcore-answers-", ignore_cleanup_errors=True)
        run = trained(Path(scratch.name), form, setting, together=together)
        loaded = asking.load(run, setting.device)
        pictures = Pictures(
            config=ShapesConfig(max_objects=3, label="colour"),
            quantisation=loaded.quantisation,
            split="validation",
            count=setting.size(200, 4),
            form=loaded.format,
        )
        truth = truth_from_examples(pictures, loaded.quantisation, form=loaded.format)
        drawn = [
            attrs.evolve(item, open=partial(_given, item.open())) for item in (truth[at] for at in range(len(truth)))
        ]
        return cls(scratch=scratch, run=run, loaded=loaded, truth=drawn)

    def answer(self, *, free: bool = False, proposer: Any = None, tolerance: int | None = None) -> Sample:
        """The seconds of a box, on one thread. proposer, tolerance: heads, and by how much their corners may be off."""
        import torch

        from coordcore_detection.predict import asking

        loaded, threads = self.loaded, torch.get_num_threads()
        torch.set_num_threads(1)
        started = time.perf_counter()
        rows = asking.predict(
            loaded.model,
            loaded.processor,
            self.truth,
            asking.PredictSettings(constrained=not free, max_new_tokens=256, batch_size=BATCH, tolerance=tolerance),
            vocab=loaded.vocab,
            quantisation=loaded.quantisation,
            max_pixels=loaded.max_pixels,
            form=loaded.format,
            proposer=proposer,
        )
        boxes = sum(len(row.boxes) for row in rows)
        seconds = time.perf_counter() - started
        torch.set_num_threads(threads)
        return Sample(seconds=seconds / max(boxes, 1))

    def heads(self, setting: Setting) -> Any:
        """Heads of the merged checkpoint, trained now."""
        from coordcore_detection.predict.proposing import proposer_of

        command(["heads", str(self.run), "--examples", str(setting.size(6000, 100))])
        return proposer_of(self.run / "merged", self.loaded)

    def one_at_a_time(self) -> Sample:
        """As `answer` under the grammar, without guesses: a token a pass, as before decision 13."""
        from coordcore_detection.predict import asking
        from coordcore_detection.predict.ahead import NotAheadError

        with mock.patch.object(asking, "write_ahead", side_effect=NotAheadError):
            return self.answer()


def _given(image: Any) -> Any:
    return image


def decoding(setting: Setting) -> Mapping[str, Variant]:
    """Every format freely, as transformers decodes, under its grammar, with corners proposed by heads, and by models
    that have learned to say them together."""
    from coordcore_detection.predict.corners import Together

    asked = {form: Asked.about(form, setting) for form in FORMATS}
    together = {form: Asked.about(form, setting, together=True) for form in NAMES}
    heads = {form: asked[form].heads(setting) for form in NAMES}
    return {
        PLAIN: asked["coordjson"].one_at_a_time,
        AHEAD: asked["coordjson"].answer,
        "CoordJSON, freely": partial(asked["coordjson"].answer, free=True),
        **{f"{form} under the grammar": asked[form].answer for form in FORMATS[1:]},
        **{f"{form}, freely": partial(asked[form].answer, free=True) for form in FORMATS[1:]},
        **{
            f"{name}, {mode}": partial(asked[form].answer, proposer=heads[form], tolerance=tolerance)
            for form, name in NAMES.items()
            for mode, tolerance in PARALLEL.items()
        },
        **{
            f"{name}, learned together, {mode}": partial(
                together[form].answer, proposer=Together(), tolerance=tolerance
            )
            for form, name in NAMES.items()
            for mode, tolerance in TOGETHER.items()
        },
    }


# --- processes, servers ---


def folder_of_pictures(folder: Path, count: int) -> Path:
    from coordcore_demo.shapes import draw

    pictures = folder / "pictures"
    pictures.mkdir()
    for index in range(count):
        draw(0, index, max_objects=3)[0].save(pictures / f"{index:05}.png")
    return pictures


def processes(setting: Setting) -> Mapping[str, Variant]:
    """The command, imports and loading included, about a folder."""
    asked = Asked.about("coordjson", setting)
    folder = Path(asked.scratch.name)
    pictures = folder_of_pictures(folder, setting.size(3000, 4))

    def predict(count: int) -> Sample:
        output = folder / "answers.jsonl"
        output.unlink(missing_ok=True)
        started = time.perf_counter()
        command(["predict", str(asked.run), str(pictures), "--output", str(output), "--procs", str(count)])
        return Sample(seconds=time.perf_counter() - started)

    return {"one process": partial(predict, 1), "two processes": partial(predict, 2)}


CONCURRENCY = 8


def serving(setting: Setting) -> Mapping[str, Variant]:
    """As many pictures as a server answers that need not think, beside a client that does nothing but ask."""
    from coordcore_detection.predict import served
    from coordcore_detection.predict.served_checkpoint import Checkpoint
    from coordcore_detection.predict.server import Server
    from coordcore_detection.predict.settings import PredictSettings

    asked = Asked.about("coordjson", setting)
    process = subprocess.Popen([sys.executable, str(SERVER)], stdout=subprocess.PIPE, text=True)
    finalize(asked.scratch, process.kill)
    assert process.stdout is not None
    server = Server(url=process.stdout.readline().strip(), model="tiny")
    checkpoint = Checkpoint.read(asked.run)
    settings = PredictSettings(score="geometric_mean", constrained=False)

    def ours() -> None:
        assert process.poll() is None
        rows = list(served.predict(server, checkpoint, asked.truth, settings, concurrency=CONCURRENCY))
        assert all(row.boxes for row in rows)

    def bare() -> None:
        """The pictures encoded and sent by as many threads, the answers not read."""
        from concurrent.futures import ThreadPoolExecutor

        def ask(truth: Any) -> None:
            server.call("/chat/completions", served.request(truth, truth.open(), settings))

        with ThreadPoolExecutor(CONCURRENCY) as pool:
            list(pool.map(ask, asked.truth))

    return {"ours": ours, "sent and not read": bare}


CASES = [
    Case(
        name="answers",
        title=f"the time of a box: tiny model, one to three shapes a picture, {BATCH} pictures at a time, one thread",
        build=decoding,
        base=PLAIN,
        rounds=7,
        memory=False,
        devices=["cpu"],
        reaches=[Reach(what="time", variant=AHEAD, against=PLAIN, at_most=0.5, text="<= 0.5x the time")],
    ),
    Case(
        name="answers-processes",
        title="`coordcore predict` of a folder, its start included, one thread a process",
        build=processes,
        base="one process",
        rounds=3,
        memory=False,
        devices=["cpu"],
    ),
    Case(
        name="answers-server",
        title=f"asking a server that answers at once, {CONCURRENCY} requests at a time",
        build=serving,
        rounds=5,
        memory=False,
        devices=["cpu"],
    ),
]
