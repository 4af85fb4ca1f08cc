"""This plugin stands on the core alone."""

from __future__ import annotations

import ast
import os
from importlib.metadata import distributions
from pathlib import Path

import coordcore_coord_tokens


def imported_modules(source: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(source)))
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    return plain | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


def test_no_other_plugin_is_used() -> None:
    sources = Path(coordcore_coord_tokens.__file__).parent.rglob("*.py")
    tops = {name.partition(".")[0] for source in sources for name in imported_modules(source.read_text())}
    assert {top for top in tops if top.startswith("coordcore_")} == {"coordcore_coord_tokens"}
    if os.environ.get("COORDCORE_ISOLATED") == "1":
        installed = {one.name for one in distributions() if one.name.startswith("coordcore-")}
        assert installed == {"coordcore-coord-tokens"}
