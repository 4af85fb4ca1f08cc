"""The embedded default of coordcore: drawn shapes and a tiny base checkpoint. The public names, loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from coordcore_demo.config import PROMPT, ShapesConfig

if TYPE_CHECKING:
    from coordcore_demo.data import answer_text
    from coordcore_demo.shapes import Shape, draw

__version__ = "0.1.0"

__all__ = ["PROMPT", "Shape", "ShapesConfig", "answer_text", "draw"]

_HOMES = {"Shape": "shapes", "answer_text": "data", "draw": "shapes"}


def __getattr__(name: str) -> Any:
    # Drawing imports numpy, which the hooks and the config do not need.
    if name in _HOMES:
        return getattr(import_module(f"coordcore_demo.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
