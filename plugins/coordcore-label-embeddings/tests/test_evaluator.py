"""`[eval.label_embeddings]`: the component, and evaluations of a tiny checkpoint whose answers the tests give."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from embedding_support import WORDS, Labelled, alone, changed, row, tiny_bert
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2Model

from coordcore import BuildContext, Example, Geometry, InputError
from coordcore.coords import int_to_token
from coordcore.protocols import Evaluation, EvaluationResult
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore.testing import parametrize_with_checks
from coordcore_detection.evaluate import results, synonyms
from coordcore_detection.evaluate.compare import compare
from coordcore_detection.evaluate.contract import synonyms_in
from coordcore_detection.predict import asking
from coordcore_label_embeddings import embedding, model_files, plugin
from coordcore_label_embeddings.evaluator import BY_TEXT, COMPONENT, TABLE, LabelEmbeddingsConfig
from coordcore_train.testing.tiny import tiny_qwen3vl

SIZE = 64
LEFT, RIGHT = (50, 100, 400, 900), (600, 100, 950, 900)
"""Bins of two boxes."""

LEAST = 0.92
"""Between the cosines of "hard hat" and "helmet" (.948), and of "stop light" and "dog" (.888)."""


@parametrize_with_checks(plugin, configs=[LabelEmbeddingsConfig(model=Path("/models/minilm"), least=0.7)])
def test_conformance(check: Any) -> None:
    check()


# --- a picture, what is in it, what is answered ---------------------------------------------------------------------


def example(objects: Sequence[tuple[str, tuple[int, int, int, int]]], **changes: Any) -> Example:
    listed = ", ".join(
        f'{{"desc": "{label}", "bbox_2d": [{", ".join(map(int_to_token, bins))}]}}' for label, bins in objects
    )
    values: dict[str, Any] = {
        "messages": (
            {"role": "user", "content": "<image>Where?"},
            {"role": "assistant", "content": f'{{"objects": [{listed}]}}'},
        ),
        "images": (Image.new("RGB", (SIZE, SIZE)),),
        "geometries": tuple(Geometry(kind="bbox_2d", values=tuple(map(float, bins))) for _, bins in objects),
    }
    return Example(**values | changes)


def pixels(bins: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (value * SIZE / 999 for value in bins)
    return x1, y1, x2, y2


TRUTH = [example([("helmet", LEFT), ("dog", RIGHT)]), example([("helmet", LEFT)])]
ANSWERS: list[Labelled] = [
    [("hard hat", pixels(LEFT)), ("stop light", pixels(RIGHT))],
    [("helmet", pixels(LEFT))],
]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    tiny_qwen3vl(folder)
    return folder


Evaluate = Callable[..., tuple[EvaluationResult, Path]]


@pytest.fixture
def evaluated(checkpoint: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Evaluates answers in the folder `name`: what was found, and the folder."""

    def run(
        answers: Sequence[Labelled] = ANSWERS,
        examples: Sequence[Example] = TRUTH,
        *,
        name: str = "a",
        log: Callable[[str], None] = [].append,
        **settings: Any,
    ) -> tuple[EvaluationResult, Path]:
        def predict(_model: Any, _processor: Any, images: Any, *_rest: Any, **_more: Any) -> Iterator[Any]:
            for image in images:
                yield row(image.key, answers[int(image.key.removeprefix("example-"))], size=SIZE)

        monkeypatch.setattr(asking, "predict", predict)
        output = tmp_path / name / "eval" / "label_embeddings"
        output.mkdir(parents=True)
        evaluation = Evaluation(
            checkpoint=checkpoint,
            output=output,
            run_dir=tmp_path / name,
            examples=list(examples),
            quantisation=DEFAULT_QUANTISATION,
            vocab=None,
            device="cpu",
            log=log,
        )
        config = LabelEmbeddingsConfig(**{"model": model, "least": LEAST, **settings})
        context = BuildContext(run_dir=Path(), seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None)
        return COMPONENT.build(config, context)(evaluation), output

    return run


# --- what is measured -----------------------------------------------------------------------------------------------


def test_a_hard_hat_is_a_helmet(evaluated: Evaluate) -> None:
    told: list[str] = []
    found, output = evaluated(log=told.append)
    metrics = found.metrics
    # By text one of two helmets is found, 51 of 101 points of recall, and no dog; by meaning both helmets.
    assert (metrics["text_AP50"], metrics["text_AP"]) == (pytest.approx(51 / 101 / 2), pytest.approx(51 / 101 / 2))
    assert (metrics["AP50"], metrics["AP"]) == (0.5, 0.5)
    assert (metrics["text_F1"], metrics["F1"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert metrics["agnostic_AP50"] == 1.0
    assert set(found.shown) >= {"AP", "F1", "text_AP", "text_AP50", "text_F1", "text_mean_iou"}
    assert found.files == [output / "report.html", output / TABLE]
    assert f"1 of 2 labels that no record has count as the nearest that one has: {output / TABLE}" in told


def test_the_files_hold_both_evaluations(evaluated: Evaluate, model: Path) -> None:
    found, output = evaluated()
    by_meaning, by_text = results.read(output), results.read(output / BY_TEXT)
    assert by_meaning.metrics["AP"] == found.metrics["AP"]
    assert by_text.metrics["AP"] == found.metrics["text_AP"]
    assert by_text.contract["labels"] == "equal text"
    assert by_meaning.contract["labels"] == {
        "synonyms": {"helmet": ["hard hat"]},
        "proposed_by": {"model_sha256": model_files.identity(model), "least": LEAST, "version": "0.1.0"},
    }


def test_the_table_says_what_was_taken_for_what(evaluated: Evaluate, model: Path) -> None:
    _, output = evaluated()
    near = alone(model, "hard hat") @ alone(model, "helmet")
    assert synonyms.read(output / TABLE) == {"helmet": ("hard hat",)}
    assert (output / TABLE).read_text().splitlines() == [
        f"# by the text embedding model of SHA-256 {model_files.identity(model)}, least = {LEAST}",
        f'# "hard hat": {near:.3f}',
        '"helmet" = ["hard hat"]',
        '# "stop light" stays itself: the nearest name is "dog", 0.888',
    ]


def test_a_cosine_below_least_moves_nothing(evaluated: Evaluate) -> None:
    metrics = evaluated(least=0.95)[0].metrics
    assert (metrics["AP"], metrics["F1"]) == (metrics["text_AP"], metrics["text_F1"])


def test_from_a_lower_least_on_every_label_is_one_of_the_records(evaluated: Evaluate) -> None:
    assert evaluated(least=-1.0)[0].metrics["AP"] == 1.0  # a stop light is a dog


def test_labels_of_the_records_are_never_moved(evaluated: Evaluate) -> None:
    """For the model a hat is a helmet; the records tell them apart."""
    truth = [example([("helmet", LEFT)]), example([("hat", LEFT)])]
    answers: list[Labelled] = [[("hat", pixels(LEFT))], [("hat", pixels(LEFT))]]
    metrics = evaluated(answers, truth, least=0.99)[0].metrics
    # The wrong hat stands before the right one: half the precision for one of the two labels.
    assert (metrics["AP"], metrics["text_AP"]) == (0.25, 0.25)
    moved = evaluated(answers, [truth[0], truth[0]], name="b", least=0.99)[0].metrics
    assert (moved["AP"], moved["text_AP"]) == (1.0, 0.0)


def test_records_that_are_not_asked_about_have_their_labels_too(evaluated: Evaluate) -> None:
    truth = [example([("helmet", LEFT)]), example([("dog", LEFT)])]
    answers: list[Labelled] = [[("dog", pixels(LEFT))], [("dog", pixels(LEFT))]]
    metrics = evaluated(answers, truth, least=-1.0, images=1)[0].metrics
    assert (metrics["AP50"], metrics["text_AP50"]) == (0.0, 0.0)


def test_groups_are_measured_by_the_one_table(evaluated: Evaluate) -> None:
    """ "hard hat" means the helmet that the other source has, and no dog of its own."""
    groups = [attrs.evolve(TRUTH[1], group="heads"), attrs.evolve(example([("dog", RIGHT)]), group="pets")]
    answers: list[Labelled] = [[("hard hat", pixels(LEFT))], [("hard hat", pixels(RIGHT))]]
    metrics = evaluated(answers, groups, least=0.5)[0].metrics
    assert (metrics["AP@heads"], metrics["AP@pets"]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("answers", "examples"),
    [
        ([[("helmet", pixels(LEFT))], []], TRUTH),
        ([[], []], TRUTH),
        (ANSWERS, [example([]), example([])]),
    ],
    ids=["every label is known", "no predictions", "no truth"],
)
def test_where_nothing_is_to_be_asked_no_model_is_loaded(
    evaluated: Evaluate, monkeypatch: pytest.MonkeyPatch, answers: list[Labelled], examples: list[Example]
) -> None:
    monkeypatch.setattr(embedding, "embed", None)
    found, output = evaluated(answers, examples)
    by_meaning, by_text = results.read(output), results.read(output / BY_TEXT)
    assert by_meaning.metrics == by_text.metrics
    assert by_meaning.contract["labels"]["synonyms"] == {}
    assert by_meaning.contract["labels"]["proposed_by"]["least"] == LEAST
    assert ("text_AP" in found.metrics) == ("AP" in found.metrics)


def test_the_same_answers_leave_the_same_bytes(evaluated: Evaluate) -> None:
    folders = [evaluated(name=name)[1] for name in ("a", "b")]
    for file in ("evaluation.json", BY_TEXT, TABLE):
        first, second = ((folder / file).read_bytes() for folder in folders)
        assert first == second


# --- beside a table -------------------------------------------------------------------------------------------------


def test_a_table_goes_before_the_model(evaluated: Evaluate, tmp_path: Path) -> None:
    names = tmp_path / "names.toml"
    names.write_text('"hard hat" = []\ndog = ["stop light"]\n')
    found, output = evaluated(synonyms=names, least=0.5)
    assert synonyms_in(results.read(output).contract) == {"dog": ["stop light"], "hard hat": []}
    assert synonyms.read(output / TABLE) == {"dog": ("stop light",), "hard hat": ()}
    assert found.metrics["AP"] == found.metrics["text_AP"] == pytest.approx((51 / 101 + 1) / 2)


def test_the_model_adds_to_a_table(evaluated: Evaluate, tmp_path: Path) -> None:
    names = tmp_path / "names.toml"
    names.write_text('helmet = ["casque"]\n')
    _, output = evaluated(synonyms=names)
    assert synonyms.read(output / TABLE) == {"helmet": ("casque", "hard hat")}
    labels = results.read(output).contract["labels"]
    assert labels["synonyms"] == {"helmet": ["casque", "hard hat"]}
    assert labels["proposed_by"]["synonyms"] == {"helmet": ["casque"]}
    plain = results.read(evaluated(name="b")[1])
    with pytest.raises(InputError, match=r"labels\.proposed_by\.synonyms: \{'helmet': \['casque'\]\} against nothing"):
        compare(results.read(output), plain, resamples=1)


# --- what compares --------------------------------------------------------------------------------------------------


def test_two_runs_that_said_other_labels_compare_by_one_rule(evaluated: Evaluate) -> None:
    others: list[Labelled] = [[("hat", pixels(LEFT)), ("dog", pixels(RIGHT))], []]
    first, second = results.read(evaluated()[1]), results.read(evaluated(others, name="b")[1])
    assert synonyms_in(first.contract) != synonyms_in(second.contract)
    found = {line.metric: (line.a, line.b) for line in compare(first, second, resamples=2).lines}
    assert found["AP50"] == (0.5, pytest.approx((51 / 101 + 1) / 2))


def test_results_by_different_rules_do_not_compare(evaluated: Evaluate, tmp_path: Path) -> None:
    _, output = evaluated()
    other = tiny_bert(tmp_path / "other", seed=1)
    ours = results.read(output)
    for item, reason in (
        (results.read(evaluated(name="b", model=other)[1]), r"labels\.proposed_by\.model_sha256: "),
        (results.read(evaluated(name="c", least=0.9)[1]), r"labels\.proposed_by\.least: 0\.92 against 0\.9"),
        (results.read(output / BY_TEXT), r"labels: .* against equal text"),
    ):
        with pytest.raises(InputError, match=reason):
            compare(ours, item, resamples=1)


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_decoder_ends_the_evaluation(evaluated: Evaluate, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gpt2"
    folder.mkdir()
    changed(model, folder, "config.json")
    small = {"vocab_size": len(WORDS), "n_positions": 64, "n_embd": 32, "n_layer": 1, "n_head": 2}
    GPT2Model(GPT2Config(**small, bos_token_id=2, eos_token_id=3)).save_pretrained(folder)
    with pytest.raises(InputError, match=r"eval\.label_embeddings\.model: .*gpt2: a gpt2 reads forwards only"):
        evaluated(model=folder)


def test_weights_that_are_no_numbers_end_the_evaluation(evaluated: Evaluate, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nan"
    folder.mkdir()
    changed(model, folder, "config.json")
    weights = {name: value * math.nan for name, value in load_file(model / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"eval\.label_embeddings\.model: .* holds NaN or infinity"):
        evaluated(model=folder)


def test_a_folder_that_went_is_told_before_the_model_is_asked(evaluated: Evaluate, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"eval\.label_embeddings\.model: .*gone: has no model\.safetensors"):
        evaluated(model=tmp_path / "gone")
    assert list((tmp_path / "a" / "eval" / "label_embeddings").iterdir()) == []
