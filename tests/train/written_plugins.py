"""Plugins that a test writes itself, found as installed ones are."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from coordcore.hookspecs import GROUP


@contextmanager
def installed(folder: Path, package: str, files: Mapping[str, str]) -> Iterator[None]:
    """Within this context a distribution is installed whose hooks are in `<package>/plugin.py`, one of `files`."""
    source = folder / package
    source.mkdir(parents=True)
    for name, text in {"__init__.py": "", **files}.items():
        (source / name).write_text(text, encoding="utf-8")
    info = folder / f"{package}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\nRequires-Dist: coordcore>=0.1\n"
    )
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nplugin = {package}.plugin\n")
    sys.path.append(str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        importlib.invalidate_caches()
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]
