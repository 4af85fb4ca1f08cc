"""A table of synonyms proposed by a text embedding model: a tiny BERT with words of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from embedding_support import BOX, WORDS, alone, changed, header, row, truth
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, GPT2Config, GPT2Model
from typer.testing import CliRunner

from coordcore import InputError
from coordcore.cli import app
from coordcore_detection.evaluate import results, synonyms
from coordcore_detection.evaluate.evaluation import evaluate
from coordcore_label_embeddings import embedding
from coordcore_label_embeddings.proposal import table


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
        InputError, match=r"1_Pooling/config.json: pools by pooling_mode_max_tokens; coordcore-label-embeddings knows"
    ):
        embedding.embed(folder, ["dog"])


def test_padding_stands_behind_a_text_whatever_the_folder_says(model: Path, tmp_path: Path) -> None:
    folder = changed(model, tmp_path, "tokenizer_config.json", padding_side="left")
    found = embedding.embed(folder, ["dog", "a hard hat"])[0]
    assert found == pytest.approx(alone(model, "dog"), abs=1e-5)


def test_a_text_of_more_tokens_than_the_model_has_places_is_cut(model: Path) -> None:
    found = embedding.embed(model, ["dog " * 600, "dog " * 900])
    assert found[0] == pytest.approx(found[1], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("config.json", {"num_hidden_layers": 2}, r"lack 16 weights of a bert, as encoder\.layer\.1\.attention"),
        ("config.json", {"hidden_size": 64}, "transformers cannot load it"),
        ("config.json", {"hidden_size": "wide"}, "transformers cannot load it"),
    ],
)
def test_weights_that_are_not_those_of_the_configuration(
    model: Path, tmp_path: Path, name: str, values: dict[str, object], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        embedding.embed(changed(model, tmp_path, name, **values), ["dog"])


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("model.safetensors", b"", "transformers cannot load it"),
        ("model.safetensors", b"\0" * 500, "transformers cannot load it"),
        ("tokenizer.json", b"{}", "transformers cannot load it"),
        ("tokenizer.json", None, r"holds no tokenizer \(tokenizer\.json, vocab\.txt\); download the whole folder"),
        ("1_Pooling/config.json", b"[]", "pools by nothing"),
        ("modules.json", b"{", "is no JSON"),
        (
            "modules.json",
            b'[{"type": "sentence_transformers.models.Pooling"}, {"type": "sentence_transformers.models.Dense"}]',
            r"has the module sentence_transformers\.models\.Dense, which coordcore-label-embeddings does not know",
        ),
    ],
)
def test_damaged_and_further_files(model: Path, tmp_path: Path, name: str, data: bytes | None, reason: str) -> None:
    changed(model, tmp_path, "config.json")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    if data is None:
        for file in tmp_path.glob("tokenizer*"):
            file.unlink()
    else:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=reason):
        embedding.embed(tmp_path, ["dog"])


def test_a_pooler_that_is_not_used_may_be_missing(model: Path, tmp_path: Path) -> None:
    changed(model, tmp_path, "config.json")
    weights = {name: value for name, value in load_file(model / "model.safetensors").items() if "pooler" not in name}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert embedding.embed(tmp_path, ["dog"])[0] == pytest.approx(alone(model, "dog"), abs=1e-5)


def test_embeddings_that_are_no_numbers(model: Path, tmp_path: Path) -> None:
    changed(model, tmp_path, "config.json")
    weights = {name: value * float("nan") for name, value in load_file(model / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="the embedding of 'dog' holds NaN or infinity; its weights are damaged"):
        embedding.embed(tmp_path, ["dog"])


def test_a_model_that_reads_forwards_only_must_say_that_it_embeds(model: Path, tmp_path: Path) -> None:
    changed(model, tmp_path, "config.json")
    small = {"vocab_size": len(WORDS), "n_positions": 64, "n_embd": 32, "n_layer": 1, "n_head": 2}
    GPT2Model(GPT2Config(**small, bos_token_id=2, eos_token_id=3)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"a gpt2 reads forwards only, .*1_Pooling/config\.json"):
        embedding.embed(tmp_path, ["dog"])
    changed(tmp_path, tmp_path, "1_Pooling/config.json", pooling_mode_mean_tokens=True)
    assert embedding.embed(tmp_path, ["dog", "hat"]).shape == (2, 32)


def test_a_model_that_wants_more_than_a_text(model: Path, tmp_path: Path) -> None:
    changed(model, tmp_path, "config.json")
    part = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": 2, "eos_token_id": 3}
    text, vision = {**part, "vocab_size": len(WORDS), **ends}, {**part, "image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a clip does not read texts alone"):
        embedding.embed(tmp_path, ["dog"])


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


def test_a_label_without_a_letter_means_nothing(model: Path, tmp_path: Path) -> None:
    evaluated, output = tmp_path / "evaluation.json", tmp_path / "names.toml"
    rows = [row("a.png", [("", BOX), (" ", BOX), ("hat", BOX)])]
    results.write(evaluate([truth("a.png", [("dog", BOX), ("", BOX)])], header(), rows).result, evaluated)
    command = ["synonyms", str(evaluated), "--model", str(model), "--output", str(output), "--least", "-1"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert synonyms.read(output) == {"dog": ("hat",)}


def test_nothing_to_propose_is_told(model: Path, tmp_path: Path) -> None:
    evaluated = tmp_path / "evaluation.json"
    results.write(
        evaluate([truth("a.png", [("dog", BOX)])], header(), [row("a.png", [("dog", BOX)])]).result, evaluated
    )
    command = ["synonyms", str(evaluated), "--model", str(model), "--output", str(tmp_path / "names.toml")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "has no predicted label that no true box has, so there is nothing to propose" in done.output


def test_a_least_that_is_no_cosine_is_refused(model: Path, tmp_path: Path) -> None:
    command = ["synonyms", "e.json", "--model", str(model), "--output", str(tmp_path / "n.toml"), "--least", "nan"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "--least: nan is no cosine; give a number from -1 to 1" in done.output
