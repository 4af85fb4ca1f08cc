"""A progress bar for work that may take long: on stderr, on a terminal, and only when it does take long."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE = 1.0
"""Seconds of silence."""


class Bar:
    """Counts bytes. `shown=False` keeps it silent, for all ranks but the first."""

    def __init__(self, label: str, total: int, *, shown: bool) -> None:
        self.label = label
        self.total = total
        self.done = 0
        self.shown = shown and sys.stderr.isatty()
        self.started = time.monotonic()
        self._drawn: tuple[Progress, TaskID] | None = None

    def advance(self, count: int) -> None:
        self.done += count
        if self._drawn is None and self.shown and time.monotonic() - self.started > PATIENCE:
            self._drawn = self._draw()
        if self._drawn is not None:
            progress, task = self._drawn
            progress.update(task, completed=self.done)

    def _draw(self) -> tuple[Progress, TaskID]:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        progress.start()
        return progress, progress.add_task(self.label, total=self.total, completed=self.done)

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn is not None:
            self._drawn[0].stop()
