"""What of `[eval.label_embeddings]` is found wrong before a run."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from embedding_support import changed

from coordcore_label_embeddings.evaluator import COMPONENT, LabelEmbeddingsConfig


@pytest.mark.parametrize("least", [1.01, -1.5, math.nan])
def test_a_least_that_is_no_cosine(least: float) -> None:
    with pytest.raises(ValueError, match="'least' must be"):
        LabelEmbeddingsConfig(model=Path("m"), least=least)


def problems(config: LabelEmbeddingsConfig) -> list[tuple[str, str]]:
    return [(problem.path, problem.message) for problem in COMPONENT.check(config, attrs.NOTHING)]


def test_check_finds_nothing_wrong_in_a_model(model: Path) -> None:
    assert problems(LabelEmbeddingsConfig(model=model)) == []


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("config.json", None, "holds no config.json; name the folder of a text embedding model"),
        ("config.json", b'{"model_type": "bert", "auto_map": {"AutoModel": "evil.Model"}}', "its Python would be run"),
        ("model.safetensors", None, "has no model.safetensors and no model.safetensors.index.json"),
        ("model.safetensors", b"\0" * 500, "model.safetensors: "),
        ("tokenizer.json", None, "holds no tokenizer (tokenizer.json, vocab.txt); download the whole folder"),
        ("1_Pooling/config.json", b'{"pooling_mode_max_tokens": true}', "pools by pooling_mode_max_tokens"),
        ("modules.json", b'[{"type": "sentence_transformers.models.Dense"}]', "has the module"),
    ],
)
def test_check_finds_a_folder_that_is_no_model(
    model: Path, tmp_path: Path, name: str, data: bytes | None, reason: str
) -> None:
    folder = changed(model, tmp_path, "config.json")
    if data is None:
        (folder / name).unlink()
    else:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    [(path, message)] = problems(LabelEmbeddingsConfig(model=folder))
    assert (path, reason in message, str(folder) in message) == ("eval.label_embeddings.model", True, True), message


def test_check_finds_what_is_wrong_in_the_keys_of_detection(model: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.toml"
    names.write_text('a = ["a"]\n')
    found = problems(LabelEmbeddingsConfig(model=model, synonyms=names, radius="far"))
    assert [path for path, _ in found] == ["eval.label_embeddings.radius", "eval.label_embeddings.synonyms"]


def test_check_needs_no_torch(model: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from coordcore_label_embeddings.evaluator import *; "
        f"print(list(COMPONENT.check(LabelEmbeddingsConfig(model=Path({str(model)!r})), None)), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[] False\n", "")
