"""Fine-tune vision-language models that speak boxes as coordinate tokens. The public names; torch-free."""

from __future__ import annotations

from coordcore.builtins import FunctionTerm
from coordcore.components import COORD_SUPERVISION, COORD_TOKENS, BuildContext, Command, Component, Selected, option
from coordcore.errors import InputError, Problem, RunError
from coordcore.hookspecs import hookimpl
from coordcore.kinds import Kind
from coordcore.records.example import Example, Geometry

__version__ = "0.1.0"

__all__ = [
    "COORD_SUPERVISION",
    "COORD_TOKENS",
    "BuildContext",
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
