"""A table of synonyms proposed by a text embedding model: a tiny BERT with words of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_support import header, row, truth
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from typer.testing import CliRunner

from coordcore import InputError
from coordcore.cli import app
from coordcore_detection.commands.synonyms import table
from coordcore_detection.evaluate import embedding, results, synonyms
from coordcore_detection.evaluate.evaluation import evaluate

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "hard", "hat", "helmet", "traffic", "light", "stop", "a", "dog")
BOX = (10.0, 10.0, 50.0, 50.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer, random weights."""
    folder = tmp_path_factory.mktemp("bert")
    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    return folder


def alone(folder: Path, text: str, *, first: bool = False) -> np.ndarray:
    """The embedding of a text that nothing is padded beside."""
    ids = [2, *(WORDS.index(word) for word in text.split()), 3]
    with torch.inference_mode():
        states = BertModel.from_pretrained(folder).eval()(torch.tensor([ids])).last_hidden_state[0].double()
    vector = (states[0] if first else states.mean(0)).numpy()
    return vector / np.linalg.norm(vector)


def pooled_by(model: Path, folder: Path, **modes: bool) -> Path:
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 32, **modes}))
    return folder


def test_an_embedding_is_the_mean_over_the_tokens_of_its_own_text(model: Path) -> None:
    texts = ["dog", "a hard hat", "stop", *["traffic light"] * embedding.BATCH]
    found = embedding.embed(model, texts)
    for place in (0, 1, 2, len(texts) - 1):
        assert found[place] == pytest.approx(alone(model, texts[place]), abs=1e-5)


def test_a_folder_may_say_that_the_first_token_is_taken(model: Path, tmp_path: Path) -> None:
    folder = pooled_by(model, tmp_path, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    assert embedding.embed(folder, ["dog", "hard hat"])[1] == pytest.approx(
        alone(model, "hard hat", first=True), abs=1e-5
    )


def test_another_way_of_pooling_is_refused(model: Path, tmp_path: Path) -> None:
    folder = pooled_by(model, tmp_path, pooling_mode_max_tokens=True)
    with pytest.raises(
        InputError, match=r"1_Pooling/config.json: pools by pooling_mode_max_tokens; this command knows"
    ):
        embedding.embed(folder, ["dog"])


def test_the_nearest_name_is_that_of_the_highest_cosine() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]])
    found = embedding.nearest(["x", "y"], ["a", "b"], vectors)
    assert [(item.label, item.name, item.cosine) for item in found] == [("x", "b", 0.8), ("y", "a", 0.8)]


def test_the_command_writes_a_table_that_eval_takes(model: Path, tmp_path: Path) -> None:
    given = [("hard hat", BOX), ("dog", BOX), ("stop light", BOX)]
    known = truth("a.png", [("a hard hat", BOX), ("dog", BOX)])
    evaluated = tmp_path / "evaluation.json"
    results.write(evaluate([known], header(), [row("a.png", given)]).result, evaluated)
    cosines = {
        label: max(alone(model, label) @ alone(model, name) for name in ("a hard hat", "dog")) for label, _ in given
    }
    assert cosines["hard hat"] > cosines["stop light"]
    least = str((cosines["hard hat"] + cosines["stop light"]) / 2)
    output = tmp_path / "names.toml"
    arguments = ["synonyms", str(evaluated), "--model", str(model), "--output", str(output), "--least", least]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "1 of 2 labels are taken for one of 2 names; read it before use" in done.output
    assert synonyms.read(output) == {"a hard hat": ("hard hat",)}
    assert f'# "hard hat": {cosines["hard hat"]:.3f}\n' in output.read_text()
    assert '# "stop light" stays itself: the nearest name is ' in output.read_text()
    assert CliRunner().invoke(app, arguments).exit_code == 2  # the table is there


def test_labels_that_toml_must_escape(tmp_path: Path) -> None:
    path = tmp_path / "names.toml"
    meant = embedding.Meant(label='a "b"\n\x1b[31m\x7f\x9b😀', name="c.d \\", cosine=1.0)
    path.write_text(table([meant], 0.5), encoding="utf-8")
    assert synonyms.read(path) == {"c.d \\": ('a "b"\n\x1b[31m\x7f\x9b😀',)}
    assert not {"\x1b", "\x7f", "\x9b"} & {*path.read_text()}


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("config.json", None, "holds no config.json; name the folder of a text embedding model"),
        ("config.json", {"model_type": "bert", "auto_map": {"AutoModel": "evil.Model"}}, "its Python would be run"),
        ("config.json", {"model_type": "nonsense"}, "transformers cannot load it"),
    ],
)
def test_folders_that_are_no_model(tmp_path: Path, name: str, text: object, reason: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(json.dumps(text))
    with pytest.raises(InputError, match=reason):
        embedding.embed(tmp_path, ["dog"])


def test_nothing_to_propose_is_told(model: Path, tmp_path: Path) -> None:
    evaluated = tmp_path / "evaluation.json"
    results.write(
        evaluate([truth("a.png", [("dog", BOX)])], header(), [row("a.png", [("dog", BOX)])]).result, evaluated
    )
    command = ["synonyms", str(evaluated), "--model", str(model), "--output", str(tmp_path / "names.toml")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "has no predicted label that no true box has, so there is nothing to propose" in done.output
