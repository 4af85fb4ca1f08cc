"""A working directory with one image, and ways to write records into it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from PIL import Image

from coordcore import BuildContext
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_coord_tokens import CoordJsonl, CoordJsonlConfig

os.environ["HF_HUB_OFFLINE"] = "1"
settings.register_profile("patient", deadline=None)  # the first example imports what the others use
settings.load_profile("patient")

Write = Callable[..., Path]
Build = Callable[..., CoordJsonl]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that indexes are kept in. Files just written are not at rest, so most tests leave it empty."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("COORDCORE_CACHE", str(folder))
    return folder / "records"


@pytest.fixture
def at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files for at rest as soon as they are written."""
    monkeypatch.setattr("coordcore_coord_tokens.files.AT_REST", -1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, holding photo.png (640 x 480)."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (640, 480), "white").save("photo.png")
    return tmp_path


@pytest.fixture
def record() -> dict[str, Any]:
    """A right record of photo.png."""
    return {
        "images": ["photo.png"],
        "width": 640,
        "height": 480,
        "objects": [{"desc": "red circle", "bbox_2d": [12, 40, 300, 412]}],
    }


@pytest.fixture
def write(folder: Path) -> Write:
    """`write(record, ..., name="train.jsonl")` writes records (dicts, or lines as bytes) and returns the path."""

    def write(*records: dict[str, Any] | bytes, name: str = "train.jsonl") -> Path:
        lines = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in records]
        Path(name).write_bytes(b"".join(line + b"\n" for line in lines))
        return Path(name)

    return write


@pytest.fixture
def context(tmp_path: Path) -> BuildContext:
    return BuildContext(run_dir=tmp_path / "run", seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None)


@pytest.fixture
def build(write: Write, context: BuildContext) -> Build:
    """`build(record, ..., space="pixel")` writes train.jsonl and builds it with these settings."""

    def build(*records: dict[str, Any] | bytes, **settings: Any) -> CoordJsonl:
        return CoordJsonl.open(CoordJsonlConfig(train=write(*records), **settings), context)

    return build
