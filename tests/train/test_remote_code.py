"""Python that lies in a base is not run, whoever loads it, unless `[model] trust_remote_code` says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import loaded, train

from coordcore.check import check, notes
from coordcore.errors import InputError
from coordcore.manifest import load
from coordcore_train.checkpoint.base import base_checkpoint
from coordcore_train.checkpoint.code import code_in, require_no_code
from coordcore_train.checkpoint.expand import expand
from coordcore_train.checkpoint.merge.run import merge_run
from coordcore_train.run.folder import RunDir
from coordcore_train.run.plan import load_run

PLACES = {
    "config.json": {"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"},
    "tokenizer_config.json": {"AutoTokenizer": [None, "evil.Tokenizer"]},
    "preprocessor_config.json": {"AutoProcessor": "evil.Processor", "AutoImageProcessor": "evil.Images"},
    "processor_config.json": {"AutoProcessor": "evil.Processor"},
    "video_preprocessor_config.json": {"AutoVideoProcessor": "evil.Videos"},
}


def add_code(base: Path, file: str, classes: dict[str, Any], source: str = "") -> Path:
    """Let `file` of a base name classes of its evil.py. Returns the file that evil.py makes when it runs."""
    marker = base.parent / "EXECUTED"
    (base / "evil.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n{source}")
    document = json.loads((base / file).read_text()) if (base / file).exists() else {}
    (base / file).write_text(json.dumps({**document, "auto_map": classes}))
    return marker


@pytest.mark.parametrize("file", PLACES)
def test_check_names_file_key_class_and_cure(base: Path, tmp_path: Path, file: str) -> None:
    add_code(base, file, PLACES[file])
    key = next(iter(PLACES[file]))
    found = [str(item) for item in check(loaded(tmp_path, base))]
    text = next(item for item in found if f"auto_map.{key}" in item)
    assert str(base / file) in text
    assert "evil." in text
    assert "trust_remote_code = true" in text


@pytest.mark.parametrize("file", PLACES)
def test_a_run_and_an_expansion_stop_before_anything_is_loaded(base: Path, tmp_path: Path, file: str) -> None:
    marker = add_code(base, file, PLACES[file])
    with pytest.raises(InputError, match="auto_map"):
        train(tmp_path / "work", base)
    with pytest.raises(InputError, match="auto_map"):
        expand(base, tmp_path / "expanded")
    assert not marker.exists()
    assert not (tmp_path / "work" / "run").exists()
    assert not (tmp_path / "expanded").exists()


def test_a_base_that_has_come_to_hold_code_is_not_merged(coord_base: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(coord_base, tmp_path / "base"))
    manifest = loaded(tmp_path, base)
    run = RunDir(tmp_path / "run")
    from coordcore_train.run.resolved import fingerprint, resolved

    run.prepare(resolved(manifest.manifest, manifest.plugins), fingerprint(manifest.manifest), base, layout={})
    load_run(run.path)
    marker = add_code(base, "tokenizer_config.json", PLACES["tokenizer_config.json"])
    with pytest.raises(InputError, match="auto_map"):
        merge_run(run.path, tmp_path / "merged")
    assert not marker.exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_ms_swift_itself_runs_nothing(coord_base: Path, tmp_path: Path, file: str) -> None:
    from swift.model import get_processor

    from coordcore_train.swift.trust import let_code_run

    base = Path(shutil.copytree(coord_base, tmp_path / "base"))
    marker = add_code(base, file, PLACES[file])
    let_code_run(trusted=False)
    get_processor(str(base), model_type="qwen3_vl", use_hf=True)
    assert not marker.exists()


def test_with_the_key_it_runs_and_manifest_and_merged_folder_tell_of_it(coord_base: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(coord_base, tmp_path / "base"))
    source = "from transformers import PreTrainedTokenizerFast\nclass Tokenizer(PreTrainedTokenizerFast):\n    pass\n"
    marker = add_code(base, "tokenizer_config.json", PLACES["tokenizer_config.json"], source)
    (base / "README.md").write_text("# Base\n")
    trusting = {"trust_remote_code": True}
    assert [note for note in notes(loaded(tmp_path, base, model=trusting)) if "evil.Tokenizer" in note]
    run = train(tmp_path, base, model=trusting, train={"steps": 1}, output={"merge": True})
    assert marker.exists()
    assert load(run.manifest).manifest.model.trust_remote_code is True
    assert json.loads((run.merged / "coordcore.json").read_text())["trust_remote_code"] is True
    card = (run.merged / "README.md").read_text()
    assert card.startswith("# Base\n")
    assert "trust_remote_code = true" in card
    assert "evil.Tokenizer" in card


def test_the_key_alone_changes_no_run(coord_base: Path, tmp_path: Path) -> None:
    from coordcore_train.run.resolved import fingerprint

    plain, trusting = loaded(tmp_path, coord_base), loaded(tmp_path, coord_base, model={"trust_remote_code": True})
    assert fingerprint(plain.manifest) == fingerprint(trusting.manifest)
    assert base_checkpoint(trusting.manifest) == coord_base


@pytest.mark.parametrize(
    ("file", "document", "word"),
    [
        (
            "config.json",
            {"text_config": {"auto_map": {"AutoConfig": "a/b--evil.C"}}},
            "text_config.auto_map.AutoConfig",
        ),
        ("config.4.0.0.json", {"auto_map": {"AutoConfig": "evil.C"}}, "auto_map.AutoConfig"),
        ("tokenizer_config.json", {"auto_map": ["evil.Slow", None]}, "auto_map"),
        ("processor_config.json", {"parts": [{"auto_map": {"X": "evil.C"}}]}, "parts[0].auto_map.X"),
        ("config.json", {"attn_implementation": "somebody/kernel"}, "attn_implementation"),
        ("adapter_config.json", {"megatron_config": {"a": 1}, "megatron_core": "evil"}, "megatron_config"),
    ],
)
def test_other_ways_to_name_code(tmp_path: Path, file: str, document: dict[str, Any], word: str) -> None:
    (tmp_path / file).write_text(json.dumps(document))
    with pytest.raises(InputError, match=word.replace("[", r"\[")):
        require_no_code(tmp_path, trusted=False)
    require_no_code(tmp_path, trusted=True)


def test_nothing_is_found_where_nothing_is_named(coord_base: Path, tmp_path: Path) -> None:
    assert list(code_in(coord_base)) == []
    (tmp_path / "config.json").write_text('{"auto_map": null, "attn_implementation": "sdpa"}')
    (tmp_path / "adapter_config.json").write_text('{"megatron_config": null, "megatron_core": "megatron.core"}')
    assert list(code_in(tmp_path)) == []


def test_a_configuration_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    # Python's own reader takes NaN, and would find the class behind it.
    (tmp_path / "tokenizer_config.json").write_text('{"x": NaN, "auto_map": {"AutoTokenizer": "evil.T"}}')
    with pytest.raises(InputError, match=r"tokenizer_config\.json: not readable as JSON"):
        require_no_code(tmp_path, trusted=False)
