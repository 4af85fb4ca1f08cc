"""How the answers of a checkpoint are written, wherever it was asked. Torch-free."""

from __future__ import annotations

from pathlib import Path

from coordcore.coords import DEFAULT_COORDS
from coordcore.errors import InputError
from coordcore_detection.predict.foreign import SPACES, Written
from coordcore_detection.predict.loading import run_and_folder
from coordcore_train.checkpoint.folder import read_checkpoint_info


def written_by(path: Path, numbers: str | None) -> Written:
    """What the `coordcore.json` of a checkpoint folder, or of the merged one of a run, says of its answers.

    numbers: what was said beside it. Raises InputError where there is no such file, and for `numbers` that contradict.
    """
    try:
        _, folder = run_and_folder(path)
        info = read_checkpoint_info(folder)
    except InputError as error:
        raise InputError(f"--checkpoint: {error}") from error
    if info is None:
        raise InputError(
            f"--checkpoint: {folder}: has no coordcore.json, which says how answers are written; name the merged "
            "folder of a run (`coordcore merge`), or a run that has one"
        )
    said = info.quantisation
    if numbers is not None and (numbers in SPACES or Written.said(numbers).convention != said):
        raise InputError(
            f"{folder} says that its coordinates are bins of {said.name}, not --numbers {numbers}; leave out --numbers"
        )
    return Written(
        convention=said,
        coords=info.vocab.format if info.vocab else DEFAULT_COORDS,
        checkpoint=path,
        form=info.format,
    )
