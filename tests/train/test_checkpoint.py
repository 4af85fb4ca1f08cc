"""What a checkpoint folder says about itself, and folders that appear whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from coordcore import __version__
from coordcore.coords import CoordVocab
from coordcore.errors import InputError
from coordcore.files import whole_folder
from coordcore.quantisation import quantisation
from coordcore_train.checkpoint.folder import (
    CheckpointInfo,
    copy_files,
    read_added_tokens,
    read_checkpoint_info,
    read_json,
    write_checkpoint_info,
)

VOCAB = CoordVocab(ids=tuple(range(50, 1050)))


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_info_reads_back(tmp_path: Path) -> None:
    spec = quantisation("florence_1000")
    write_checkpoint_info(tmp_path, quantisation=spec, vocab=VOCAB)
    assert read_checkpoint_info(tmp_path) == CheckpointInfo(
        quantisation=spec, vocab=VOCAB, coordcore_version=__version__
    )


def test_a_folder_without_info(tmp_path: Path) -> None:
    assert read_checkpoint_info(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2, "coordcore_version": "9.1"}, r"format 2 is not 1; use the coordcore version .* \(9.1\)"),
        ({"coord_ids": [1, 2]}, r"coordcore.json: coords, coord_ids: .* 1000 distinct ids, got 2, 2 of them distinct"),
        ({"coord_ids": "50-1049"}, r"coordcore.json: needs coord_ids \(integers\)"),
        ({"quantisation": {}}, r"coordcore.json: quantisation: must hold exactly name"),
    ],
)
def test_damaged_info_names_the_file(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_checkpoint_info(tmp_path, quantisation=quantisation("nearest_999"), vocab=VOCAB)
    path = tmp_path / "coordcore.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        read_checkpoint_info(tmp_path)


def test_info_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "coordcore.json").write_text("{")
    with pytest.raises(InputError, match=r"coordcore.json: not readable as JSON"):
        read_checkpoint_info(tmp_path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"added_tokens": [{"id": 1, "content": "\xff"}]}', "(?i:.*utf-8)"),  # in the words of msgspec's version
        (b'{"model": ' + b"[" * 100_000, "maximum recursion depth exceeded"),
    ],
    ids=["no text", "too deep"],
)
def test_json_that_cannot_be_decoded(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=rf"tokenizer.json: not readable as JSON: {why}.*; download or write it again$"
    ):
        read_json(path)
    with pytest.raises(InputError, match=rf"tokenizer.json: not a tokenizer file: {why}.*; download or save it again$"):
        read_added_tokens(tmp_path)


def files(folder: Path) -> dict[str, str]:
    """Every file in a folder and below: path -> text."""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_belongs_to_a_checkpoint_beside_its_weights(tmp_path: Path) -> None:
    base = tmp_path / "base"
    kept = ("config.json", "templates/tool.jinja", "templates/deep/rag.jinja", "original/params.json")
    left = (
        "model.safetensors",
        "model.safetensors.index.json",
        "onnx/model.onnx",
        "original/a.pth",
        ".cache/a",
        "a/.b",
    )
    for name in (*kept, *left):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text("the base's")
    (base / "config.json").chmod(0o400)
    output = tmp_path / "output"
    output.mkdir()
    (output / "config.json").write_text("ours")
    copy_files(base, output)
    assert files(output) == {**dict.fromkeys(kept, "the base's"), "config.json": "ours"}
    assert names(output) == ["config.json", "original", "templates"]


def test_what_is_behind_links_is_copied_where_there_is_something_new(tmp_path: Path) -> None:
    base, elsewhere = tmp_path / "base", tmp_path / "elsewhere"
    base.mkdir()
    elsewhere.mkdir()
    (elsewhere / "tool.jinja").write_text("template")
    (base / "templates").symlink_to(elsewhere)
    (base / "loop").symlink_to(base)
    (base / "README.md").symlink_to("nowhere")
    output = base / "runs" / "output"
    output.mkdir(parents=True)
    copy_files(base, output)
    assert files(output) == {"templates/tool.jinja": "template"}


def test_a_whole_folder_appears_at_the_end(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "output"
    with whole_folder(output) as scratch:
        (scratch / "file").write_text("text")
        assert not output.exists()
    assert (names(output.parent), names(output)) == (["output"], ["file"])


def test_nothing_appears_when_the_writer_fails(tmp_path: Path) -> None:
    def interrupted() -> None:
        with whole_folder(tmp_path / "output") as scratch:
            (scratch / "file").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == []


def test_an_existing_folder_is_an_error_before_any_work(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="already exists; choose another folder, or ask for it to be replaced"),
        whole_folder(tmp_path),
    ):
        pytest.fail("the block must not run")


def test_no_folder_can_be_made_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "deep" / "output"
    with pytest.raises(InputError) as caught, whole_folder(output):
        pytest.fail("the block must not run")
    reason = f"cannot be made in {tmp_path}/file: not a directory"
    assert str(caught.value) == f"{output}: {reason}; choose another folder"


def test_a_link_to_nothing_is_there(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.symlink_to("nowhere")
    with pytest.raises(InputError, match="output: already exists"), whole_folder(output):
        pytest.fail("the block must not run")
    with pytest.raises(InputError, match="output: already exists"), whole_folder(output, if_exists="keep"):
        pass
    assert (names(tmp_path), output.is_symlink()) == (["output"], True)


@pytest.mark.parametrize("target", ["nowhere", "folder"])
def test_a_link_is_replaced_and_not_what_it_points_to(tmp_path: Path, target: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "theirs").touch()
    output = tmp_path / "output"
    output.symlink_to(target)
    with whole_folder(output, if_exists="replace") as scratch:
        (scratch / "new").touch()
    assert (names(tmp_path), names(output), names(tmp_path / "folder")) == (["folder", "output"], ["new"], ["theirs"])


def test_a_folder_that_appeared_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    output = tmp_path / "output"

    def overtaken() -> None:
        with whole_folder(output) as scratch:
            (scratch / "file").write_text("mine")
            output.mkdir()
            (output / "theirs").write_text("theirs")

    with pytest.raises(InputError, match="already exists"):
        overtaken()
    assert (names(tmp_path), names(output)) == (["output"], ["theirs"])


def test_replace_leaves_nothing_of_the_old(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / "old").write_text("old")
    with whole_folder(output, if_exists="replace") as scratch:
        (scratch / "new").write_text("new")
        assert names(output) == ["old"]
    assert (names(tmp_path), names(output)) == (["output"], ["new"])


def test_keep_lets_the_first_of_two_writers_win(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with whole_folder(output, if_exists="keep") as slow:
        with whole_folder(output, if_exists="keep") as fast:
            (fast / "file").write_text("fast")
        (slow / "file").write_text("slow")
    assert (names(tmp_path), (output / "file").read_text()) == (["output"], "fast")


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    script = "import os, sys; from coordcore.files import whole_folder\n"
    script += "with whole_folder(sys.argv[1]) as scratch: (scratch / 'file').write_text('half'); os._exit(9)"
    output = tmp_path / "output"
    killed = subprocess.run([sys.executable, "-c", script, str(output)], check=False)
    assert (killed.returncode, len(names(tmp_path))) == (9, 1)
    (tmp_path / ".output.0123456789ab.txt").write_text("somebody else's")
    with whole_folder(output):
        assert len([name for name in names(tmp_path) if name.endswith(".tmp")]) == 1  # its own
    assert names(tmp_path) == [".output.0123456789ab.txt", "output"]


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with whole_folder(output, if_exists="keep") as theirs:
        with whole_folder(output, if_exists="keep"):
            assert theirs.exists()
        assert theirs.exists()
