"""The manifest: one TOML file that says what to train, on what, with which plugins. Torch-free."""

from __future__ import annotations

from coordcore.errors import ManifestError
from coordcore.manifest.loading import Loaded, load
from coordcore.manifest.sections import Manifest

__all__ = ["Loaded", "Manifest", "ManifestError", "load"]
