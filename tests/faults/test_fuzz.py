"""Thousands of spoilt inputs, all kinds of paths and surroundings: each ends with a message, or a right result.

The cases run in a process of their own for each kind; `fuzz.py` says how to run one of them again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from amounts import Amounts

FORMATS = ("coco", "lvis", "voc", "yolo", "labelme", "cvat", "odvg", "refcoco", "swift", "label_studio", "records")
FORMATS += ("via", "createml", "labelbox", "openimages", "datumaro", "dota")


def fuzz(kind: str, tmp_path: Path, *options: str) -> None:
    """Run the cases of a kind; what breaks a rule is printed, with the command to run it again."""
    command = [sys.executable, str(Path(__file__).parent / "fuzz.py"), kind, "--keep", str(tmp_path), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"


def test_manifests(tmp_path: Path, amounts: Amounts) -> None:
    fuzz("manifests", tmp_path, "--count", str(amounts.manifests))


def test_records(tmp_path: Path, amounts: Amounts) -> None:
    fuzz("records", tmp_path, "--count", str(amounts.records))


@pytest.mark.parametrize("name", FORMATS)
def test_importers(tmp_path: Path, amounts: Amounts, name: str) -> None:
    fuzz(f"importers.{name}", tmp_path, "--count", str(amounts.files))


def test_predictions(tmp_path: Path, amounts: Amounts) -> None:
    fuzz("predictions", tmp_path, "--count", str(amounts.predictions))


def test_checkpoints(tmp_path: Path, amounts: Amounts) -> None:
    fuzz("checkpoints", tmp_path, "--count", str(amounts.checkpoints))


def test_special_files(tmp_path: Path, amounts: Amounts) -> None:
    fuzz("special", tmp_path, "--count", str(amounts.special))


def test_surroundings(tmp_path: Path, amounts: Amounts) -> None:
    fuzz("surroundings", tmp_path, "--count", str(amounts.surroundings))


def test_every_importer_is_fuzzed() -> None:
    from kinds.importers import SOURCES

    from coordcore_data.convert import conversion

    assert sorted(FORMATS) == sorted(conversion.FORMATS) == sorted(SOURCES)
