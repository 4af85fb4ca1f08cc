"""Which of ms-swift's types a checkpoint is, and the classes that are made for it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coordcore.errors import InputError
from coordcore_train.swift import registry
from coordcore_train.swift.families import Family, family_of
from coordcore_train.swift.registry import ModelType, model_types


def checkpoint(folder: Path, architecture: str | None, model_type: str = "", **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    named = {} if architecture is None else {"architectures": [architecture]}
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **named, **more}))
    return folder


def test_what_is_read_from_the_source_is_ms_swifts_registry() -> None:
    from swift.model import MODEL_MAPPING

    registered = {name: meta for name, meta in MODEL_MAPPING.items() if meta.is_multimodal and "coordcore" not in name}
    assert len(registered) > 100
    for name, meta in registered.items():
        read = model_types()[name]
        assert read.architectures == tuple(
            architecture for architecture in meta.architectures if architecture != "null"
        )
        assert sorted(read.templates) == sorted(meta.candidate_templates)
        assert read.requires == tuple(meta.requires)


@pytest.mark.parametrize(
    ("architecture", "model_type", "family"),
    [
        ("Qwen3VLForConditionalGeneration", "qwen3_vl", Family("qwen3_vl", "qwen3_vl")),
        ("Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe", Family("qwen3_5_moe", "qwen3_5")),
        ("Gemma3ForConditionalGeneration", "gemma3", Family("gemma3_vision", "gemma3_vision")),
        ("Glm4vForConditionalGeneration", "glm4v", Family("glm4v", "glm4v")),
        ("InternVLForConditionalGeneration", "internvl", Family("internvl", "internvl_hf")),
        (None, "qwen3_vl", Family("qwen3_vl", "qwen3_vl")),
    ],
)
def test_the_family_of_a_checkpoint(tmp_path: Path, architecture: str | None, model_type: str, family: Family) -> None:
    assert family_of(checkpoint(tmp_path / "mine", architecture, model_type)) == family


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("Qwen/Qwen3.8-27B", "qwen3_8"),
        ("Qwen/Qwen3.6-27B", "qwen3_5"),
        ("/root/.cache/modelscope/hub/models/Qwen/Qwen3___8-27B", "qwen3_8"),
        ("/root/.cache/modelscope/models/Qwen--Qwen3.8-27B/snapshots/master", "qwen3_8"),
        ("runs/Qwen3.8-27B/", "qwen3_8"),
        ("/data/models--Qwen--Qwen3.8-27B/snapshots/abc", "qwen3_8"),
        ("somebody/a-finetune", "qwen3_5"),
    ],
)
def test_a_published_name_tells_the_template(tmp_path: Path, name: str, template: str) -> None:
    base = checkpoint(tmp_path / "expanded-abc", "Qwen3_5ForConditionalGeneration", "qwen3_5")

    assert family_of(base, name=name) == Family("qwen3_5", template)
    assert family_of(base, name=name, template="qwen3_8") == Family("qwen3_5", "qwen3_8")


@pytest.mark.parametrize(
    ("architecture", "named", "message"),
    [
        ("Qwen3ForCausalLM", {}, "no vision-language model type of ms-swift loads"),
        ("LlavaNextForConditionalGeneration", {}, "6 model types of ms-swift load: .*; set model.type"),
        (
            "Qwen3VLForConditionalGeneration",
            {"model_type": "qwen3vl"},
            "no multimodal model type 'qwen3vl'",
        ),
        ("Qwen3VLForConditionalGeneration", {"template": "qwen3"}, "'qwen3_vl' has no template 'qwen3'"),
        ("Qwen3VLForConditionalGeneration", {"model_type": "Qwen3_VL"}, "did you mean 'qwen3_vl'"),
        ("Qwen3VLForConditionalGeneration", {"model_type": "qwen2_5_vl"}, "'qwen2_5_vl' are not .Qwen2_5_VLFor"),
    ],
)
def test_what_is_no_family(tmp_path: Path, architecture: str, named: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        family_of(checkpoint(tmp_path, architecture, "qwen3_vl" if named else "other"), **named)


def test_a_type_that_is_named_needs_no_architecture(tmp_path: Path) -> None:
    base = checkpoint(tmp_path, "LlavaNextForConditionalGeneration", "llava_next")

    assert family_of(base, model_type="llava1_6_mistral_hf").template == "llava1_6_mistral_hf"


def test_the_classes_are_found_by_name_and_are_the_same_each_time() -> None:
    from swift.model import MODEL_MAPPING

    from coordcore_train.swift import classes

    loader = classes.loader_class("qwen2_5_vl")
    assert loader.__mro__[1:3] == (classes.CoordLoader, MODEL_MAPPING["qwen2_5_vl"].loader)
    assert pickle.loads(pickle.dumps(loader)) is loader is classes.loader_class("qwen2_5_vl")
    with pytest.raises(AttributeError, match="Loader_nothing"):
        classes.loader_class("nothing")


class _Tokenizer:
    unk_token_id = None

    def __init__(self, **ids: int) -> None:
        self.ids = ids

    def convert_tokens_to_ids(self, text: str) -> int | None:
        return self.ids.get(text)

    def convert_ids_to_tokens(self, index: int) -> str | None:
        return "a" if index < 100 else None


IMAGE = type("Template", (), {"image_token_id": 151655})


@pytest.mark.parametrize(
    ("config", "tokens", "found"),
    [
        ({"image_token_id": 7}, {"<|image_pad|>": 7}, 7),
        ({"image_token_index": 7}, {}, 7),
        ({}, {"<|image_pad|>": 9}, 9),
        ({"image_token_id": 7}, {"<|image_pad|>": 9}, "<|image_pad|> is id 9, but .*image_token_id is 7"),
        ({"image_token_id": 700}, {}, "700, and the tokenizer has no such token"),
        ({}, {}, "neither the model's config"),
    ],
)
def test_media_tokens_are_the_checkpoints(config: dict[str, int], tokens: dict[str, int], found: int | str) -> None:
    from coordcore_train.swift.template import media_token_ids

    if isinstance(found, int):
        assert media_token_ids(IMAGE, SimpleNamespace(**config), _Tokenizer(**tokens)) == {"image_token_id": found}
    else:
        with pytest.raises(InputError, match=found.replace("|", r"\|")):
            media_token_ids(IMAGE, SimpleNamespace(**config), _Tokenizer(**tokens))


def test_no_family_is_named_outside_the_engine() -> None:
    """The engine's seam: what a family is called, and what is special about it, is ms-swift's own matter."""
    from coordcore_train.swift.needs import NOT_TRAINED, STOCK_FORWARD

    names = {*model_types(), *NOT_TRAINED, *STOCK_FORWARD} - {"paligemma"}  # a preset of coordinate tokens is called so
    root = Path(__file__).parents[2]
    sources = [*root.glob("coordcore/**/*.py"), *root.glob("plugins/*/src/**/*.py")]
    allowed = ("/coordcore_train/swift/", "/coordcore_train/testing/", "/coordcore_demo/", "/coordcore/testing/")
    found = [
        f"{file.relative_to(root)}: {name}"
        for file in sources
        if not any(part in file.as_posix() for part in allowed)
        for name in names
        if f'"{name}"' in file.read_text(encoding="utf-8")
    ]
    assert sources
    assert found == []


def test_what_was_read_of_the_registry_is_kept_while_its_files_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COORDCORE_CACHE", str(tmp_path))
    read = model_types.__wrapped__
    first, reads = read(), 0
    original = registry._read

    def counted(*files: list[Path]) -> Mapping[str, ModelType]:
        nonlocal reads
        reads += 1
        return original(*files)

    monkeypatch.setattr(registry, "_read", counted)
    assert read() == first
    assert {name: entry.by_name for name, entry in read().items()} == {
        name: entry.by_name for name, entry in first.items()
    }
    assert reads == 0
    (kept,) = tmp_path.glob("swift-models-*.json")
    text = kept.read_text()
    # Damaged, of another shape, of other files: read again, and kept anew.
    for spoilt in (text[:100], "[]", '{"files": 1}', text.replace("constant.py", "other.py")):
        kept.write_text(spoilt)
        assert read() == first
        assert kept.read_text() == text
    assert reads == 4


@pytest.mark.parametrize(("keys", "left"), [(16, 1), (32, 2)])
def test_the_heads_of_linear_attention_are_few_in_a_narrow_copy(keys: int, left: int) -> None:
    from transformers import Qwen3_5TextConfig

    from coordcore_train.swift.miniature import _narrow

    config = Qwen3_5TextConfig(linear_num_key_heads=keys, linear_num_value_heads=32, num_key_value_heads=4)
    _narrow(config, 32)
    assert (config.linear_num_key_heads, config.linear_num_value_heads) == (left, 2)
    assert (config.num_key_value_heads, config.num_attention_heads) == (1, 2)
