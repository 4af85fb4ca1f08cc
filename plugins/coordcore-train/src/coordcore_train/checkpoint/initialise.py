"""First values for the embedding rows of the coord tokens. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

Initialiser = Literal["mean", "digits", "smooth"]

_PIECE = 4096


def coord_rows(rows: Tensor, digit_rows: Tensor, initialiser: Initialiser, seed: int, bins: int = 1000) -> Tensor:
    """The first values of the new rows of `bins` bins: [bins, H] float32.

    rows: [n, H], the rows of the tokens there are (no padding rows). digit_rows: [10, H], those of "0" .. "9".

    mean: the mean of `rows`, plus noise of 2 % of their standard deviation, so that no two are alike.
    digits: a weighted mean of the rows of k's three digits ("012"), 4 : 2 : 1 from hundreds to ones; as many
        digits as the last bin has. Near bins start
        near each other, and a bin starts near the number the base can already read. A plain mean would make 12 and 21
        one row, or 1, 11 and 111. With powers of two no two bins share their weights. Draws nothing.
    smooth: mean plus standard deviation times a code of 16 frequencies along k, sin and cos with amplitude 1/f,
        through a random projection: near bins alike, far bins unrelated.
    """
    if initialiser == "digits":
        places = range(len(str(bins - 1)) - 1, -1, -1)
        digits = torch.arange(bins)[:, None] // torch.tensor([10**place for place in places]) % 10
        weights = torch.tensor([2.0**place for place in places]) / (2.0 ** len(places) - 1)
        return (digit_rows.float()[digits] * weights[:, None]).sum(1)
    generator = torch.Generator().manual_seed(seed)
    mean, deviation = moments(rows)
    if initialiser == "mean":
        return mean + 0.02 * deviation * torch.randn(bins, rows.shape[1], generator=generator)
    frequency = torch.arange(1, 17)
    phase = torch.pi * torch.arange(bins)[:, None] / (bins - 1) * frequency
    code = torch.cat([phase.sin() / frequency, phase.cos() / frequency], dim=1)
    code = code @ torch.randn(code.shape[1], rows.shape[1], generator=generator)
    return mean + deviation * (code - code.mean(0)) / code.std(0)


def mean_row(rows: Tensor) -> Tensor:
    """The mean over the rows, [H] float32."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for piece in _in_float64(rows):
        total += piece.sum(0)
    return (total / len(rows)).float()


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the rows, [H] float32 each."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for piece in _in_float64(rows):
        total += piece.sum(0)
        squares += piece.square_().sum(0)
    mean = total / len(rows)
    return mean.float(), (squares / len(rows) - mean.square()).clamp(min=0).sqrt().float()


def _in_float64(rows: Tensor) -> Iterator[Tensor]:
    """The rows in pieces, each in the memory of the one before: as a whole, a real matrix would take gigabytes."""
    memory = torch.empty(min(_PIECE, len(rows)), rows.shape[1], dtype=torch.float64)
    for start in range(0, len(rows), _PIECE):
        piece = rows[start : start + _PIECE]
        yield memory[: len(piece)].copy_(piece)
