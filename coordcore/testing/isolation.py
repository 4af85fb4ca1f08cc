"""Whether a plugin stands on the core alone: for the test that every plugin of this repository has."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType

PREFIX = "coordcore_"

ENGINE = "coordcore_train"
"""The one plugin that any other may build on."""


def assert_stands_alone(package: ModuleType, *, on: Iterable[str] = ()) -> None:
    """Raise AssertionError when the source of `package` imports another `coordcore_...` package than coordcore_train.

    on: packages that it may build on all the same, as its pyproject.toml says.
    With COORDCORE_ISOLATED=1, as tox sets it where this plugin, the core and the engine are all there is, also when
    another one is installed; a workspace has every plugin.
    """
    files = Path(str(package.__file__)).parent.rglob("*.py")
    used = {name for file in files for name in _imported(file) if name.startswith(PREFIX)}
    allowed = {package.__name__, ENGINE, *on}
    assert used <= allowed, f"{package.__name__} imports {', '.join(sorted(used - allowed))}"
    if os.environ.get("COORDCORE_ISOLATED") == "1":
        names = {distribution.name.lower().replace("-", "_") for distribution in distributions()}
        installed = {name for name in names if name.startswith(PREFIX)}
        assert installed <= allowed, f"installed beside {package.__name__}: {sorted(installed - allowed)}"


def _imported(file: Path) -> set[str]:
    """The top-level packages that a source file imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found
