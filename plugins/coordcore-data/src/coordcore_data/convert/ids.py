"""Ids of COCO's kind, of which one file may write the same as 774, 774.0, "774" or "000774"."""

from __future__ import annotations

import re
from collections.abc import Iterable

Id = int | float | str


def text_of(given: Id) -> str:
    """What an id says, whatever its type: a whole number as its digits, without zeros in front."""
    text = str(given).strip()
    whole = re.fullmatch(r"0*([0-9]+)(\.0*)?", text)
    return whole.group(1) if whole else text


class Ids:
    """Ids that are listed, found by themselves, or else by their text where that is one's alone."""

    def __init__(self, listed: Iterable[Id]) -> None:
        self._listed = set(listed)
        self._by_text: dict[str, set[Id]] = {}
        for item in self._listed:
            self._by_text.setdefault(text_of(item), set()).add(item)

    def is_ambiguous(self, given: Id) -> bool:
        """Whether several ids are listed that say the same as this one, which is none of them."""
        return given not in self._listed and len(self._by_text.get(text_of(given), ())) > 1

    def find(self, given: Id) -> Id | None:
        """The listed id that is meant, None without one."""
        if given in self._listed:
            return given
        found = self._by_text.get(text_of(given), set())
        return next(iter(found)) if len(found) == 1 else None
