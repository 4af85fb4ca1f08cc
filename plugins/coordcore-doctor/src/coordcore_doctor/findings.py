"""What a check of `coordcore doctor` found, and how it stands. Torch-free."""

from __future__ import annotations

from typing import Literal

import attrs

State = Literal["ok", "warning", "error", "not applicable", "not checked"]


@attrs.frozen(kw_only=True)
class Finding:
    """One line of the table. name: of the check. seen: what was found. cure: what to do, empty where nothing is."""

    name: str
    state: State
    seen: str
    cure: str = ""


def ok(name: str, seen: str) -> Finding:
    """All is well."""
    return Finding(name=name, state="ok", seen=seen)


def warning(name: str, seen: str, cure: str) -> Finding:
    """The run works, and probably not as meant."""
    return Finding(name=name, state="warning", seen=seen, cure=cure)


def error(name: str, seen: str, cure: str = "") -> Finding:
    """The run fails, or trains something else than meant. Without a cure `seen` is a whole message, "seen; cure"."""
    if not cure:
        seen, _, cure = seen.partition("; ")
    return Finding(name=name, state="error", seen=seen, cure=cure)


def not_applicable(name: str, why: str) -> Finding:
    """The manifest asks for nothing that this check could look at."""
    return Finding(name=name, state="not applicable", seen=why)


def some(names: list[str], limit: int = 3) -> str:
    """The first names, and how many more there are."""
    more = [f"and {len(names) - limit} more"] if len(names) > limit else []
    return ", ".join([*names[:limit], *more])


def share(part: int, whole: int, noun: str) -> str:
    """ "3 of 32 images"."""
    return f"{part} of {whole} {noun}"
