"""Faults that are known and not mended, each with the reason why. Nothing else is excused."""

from __future__ import annotations

import re

import attrs


@attrs.frozen(kw_only=True)
class Known:
    """A fault that is left in. kind: where it shows ("manifests", "importers.coco"). breach: a pattern of it."""

    name: str
    kind: str
    breach: str
    reason: str


KNOWN: tuple[Known, ...] = ()


def known(kind: str, breach: str) -> str | None:
    """The name and reason of a known fault, None for any other."""
    for one in KNOWN:
        if kind.startswith(one.kind) and re.search(one.breach, breach, re.DOTALL):
            return f"{one.name}: {one.reason}"
    return None
