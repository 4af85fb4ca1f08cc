"""Words that a mirrored image makes wrong: where texts hold them, and the texts with each exchanged for its other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordcore_coord_tokens.augment.config import AugmentConfig

_FORMS = (str.lower, str.capitalize, str.upper)
_AROUND = 60
"""Letters of a long text that are shown before and behind a word."""
_LETTER = r"[^\W\d_]"
_PARTS = (
    "eye|ear|cheek|arm|shoulder|elbow|wrist|thumb|hip|leg|knee|ankle|heel|shoe|glove|wheel|door|window|mirror|lane|turn"
)
_ENDINGS = f"most|handed|hands?|wards?|sides?|foot|feet|(?:{_PARTS})s?"
_BUTTON = r"(?i:[ _-]?(?:(?:single|double|triple|mouse)[ _-]?)?click|[ _-]mouse[ _-]button)"
_BEGINNINGS = ("top", "bottom", "upper", "lower", "front", "back", "rear", "middle", "center", "centre")


class LeftRight:
    """Pairs of words such as left and right, also in leftmost, LEFT, left-hand, left_shoe, LeftArm, lefteye, topleft.

    Not in leftover, upright or bright, nor in left_click or right mouse button.
    """

    def __init__(self, pairs: Mapping[str, str]) -> None:
        both = [*pairs.items(), *((other, word) for word, other in pairs.items())]
        self._other = {form(word): form(other) for word, other in both for form in _FORMS}
        lower, capital, upper = ("|".join(re.escape(form(word)) for word, _ in both) for form in _FORMS)
        begins = "|".join(rf"(?<=[{word[0]}{word[0].upper()}]{word[1:]})" for word in _BEGINNINGS)
        upper_begins = "|".join(rf"(?<={word.upper()})" for word in _BEGINNINGS)
        # Which button of a mouse is pressed is the same in a mirrored image.
        self._pattern = re.compile(
            rf"(?!(?:{lower}|{capital}|{upper}){_BUTTON})(?:"
            rf"(?:(?<!{_LETTER})|{begins})(?:{lower})(?=(?:{_ENDINGS})?(?!{_LETTER}))"
            rf"|(?:(?<!{_LETTER})|{begins})(?:{lower})(?=[A-Z])"
            # LeftArm and armLeft
            rf"|(?<![A-Z])(?:{capital})(?=(?:{_ENDINGS})?(?![a-zß-ÿ]))"
            rf"|(?:(?<!{_LETTER})|{upper_begins})(?:{upper})(?=(?:{_ENDINGS.upper()})?(?!{_LETTER})))"
        )

    def found(self, text: str) -> str | None:
        """The first of these words in `text`, None without one."""
        match = self._pattern.search(text)
        return None if match is None else match.group()

    def exchanged(self, text: str) -> str:
        """`text` with every one of these words as its other."""
        return self._pattern.sub(lambda match: self._other[match.group()], text)


def refused_words(augment: AugmentConfig | None) -> LeftRight | None:
    """What no text of a training record may say; None where none is mirrored, or words are exchanged."""
    if augment is None or augment.flip == 0 or augment.left_right != "refuse":
        return None
    return LeftRight(augment.left_right_words)


def told_left_right(text: str, word: str, *, cure: str = "") -> str:
    """Why a text is refused. cure: a further one."""
    alone = re.search(rf"(?<!{_LETTER}){re.escape(word)}(?!{_LETTER})", text)  # not the one in bright
    at = alone.start() if alone else text.find(word)
    if len(text) > 2 * _AROUND:
        text = f"... {text[max(0, at - _AROUND) : at + _AROUND]} ..."
    return (
        f"{text!r} says {word!r}, which is wrong of a mirrored image; beside flip, set "
        'left_right = "exchange", which puts the other word there, '
        f"{cure}or leave flip out"
    )
