"""Trainable offsets for the coord rows of frozen matrices. The public names, loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from coordcore_coord_offset.plugin import CoordOffsetConfig

if TYPE_CHECKING:
    from coordcore_coord_offset.adapter import CoordOffsetAdapter
    from coordcore_coord_offset.hooks import (
        install_coord_offset_adapter,
        live_coord_offset_adapter,
        reattach_coord_offset_hooks,
        verify_coord_offsets,
    )
    from coordcore_coord_offset.merge import merge_coord_offsets
    from coordcore_coord_offset.saved import check_saved_offsets, save_offset_record
    from coordcore_coord_offset.surgery import CoordOffsetSurgery

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

# These modules import torch; the hooks and the config, which `coordcore check` reads, must not.
_MODULES = {
    "CoordOffsetAdapter": "adapter",
    "CoordOffsetSurgery": "surgery",
    "check_saved_offsets": "saved",
    "install_coord_offset_adapter": "hooks",
    "live_coord_offset_adapter": "hooks",
    "merge_coord_offsets": "merge",
    "reattach_coord_offset_hooks": "hooks",
    "save_offset_record": "saved",
    "verify_coord_offsets": "hooks",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
