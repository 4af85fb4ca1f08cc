"""What is there and what is missing, and how this checkout is imported where nothing of it is installed. Torch-free.

Everything here runs with Python alone: it finds out what else there is.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
WHEELS = HERE / "wheels"

NEEDED = {"attrs": "attr", "cattrs": "cattrs", "msgspec": "msgspec", "numpy": "numpy", "packaging": "packaging",
          "platformdirs": "platformdirs", "pluggy": "pluggy", "rich": "rich", "tomli": "tomli", "tomli-w": "tomli_w",
          "typer": "typer", "safetensors": "safetensors", "torch": "torch", "transformers": "transformers"}  # fmt: skip
"""Distribution -> module: what coordcore and its plugins import here. The last two are never carried."""

WANTED = {"filelock": "filelock", "jinja2": "jinja2", "pillow": "PIL", "peft": "peft", "torchvision": "torchvision",
          "triton": "triton", "liger-kernel": "liger_kernel", "cut-cross-entropy": "cut_cross_entropy",
          "flash-attn": "flash_attn", "ms-swift": "swift"}  # fmt: skip
"""What a section may need; without it that section, or that variant, is left out with the reason."""


def probe() -> dict[str, Any]:
    """The interpreter, and each distribution's version, None where it is missing."""
    found: dict[str, str | None] = {}
    for name, module in {**NEEDED, **WANTED}.items():
        if find_spec(module) is None:
            found[name] = None
            continue
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "present"
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "packages": found,
    }


def missing(found: Mapping[str, Any]) -> list[str]:
    """What nothing can run without."""
    return [name for name in NEEDED if found["packages"][name] is None]


def source_folders() -> list[Path]:
    """This checkout's packages."""
    return [ROOT, *sorted(ROOT.glob("plugins/*/src"))]


def unpack(wheels: Path, into: Path) -> list[str]:
    """Unpack the wheels of `wheels` whose distribution is missing, and return their names; what is there wins."""
    unpacked = []
    for wheel in sorted(wheels.glob("*.whl")):
        name = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        try:
            version(name)
        except PackageNotFoundError:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(into)
            unpacked.append(name)
    return unpacked


def write_entry_points(into: Path) -> None:
    """Metadata of this checkout's packages, as an installation would leave it: plugins are found by it."""
    for project in (ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))):
        table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        name = table["name"].replace("-", "_")
        info = into / f"{name}-0.1.0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        metadata = [f"Metadata-Version: 2.1\nName: {table['name']}\nVersion: 0.1.0"]
        metadata += [f"Requires-Dist: {dependency}" for dependency in table["dependencies"]]
        (info / "METADATA").write_text("\n".join(metadata) + "\n", encoding="utf-8")
        sections = [
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
            for group, entries in table.get("entry-points", {}).items()
        ]
        (info / "entry_points.txt").write_text("\n".join(sections), encoding="utf-8")


def search_path(folder: Path) -> str:
    """PYTHONPATH for a process that imports this checkout and what `folder` holds."""
    own: Iterable[Path] = [*source_folders(), HERE, HERE.parent / "benchmarks", folder]
    return os.pathsep.join([*map(str, own), *filter(None, [os.environ.get("PYTHONPATH")])])


def activate(folder: Path) -> None:
    """Let this process and those that it starts import the checkout and what `folder` holds."""
    path = search_path(folder)
    os.environ["PYTHONPATH"] = path
    sys.path[:0] = [item for item in path.split(os.pathsep) if item not in sys.path]
