"""A few real training steps of a tiny checkpoint, with components named as in a manifest."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coordcore import __version__
from coordcore.hookspecs import GROUP
from coordcore.testing.missing import needs_train

Named = str | Iterable[str] | Mapping[str, Mapping[str, Any]]
"""Components of one kind: a name, several names, or name -> settings."""


@contextmanager
def kit_plugin() -> Iterator[None]:
    """Within this context the kit's data builder `tiny_boxes` is found as an installed plugin's would be.

    A run loads its manifest again when it merges, so a plugin given to one `discover` call would be lost there.
    """
    with tempfile.TemporaryDirectory(prefix="coordcore-testing-") as folder:
        info = Path(folder) / f"coordcore_testing-{__version__}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\n"
            f"Name: coordcore-testing\nVersion: {__version__}\nRequires-Dist: coordcore=={__version__}\n"
        )
        (info / "entry_points.txt").write_text(f"[{GROUP}]\ntesting = coordcore.testing.plugin\n")
        sys.path.append(folder)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(folder)
            importlib.invalidate_caches()


@needs_train()
def train_briefly(
    folder: Path,
    *,
    loss: Named,
    data: Named = "tiny_boxes",
    template: Named = "plain",
    surgery: Named = (),
    optimizer: Named = "adamw",
    base: Path | None = None,
    tuner: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    merge: bool = True,
) -> Path:
    """Train a tiny Qwen3-VL for 20 steps on the CPU, as `coordcore run` does, and return the run folder.

        run = train_briefly(tmp_path, loss={"text_ce": {}, "my_loss": {"sigma": 2.0}})
        assert logged(run, "my_loss/loss")[-1] < logged(run, "my_loss/loss")[0]

    folder: receives manifest.toml, the base checkpoint and the run.
    loss, data, template, surgery, optimizer: components of installed plugins, by name. `tiny_boxes` is the kit's.
    base: another checkpoint folder than a random one with coord tokens.
    tuner, train: keys of `[tuner]` and `[train]` over the kit's: every weight of the language model, 20 steps of 8
        examples. With `tuner={"type": "lora"}` the random base learns more slowly.
    merge: end with a merged checkpoint in `<run>/merged`, whose logits are compared with the live model's.

    Raises ManifestError or InputError for what `coordcore check` would report, RunError when the run fails.
    """
    import tomli_w

    from coordcore.check import check
    from coordcore.manifest import ManifestError, load
    from coordcore_train.run.quiet import quiet
    from coordcore_train.run.session import run
    from coordcore_train.testing.tiny import tiny_qwen3vl

    quiet()
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "name": "briefly",
        "model": {"base": str(base or tiny_qwen3vl(folder / "base")), "dtype": "float32"},
        "data": _sections(data),
        "template": _sections(template),
        "surgery": _sections(surgery),
        "loss": _sections(loss),
        "optimizer": _sections(optimizer),
        "tuner": {"type": "full", "rank": 8, **(tuner or {})},
        "train": {**_TRAIN, **(train or {})},
        "output": {"dir": str(folder / "run"), "merge": merge},
    }
    manifest = folder / "manifest.toml"
    manifest.write_text(tomli_w.dumps(document), encoding="utf-8")
    with kit_plugin():
        loaded = load(manifest)
        problems = check(loaded)
        if problems:
            raise ManifestError(problems)
        return run(loaded)


_TRAIN: Mapping[str, Any] = {
    "steps": 20,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "schedule": "constant",
    "log_every": 1,
    "device": "cpu",
    "threads": 1,
}


def _sections(named: Named) -> dict[str, Mapping[str, Any]]:
    if isinstance(named, Mapping):
        return dict(named)
    return {name: {} for name in ([named] if isinstance(named, str) else named)}


def logged(run: Path, key: str) -> list[float]:
    """One metric of a run, in the order in which it was logged: "loss", "my_loss/loss", "eval_loss" ..."""
    from coordcore_train.run.folder import RunDir

    lines = RunDir(run).metrics.read_text(encoding="utf-8").splitlines()
    return [entry[key] for entry in map(json.loads, lines) if key in entry]
