"""Thousands of spoilt inputs, all kinds of paths and surroundings: each ends with a message, or a right result.

The cases run in a process of their own for each kind; `fuzz.py` says how to run one of them again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from amounts import Amounts

FORMATS = ("coco", "lvis", "voc", "yolo", "labelme", "cvat", "odvg", "refcoco", "swift", "label_studio", "records")
FORMATS += ("via", "createml", "labelbox", "openimages", "datumaro", "dota")


Fuzz = Callable[[str, int], None]


@pytest.fixture
def fuzz(tmp_path: Path, cache: Path) -> Fuzz:
    """Runs `count` cases of a kind; what breaks a rule is printed, with the command to run it again."""
    return partial(_fuzz, tmp_path, cache)


def _fuzz(tmp_path: Path, cache: Path, kind: str, count: int) -> None:
    command = [sys.executable, str(Path(__file__).parent / "fuzz.py"), kind, "--keep", str(tmp_path)]
    command += ["--cache", str(cache), "--count", str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"


def test_manifests(fuzz: Fuzz, amounts: Amounts) -> None:
    fuzz("manifests", amounts.manifests)


def test_records(fuzz: Fuzz, amounts: Amounts) -> None:
    fuzz("records", amounts.records)


@pytest.mark.parametrize("name", FORMATS)
def test_importers(fuzz: Fuzz, amounts: Amounts, name: str) -> None:
    fuzz(f"importers.{name}", amounts.files)


def test_predictions(fuzz: Fuzz, amounts: Amounts) -> None:
    fuzz("predictions", amounts.predictions)


def test_checkpoints(fuzz: Fuzz, amounts: Amounts) -> None:
    fuzz("checkpoints", amounts.checkpoints)


def test_special_files(fuzz: Fuzz, amounts: Amounts) -> None:
    fuzz("special", amounts.special)


def test_surroundings(fuzz: Fuzz, amounts: Amounts) -> None:
    fuzz("surroundings", amounts.surroundings)


def test_every_importer_is_fuzzed() -> None:
    from kinds.importers import SOURCES

    from coordcore_data.convert import conversion

    assert sorted(FORMATS) == sorted(conversion.FORMATS) == sorted(SOURCES)
