"""The distributions that are kept while a model is asked, and their file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from report_support import evaluated, recorded

from coordcore import InputError
from coordcore_detection.evaluate import distributions
from coordcore_detection.evaluate.distributions import Distributions
from coordcore_detection.predict.predictions import Box, Row

BINS = [10, 20, 30, 40, 500, 600, 700, 800]


def recording() -> Any:
    """Two answers: text, a box, text; and the same after two tokens of text."""
    coordinate = np.full((2, 8), -1)
    coordinate[0, 1:5], coordinate[1, 2:6] = np.arange(4), np.arange(4, 8)
    logits = torch.full((8, 1000), -1e4).scatter(1, torch.tensor(BINS)[:, None], 0.0)
    return SimpleNamespace(coordinate=coordinate, bins=torch.tensor(BINS), logits=logits)


def row(*bins: int, image: str = "a.jpg") -> Row:
    boxes = [Box(label="cat", box=(0, 0, 1, 1), bins=bins, score=0.5)] if bins else []
    return Row(image=image, width=9, height=9, text="", boxes=boxes)


def test_the_four_distributions_of_the_first_box_are_kept(tmp_path: Path) -> None:
    watch = Distributions(tmp_path / "kept.npz", ["a.jpg"])
    watch(row(500, 600, 700, 800), recording(), 1)
    (kept,) = watch.kept
    assert (kept.image, kept.bins) == ("a.jpg", (500, 600, 700, 800))
    assert kept.probabilities.argmax(1).tolist() == [500, 600, 700, 800]
    assert kept.probabilities.sum(1).tolist() == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("bins", [(), (10, 20, 30, 41)], ids=["no box", "bounds of a polygon"])
def test_what_is_no_box_is_left_out(tmp_path: Path, bins: tuple[int, ...]) -> None:
    watch = Distributions(tmp_path / "kept.npz", ["a.jpg"])
    watch(row(*bins), recording(), 0)
    assert watch.kept == []


@pytest.mark.parametrize("order", ["abcd", "dcba", "cadb"])
def test_the_first_images_are_kept_whichever_comes_first(tmp_path: Path, order: str) -> None:
    watch = Distributions(tmp_path / "kept.npz", list("abcd"), limit=2)
    for image in order:
        watch(row(10, 20, 30, 40, image=image), recording(), 0)
    assert [item.image for item in watch.kept] == ["a", "b"]


def test_what_an_earlier_call_kept_stays_but_for_what_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "kept.npz"
    first = Distributions(path, list("abc"))
    for image in "abc":
        first(row(10, 20, 30, 40, image=image), recording(), 0)
    first.save()
    again = Distributions(path, list("abc"), done={"a", "c"})
    again(row(500, 600, 700, 800, image="b"), recording(), 1)
    again.save()
    kept = distributions.read(path)
    assert [(item.image, item.bins[0]) for item in kept] == [("a", 10), ("b", 500), ("c", 10)]


def test_distributions_are_read_as_they_were_written(tmp_path: Path) -> None:
    _, rows, _ = evaluated(4)
    kept = recorded(rows)
    distributions.write(kept, tmp_path / "kept.npz")
    again = distributions.read(tmp_path / "kept.npz")
    assert [(item.image, item.bins) for item in again] == [(item.image, tuple(item.bins)) for item in kept]
    assert all((a.probabilities == b.probabilities).all() for a, b in zip(again, kept, strict=True))


def test_no_file_holds_no_distributions(tmp_path: Path) -> None:
    assert distributions.read(tmp_path / "none.npz") == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"text"])
def test_a_broken_file_of_distributions_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "kept.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"kept\.npz: holds no distributions"):
        distributions.read(tmp_path / "kept.npz")
