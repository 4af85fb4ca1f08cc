"""First values of the coord rows, and the coord vocabulary on tensors."""

from __future__ import annotations

import pytest
import torch

from coordcore.coords import CoordVocab
from coordcore_train.checkpoint.initialise import Initialiser, coord_rows

ROWS = torch.randn(400, 16, generator=torch.Generator().manual_seed(3)) * torch.linspace(0.1, 2, 16) + 0.3
DIGITS = ROWS[20:30]


def test_digits_weigh_hundreds_tens_and_ones() -> None:
    rows = coord_rows(ROWS, DIGITS, "digits", 0)
    expected = {
        0: DIGITS[0],
        7: (6 * DIGITS[0] + DIGITS[7]) / 7,
        12: (4 * DIGITS[0] + 2 * DIGITS[1] + DIGITS[2]) / 7,
        21: (4 * DIGITS[0] + 2 * DIGITS[2] + DIGITS[1]) / 7,
        999: DIGITS[9],
    }
    torch.testing.assert_close(rows[list(expected)], torch.stack(list(expected.values())))


def test_mean_stays_within_a_small_noise() -> None:
    away = (coord_rows(ROWS, DIGITS, "mean", 0) - ROWS.mean(0)) / ROWS.std(0)
    assert (round(away.std().item(), 3), away.mean().abs().item() < 0.001) == (0.02, True)


def test_smooth_has_the_spread_of_the_old_rows() -> None:
    rows = coord_rows(ROWS, DIGITS, "smooth", 0)
    torch.testing.assert_close(rows.mean(0), ROWS.mean(0), rtol=0, atol=1e-3)
    torch.testing.assert_close(rows.std(0), ROWS.std(0), rtol=0.01, atol=0)


def test_smooth_puts_near_bins_near_each_other() -> None:
    rows = coord_rows(ROWS, DIGITS, "smooth", 0) / ROWS.std(0)
    distances = [(rows[step:] - rows[:-step]).norm(dim=1).mean().item() for step in (1, 10, 100)]
    assert distances[0] < 0.2 * distances[1] < 0.1 * distances[2]


@pytest.mark.parametrize("initialiser", ["mean", "smooth"])
def test_the_seed_decides(initialiser: Initialiser) -> None:
    first, same, other = (coord_rows(ROWS, DIGITS, initialiser, seed) for seed in (0, 0, 1))
    assert (torch.equal(first, same), torch.equal(first, other)) == (True, False)


def test_bins_and_mask_of_a_tensor() -> None:
    vocab = CoordVocab(ids=tuple(reversed(range(100, 1100))))
    ids = torch.tensor([[99, 100], [1099, -100]])
    assert (vocab.bins(ids).tolist(), vocab.bins(ids).dtype) == ([[-1, 999], [0, -1]], torch.int64)
    assert (vocab.mask(ids).tolist(), vocab.mask(ids).dtype) == ([[False, True], [True, False]], torch.bool)


def test_bins_of_narrow_integers() -> None:
    vocab = CoordVocab(ids=tuple(range(100, 1100)))
    assert vocab.bins(torch.tensor([101, 5], dtype=torch.int32)).tolist() == [1, -1]


def test_ids_tensor_is_in_bin_order() -> None:
    assert CoordVocab(ids=tuple(reversed(range(1000)))).ids_tensor("cpu")[:3].tolist() == [999, 998, 997]
