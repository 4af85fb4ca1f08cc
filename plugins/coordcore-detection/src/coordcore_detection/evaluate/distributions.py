"""What a model weighed at the first boxes that it wrote: their distributions over the bins, kept for the report."""

from __future__ import annotations

import zipfile
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from coordcore.errors import InputError
from coordcore.files import require_regular

if TYPE_CHECKING:
    from coordcore_detection.predict.predictions import Row
    from coordcore_detection.predict.recording import Recording

LIMIT = 24
"""Boxes that are kept: the first one of so many answers."""


@attrs.frozen(kw_only=True, eq=False)
class Distribution:
    """The first box of the answer to one image. K bins.

    image: its key. bins: x1, y1, x2, y2 as written. probabilities: [4, K] float32 over the bins, before any constraint.
    """

    image: str
    bins: tuple[int, int, int, int]
    probabilities: np.ndarray[Any, np.dtype[np.float32]]


class Distributions:
    """Keeps the first `limit` answers in the order of `keys`, as `asking.predict` calls its `watch`, in a file.

    done: the keys whose distributions an earlier call may have left in the file; what else is there is dropped.
    """

    def __init__(self, path: Path, keys: Sequence[str], done: Container[str] = (), limit: int = LIMIT) -> None:
        self.kept = [item for item in read(path) if item.image in done]
        self._path = path
        self._place = {key: index for index, key in enumerate(keys)}
        self._limit = limit
        self._is_new = False

    def __call__(self, row: Row, recording: Recording, index: int) -> None:
        """Look at answer `index` of a batch. One that begins with a polygon, or with what is no box, is left out."""
        last = self._place[self.kept[-1].image] if len(self.kept) == self._limit else len(self._place)
        if self._place[row.image] > last or not row.boxes or row.boxes[0].kind in ("point", "quad"):
            return
        at = recording.coordinate[index]
        at = at[at >= 0][:4].tolist()
        bins = row.boxes[0].bins
        if tuple(recording.bins[at].tolist()) == tuple(bins):
            probabilities = recording.logits[at].double().softmax(-1).float().cpu().numpy()
            self.kept.append(Distribution(image=row.image, bins=bins, probabilities=probabilities))
            self.kept.sort(key=lambda item: self._place[item.image])
            del self.kept[self._limit :]
            self._is_new = True

    def save(self) -> None:
        """Write what is new, before the rows are written: a row that is there is not asked again."""
        if self._is_new:
            write(self.kept, self._path)
            self._is_new = False


def beside(predictions: Path) -> Path:
    """Where the distributions of a prediction file lie."""
    return predictions.with_suffix(".distributions.npz")


def write(kept: list[Distribution], path: Path) -> None:
    """Write a file that `read` reads, whole or not at all. Raises InputError."""
    partial = path.with_name(f".{path.name}.tmp")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(
                file,
                images=np.array([item.image for item in kept], dtype=np.str_),
                bins=np.array([item.bins for item in kept], dtype=np.int64),
                probabilities=np.array([item.probabilities for item in kept], dtype=np.float32),
            )
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path) -> list[Distribution]:
    """What `write` wrote; [] where there is no such file. Raises InputError for a file that is none."""
    if not path.exists():
        return []
    try:
        require_regular(path)
        with np.load(path, allow_pickle=False) as stored:
            columns = (stored["images"].tolist(), stored["bins"].tolist(), stored["probabilities"])
        return [
            Distribution(image=image, bins=(x1, y1, x2, y2), probabilities=probabilities)
            for image, (x1, y1, x2, y2), probabilities in zip(*columns, strict=True)
        ]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: holds no distributions ({error}); predict again") from error
