"""What proposes the corners of boxes: the model itself, or heads beside it that the plugins know."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from coordcore.errors import InputError

if TYPE_CHECKING:
    from coordcore_detection.predict.corners import Proposer, Together
    from coordcore_detection.predict.loading import Loaded

GROUP = "coordcore.proposers"
"""The entry points of plugins that propose corners. `NAME = "package.module:load"` knows the folder NAME in a
checkpoint: `load(folder, model, vocab)` gives a `corners.Proposer` for that model, or raises InputError."""


def proposer_of(folder: Path, loaded: Loaded) -> Proposer | Together:
    """Of the checkpoint `folder`, from which `loaded` was loaded. A model that has learned it needs no heads.

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
    if loaded.together:
        from coordcore_detection.predict.corners import Together

        return Together()
    offered: dict[str, EntryPoint] = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not offered:
        raise InputError(
            f"{folder}: --parallel: the model has not learned to say the corners of a box together ([train] "
            "parallel_boxes), and no installed plugin has heads that propose them; pip install coordcore-parallel-boxes"
        )
    there = sorted(name for name in offered if (folder / name).is_dir())
    if len(there) != 1:
        found = (
            f"holds several: {', '.join(there)}; keep one" if there else "holds none; train some: coordcore heads RUN"
        )
        raise InputError(
            f"{folder}: --parallel: a model that was not trained with [train] parallel_boxes needs heads that propose "
            f"corners; the folder {found}"
        )
    proposer: Proposer = offered[there[0]].load()(folder / there[0], loaded.model, loaded.vocab)
    return proposer
