"""Trains one tiny model through ms-swift, one step whenever it is told to: `step_worker.py NAME FOLDER`.

NAME is "stock", for `swift sft` with the arguments in stock.json, or a manifest's, for `coordcore run` with it.
It reads a line, trains one step, and answers with `STEP {"seconds": .., "megabytes": ..}`; at the end of its input it
ends too. Data loading, encoding and logging (of the step before) happen within the step, as they do in a run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from coordcore_train.run.quiet import quiet

quiet()

import torch  # noqa: E402
from measure import MEGABYTE, THREADS, PeakRSS  # noqa: E402
from swift.pipelines.train.sft import SwiftSft  # noqa: E402
from transformers import TrainerCallback  # noqa: E402


class Paced(TrainerCallback):
    """Waits between two steps, and measures the time from one wait to the next."""

    def __init__(self) -> None:
        self.peak = PeakRSS()
        self.before = 0
        self.started = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._wait()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self.started
        if torch.cuda.is_initialized():
            megabytes = (torch.cuda.max_memory_allocated() - self.before) / MEGABYTE
        else:
            self.peak.__exit__()
            megabytes = self.peak.megabytes
        print("STEP", json.dumps({"seconds": seconds, "megabytes": megabytes}), flush=True)
        self._wait()

    def _wait(self) -> None:
        if not sys.stdin.readline():
            os._exit(0)  # nothing of this run is worth saving
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            self.peak.__enter__()
        self.started = time.perf_counter()


def main(name: str, folder: Path) -> None:
    torch.set_num_threads(THREADS)
    train = SwiftSft.train

    def paced(self: Any, trainer: Any) -> Any:
        trainer.add_callback(Paced())
        return train(self, trainer)

    SwiftSft.train = paced
    if name == "stock":
        from swift.template.templates.qwen import Qwen2VLTemplate

        # ms-swift knows the published tokenizers only.
        config = json.loads((folder / "base" / "config.json").read_text(encoding="utf-8"))
        Qwen2VLTemplate.image_token_id = config["image_token_id"]
        SwiftSft(json.loads((folder / "stock.json").read_text(encoding="utf-8"))).main()
    else:
        from coordcore.manifest import load
        from coordcore_train.run.session import run

        run(load(folder / f"{name}.toml"), output=folder / name)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
