"""Ranks whose data builders give other examples are refused before they train."""

from __future__ import annotations

from typing import Any

import pytest
from torch import distributed

from coordcore.errors import RunError
from coordcore_train.swift.pipeline import require_same_counts


@pytest.mark.parametrize("mine", [(60, 6), (58, 6), (60, 5)])
def test_a_builder_that_gives_other_examples(monkeypatch: pytest.MonkeyPatch, mine: tuple[int, int]) -> None:
    """Without a file that could be compared, as of another version of a plugin."""

    def gather(counts: list[Any], given: tuple[int, int]) -> None:
        counts[:] = [(60, 6), given]

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_gather_object", gather)
    if mine == (60, 6):
        require_same_counts(*mine)
        return
    with pytest.raises(RunError, match=f"rank 1 has {mine[0]} examples to train on and {mine[1]} held out, rank 0 60"):
        require_same_counts(*mine)
