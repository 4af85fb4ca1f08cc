"""The heads beside a checkpoint that propose the corners of boxes, found through the plugins that know them."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from coordcore.errors import InputError

if TYPE_CHECKING:
    from coordcore_detection.predict.corners import Proposer
    from coordcore_detection.predict.loading import Loaded

GROUP = "coordcore.proposers"
"""The entry points of plugins that propose corners. `NAME = "package.module:load"` knows the folder NAME in a
checkpoint: `load(folder, model, vocab)` gives a `corners.Proposer` for that model, or raises InputError."""


def proposer_of(folder: Path, loaded: Loaded) -> Proposer:
    """Of the checkpoint `folder`, from which `loaded` was loaded.

    Raises InputError where there is none, or two, or it does not belong to the model.
    """
    if loaded.vocab is None:
        raise InputError(
            f"{folder}: --parallel: the model answers in plain numbers, and has no coord tokens; leave it out"
        )
    if "bbox_2d" not in loaded.format.places:
        raise InputError(
            f"{folder}: --parallel: answers in the format {loaded.format.name} hold no boxes; leave it out"
        )
    offered: dict[str, EntryPoint] = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not offered:
        raise InputError(
            "--parallel: no installed plugin proposes corners of boxes; pip install coordcore-parallel-boxes"
        )
    there = sorted(name for name in offered if (folder / name).is_dir())
    if len(there) != 1:
        found = (
            f"holds several: {', '.join(there)}; keep one" if there else "holds none; train some: coordcore heads RUN"
        )
        raise InputError(f"{folder}: --parallel: a checkpoint needs heads that propose corners; it {found}")
    proposer: Proposer = offered[there[0]].load()(folder / there[0], loaded.model, loaded.vocab)
    return proposer
