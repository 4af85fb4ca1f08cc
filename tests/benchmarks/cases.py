"""Every row, in the order of the table."""

from __future__ import annotations

import adapter_case
import builder_rows
import loss_case
import merge_rows
import objective_case
import step_case
from measure import Case

CASES: tuple[Case, ...] = (
    *loss_case.CASES,
    *objective_case.CASES,
    *adapter_case.CASES,
    *builder_rows.CASES,
    *merge_rows.CASES,
    *step_case.CASES,
)


def find(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def select(wanted: list[str]) -> list[Case]:
    """The cases whose name starts with one of `wanted`; all of them when it is empty.

    Raises ValueError for a name that selects nothing.
    """
    for name in wanted:
        if not any(case.name.startswith(name) for case in CASES):
            raise ValueError(f"no row is called {name!r}; there are: {', '.join(case.name for case in CASES)}")
    return [case for case in CASES if not wanted or case.name.startswith(tuple(wanted))]
