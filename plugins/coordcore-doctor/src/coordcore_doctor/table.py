"""Findings as a table for the terminal and as JSON. Rich is imported when used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs

from coordcore.errors import printable, shortened
from coordcore_doctor.findings import Finding

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red", "not applicable": "dim", "not checked": "dim"}
_SHORT = {"not applicable": "n/a", "not checked": "-"}


def table(findings: Sequence[Finding]) -> Table:
    """One row for each finding, its cure below what was seen."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False)
    drawn.add_column("check", no_wrap=True)
    drawn.add_column("state", no_wrap=True)
    drawn.add_column("what was seen", overflow="fold")
    for finding in findings:
        seen = Text(_told(finding.seen), style="dim" if finding.state in _SHORT else "")
        if finding.cure:
            seen.append(f"\ncure: {_told(finding.cure)}", style=_STYLES[finding.state])
        drawn.add_row(
            Text(finding.name), Text(_SHORT.get(finding.state, finding.state), style=_STYLES[finding.state]), seen
        )
    return drawn


def _told(text: str) -> str:
    """As a terminal may have it: what was seen comes out of records and files of the base."""
    return printable(shortened(text, 4_000))


def summary(findings: Sequence[Finding]) -> str:
    """ "20 ok, 1 warning, 2 errors"."""
    counts = Counter[str](finding.state for finding in findings)
    words = [("ok", ""), ("warning", "s"), ("error", "s"), ("not applicable", ""), ("not checked", "")]
    return ", ".join(
        f"{counts[state]} {state}{plural if counts[state] > 1 else ''}" for state, plural in words if counts[state]
    )


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The same for machines."""
    return {"findings": [attrs.asdict(finding) for finding in findings], "summary": summary(findings)}
