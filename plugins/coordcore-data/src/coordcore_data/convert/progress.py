"""A progress bar on stderr, for people: none in a pipe or a log file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def shown(items: Iterable[T], title: str, total: int | None = None) -> Iterable[T]:
    """`items`, with a bar while they are taken if stderr is a terminal. total: None where nobody knows it."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        return items
    from rich.progress import track

    return track(items, title, total=total, console=console, transient=True)
