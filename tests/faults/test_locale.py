"""Names and texts beyond ASCII where the terminal is said to have nothing else, as in many containers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from furnish import RECORDS, work_folder
from kinds import importers, manifests, predictions
from mutate import as_lines, json_bytes
from toml import as_toml

C_LOCALE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with files of such names."""
    from coordcore.quantisation import DEFAULT_QUANTISATION

    work = work_folder(tmp_path)
    record = {
        "images": ["ü.png"],
        "width": 64,
        "height": 48,
        "objects": [{"desc": "ein Öhr 🎈", "bbox_2d": [1, 2, 3, 40]}],
    }
    (work / "ü.png").write_bytes((work / "a.png").read_bytes())
    (work / "ä.jsonl").write_text(_utf8(as_lines([*RECORDS, record])), encoding="utf-8")
    # No file can be named in such a manifest or its records, only labels and the run.
    ascii_names = (work / "ä.jsonl").read_text(encoding="utf-8").replace("ü.png", "a.png")
    (work / "a.jsonl").write_text(ascii_names, encoding="utf-8")
    (work / "ö.json").write_bytes(json_bytes(importers.COCO).replace(b"dog", "Hündchen".encode()))
    predictions.QUANTISATION.update(DEFAULT_QUANTISATION.as_dict())
    (work / "p.jsonl").write_bytes(as_lines(predictions.ROWS).replace(b"red circle", "Öhr".encode()))
    manifest = {**manifests.SHAPES, "name": "größe", "data": {"coord_jsonl": {"train": "a.jsonl", "space": "pixel"}}}
    (work / "m.toml").write_text(as_toml(manifest, Random(0)), encoding="utf-8")
    (work / "wrong.toml").write_text('[tränen]\nä = "ß"\n', encoding="utf-8")
    return work


def _utf8(lines: bytes) -> str:
    import json

    return "".join(json.dumps(json.loads(line), ensure_ascii=False) + "\n" for line in lines.splitlines())


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, "check m.toml"),
        (2, "check wrong.toml"),
        (0, "data check ä.jsonl --image-root ."),
        (0, "data convert ö.json out.jsonl --from coco --to-space pixel"),
        (0, "eval p.jsonl ä.jsonl --space pixel"),
    ],
)
def test_a_command_in_the_c_locale(work: Path, cache: Path, code: int, arguments: str) -> None:
    environment = {**os.environ, **C_LOCALE}
    command = [sys.executable, "-m", "coordcore", *arguments.split()]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, check=False)
    assert b"Traceback" not in done.stderr, done.stderr.decode("utf-8", "replace")
    assert done.returncode == code, done.stderr.decode("utf-8", "replace")
