"""Records and chat rows with coordinate tokens, the ms-swift template adapter. The public names, loaded on use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordcore.records.answers import Located, answer_text
    from coordcore_coord_tokens.annotate import annotate_coord_tokens
    from coordcore_coord_tokens.chat.builder import ChatJsonl, ChatSource
    from coordcore_coord_tokens.chat.config import ChatJsonlConfig
    from coordcore_coord_tokens.config import CoordJsonlConfig, CoordTemplateConfig
    from coordcore_coord_tokens.jsonl import CoordJsonl, JsonlSource
    from coordcore_coord_tokens.template import CoordTemplate, apply_coord_template_adapter

__version__ = "0.1.0"

__all__ = [
    "ChatJsonl",
    "ChatJsonlConfig",
    "ChatSource",
    "CoordJsonl",
    "CoordJsonlConfig",
    "CoordTemplate",
    "CoordTemplateConfig",
    "JsonlSource",
    "Located",
    "annotate_coord_tokens",
    "answer_text",
    "apply_coord_template_adapter",
]

_HOMES = {
    "ChatJsonl": "coordcore_coord_tokens.chat.builder",
    "ChatJsonlConfig": "coordcore_coord_tokens.chat.config",
    "ChatSource": "coordcore_coord_tokens.chat.builder",
    "CoordJsonl": "coordcore_coord_tokens.jsonl",
    "CoordJsonlConfig": "coordcore_coord_tokens.plugin",
    "CoordTemplate": "coordcore_coord_tokens.template",
    "CoordTemplateConfig": "coordcore_coord_tokens.plugin",
    "JsonlSource": "coordcore_coord_tokens.jsonl",
    "Located": "coordcore.records.answers",
    "annotate_coord_tokens": "coordcore_coord_tokens.annotate",
    "answer_text": "coordcore.records.answers",
    "apply_coord_template_adapter": "coordcore_coord_tokens.template",
}


def __getattr__(name: str) -> Any:
    # `coordcore check` imports the hooks alone; msgspec and the readers wait until a run needs them.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
