"""Label Studio's brush masks: their boxes and areas, and masks that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversion_support import records_of, write_json

from coordcore_data.convert.brush import painted
from coordcore_data.convert.text import UnreadableError

SIZES = (3, 4, 8, 16)
"""Bits of a length, as Label Studio's encoder has them."""


def packed(
    mask: Any, *, word: int = 8, value: int = 255, sizes: tuple[int, ...] = SIZES, literal: int = 0
) -> list[int]:
    """A mask [rows, columns] of bool as Label Studio writes it. literal: words that are written one by one at first."""
    words = (np.repeat(mask.ravel(), 4) * value).tolist()
    bits = f"{len(words):032b}{word - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    at = 0
    while at < len(words):
        longest = 1 << sizes[3]
        stop = at + 1
        if at < literal:
            stop = min(literal, at + longest, len(words))
        else:
            while stop < len(words) and words[stop] == words[at] and stop - at < longest:
                stop += 1
        group = next(index for index, size in enumerate(sizes) if stop - at <= 1 << size)
        bits += f"{int(at >= literal)}{group:02b}{stop - at - 1:0{sizes[group]}b}"
        bits += "".join(f"{item:0{word}b}" for item in (words[at:stop] if at < literal else words[at : at + 1]))
        at = stop
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def expected(mask: Any) -> tuple[tuple[float, ...], float]:
    rows, columns = np.nonzero(mask)
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), mask.sum()


@pytest.mark.parametrize("seed", range(20))
def test_masks_of_any_shape(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, columns = random.integers(1, 40, 2)
    mask = random.random((rows, columns)) < random.choice([0.02, 0.5, 0.98])
    mask[random.integers(rows), random.integers(columns)] = True
    given = packed(mask, value=int(random.integers(1, 256)), literal=int(random.integers(0, 4 * mask.size)))
    assert painted(given, columns, rows) == expected(mask)


@pytest.mark.parametrize(("word", "value", "sizes"), [(1, 1, SIZES), (32, 2**31, (1, 2, 3, 5)), (8, 128, (16,) * 4)])
def test_other_widths_of_words_and_lengths(word: int, value: int, sizes: tuple[int, ...]) -> None:
    mask = np.zeros((7, 11), dtype=bool)
    mask[2:5, 3:9] = True
    assert painted(packed(mask, word=word, value=value, sizes=sizes, literal=60), 11, 7) == ((3, 2, 9, 5), 18)


def test_a_whole_image_is_more_than_one_run() -> None:
    assert painted(packed(np.ones((200, 300), dtype=bool)), 300, 200) == ((0, 0, 300, 200), 60_000)


def test_only_alpha_counts() -> None:
    """One pixel of a colour that is not painted, and one that is."""
    bits = f"{8:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in SIZES)
    bits += "000" + f"{7:03b}" + "".join(f"{item:08b}" for item in (255, 255, 255, 0, 0, 0, 0, 9)) + "0" * 7
    given = [int(bits[place : place + 8], 2) for place in range(0, len(bits) - len(bits) % 8, 8)]
    assert painted(given, 2, 1) == ((1, 0, 2, 1), 1)


MASK = np.pad(np.ones((2, 3), dtype=bool), 2)
GIVEN = packed(MASK)


@pytest.mark.parametrize(
    ("given", "size", "reason", "detail"),
    [
        (None, (7, 6), "brush mask that cannot be read", "cut off"),
        ("x", (7, 6), "brush mask that cannot be read", "cut off"),
        ([], (7, 6), "brush mask that cannot be read", "cut off"),
        ([256], (7, 6), "brush mask that cannot be read", "no list of bytes"),
        (["1"], (7, 6), "brush mask that cannot be read", "no list of bytes"),
        (GIVEN[:-3], (7, 6), "brush mask that cannot be read", "cut off"),
        (GIVEN[:9], (7, 6), "brush mask that cannot be read", "cut off"),
        (GIVEN, (6, 6), "brush mask of another size than its image", "168 values for 6 x 6"),
        (GIVEN, (7.5, 6), "brush mask that cannot be read", "an image of 7.5 x 6"),
        (GIVEN, (None, None), "brush mask on an image of unknown size", ""),
        ([255] * 400, (7, 6), "brush mask of another size than its image", "4294967295 values for 7 x 6"),
        ([0, 0, 0, 168, *[255] * 40], (7, 6), "brush mask that cannot be read", "more values than it says"),
        (packed(np.zeros((6, 7), dtype=bool)), (7, 6), "brush mask of no pixel", ""),
    ],
)
def test_a_mask_that_cannot_be_read(given: Any, size: Any, reason: str, detail: str) -> None:
    with pytest.raises(UnreadableError) as error:
        painted(given, *size)
    assert (error.value.reason, error.value.detail or "") == (reason, detail)


def test_every_prefix_of_a_mask_is_refused() -> None:
    for length in range(len(GIVEN) - 1):
        with pytest.raises(UnreadableError):
            painted(GIVEN[:length], 7, 6)


@pytest.mark.parametrize("minimal", [False, True])
def test_a_region_becomes_its_box(tmp_path: Path, minimal: bool) -> None:
    region = {"original_width": 7, "original_height": 6, "image_rotation": 0}
    value = {"format": "rle", "rle": GIVEN, "brushlabels": ["crack"]}
    given: dict[str, Any] = {"id": 7, "image": "a.jpg", "tag": [{**value, **region}]}
    if not minimal:
        result = {**region, "value": value, "type": "brushlabels"}
        given = {"id": 7, "data": {"image": "a.jpg"}, "annotations": [{"result": [result]}]}
    records, account = records_of(write_json(tmp_path / "a.json", [given]), "label_studio", tmp_path)
    assert records[0]["objects"] == [{"desc": "crack", "bbox_2d": [2, 2, 5, 4]}]
    assert account.objects.dropped == {}
    assert account.notes["brush mask: its enclosing box is written"] == 1
