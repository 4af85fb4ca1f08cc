"""`python -O` takes assert statements out, and must not change what is checked or done."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from test_house import MODULES


def working(file: Path) -> list[str]:
    """The assert statements of a source file that call something: what they do would not be done."""
    return [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
        for inner in ast.walk(node.test)
        if isinstance(inner, ast.Call | ast.Await | ast.NamedExpr)
        and not (isinstance(inner, ast.Call) and ast.unparse(inner.func) == "isinstance")
    ]


def test_no_assert_does_work() -> None:
    # The checks of the kit are assertions, for pytest.
    found = {name: working(file) for name, file in MODULES.items() if not name.startswith("coordcore.testing")}

    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("statement", "count"), [("assert run.step()", 1), ("assert isinstance(x, int)", 0), ("assert x is not None", 0)]
)
def test_one_that_does_is_seen(tmp_path: Path, statement: str, count: int) -> None:
    file = tmp_path / "made.py"
    file.write_text(statement)

    assert len(working(file)) == count


def test_the_kit_does_not_run_without_its_assertions() -> None:
    script = "import coordcore.testing"
    done = subprocess.run([sys.executable, "-O", "-c", script], capture_output=True, text=True, check=False)

    assert (done.returncode, "which python -O (PYTHONOPTIMIZE) takes out" in done.stderr) == (1, True)
