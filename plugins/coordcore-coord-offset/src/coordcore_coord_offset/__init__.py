"""Trainable offsets for the coord rows of frozen matrices. The public names, loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from coordcore_coord_offset.plugin import CoordOffsetConfig

if TYPE_CHECKING:
    from coordcore_coord_offset.plain import (
        check_saved_offsets,
        install_coord_offset_adapter,
        live_coord_offset_adapter,
        merge_coord_offsets,
        reattach_coord_offset_hooks,
        save_offset_record,
        verify_coord_offsets,
    )
    from coordcore_coord_offset.surgery import CoordOffsetAdapter, CoordOffsetSurgery

__version__ = "0.1.0"

__all__ = [
    "CoordOffsetAdapter",
    "CoordOffsetConfig",
    "CoordOffsetSurgery",
    "check_saved_offsets",
    "install_coord_offset_adapter",
    "live_coord_offset_adapter",
    "merge_coord_offsets",
    "reattach_coord_offset_hooks",
    "save_offset_record",
    "verify_coord_offsets",
]


def __getattr__(name: str) -> Any:
    # These import torch; the hooks and the config, which `coordcore check` reads, must not.
    if name in __all__:
        module = "surgery" if name in ("CoordOffsetAdapter", "CoordOffsetSurgery") else "plain"
        return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
