"""The house as docs/explanation/house.md describes it: how large the core is, what it imports, and who imports whom."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import tomli

ROOT = Path(__file__).parents[2]
CONTRACT, FLOOR = 2_785, 1_508

"""Lines of code that the contract and the floor of records may have: the core without the conformance kit."""

BUILDS_ON = {"coordcore_label_embeddings": "coordcore_detection"}
"""The plugins that build on another beside the engine, as their pyproject.toml says."""

HEAVY = ("torch", "transformers", "peft", "swift", "safetensors", "accelerate")


def sources(package: Path) -> dict[str, Path]:
    """Module -> source file of everything in a package."""
    files = sorted(package.rglob("*.py"))
    names = [".".join((package.name, *file.relative_to(package).with_suffix("").parts)) for file in files]
    return {name.removesuffix(".__init__"): file for name, file in zip(names, files, strict=True)}


CORE = sources(ROOT / "coordcore")
PLUGINS = {package.name: sources(package) for package in sorted(ROOT.glob("plugins/*/src/*")) if package.is_dir()}
MODULES = {**CORE, **{name: file for modules in PLUGINS.values() for name, file in modules.items()}}


# --- size ---


def code_lines(file: Path) -> int:
    """The lines of a source file that hold code."""
    text = file.read_text(encoding="utf-8")
    empty = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in empty:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_lines_without_code_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "made.py"
    documentation = '"""Two\n\nlines."""\n\n# a comment\n'
    code = 'x = """two\nlines"""\n\n\ndef f():\n    """Doc."""\n    return (  # why\n        x\n    )\n'
    file.write_text(documentation + code)

    assert code_lines(file) == 6


def sizes(part: str) -> dict[str, int]:
    """Lines of code by module, of "the contract" or "the floor" (of records)."""
    return {
        name: code_lines(file)
        for name, file in CORE.items()
        if not name.startswith("coordcore.testing") and name.startswith("coordcore.records") == (part == "the floor")
    }


def code_lines_of(part: str) -> int:
    """Lines of code of a part of the core."""
    return sum(sizes(part).values())


@pytest.mark.parametrize(("part", "limit"), [("the contract", CONTRACT), ("the floor", FLOOR)])
def test_the_core_is_small(part: str, limit: int) -> None:
    largest = ", ".join(f"{name} {size}" for name, size in sorted(sizes(part).items(), key=lambda item: -item[1])[:5])

    assert code_lines_of(part) <= limit, f"{part} is larger than {limit} lines of code; the largest: {largest}"


def test_the_tree_on_the_page_has_every_module_of_the_core() -> None:
    page = (ROOT / "docs/explanation/house.md").read_text(encoding="utf-8")
    [tree] = re.findall(r"^```\n(coordcore/ .*?)\nplugins/", page, re.DOTALL | re.MULTILINE)
    names = {name.rpartition(".")[2] for name in CORE if not name.startswith("coordcore.testing")}

    assert names - set(re.findall(r"\w+", tree)) == {"__main__"}


# --- imports ---

TRAP = """
import importlib, sys
class Trap:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in %r:
            raise ImportError(f"{name} was imported")
sys.meta_path.insert(0, Trap())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_no_module_of_the_core_imports_torch() -> None:
    # pytest itself is imported by one module of the kit, inside a function.
    command = [sys.executable, "-c", TRAP % (HEAVY,), *(name for name in CORE if name != "coordcore.__main__")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (result.returncode, result.stderr) == (0, "")


def imports(file: Path, *, for_types: bool) -> Iterator[str]:
    """The modules that a source file imports, inside functions too; `for_types`: under TYPE_CHECKING as well."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in guarded and not for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner_name = f"{node.module}.{alias.name}"
                yield inner_name if inner_name in MODULES else node.module


def test_no_two_modules_import_each_other() -> None:
    graph = {
        name: {found for found in imports(file, for_types=False) if found in MODULES and found != name}
        for name, file in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("package", PLUGINS)
def test_a_plugin_builds_on_the_core_and_on_the_engine_alone(package: str) -> None:
    own = {name.partition(".")[0] for file in PLUGINS[package].values() for name in imports(file, for_types=True)}
    allowed = {package, "coordcore", "coordcore_train", BUILDS_ON.get(package, package)}

    assert {name for name in own if name.startswith("coordcore")} <= allowed


@pytest.mark.parametrize(("package", "other"), BUILDS_ON.items())
def test_what_builds_on_another_plugin_brings_it(package: str, other: str) -> None:
    said = (ROOT / "plugins" / package.replace("_", "-") / "pyproject.toml").read_text(encoding="utf-8")
    needed = tomli.loads(said)["project"]["dependencies"]

    assert any(re.match(rf"{other.replace('_', '-')}\b", item) for item in needed)


def test_only_the_kit_of_the_core_knows_the_engine() -> None:
    knowing = {
        name
        for name, file in CORE.items()
        for found in imports(file, for_types=True)
        if found.startswith("coordcore_") and not name.startswith("coordcore.testing")
    }

    assert knowing == set()


@pytest.mark.parametrize("package", ["coordcore", *PLUGINS])
def test_every_module_says_first_what_it_holds(package: str) -> None:
    modules = CORE if package == "coordcore" else PLUGINS[package]
    silent = [name for name, file in modules.items() if not ast.get_docstring(ast.parse(file.read_text()))]

    assert silent == []


BY_ANOTHER_NAME = {"PIL": "pillow", "sklearn": "scikit-learn", "swift": "ms-swift", "yaml": "pyyaml"}
"""Modules whose distribution is called otherwise; elsewhere an underscore is a hyphen."""

OF_THE_ENGINE = {"peft", "safetensors", "torch", "torchvision", "transformers"}
"""What a run brings, whose engine asks for it: whoever works in a run alone does not ask again."""

WHERE_INSTALLED = {"deepspeed", "pytest", "triton", "vllm"}
"""What is imported only for a user who has it, and missed by nobody else."""

BESIDE = {"coordcore-train": {"torchvision"}}
"""What is asked for and imported by none of our modules: processors of transformers need it."""


@pytest.mark.parametrize("package", ["coordcore", *PLUGINS])
def test_a_distribution_asks_for_what_it_imports(package: str) -> None:
    """What only another's dependencies bring may be gone with their next release."""
    name = package.replace("_", "-")
    folder = ROOT if package == "coordcore" else ROOT / "plugins" / name
    modules = CORE if package == "coordcore" else PLUGINS[package]
    tops = {found.partition(".")[0] for file in modules.values() for found in imports(file, for_types=True)}
    strangers = {top for top in tops if top not in sys.stdlib_module_names and not top.startswith("coordcore")}
    imported = {BY_ANOTHER_NAME.get(top, top.replace("_", "-")) for top in strangers}
    needed = tomli.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    asked = {re.split(r"[^\w-]", item)[0] for item in needed if not item.startswith("coordcore")}

    brought = WHERE_INSTALLED | (OF_THE_ENGINE if name != "coordcore-train" else set())
    project = tomli.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [item for items in project.get("optional-dependencies", {}).values() for item in items]
    ours = {re.split(r"[^\w-]", item)[0] for item in (*needed, *extras) if item.startswith("coordcore")} | {name}

    assert imported - asked - brought == set()
    assert {top.replace("_", "-") for top in tops if top.startswith("coordcore")} - ours == set()
    assert asked - imported == BESIDE.get(name, set())


def test_all_that_a_distribution_asks_for_is_pinned() -> None:
    """A release of tomorrow then breaks no run of today: a new msgspec did, by another class of error."""
    files = [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]
    projects = [tomli.loads(file.read_text(encoding="utf-8"))["project"] for file in files]
    asked = {
        re.match(r"[\w-]+", item)[0]  # each begins with a name
        for project in projects
        for items in (project.get("dependencies", []), *project.get("optional-dependencies", {}).values())
        for item in items
    }
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))

    assert {name for name in asked if not name.startswith("coordcore")} - pinned == set()
