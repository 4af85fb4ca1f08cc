"""A run does not go on with other training records than it was started with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import save_file

from coordcore import InputError, option
from coordcore_train.run.content import changed, content_of, content_of_base
from coordcore_train.run.folder import RunDir
from coordcore_train.run.session import require_same_data


@attrs.frozen(kw_only=True)
class Config:
    train: Path = option(exists=True, help="records")
    images: Path | None = option(default=None, exists=True, help="a folder")
    note: Path | None = option(default=None, help="not read")


@attrs.frozen(kw_only=True)
class Nested:
    sources: dict[str, Config] = option(help="several")


def test_the_files_of_nested_settings_are_looked_at(records: Path) -> None:
    selected = SimpleNamespace(path="data.many", config=Nested(sources={"a": Config(train=records)}))
    found = content_of(SimpleNamespace(of=lambda _kind: [selected]), None)
    assert {path: entry["file"] for path, entry in found.items()} == {"data.many.sources.a.train": str(records)}


def manifest(**settings: Any) -> Any:
    selected = SimpleNamespace(path="data.records", config=Config(**settings))
    return SimpleNamespace(of=lambda kind: [selected] if kind == "data" else [])


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("first\n")
    return path


def prepared(folder: RunDir, records: Path) -> bool:
    content = content_of(manifest(train=records), folder.state().get("content") if folder.path.is_dir() else None)
    return folder.prepare("a = 1", "same", records.parent, layout={}, content=content)


def with_checkpoint(tmp_path: Path, records: Path) -> RunDir:
    folder = RunDir(tmp_path / "run")
    prepared(folder, records)
    (folder.checkpoints / "checkpoint-1").mkdir()
    (folder.checkpoints / "checkpoint-1" / "trainer_state.json").write_text("{}")
    return folder


def test_other_records_are_refused(tmp_path: Path, records: Path) -> None:
    folder = with_checkpoint(tmp_path, records)
    records.write_text("second\n")

    with pytest.raises(InputError) as caught:
        prepared(folder, records)
    assert str(caught.value) == (
        f"data.records.train: {records} is not what this run was started with: put it back to go on from the last "
        "checkpoint; or else name another folder with --output, or replace it with --overwrite"
    )
    records.write_text("first\n")
    assert prepared(folder, records)


def test_a_copy_with_another_time_is_the_same(tmp_path: Path, records: Path) -> None:
    folder = with_checkpoint(tmp_path, records)
    os.utime(records, ns=(1, 1))

    assert prepared(folder, records)


def test_records_may_be_mended_before_the_first_checkpoint(tmp_path: Path, records: Path) -> None:
    folder = RunDir(tmp_path / "run")
    prepared(folder, records)
    records.write_text("second\n")

    assert prepared(folder, records)


def test_what_has_its_size_and_time_is_not_read_again(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = content_of(manifest(train=records), None)
    monkeypatch.setattr("coordcore_train.run.content._hash", None)

    assert content_of(manifest(train=records), first) == first


def test_other_weights_of_the_base_are_another_content(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1 << 21)}, file)
    first = content_of_base(tmp_path)
    save_file({"a": torch.ones(1 << 21)}, file)
    assert changed(content_of_base(tmp_path), first) == f"model.base: {tmp_path} is not what this run was started with"


def test_a_copy_of_the_base_is_the_same(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(9)}, tmp_path / "model.safetensors")
    copy = Path(shutil.copytree(tmp_path, tmp_path / "copy"))
    assert changed(content_of_base(copy), content_of_base(tmp_path)) is None


def test_weights_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "model.bin").mkdir()
    with pytest.raises(InputError) as caught:
        content_of_base(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'model.bin'}: cannot be read: is a directory"


def test_only_files_that_are_read_are_hashed(tmp_path: Path, records: Path) -> None:
    found = content_of(manifest(train=records, images=tmp_path, note=records), None)

    assert list(found) == ["data.records.train"]


def test_a_run_of_before_this_was_kept_goes_on(tmp_path: Path, records: Path) -> None:
    folder = with_checkpoint(tmp_path, records)
    folder.write_state(content=None)

    assert prepared(folder, records)


def test_a_rank_that_sees_another_file_under_that_name(
    tmp_path: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, data = RunDir(tmp_path / "run"), manifest(train=records)
    prepared(folder, records)
    require_same_data(data, folder)
    os.utime(records, ns=(1, 1))  # a copy on the rank's own disk
    require_same_data(data, folder)

    records.write_text("other\n")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match=r"train\.jsonl is not what this run was started with on rank 0, .* on rank 3"):
        require_same_data(data, folder)
