"""Whether the first answers of what serves a model can be of the checkpoint that it is said to be. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from coordcore.errors import InputError, RunError
from coordcore_detection.predict.other_formats import other_format
from coordcore_detection.predict.prediction_files import NO_IMAGE
from coordcore_detection.predict.predictions import Row
from coordcore_detection.predict.served_checkpoint import Checkpoint
from coordcore_detection.predict.server import REFUSES, Answering

LOOKED_AT = 8
"""Answers by which is judged whether the server has this model."""

_REASONS = 3


def judged(
    rows: Iterable[Row], server: Answering, checkpoint: Checkpoint, log: Callable[[str], None] | None = None
) -> Iterator[Row]:
    """The rows as they come. log: told of images that could not be shown; their rows hold no boxes and say why in
    `unread`, at "image".

    Raises RunError when the first images are all refused, and when the first answers are not of this checkpoint.
    """
    first: list[Row] = []  # kept back until they are judged: another model's answers would stay in the file
    is_judged = False
    told = _Told(log)
    try:
        for row in rows:
            if is_judged:
                told.of(row)
                yield row
                continue
            first.append(row)
            if len(first) == LOOKED_AT:
                is_judged = True
                require_likely(first, server, checkpoint)
                yield from map(told.of, first)
    except (InputError, RunError, KeyboardInterrupt):
        if not is_judged and not unlikely(first, server, checkpoint):
            yield from map(told.of, first)
        raise
    if not is_judged:
        require_likely(first, server, checkpoint)
        yield from map(told.of, first)


class _Told:
    """Says of rows why their images could not be shown, each reason once in full."""

    def __init__(self, log: Callable[[str], None] | None) -> None:
        self._log, self._first = log, dict[str, str]()

    def of(self, row: Row) -> Row:
        """The same row, when it was told of."""
        reason = _not_shown(row)
        if reason and self._log is not None:
            first = self._first.setdefault(reason, row.image)
            self._log(f"{row.image}: {reason if first == row.image else f'as {first}'}")
        return row


def require_likely(rows: Sequence[Row], server: Answering, checkpoint: Checkpoint) -> None:
    """Raise RunError when the server took none of the requests, or none of the answers can be of the checkpoint."""
    if reason := unlikely(rows, server, checkpoint):
        raise RunError(reason)


def unlikely(rows: Sequence[Row], server: Answering, checkpoint: Checkpoint) -> str:
    """Why these are no answers of the checkpoint, empty where they may be."""
    reasons = [reason for row in rows if (reason := _not_shown(row))]
    if rows and len(reasons) == len(rows):
        return f"{server.url}: none of the first {len(rows)} images could be shown to the model: {_grouped(reasons)}"
    shown = [row for row in rows if not _not_shown(row)]
    written = checkpoint.coords.bin_of
    strange = [row for row in rows if row.unread and not row.boxes and not any(token in row.text for token in written)]
    if shown and len(strange) == len(rows):
        said = "a box" if checkpoint.format.numbers else f"a coord token ({checkpoint.coords})"
        return (
            f"{server.url}: none of the first {len(rows)} answers of {server.model} holds {said}, "
            f"and none is of the format {checkpoint.format.name}, as of {shown[0].text[:80]!r}: "
            f"does it serve {checkpoint.path}?"
        )
    if found := other_format(shown, checkpoint):
        form, text = found
        return (
            f"{server.url}: none of the first {len(shown)} answers of {server.model} is of the format "
            f"{checkpoint.format.name}, in which {checkpoint.path} answers; they are of the format {form.name}, as "
            f"{text[:80]!r}: it serves another model; name the folder of that one, or serve {checkpoint.path}"
        )
    return ""


def _not_shown(row: Row) -> str:
    """Why the model was not shown the image of a row, empty where it was."""
    return row.unread[0].reason if row.unread and row.unread[0].at == NO_IMAGE else ""


def _grouped(reasons: Sequence[str]) -> str:
    """Each reason once, with how many have it, and what helps where the server gave them."""
    counts = Counter(reasons).most_common()
    listed = [reason if len(counts) == 1 else f"{number} x {reason}" for reason, number in counts[:_REASONS]]
    more = [f"{len(counts) - _REASONS} other reasons"] if len(counts) > _REASONS else []
    cure = (
        ". Where they are too large, lower the limit of pixels (train.max_pixels of the run, the image size of the "
        "merged folder's processor), serve with more room (vLLM's --max-model-len), or ask for fewer --max-new-tokens"
    )
    return "; ".join([*listed, *more]) + (cure if any(REFUSES in reason for reason in reasons) else "")
