"""Words that a mirrored image makes wrong."""

from __future__ import annotations

from typing import Any

import pytest

from coordcore_coord_tokens.augment.config import AugmentConfig
from coordcore_coord_tokens.augment.words import LeftRight, told_left_right

WORDS = LeftRight({"left": "right", "gauche": "droite"})


@pytest.mark.parametrize(
    ("text", "exchanged"),
    [
        ("the left shoe", "the right shoe"),
        ("LEFT", "RIGHT"),
        ("Right of the left one", "Left of the right one"),
        ("the leftmost cup", "the rightmost cup"),
        ("left-handed", "right-handed"),
        ("left_shoulder", "right_shoulder"),
        ("LEFT_EYE", "RIGHT_EYE"),
        ("LeftArm and armRight", "RightArm and armLeft"),
        ("leftArm", "rightArm"),
        ("turn left.", "turn right."),
        ("the left mouse and the left button", "the right mouse and the right button"),
        ("left_shoe click", "right_shoe click"),
        ("à gauche", "à droite"),
        ("shoe1left2", "shoe1right2"),
        ("topleft, Bottomright and UPPERLEFT", "topright, Bottomleft and UPPERRIGHT"),
        ("lefteye, RIGHTARM, rightfeet, frontleftwheels", "righteye, LEFTARM, leftfeet, frontrightwheels"),
    ],
)
def test_words_are_exchanged_in_the_form_they_have(text: str, exchanged: str) -> None:
    assert WORDS.found(text)
    assert WORDS.exchanged(text) == exchanged
    assert WORDS.exchanged(exchanged) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "leftover rice", "upright", "bright", "a copyright sign", "Leftovers", "cleft", "leftism"),
        *(
            "left_click",
            "LEFT_DOUBLE_CLICK",
            "leftClick",
            "rightClick(1, 2)",
            "Right-click it",
            "the left mouse button",
        ),
    ],
)
def test_other_words_stay(text: str) -> None:
    assert (WORDS.found(text), WORDS.exchanged(text)) == (None, text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing in it changes an example"),
        ({"flip": 0.0, "noise_label": "x"}, "nothing in it changes an example"),
        ({"crop": (0.05, 1)}, r"must be two numbers, the smaller first, between 0.1 and 1, got \[0.05, 1\]"),
        ({"crop": (1.0, 0.5)}, "the smaller first"),
        ({"resize": (1.0, 9.0)}, "between 0.1 and 8"),
        ({"flip": 1, "left_right_words": {"left": "Left"}}, "needs each word once, got 'left' twice"),
        ({"flip": 1, "left_right_words": {"left": "right", "port": "right"}}, "got 'right' twice"),
        ({"flip": 1, "left_right_words": {"left": ""}}, "needs words of letters alone, got ''"),
        ({"flip": 1, "left_right_words": {"left hand": "right"}}, "got 'left hand'"),
        ({"noise_objects": 1, "noise_label": "<|im_end|>"}, "control token"),
        ({"noise_objects": 1, "noise_label": " "}, "must say something, got ' '"),
        ({"hue": 0.6}, "hue"),
        ({"flip": -0.1}, "flip"),
        ({"noise_objects": -1}, "noise_objects"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**settings)


def test_of_a_long_text_the_word_itself_is_shown() -> None:
    told = told_left_right("bright " + "x " * 90 + "to the right of it", "right")
    assert "to the right of it ...' says 'right'" in told
