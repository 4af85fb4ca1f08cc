"""What `coordcore check` knows of the base checkpoint and of ms-swift's arguments."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import EntryPoint, component, offering, usual

import coordcore_train.plugin
from coordcore import kinds
from coordcore.check import check, notes
from coordcore.components import LENGTHS
from coordcore.coords import CoordVocab, ints_to_tokens
from coordcore.manifest import Loaded, load
from coordcore.quantisation import quantisation
from coordcore_train.swift import known as swift_arguments
from coordcore_train.swift import trial
from coordcore_train.swift.arguments import OWNED, TABLE

PLAIN = '[model]\nbase = "base"\n[data.plain_text]\n[loss.text_ce]\n'
BOXES = '[model]\nbase = "base"\n[data.boxes]\ntrain = "boxes.jsonl"\n[loss.fuzzy]\n'
IDS = tuple(range(70, 1070))
ENGINE = EntryPoint(distribution="coordcore-train", plugin=coordcore_train.plugin)


@pytest.fixture(autouse=True)
def _base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COORDCORE_CACHE", str(tmp_path / ".cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / ".hub"))
    checkpoint(tmp_path / "base", tokens=dict(zip(ints_to_tokens(range(1000)), IDS, strict=True)))
    Path("boxes.jsonl").touch()


def checkpoint(folder: Path, *, tokens: dict[str, int], vocab_size: int = 1088, model_type: str = "qwen3_vl") -> None:
    """What `check` reads of a checkpoint; the weights are an empty file."""
    folder.mkdir(parents=True, exist_ok=True)
    added = [{"id": token_id, "content": token, "special": False} for token, token_id in tokens.items()]
    config = {"model_type": model_type, "text_config": {"vocab_size": vocab_size}}
    folder.joinpath("config.json").write_text(json.dumps(config))
    folder.joinpath("tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    folder.joinpath("processor_config.json").write_text("{}")
    folder.joinpath("model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")


def loaded(text: str, *overrides: str) -> Loaded:
    Path("m.toml").write_text(text)
    return load("m.toml", overrides, usual(ENGINE))


def problems(text: str, *overrides: str) -> list[str]:
    return [str(problem).replace(str(Path.cwd()), "{cwd}") for problem in check(loaded(text, *overrides))]


@pytest.mark.parametrize("text", [PLAIN, BOXES])
def test_a_right_manifest_has_no_problems(text: str) -> None:
    assert problems(text) == []
    assert notes(loaded(text)) == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"size": {"longest_edge": 1540}, "patch_size": {"height": 14, "width": 14}}, "size = {'longest_edge': 1540}"),
        ({"max_patches": 12, "size": {"height": 448, "width": 448}}, "max_patches = 12, size = {'height': 448, "),
        ({"patch_size": 16, "merge_size": 2, "size": {"longest_edge": 9}}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("file", ["processor_config.json", "preprocessor_config.json"])
def test_a_limit_of_pixels_that_the_processor_cannot_be_told(
    settings: dict[str, Any], expected: str | None, file: str
) -> None:
    Path("base/processor_config.json").unlink()
    whole = {"image_processor": settings} if file == "processor_config.json" else settings
    Path("base", file).write_text(json.dumps(whole))

    found = problems(PLAIN, "train.max_pixels=10000")

    assert problems(PLAIN) == []
    assert [expected in item for item in found if expected] == ([] if expected is None else [True])
    assert all("train.max_pixels: the image processor of {cwd}/base knows no limit of pixels" in item for item in found)


@pytest.mark.parametrize(("limit", "refused"), [(1, True), (1023, True), (1024, False)])
def test_a_limit_of_pixels_below_one_visual_token_is_refused(limit: int, refused: bool) -> None:
    Path("base/processor_config.json").write_text('{"image_processor": {"patch_size": 16, "merge_size": 2}}')

    told = f"{limit} pixels are fewer than the 1024 of one visual token of {{cwd}}/base; set 1024 at least, "
    told += "and more for images that are not square"

    assert (
        problems(PLAIN, f"train.max_pixels={limit}")
        == [f"--set train.max_pixels={limit}: train.max_pixels: {told}"] * refused
    )


def test_the_full_tuner_cannot_train_float16() -> None:
    assert problems(PLAIN, "tuner.type=full", "model.dtype=float16") == [
        "--set model.dtype=float16: model.dtype: the full tuner cannot train float16 weights, whose gradients would "
        'have to be scaled; set "bfloat16" or "float32"'
    ]


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ('tokens = "<loc{:04}>"\nbins = 1024', "'<loc{:04}>' are the tokens of paligemma, which has y first and"),
        ('tokens = "<{}>"', "'<{}>' are the tokens of rex_omni, which has x first and floor_999; write tokens = "),
        ('tokens = "paligemma"\norder = "xy"', "paligemma has y first; leave coords.order out, or write the tokens"),
    ],
)
def test_tokens_of_a_preset_written_out_by_hand_say_their_order(section: str, expected: str) -> None:
    assert f"m.toml:6: coords.tokens: {expected}" in problems(f"{PLAIN}[coords]\n{section}\n")[0]


@pytest.mark.parametrize("order", ["xy", "yx"])
def test_tokens_written_out_by_hand_are_taken_in_the_order_that_is_said(order: str) -> None:
    text = f'{PLAIN}[coords]\ntokens = "<loc{{:04}}>"\nbins = 1024\norder = "{order}"\n'
    assert (problems(text), loaded(text).manifest.coords.format.order) == ([], order)


# --- the base checkpoint --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("./none", "no such folder: {cwd}/none"),
        ("m.toml", "{cwd}/m.toml is a file; name the checkpoint's folder"),
        ("package:not_installed_here/base", "package not_installed_here is not installed; "
            "pip install not-installed-here"),
        ("package:attrs/base", "package attrs has no folder 'base'"),
        ("package:attrs", "must be package:NAME/FOLDER, as in package:coordcore_demo/base, got 'package:attrs'"),
        ("empty", "{cwd}/empty/config.json: no such file; is {cwd}/empty a checkpoint folder?"),
        ("llama", "{cwd}/llama is a 'llama' model (architecture None), which no vision-language model type of "
            "ms-swift loads; take a base that it does, or set model.type to a type that fits"),
    ],
)  # fmt: skip
def test_a_base_that_cannot_be_trained(base: str, expected: str) -> None:
    Path("empty").mkdir()
    checkpoint(Path("llama"), tokens={}, model_type="llama")

    assert problems(PLAIN.replace('"base"', f'"{base}"')) == [f"m.toml:2: model.base: {expected}"]


def test_a_base_in_a_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "made_package"
    checkpoint(package / "base", tokens={})
    package.joinpath("__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")

    assert problems(PLAIN.replace('"base"', '"package:made_package/base"')) == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {
                "model_type": "florence2",
                "architectures": ["Florence2ForConditionalGeneration"],
                "is_encoder_decoder": True,
            },
            "model.base: models of type 'florence' cannot be trained: it is an encoder-decoder",
        ),
        (
            {"model_type": "qwen3_vl", "quantization_config": {"quant_method": "fp8"}},
            "model.base: {cwd}/odd has quantised weights (fp8): LoRA could train beside them",
        ),
        (
            {"model_type": "qwen3_vl", "llm_config": {"compression_config": {"format": "packed"}}},
            "model.base: {cwd}/odd has quantised weights (an unnamed method): LoRA could train beside them",
        ),
        (
            {"model_type": ["qwen3_vl"]},
            "model.base: {cwd}/odd is a None model (architecture None)",
        ),
        (
            {"model_type": "diffusion_gemma", "architectures": ["DiffusionGemmaForBlockDiffusion"]},
            "model.base: models of type 'diffusion_gemma' cannot be trained: it fills a canvas in",
        ),
        (
            {"model_type": "keye", "architectures": ["KeyeForConditionalGeneration"]},
            "model.base: models of ms-swift's type 'keye_vl' need keye_vl_utils, which is not installed",
        ),
        (
            {"model_type": "kimi_vl", "architectures": ["KimiVLForConditionalGeneration"]},
            "model.base: models of ms-swift's type 'kimi_vl' need transformers<4.49, and ",
        ),
    ],
)
def test_a_model_that_cannot_be_trained(config: dict[str, Any], expected: str) -> None:
    checkpoint(Path("odd"), tokens={})
    Path("odd/config.json").write_text(json.dumps({"text_config": {"vocab_size": 1088}, **config}))

    (found,) = problems(PLAIN.replace('"base"', '"odd"'))

    assert found.partition(": ")[2].startswith(expected)


def test_weights_that_are_said_not_to_be_quantised() -> None:
    said = {"load_in_4bit": False, "load_in_8bit": False}
    config = {"model_type": "qwen3_vl", "text_config": {"vocab_size": 1088}, "quantization_config": said}
    Path("base/config.json").write_text(json.dumps(config))

    assert problems(PLAIN) == []


@pytest.mark.parametrize(("key", "value"), [("type", "nonsense"), ("template", "nonsense")])
def test_names_that_ms_swift_does_not_know_need_no_checkpoint(key: str, value: str) -> None:
    (found,) = problems(PLAIN.replace('"base"', '"Qwen/not-here"'), f"model.{key}={value}")

    assert f"model.{key}: ms-swift has no" in found


def test_the_template_that_was_chosen_is_told() -> None:
    Path("base/config.json").write_text(json.dumps({"model_type": "qwen3_5", "text_config": {"vocab_size": 1088}}))

    assert notes(loaded(PLAIN)) == [
        "model.template: 'qwen3_5' is taken; checkpoints of type 'qwen3_5' are also trained with qwen3_8: set "
        "model.template where that is yours"
    ]
    assert notes(loaded(PLAIN, "model.template=qwen3_8")) == []


def test_a_hub_id_in_the_local_cache_is_looked_into() -> None:
    repository = Path(".hub/models--Qwen--tiny")
    checkpoint(repository / "snapshots/abc", tokens={}, model_type="llama")
    repository.joinpath("refs").mkdir()
    repository.joinpath("refs/main").write_text("abc")

    assert problems(PLAIN.replace('"base"', '"Qwen/tiny"')) == [
        "m.toml:2: model.base: {cwd}/.hub/models--Qwen--tiny/snapshots/abc is a 'llama' model (architecture "
        "None), which no vision-language model type of ms-swift loads; take a base that it does, or set model.type to "
        "a type that fits"
    ]


def test_a_hub_id_that_must_be_downloaded_is_only_noted() -> None:
    text = PLAIN.replace('"base"', '"Qwen/Qwen3-VL-2B-Instruct"')

    assert problems(text) == []
    assert notes(loaded(text)) == [
        "model.base: Qwen/Qwen3-VL-2B-Instruct is not in the local hub cache; a run downloads it"
    ]


def test_a_base_without_safetensors() -> None:
    Path("base/model.safetensors").unlink()
    Path("base/pytorch_model.bin").touch()

    assert problems(PLAIN) == [
        "m.toml:2: model.base: {cwd}/base: has .bin weights only, and safetensors are read; convert it: load it with "
        "transformers' AutoModelForImageTextToText and AutoProcessor, and save both with save_pretrained into a new "
        "folder"
    ]


def test_a_base_whose_weights_are_cut_off() -> None:
    Path("base/model.safetensors").write_bytes(b"cut")

    assert problems(PLAIN) == [
        "m.toml:2: model.base: {cwd}/base/model.safetensors: not a safetensors file, or cut off; download or save it "
        "again"
    ]


def test_a_base_without_a_processor() -> None:
    Path("base/processor_config.json").unlink()

    assert problems(PLAIN) == [
        "m.toml:2: model.base: {cwd}/base: has neither processor_config.json nor preprocessor_config.json, which say "
        "how images are read; download it again"
    ]


def test_a_base_with_a_shard_missing() -> None:
    Path("base/model.safetensors").rename("base/model-1.safetensors")
    names = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    Path("base/model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))

    assert problems(PLAIN) == [
        "m.toml:2: model.base: {cwd}/base: model.safetensors.index.json names model-2.safetensors, which is missing; "
        "download it again"
    ]


def test_an_index_beside_a_single_file_is_not_read() -> None:
    # As transformers has it.
    Path("base/model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}')

    assert problems(PLAIN) == []


def test_a_base_without_coord_tokens_needs_a_vocab_section() -> None:
    checkpoint(Path("base"), tokens={})

    assert problems(BOXES) == [
        "m.toml:2: model.base: {cwd}/base has no coord tokens <|coord_0|> to <|coord_999|>; add a [vocab] section, "
        "or expand it with coordcore expand"
    ]
    assert problems(BOXES + "[vocab]\n") == []
    assert problems(PLAIN) == []


def test_a_second_set_of_coord_tokens_is_told_of() -> None:
    checkpoint(Path("base"), tokens={f"<{k}>": 70 + k for k in range(1000)})

    assert problems(BOXES + "[vocab]\n") == []
    assert notes(loaded(BOXES + "[vocab]\n")) == [
        f"vocab: <|coord_0|> to <|coord_999|> are added to {Path.cwd()}/base; it has its own: "
        'set [coords] tokens = "rex_omni" to train those instead'
    ]


def test_coord_tokens_outside_the_vocabulary() -> None:
    tokens = dict(zip(ints_to_tokens(range(1000)), IDS, strict=True))
    checkpoint(Path("base"), tokens=tokens, vocab_size=1069)
    (message,) = problems(BOXES)

    assert message.startswith("m.toml:2: model.base: {cwd}/base: the tokenizer has coord token ids outside the 1069")


def test_a_base_with_another_quantisation() -> None:
    from coordcore_train.checkpoint.folder import write_checkpoint_info

    write_checkpoint_info(Path("base"), quantisation=quantisation("qwen_1000"), vocab=CoordVocab(ids=IDS))

    assert problems(BOXES) == [
        "m.toml: coords.quantisation: {cwd}/base was made with qwen_1000 (version 1), "
        "this run says nearest_999 (version 1); use one convention throughout"
    ]
    assert problems(BOXES, "coords.quantisation=qwen_1000") == []


# --- ms-swift's arguments -------------------------------------------------------------------------------------------


KNOWN = {
    "neftune_noise_alpha": ["float", "none"],
    "padding_free": ["bool"],
    "lora_bias": [["literal", "none"], ["literal", "all"]],
    "report_to": ["list"],
    "debug": ["list"],
    "model_kwargs": ["dict", "str", "none"],
    "warmup_steps": ["float"],
}


@pytest.fixture
def _ms_swift(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(swift_arguments, "installed_version", lambda: "4.6.0")
    cache = tmp_path / ".cache"
    cache.mkdir()
    cache.joinpath("swift-arguments-4.6.0.json").write_text(json.dumps(KNOWN))
    monkeypatch.setattr(trial, "refused", lambda *_: {})  # its own tests ask ms-swift


@pytest.mark.usefixtures("_ms_swift")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("learning_rate = 1e-4", "set train.learning_rate instead"),
        (
            "use_liger_kernel = true",
            "not available: its fused loss reads lm_head.weight itself "
            "and passes over coordcore's losses and surgeries",
        ),
        ("packing = true", "set train.packing instead"),
        ("group_by_length = true", "set train.group_by_length instead"),
        (
            "packing_length = 4096",
            "not available: examples are encoded one by one when they are needed, "
            "so nothing is known of them beforehand",
        ),
        (
            "padding_free = true",
            "without flash attention the examples of a batch would see each other; "
            'set model.attention = "flash_attention_2" (it is "auto")',
        ),
        ("neftune_alpha = 5", "ms-swift 4.6.0 has no such argument; did you mean 'neftune_noise_alpha'?"),
        ("zzz = 5", "ms-swift 4.6.0 has no such argument"),
        ('neftune_noise_alpha = "5"', "must be a number, got '5'"),
        ('lora_bias = "some"', "must be 'none' or 'all', got 'some'"),
        ('report_to = ["tensorboard"]', "set train.report_to instead"),
        ('debug = "x"', "must be an array, got 'x'"),
        ("model_kwargs = true", "must be a table or a string, got true"),
    ],
)  # fmt: skip
def test_an_ms_swift_argument_that_cannot_be(line: str, expected: str) -> None:
    name = line.split()[0]

    assert problems(f"{PLAIN}[train.swift]\n{line}\n") == [f"m.toml:6: train.swift.{name}: {expected}"]


@pytest.mark.usefixtures("_ms_swift")
@pytest.mark.parametrize(
    "line",
    ["neftune_noise_alpha = 5", "neftune_noise_alpha = 5.5", 'lora_bias = "all"', 'debug = ["x"]',
     "model_kwargs = { a = 1 }", "padding_free = false"],
)  # fmt: skip
def test_an_ms_swift_argument_that_can_be(line: str) -> None:
    assert problems(f"{PLAIN}[train.swift]\n{line}\n") == []


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["nonsense"], "transformers knows no tracker 'nonsense'; known: azure_ml, clearml, codecarbon, comet_ml, "
            "dagshub, dvclive, flyte, kubeflow, mlflow, neptune, swanlab, tensorboard, trackio, wandb"),
        (["tensorbord"], "transformers knows no tracker 'tensorbord'; did you mean 'tensorboard'?"),
        (["all"], "transformers knows no tracker 'all'; known: "),
        (["tensorboard", "clearml"], "the tracker 'clearml' needs the package clearml, which is not installed: "
            "pip install it"),
    ],
)  # fmt: skip
def test_trackers_that_cannot_be(names: list[str], expected: str) -> None:
    (found,) = problems(f"{PLAIN}[train]\nreport_to = {names}\n")
    assert found.startswith(f"m.toml:6: train.report_to: {expected}")


@pytest.mark.usefixtures("_ms_swift")
def test_padding_free_goes_with_flash_attention() -> None:
    assert problems(f"{PLAIN}[train.swift]\npadding_free = true\n", "model.attention=flash_attention_2") == []


def test_without_ms_swift_only_our_own_rules_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swift_arguments, "installed_version", lambda: None)
    text = f"{PLAIN}[train.swift]\nseed = 1\nanything = 2\n"

    assert problems(text) == ["m.toml:6: train.swift.seed: set train.seed instead"]
    assert notes(loaded(text)) == [
        "model.type: ms-swift is not installed here, so the model's family was not looked at, nor were [train.swift]'s "
        "arguments"
    ]


def test_ms_swift_is_asked_once_for_its_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "swift").mkdir()
    (tmp_path / "swift/__init__.py").touch()
    (tmp_path / "swift/arguments.py").write_text(
        "import dataclasses, typing\n"
        "print('a library that chatters')\n"
        "@dataclasses.dataclass\n"
        "class SftArguments:\n"
        "    a: int = 0\n"
        "    b: typing.Optional[float] = None\n"
        "    c: 'str | list[str]' = ''\n"
        "    d: typing.Literal['x', 1] = 'x'\n"
        "    e: typing.Union[dict, bytes] = b''\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    asked = swift_arguments.known_arguments("0.0")
    (tmp_path / "swift/arguments.py").write_text("raise AssertionError('asked again')")

    expected: dict[str, Any] = {
        "a": ["int"], "b": ["float", "none"], "c": ["str", "list"], "d": [["literal", "x"], ["literal", 1]],
        "e": ["dict", "other"],
    }  # fmt: skip
    assert asked == expected
    assert swift_arguments.known_arguments("0.0") == expected


def test_an_ms_swift_that_cannot_be_imported_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "swift.py").write_text("raise ImportError('libcuda is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(swift_arguments, "installed_version", lambda: "0.0")

    assert problems(f"{PLAIN}[train.swift]\nx = 1\n") == [
        "m.toml:5: train.swift: ms-swift 0.0 is installed and cannot be imported: ImportError: libcuda is missing"
    ]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", []),
        ("packing = true", ["packing leaves no padding that it could save; keep one of them"]),
        ("swift = { padding_free = true }", ["padding_free leaves no padding that it could save; keep one of them"]),
        (
            "swift = { train_dataloader_shuffle = false }",
            [
                "puts examples into another order, and train.swift.train_dataloader_shuffle = false keeps that of the "
                "data; leave one of them out"
            ],
        ),
    ],
)
def test_what_group_by_length_does_not_go_with(
    lines: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swift_arguments, "installed_version", lambda: None)
    monkeypatch.setattr("coordcore_train.swift.check.PACKED", ("qwen3_vl",))
    told = EntryPoint(
        distribution="made-lengths", plugin=offering(kinds.DATA, component("told", provides=lambda _config: [LENGTHS]))
    )
    text = f"{PLAIN.replace('plain_text', 'told')}[model]\n"
    Path("m.toml").write_text(f"{text.removesuffix('[model]' + chr(10))}[train]\ngroup_by_length = true\n{lines}\n")
    found = [str(problem) for problem in check(load("m.toml", (), usual(ENGINE, told)))]
    assert [text for text in found if "train.swift.padding_free" not in text] == [
        f"m.toml:6: train.group_by_length: {message}" for message in expected
    ]


def test_examples_that_tell_no_lengths() -> None:
    assert problems(f"{PLAIN}[train]\ngroup_by_length = true\n") == [
        "m.toml:6: train.group_by_length: the examples of data.plain_text do not tell how long they are before they "
        "are made (it provides no 'lengths'); leave group_by_length out, or set packing instead"
    ]


def test_boxes_are_learned_together_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    share = "[train]\nparallel_boxes = 0.5\n"
    path = "train.parallel_boxes"
    assert problems(f"{PLAIN}{share}") == [
        f"m.toml:6: {path}: no section has examples with coord tokens ('coord-tokens'), so no box has corners to be "
        "hidden; leave it out"
    ]
    assert problems(f"{BOXES}{share}") == []
    points = SimpleNamespace(name="points", places=["point"])
    monkeypatch.setattr("coordcore_train.swift.check.answer_format", lambda _run: points)
    assert problems(f"{BOXES}{share}") == [
        f"m.toml:7: {path}: answers in the format points hold no bbox_2d; leave it out"
    ]


def test_no_argument_is_both_ours_and_refused() -> None:
    assert OWNED.keys() & swift_arguments.REFUSED.keys() == set()


def test_the_table_has_a_row_for_every_key_of_the_manifest_that_ms_swift_could_set() -> None:
    from coordcore.manifest.sections import Launch, Model, Output, Train, Tuner
    from coordcore.manifest.types import keys

    sections = {"model": Model, "tuner": Tuner, "train": Train, "launch": Launch, "output": Output}
    known = {f"{name}.{key}" for name, section in sections.items() for key in keys(section)}
    ours = {
        "train.threads",
        "train.evaluate_checkpoints",
        "train.parallel_boxes",
        "train.swift",
        "output.merge",
        "model.trust_remote_code",
    }
    processes = {f"launch.{key}" for key in ("nnodes", "node_rank", "master_addr", "master_port", "timeout")}

    assert set(OWNED.values()) == known - ours - processes


def test_an_argument_stands_in_one_row() -> None:
    assert len(OWNED) == len(TABLE)


# --- names that nobody knows ----------------------------------------------------------------------------------------


def with_modules(*names: str) -> None:
    """Give the base weights of these modules."""
    header = {
        f"{name}.weight": {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]}
        for n, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    Path("base/model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4 * len(names)))


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        ('["q_proj", "k_projj"]', {1: "k_projj"}),
        ('["all-linear", "nothing"]', {1: "nothing"}),
        ('["self_attn.q_proj", "mlp.q_proj"]', {1: "mlp.q_proj"}),
        ('["model.language_model.layers.0.self_attn.q_proj", "lm_head"]', {}),
        ('["all-linear"]', {}),
    ],
)
def test_target_modules_that_are_no_modules_of_the_base(names: str, wrong: dict[int, str]) -> None:
    with_modules("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj")

    found = problems(f"{PLAIN}[tuner]\ntarget_modules = {names}\n")

    assert [item.partition("; ")[0] for item in found] == [
        f"m.toml:6: tuner.target_modules[{index}]: no module of {{cwd}}/base is called {name!r}"
        for index, name in wrong.items()
    ]


def test_an_optimizer_that_transformers_does_not_know() -> None:
    assert problems(f'{PLAIN}[train]\noptim = "adamw_torc"\n') == [
        "m.toml:6: train.optim: transformers knows no optimizer 'adamw_torc'; did you mean 'adamw_torch'?"
    ]


def test_the_names_read_from_transformers_source_are_its_own() -> None:
    from transformers.training_args import OptimizerNames

    assert swift_arguments.optimizer_names() == [name.value for name in OptimizerNames]
    assert problems(f'{PLAIN}[train]\noptim = "adafactor"\n') == []
