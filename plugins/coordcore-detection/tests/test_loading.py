"""What can be asked: checkpoints and runs, with their quantisation and their question."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from prediction_support import checkpoint
from safetensors.torch import load_file, save_file

from coordcore import Example, InputError
from coordcore.coords import DEFAULT_COORDS, PRESETS
from coordcore.quantisation import DEFAULT_QUANTISATION, QUANTISATIONS
from coordcore.records.answers import COORDJSON
from coordcore_detection.predict import loading
from coordcore_detection.predict.loading import load, prompts_of, question_of, weights_digest
from coordcore_train.chat import Question
from coordcore_train.checkpoint.folder import read_vocab, write_checkpoint_info
from coordcore_train.run.folder import RunDir
from coordcore_train.testing.tiny import tiny_qwen3vl

torch.set_num_threads(1)

QWEN = QUANTISATIONS["qwen_1000"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def recorded(base: Path, tmp_path: Path) -> Path:
    """A checkpoint that records qwen_1000."""
    folder = Path(shutil.copytree(base, tmp_path / "recorded"))
    write_checkpoint_info(folder, quantisation=QWEN, vocab=read_vocab(folder))
    return folder


@pytest.fixture
def run(base: Path, tmp_path: Path) -> Path:
    """A merged run that reduced its images, on two threads."""
    folder = tmp_path / "run"
    shutil.copytree(base, folder / "merged")
    (folder / "manifest.resolved.toml").write_text("[train]\nmax_pixels = 1024\nthreads = 2\n")
    return folder


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_ids_that_the_tokenizer_does_not_have_are_refused(recorded: Path) -> None:
    file = recorded / "coordcore.json"
    info = json.loads(file.read_text())
    file.write_text(json.dumps({**info, "coord_ids": info["coord_ids"][::-1]}))
    with pytest.raises(InputError, match=r"recorded/coordcore\.json: coord_ids says that <\|coord_0\|> is"):
        load(recorded, "cpu")


def plan_of(base: Path, *, parallel_boxes: float) -> Any:
    """As much of a run's plan as a live checkpoint is loaded by."""
    manifest = SimpleNamespace(train=SimpleNamespace(parallel_boxes=parallel_boxes))
    return SimpleNamespace(
        base=base, coords=DEFAULT_COORDS, format=COORDJSON, quantisation=QWEN, trusted=False, manifest=manifest
    )


def test_a_model_that_can_be_asked(base: Path) -> None:
    loaded = load(base, "cpu")
    assert loaded.vocab is not None
    assert (loaded.format, loaded.quantisation, len(loaded.vocab.ids)) == (COORDJSON, DEFAULT_QUANTISATION, 1000)
    assert (loaded.model.training, loaded.model.dtype, loaded.together) == (False, torch.float32, False)


def test_a_model_that_has_learned_to_say_corners_together(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    write_checkpoint_info(folder, quantisation=DEFAULT_QUANTISATION, vocab=read_vocab(folder), parallel_boxes=True)
    assert load(folder, "cpu").together


def test_half_precision_becomes_single_on_a_cpu(tmp_path: Path) -> None:
    assert load(checkpoint(tmp_path, dtype="bfloat16"), "cpu").model.dtype == torch.float32


def test_the_recorded_quantisation_counts(recorded: Path) -> None:
    assert load(recorded, "cpu").quantisation == QWEN


def test_a_checkpoint_that_records_none_can_be_told(base: Path) -> None:
    assert load(base, "cpu", quantisation=QWEN).quantisation == QWEN


def test_another_quantisation_than_the_recorded_one_is_refused(recorded: Path) -> None:
    with pytest.raises(
        InputError, match=r"recorded is quantised as qwen_1000 .*, the quantisation asked for as nearest_999"
    ):
        load(recorded, "cpu", quantisation=DEFAULT_QUANTISATION)


def test_a_model_without_coord_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no coord tokens; add the 1000 tokens with `coordcore expand"):
        load(tiny_qwen3vl(tmp_path, coord_tokens=False), "cpu")


@pytest.mark.parametrize(
    ("base", "asked", "hint"),
    [
        ("paligemma", None, "--coords paligemma"),
        (None, "paligemma", "leave out --coords"),
        ("rex_omni", "paligemma", "--coords rex_omni"),
    ],
)
def test_a_base_of_other_tokens_says_which_it_has(
    tmp_path: Path, base: str | None, asked: str | None, hint: str
) -> None:
    own = DEFAULT_COORDS if base is None else PRESETS[base][0]
    wanted = DEFAULT_COORDS if asked is None else PRESETS[asked][0]
    tiny_qwen3vl(tmp_path, coord_tokens=own)
    message = f"{tmp_path}: {wanted}: the tokenizer has no coord tokens; "
    with pytest.raises(InputError, match=f"^{re.escape(message)}.*; it has its own: {hint}$"):
        load(tmp_path, "cpu", coords=wanted)


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither a checkpoint \(config.json\) nor a run folder"):
        load(tmp_path, "cpu")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none: no such folder"):
        load(tmp_path / "none", "cpu")


def test_a_gpu_that_is_not_there_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device cuda: torch sees no GPU; use cpu"):
        load(base, "cuda")


def test_python_in_a_checkpoint_is_refused_unless_the_run_it_is_of_trusts_it(base: Path, run: Path) -> None:
    marker = run.parent / "EXECUTED"
    source = "from transformers import PreTrainedTokenizerFast\nclass C(PreTrainedTokenizerFast):\n    pass\n"
    (run / "merged" / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n{source}")
    settings = run / "merged" / "tokenizer_config.json"
    settings.write_text(
        json.dumps({**json.loads(settings.read_text()), "auto_map": {"AutoTokenizer": [None, "evil.C"]}})
    )
    alone = shutil.copytree(run / "merged", run.parent / "alone")
    for folder in (run, run / "merged", alone):
        with pytest.raises(InputError, match=r"tokenizer_config\.json: auto_map\.AutoTokenizer names .*evil\.C"):
            load(folder, "cpu")
    assert not marker.exists()
    (run / "manifest.resolved.toml").write_text("[model]\ntrust_remote_code = true\n")
    load(run, "cpu")
    assert marker.exists()
    with pytest.raises(InputError, match="auto_map"):
        load(alone, "cpu")


def test_another_training_has_another_digest(base: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    same = weights_digest(copy)
    with (copy / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    assert (weights_digest(base) == same, weights_digest(copy) == same) == (True, False)


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [".", "merged"])
def test_a_run_sees_images_as_large_as_in_training(run: Path, inside: str) -> None:
    before = torch.get_num_threads()
    try:
        processor = load(run / inside, "cpu").processor
        threads = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert (processor.image_processor.size["longest_edge"], threads) == (1024, 2)


def test_a_run_without_a_checkpoint_is_refused(run: Path) -> None:
    shutil.rmtree(run / "merged")
    with pytest.raises(InputError, match="has no complete checkpoint yet; train it with `coordcore run`"):
        load(run, "cpu")


def test_a_run_that_is_not_merged_is_asked_live(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merged, last = run / "merged", run / "checkpoints" / "checkpoint-20"
    last.mkdir(parents=True)
    (last / "trainer_state.json").write_text(json.dumps({}))
    (last / "config.json").write_text(json.dumps({}))  # the full tuner leaves one, without the surgeries' hooks
    model = load(merged, "cpu").model
    base = merged.rename(run.parent / "base")
    asked: list[Path] = []

    def live(plan: Any, checkpoint: Path) -> Any:
        asked.append(checkpoint)
        return model

    monkeypatch.setattr(
        loading,
        "_plan",
        lambda folder: plan_of(base, parallel_boxes=0.5),
    )
    monkeypatch.setattr(loading, "_live", live)
    found = [load(item, "cpu") for item in (run, last)]
    assert (asked, [item.quantisation for item in found]) == ([last, last], [QWEN, QWEN])
    assert [item.together for item in found] == [True, True]


# --- the question ---------------------------------------------------------------------------------------------------


def trained_on(monkeypatch: pytest.MonkeyPatch, *messages: tuple[str, str]) -> None:
    """Let every run have been trained on this conversation."""
    example = Example(messages=[{"role": role, "content": content} for role, content in messages])

    class Data:
        def train(self) -> Sequence[Example]:
            return [example]

        def validation(self) -> None:
            return None

    monkeypatch.setattr(loading, "_plan", lambda folder: SimpleNamespace(data=Data()))


def test_a_run_knows_its_question(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on(monkeypatch, ("user", "<image>Where?"), ("assistant", "there"))
    assert [question_of(item) for item in (run, run / "merged")] == [("Where?", None)] * 2


def test_and_its_system_message(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on(monkeypatch, ("system", "Be brief."), ("user", "<image>Where?"), ("assistant", "there"))
    assert question_of(run) == ("Where?", "Be brief.")


@pytest.mark.parametrize(
    "messages",
    [
        [("user", "Where?"), ("assistant", "there")],
        [("user", "<image><image>Where?"), ("assistant", "there")],
        [("user", "<image>a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
        [("assistant", "there")],
    ],
)
def test_a_conversation_is_no_question(
    run: Path, monkeypatch: pytest.MonkeyPatch, messages: list[tuple[str, str]]
) -> None:
    trained_on(monkeypatch, *messages)
    with pytest.raises(InputError, match=r"no single question on one image .*; give the question with --question"):
        question_of(run)


def test_data_that_are_gone_are_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        @property
        def data(self) -> Any:
            raise InputError("train.jsonl: cannot be read")

    monkeypatch.setattr(loading, "_plan", lambda folder: Gone())
    with pytest.raises(InputError, match=r"cannot be: train\.jsonl: cannot be read; give the question with --question"):
        question_of(run)


def test_a_checkpoint_far_from_its_run_brings_its_question(base: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    question = Question("Where?", "Be brief.")
    write_checkpoint_info(copy, quantisation=DEFAULT_QUANTISATION, vocab=read_vocab(base), question=question)
    assert question_of(copy) == ("Where?", "Be brief.")
    info = json.loads((copy / "coordcore.json").read_text())
    (copy / "coordcore.json").write_text(json.dumps({**info, "question": {"words": 1}}))
    with pytest.raises(InputError, match=r"coordcore\.json: question: .*; write the checkpoint anew"):
        question_of(copy)


def test_a_checkpoint_brings_the_prompts_of_its_tasks(base: Path, run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    question = Question("All.", None, {"detect": "All.", "refer": "Find {phrase}."})
    write_checkpoint_info(copy, quantisation=DEFAULT_QUANTISATION, vocab=read_vocab(base), question=question)
    assert (question_of(copy), prompts_of(copy)) == (("All.", None), question.prompts)
    assert prompts_of(base) == {}
    RunDir(run).write_state(fingerprint="x", question=question.as_dict())
    assert (question_of(run), prompts_of(run)) == (("All.", None), question.prompts)
    info = json.loads((copy / "coordcore.json").read_text())
    (copy / "coordcore.json").write_text(json.dumps({**info, "question": {"text": "All.", "prompts": {"refer": 5}}}))
    with pytest.raises(InputError, match=r"coordcore\.json: question: .*; write the checkpoint anew"):
        prompts_of(copy)


def test_without_tasks_a_checkpoint_says_what_it_ever_said(base: Path, tmp_path: Path) -> None:
    assert Question("All.").as_dict() == {"text": "All.", "system": None}


def test_a_checkpoint_of_no_run_needs_a_question(base: Path) -> None:
    with pytest.raises(InputError, match=r"belongs to no run.*give the question with --question"):
        question_of(base)


# --- files that are broken ------------------------------------------------------------------------------------------


def test_weights_that_are_missing_are_not_made_up(base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "incomplete"))
    weights = load_file(folder / "model.safetensors")
    lost = sorted(name for name in weights if "layers.0." in name)[:2]
    kept = {name: weight for name, weight in weights.items() if name not in lost}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"incomplete: its files lack the weights .*layers\.0\..* and 1 more"):
        load(folder, "cpu")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"\x07"),
        ("config.json", b"{"),
        ("tokenizer.json", b"{}"),
        ("preprocessor_config.json", b"{"),
    ],
)
def test_broken_files_are_named(base: Path, tmp_path: Path, name: str, content: bytes) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "broken"))
    for item in ("preprocessor_config.json", "processor_config.json"):
        if name == "preprocessor_config.json" and (folder / item).exists():
            (folder / item).unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=r"broken(: cannot be loaded|/\w+\.json: not readable as JSON): "):
        load(folder, "cpu")


def test_a_broken_checkpoint_of_a_run_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(run / "merged")
    last = run / "checkpoints" / "checkpoint-20"
    last.mkdir(parents=True)
    (last / "trainer_state.json").write_text("{}")

    def live(plan: object, checkpoint: Path) -> object:
        return json.loads("{")

    monkeypatch.setattr(
        loading,
        "_plan",
        lambda folder: plan_of(run, parallel_boxes=0.0),
    )
    monkeypatch.setattr(loading, "_live", live)
    with pytest.raises(InputError, match="checkpoint-20: cannot be loaded: Expecting property name"):
        load(run, "cpu")
