"""Every row, in the order of the table."""

from __future__ import annotations

import adapter_case
import answers_case
import builder_rows
import command_case
import loss_case
import merge_rows
import mixture_case
import objective_case
import packing_case
import step_case
from measure import Case

CASES: tuple[Case, ...] = (
    *loss_case.CASES,
    *objective_case.CASES,
    *adapter_case.CASES,
    *builder_rows.CASES,
    *mixture_case.CASES,
    *merge_rows.CASES,
    *step_case.CASES,
    *packing_case.CASES,
    *answers_case.CASES,
    *command_case.CASES,
)


def find(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def select(wanted: list[str]) -> list[Case]:
    """The cases of these names, or where there is none, those whose names start so; all of them without `wanted`.

    Raises ValueError for a name that selects nothing.
    """
    chosen: set[str] = set()
    for name in wanted:
        found = [case.name for case in CASES if case.name == name] or [
            case.name for case in CASES if case.name.startswith(name)
        ]
        if not found:
            raise ValueError(f"no row is called {name!r}; there are: {', '.join(case.name for case in CASES)}")
        chosen |= set(found)
    return [case for case in CASES if not wanted or case.name in chosen]
