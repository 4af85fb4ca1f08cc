"""The manifest: one TOML file that says what to train, on what, with which plugins. Torch-free."""

from __future__ import annotations

from coordcore.errors import ManifestError
from coordcore.manifest.loading import Loaded, load
from coordcore.manifest.read import Document, Origin
from coordcore.manifest.resolve import as_document, fingerprint, resolved
from coordcore.manifest.sections import MANIFEST_VERSION, Manifest

__all__ = [
    "MANIFEST_VERSION",
    "Document",
    "Loaded",
    "Manifest",
    "ManifestError",
    "Origin",
    "as_document",
    "fingerprint",
    "load",
    "resolved",
]
