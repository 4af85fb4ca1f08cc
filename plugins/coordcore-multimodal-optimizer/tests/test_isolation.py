"""This plugin stands on coordcore alone."""

from __future__ import annotations

import ast
import os
from importlib.metadata import distributions
from pathlib import Path

import coordcore_multimodal_optimizer


def test_no_other_coordcore_plugin_is_needed() -> None:
    source = Path(coordcore_multimodal_optimizer.__file__).parent
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        for file in source.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    packages = {name.partition(".")[0] for name in imported if name.startswith("coordcore")}
    assert packages == {"coordcore", "coordcore_multimodal_optimizer"}
    # tox sets this where only the core and this plugin are installed.
    if os.environ.get("COORDCORE_ISOLATED") == "1":
        installed = {name for one in distributions() if (name := one.name.lower()).startswith("coordcore")}
        assert installed == {"coordcore", "coordcore-multimodal-optimizer"}
