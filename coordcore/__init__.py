"""Fine-tune vision-language models that speak boxes as coordinate tokens. The public names; torch-free."""

from __future__ import annotations

from coordcore.builtins import FunctionTerm
from coordcore.components import (
    COORD_SUPERVISION,
    COORD_TOKENS,
    BuildContext,
    CheckedRun,
    Command,
    Component,
    Kind,
    Problem,
    Selected,
    option,
)
from coordcore.hookspecs import hookimpl
from coordcore.records import Example, Geometry, InputError, RunError

__version__ = "0.1.0"

__all__ = [
    "COORD_SUPERVISION",
    "COORD_TOKENS",
    "BuildContext",
    "CheckedRun",
    "Command",
    "Component",
    "Example",
    "FunctionTerm",
    "Geometry",
    "InputError",
    "Kind",
    "Problem",
    "RunError",
    "Selected",
    "__version__",
    "hookimpl",
    "option",
]
