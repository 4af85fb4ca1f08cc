"""The how-to of data builders: the package on the page, installed as a stranger would, passes its tests and trains."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomli

from conftest import ROOT, coordcore

PAGE = (ROOT / "docs/how-to/write-a-data-builder.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^\*\*`(\S+)`\*\*\n\n```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the page, and its distribution installed for every process that the test starts."""
    folder = tmp_path / "csv-boxes"
    for name, text in {**FILES, "src/csv_boxes/__init__.py": ""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "docs/examples/data/images", folder / "images")
    project = tomli.loads(FILES["pyproject.toml"])["project"]
    info = folder / "src" / f"csv_boxes-{project['version']}.dist-info"
    info.mkdir()
    requires = "".join(f"Requires-Dist: {dependency}\n" for dependency in project["dependencies"])
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n{requires}"
    )
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {module}\n" for name, module in table.items())
        for group, table in project["entry-points"].items()
    )
    (info / "entry_points.txt").write_text(points)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder / "src"), os.environ.get("PYTHONPATH", "")]))
    return folder


def test_the_folder_on_the_page_is_that_of_its_files() -> None:
    (tree,) = re.findall(r"```text\ncsv-boxes/\n(.*?)```", PAGE, re.DOTALL)
    assert sorted(re.findall(r"[\w.]+\.(?:py|toml|csv)", tree)) == sorted(
        [*(Path(f).name for f in FILES), "__init__.py"]
    )


def test_its_tests_pass(package: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=package,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_its_manifest_trains(package: Path) -> None:
    coordcore("run", "run.toml", cwd=package)
    lines = [json.loads(line) for line in (package / "runs/csv/metrics.jsonl").read_text().splitlines()]
    losses = [line["coord_soft_ce_w1/soft_ce"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    assert len([line for line in lines if "eval_loss" in line]) == 1
    assert (package / "runs/csv/merged/model.safetensors").is_file()


def test_the_message_of_the_page_is_the_one_printed(package: Path) -> None:
    (message,) = re.findall(r"^(run\.toml:\d+: .*\n.*\n)", PAGE, re.MULTILINE)
    right = FILES["train.csv"]
    (package / "train.csv").write_text(right.replace("210.25,231,", "210.25,731,"))
    assert coordcore("check", "run.toml", cwd=package, expect=2) == message
