"""This plugin needs no other plugin."""

from __future__ import annotations

import ast
import os
from importlib import metadata
from pathlib import Path

import coordcore_demo

SOURCE = Path(coordcore_demo.__file__).parent


def imported_packages():
    found: set[str] = set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found


def test_no_other_plugin_is_needed():
    assert {name for name in imported_packages() if name.startswith("coordcore_")} == {"coordcore_demo"}
    # tox says so where this plugin and the core are all there is; a workspace has every plugin installed.
    if os.environ.get("COORDCORE_ISOLATED") == "1":
        installed = {dist.name for dist in metadata.distributions() if dist.name.startswith("coordcore-")}
        assert installed == {"coordcore-demo"}
