"""Builds the core, the engine and a stranger's plugin as wheels, installs them here, and runs the tests of all.

Run it with a Python that has pip, hatchling, pytest and coordcore's own requirements, and no other coordcore plugin:
tox does (`tox -e thirdparty`). Nothing is fetched from the network.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STRANGER = HERE / "coordcore-huber"


def main() -> int:
    """Build, install, test; pytest's exit code."""
    python = [sys.executable, "-m"]
    with tempfile.TemporaryDirectory() as folder:
        for project in (ROOT, ROOT / "plugins/coordcore-train", STRANGER):
            subprocess.run([*python, "hatchling", "build", "-t", "wheel", "-d", folder], cwd=project, check=True)
        wheels = sorted(str(wheel) for wheel in Path(folder).glob("*.whl"))
        install = ["pip", "install", "--quiet", "--no-index", "--no-deps", "--force-reinstall"]
        subprocess.run([*python, *install, *wheels], check=True)
        tests = [str(HERE / "test_thirdparty.py"), str(STRANGER / "tests")]
        # From an empty folder, as `python -m` puts the working directory before what is installed.
        command = [*python, "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", *tests]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        empty = Path(folder, "empty")
        empty.mkdir()
        return subprocess.run([*command, *sys.argv[1:]], cwd=empty, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
