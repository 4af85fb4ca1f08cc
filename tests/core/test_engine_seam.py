"""The engine's seam: one folder imports ms-swift, and one module leads into that folder."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from test_house import MODULES, imports

SWIFT = "coordcore_train.swift"
LOADER = "coordcore_train.plugin"
"""The module that offers the engine, and the only one outside `swift/` that may look into it."""


def users(of: str) -> set[str]:
    """The modules that import `of` or a part of it, also inside functions and for types alone."""
    return {
        name
        for name, file in MODULES.items()
        for found in imports(file, for_types=True)
        if found == of or found.startswith(f"{of}.")
    }


def private_calls(file: Path) -> set[str]:
    """The names with one leading underscore that a source file takes from something else than self or its own class."""
    return {
        f"{ast.unparse(node.value)}.{node.attr}"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and ast.unparse(node.value) not in ("self", "cls")
    }


def test_one_folder_imports_ms_swift() -> None:
    using = users("swift")

    assert {name for name in using if not name.startswith(f"{SWIFT}.")} == set()
    assert f"{SWIFT}.pipeline" in using


def test_one_module_leads_into_that_folder() -> None:
    assert {name for name in users(SWIFT) if not name.startswith(f"{SWIFT}.")} == {LOADER}


def test_the_global_run_is_asked_for_where_active_py_says() -> None:
    assert users(f"{SWIFT}.active") == {f"{SWIFT}.{name}" for name in ("classes", "register", "template")}


@pytest.mark.parametrize("private", ["_post_process_datasets", "_prepare_dataset", "_get_dataset", "_encode"])
def test_nobody_else_calls_what_ms_swift_keeps_to_itself(private: str) -> None:
    def names_it(file: Path) -> bool:
        return any(call.endswith(f".{private}") for call in private_calls(file))

    outside = {name for name, file in MODULES.items() if not name.startswith(f"{SWIFT}.") and names_it(file)}

    assert outside == set()


def test_imports_inside_functions_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "made.py"
    file.write_text("def f():\n    from swift.model import get_processor\n    import swift\n")

    assert list(imports(file, for_types=True)) == ["swift.model", "swift"]


def test_private_calls_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "made.py"
    file.write_text("def f(self, pipeline):\n    self._own()\n    return pipeline._post_process_datasets([])[0]\n")

    assert private_calls(file) == {"pipeline._post_process_datasets"}
