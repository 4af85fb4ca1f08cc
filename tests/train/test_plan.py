"""`coordcore plan`: the arithmetic of sharding, optimizers and steps, what it tells, and how wrong input ends."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import support
import torch
from transformers.optimization import Adafactor
from typer.testing import CliRunner, Result

from coordcore import InputError, Problem
from coordcore.cli import app
from coordcore.lifecycle import Hooks
from coordcore.manifest.sections import Launch, Manifest, Train
from coordcore_train.estimate.activations import NotFollowedError, bounded
from coordcore_train.estimate.memory import GpuMemory, ModelMemory, Part, StepMemory, gpu_memory
from coordcore_train.estimate.model import vision_parts
from coordcore_train.estimate.optimizers import STATES, Trained, state_bytes, state_of
from coordcore_train.estimate.settings import Asked, Setting, changes, refused_shardings
from coordcore_train.estimate.steps import Examples, steps_of
from coordcore_train.swift.known import optimizer_names
from coordcore_train.testing.tiny import tiny_qwen3vl

# --- optimizers -------------------------------------------------------------------------------------------------------

SHAPES = [(64, 48), (17,), (3, 8, 5)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("adamw_torch", lambda given: torch.optim.AdamW(given)),
        ("adamw_torch_fused", lambda given: torch.optim.AdamW(given, fused=True)),
        ("sgd", lambda given: torch.optim.SGD(given, lr=1e-3)),
        ("adagrad", lambda given: torch.optim.Adagrad(given)),
        ("rmsprop", lambda given: torch.optim.RMSprop(given)),
        ("adafactor", lambda given: Adafactor(given, lr=1e-3, scale_parameter=False, relative_step=False)),
    ],
)
def test_the_table_says_what_an_optimizer_keeps(name: str, make: Any, dtype: torch.dtype) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in SHAPES]
    optimizer = make(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]

    trained = [Trained(shape=shape, size=dtype.itemsize) for shape in SHAPES]
    assert state_bytes(state_of(name), trained) == sum(value.nbytes for value in kept)


def test_8_bit_states_take_a_byte_and_a_share_of_a_scale_but_for_small_tensors() -> None:
    large, small = Trained(shape=(256, 256), size=2), Trained(shape=(16, 16), size=2)

    assert state_bytes(state_of("adamw_8bit"), [large]) == 2 * (256 * 256 + 256 * 4)
    assert state_bytes(state_of("adamw_8bit"), [small]) == 2 * 256 * 4


def test_every_name_in_the_table_is_one_of_transformers() -> None:
    assert set(STATES) - set(optimizer_names()) == set()


def test_an_optimizer_without_figures_is_refused_with_a_name_that_has_some() -> None:
    with pytest.raises(InputError, match=r"train.optim: no figures .* 'adamw_8bti'; did you mean 'adamw_8bit'"):
        state_of("adamw_8bti")


# --- sharding ---------------------------------------------------------------------------------------------------------

STEP = StepMemory(activations=1000, again=50, objective=100)


def full(numbers: int, size: int = 2) -> ModelMemory:
    """A model of one trained matrix, half of it in a layer."""
    part = Part(
        name="language model", parameters=numbers, trained=numbers, bytes=size * numbers, trained_bytes=size * numbers
    )
    matrix = Trained(shape=(numbers,), size=size)
    return ModelMemory(parts=(part,), trained=(matrix,), size=size, layer=numbers // 2, rest=numbers // 2)


def by_sharding(model: ModelMemory, gpus: int) -> Mapping[str, GpuMemory]:
    rows = gpu_memory(model, state_of("adamw_torch_fused"), STEP, gpus=gpus, reserve=7)
    return {row.sharding: row for row in rows}


def test_one_gpu_shards_nothing_and_has_no_buckets() -> None:
    [row] = by_sharding(full(1024), 1).values()

    assert row.sharding == "nothing"
    assert (row.weights, row.gradients, row.optimizer, row.communication) == (2048, 2048, 4096 + 4, 0)
    assert row.total == 2048 + 2048 + 4100 + 1000 + 50 + 100 + 7


def test_several_gpus_hold_a_copy_of_the_gradients_in_buckets() -> None:
    assert by_sharding(full(1024), 4)["nothing"].communication == 2048


def test_zero_splits_by_its_stage() -> None:
    numbers, gpus = 2**20, 8
    rows = by_sharding(full(numbers), gpus)
    part = numbers // gpus
    optimizer = part * 4 + 2 * part * 4 + 4  # master weights and two states in float32

    found = {name: (row.weights, row.gradients, row.optimizer) for name, row in rows.items() if name.startswith("zero")}
    assert found == {
        "zero1": (2 * numbers, 2 * numbers, optimizer),
        "zero2": (2 * numbers, 2 * part, optimizer),
        "zero3": (2 * part, 2 * part, optimizer),
    }


def test_zero_of_adam_in_16_bit_is_the_papers_16_bytes() -> None:
    """Rajbhandari et al. 2020, section 3.1: 2 + 2 + 12 bytes a parameter, of which stage 1 splits the 12."""
    numbers = 2**20
    one = by_sharding(full(numbers), 2)["zero1"]

    assert one.weights + one.gradients + 2 * (one.optimizer - 4) == 16 * numbers


def test_fsdp2_trains_in_float32() -> None:
    numbers, gpus = 2**20, 8
    row = by_sharding(full(numbers), gpus)["fsdp2"]

    assert (row.weights, row.gradients) == (4 * numbers // gpus, 4 * numbers // gpus)
    assert row.optimizer == 2 * 4 * numbers // gpus + 4
    assert row.activations == STEP.activations + STEP.again


def test_what_is_split_never_takes_more_on_more_gpus() -> None:
    few, many = by_sharding(full(10**6 + 1), 3), by_sharding(full(10**6 + 1), 64)

    assert all(many[name].total <= few[name].total for name in few)


# --- steps ------------------------------------------------------------------------------------------------------------

EXAMPLES = Examples(count=100, mean=50.0, longest=80, sampled=4)


@pytest.mark.parametrize("gpus", [1, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_steps_of_an_epoch_are_those_of_a_loop_over_it(gpus: int, batch_size: int, accumulation: int) -> None:
    train = Train(batch_size=batch_size, accumulation=accumulation, epochs=2.0)
    left, steps = math.ceil(EXAMPLES.count / gpus), 0
    while left > 0:
        left -= batch_size * accumulation
        steps += 1

    found = steps_of(train, EXAMPLES, gpus=gpus)
    assert (found.per_epoch, found.steps, found.epochs) == (steps, 2 * steps, 2.0)
    assert found.tokens == gpus * batch_size * accumulation * 50.0


def test_train_steps_overrides_epochs() -> None:
    found = steps_of(Train(steps=50, batch_size=10), EXAMPLES, gpus=1)

    assert (found.steps, found.epochs) == (50, 5.0)


def test_without_a_number_of_examples_epochs_are_not_known() -> None:
    found = steps_of(Train(), attrs.evolve(EXAMPLES, count=None), gpus=1)

    assert (found.steps, found.epochs, found.per_epoch) == (None, None, None)


def test_changes_keep_the_examples_of_a_step() -> None:
    found = list(changes(Setting(checkpointing=False, batch_size=6, accumulation=2)))

    assert [one.batch_size for one in found] == [6, 3, 1]
    assert {one.batch_size * one.accumulation for one in found} == {12}
    assert all(one.checkpointing for one in found)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(coord_base: Path, tmp_path: Path) -> Path:
    """A base of which only config.json is there."""
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "config.json").write_bytes((coord_base / "config.json").read_bytes())
    return folder


def plan(manifest: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["plan", str(manifest), *options])


def told(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_it_tells_what_a_run_takes_from_its_config_alone(config: Path, tmp_path: Path) -> None:
    manifest = support.write_manifest(tmp_path / "m", config, train={"device": None})
    found = told(plan(manifest, "--gpus", "4", "--tokens-per-example", "40", "--examples", "100", "--json"))

    assert [row["sharding"] for row in found["shardings"]] == ["nothing", "zero1", "zero2", "fsdp2", "zero3"]
    assert found["least"] == "nothing"
    assert found["chosen"] == "nothing"
    assert found["steps"] == {"examples": 16, "tokens": 640.0, "per_epoch": 7, "steps": 4, "epochs": 4 / 7}
    assert found["parameters"] == sum(part["parameters"] for part in found["parts"])
    assert {part["name"] for part in found["parts"]} >= {"vision tower", "aligner", "adapters", "surgeries"}
    row = found["shardings"][0]
    assert row["total"] == sum(
        value for key, value in row.items() if key not in ("sharding", "total", "fits", "refused")
    )

    text = plan(manifest, "--gpus", "4", "--tokens-per-example", "40").stdout
    assert "least    nothing: leave launch.deepspeed and launch.fsdp out" in text
    assert "note: [launch] starts 1 process: set nproc_per_node and nnodes so that their product is 4" in text


def test_a_sharding_that_a_plugin_of_the_run_refuses_is_not_the_least() -> None:
    def against(_config: Any, run: Manifest) -> Iterable[Problem]:
        if run.launch.deepspeed == "zero1":
            yield Problem(path="launch.deepspeed", message="no rank holds whole rows")

    component = SimpleNamespace(check=against)
    selected = SimpleNamespace(component=component, config=None, path="surgery.made", distribution="made")
    launch = Launch(deepspeed="zero2")
    run = attrs.make_class("Run", ["launch", "selected", "named"])(launch, (selected,), ["made"])
    loaded = SimpleNamespace(manifest=run, hooks=Hooks(()))

    assert refused_shardings(loaded) == {"zero1": "no rank holds whole rows"}


def test_lengths_come_from_the_data(coord_base: Path, tmp_path: Path) -> None:
    found = told(plan(support.write_manifest(tmp_path / "m", coord_base), "--json"))

    assert found["examples"]["sampled"] > 1
    assert 10 < found["examples"]["mean"] <= found["examples"]["longest"] <= 2048
    assert found["steps"]["per_epoch"] == math.ceil(found["examples"]["count"] / 4)


def test_a_base_without_coord_tokens_is_counted_with_those_that_vocab_adds(plain_base: Path, tmp_path: Path) -> None:
    manifest = support.write_manifest(tmp_path / "m", plain_base, vocab={})
    found = told(plan(manifest, "--tokens-per-example", "40", "--json"))
    rows = json.loads((plain_base / "config.json").read_text())["text_config"]["vocab_size"]
    matrix = next(part for part in found["parts"] if part["name"] == "embedding and head")

    assert matrix["parameters"] == -(-(rows + 1000) // 64) * 64 * 32
    assert not list(plain_base.glob("coordcore.json"))


def test_a_trained_tower_keeps_more(config: Path, tmp_path: Path) -> None:
    options = ("--tokens-per-example", "40", "--json")
    frozen = told(plan(support.write_manifest(tmp_path / "a", config), *options))
    trained = told(plan(support.write_manifest(tmp_path / "b", config, tuner={"freeze_vision": False}), *options))
    few = told(
        plan(
            support.write_manifest(tmp_path / "c", config, tuner={"freeze_vision": False}),
            *("--image-tokens", "4", *options),
        )
    )
    kept = [one["shardings"][0]["activations"] for one in (frozen, few, trained)]

    assert kept == sorted(kept)
    assert len(set(kept)) == 3


def test_what_cannot_be_followed_is_bounded_from_above(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = support.write_manifest(tmp_path / "m", config, tuner={"type": "full", "freeze_vision": False})
    options = ("--tokens-per-example", "400", "--image-tokens", "300", "--json")
    followed = told(plan(manifest, *options))["shardings"][0]["activations"]

    def refuse(*_: Any, **__: Any) -> None:
        raise NotFollowedError("the forward of a Made cannot be followed without weights (no)")

    monkeypatch.setattr("coordcore_train.estimate.estimate.tower_of", refuse)
    tower = told(plan(manifest, *options))
    monkeypatch.setattr("coordcore_train.estimate.estimate.language_model", refuse)
    both = told(plan(manifest, *options))["shardings"][0]["activations"]
    assert followed < tower["shardings"][0]["activations"] < both < 8 * followed
    assert any("the forward of a Made cannot be followed" in note for note in tower["notes"])


def test_a_part_that_a_size_of_a_family_lacks_is_passed_over() -> None:
    model = torch.nn.Module()
    model.tower, model.ears = torch.nn.Linear(2, 3), None
    skeleton: Any = SimpleNamespace(model=model, vision=("tower", "ears"), aligner=())
    assert vision_parts(skeleton) == [model.tower]


def test_a_bound_counts_what_multiplies() -> None:
    """Rows of a matrix go in and come out; a table of positions is looked up, and of 64 experts eight are asked."""
    part = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.LayerNorm(5), torch.nn.Embedding(1000, 5))
    part.experts = torch.nn.Parameter(torch.zeros(64, 7, 2))
    found = bounded([part], rows=10, size=2, hidden=0)
    assert (found.outside, found.layers) == (3 * 10 * 2 * (3 + 5 + 8 * (7 + 2)), ())


def test_packed_examples_are_a_row_of_their_own(config: Path, tmp_path: Path) -> None:
    found = {}
    for packing, attention in [(False, "sdpa"), (True, "sdpa"), (True, "flash_attention_2")]:
        manifest = support.write_manifest(
            tmp_path / f"{packing}-{attention}", config, model={"attention": attention}, train={"packing": packing}
        )
        result = plan(manifest, "--tokens-per-example", "500", "--json")
        found[packing, attention] = told(result)["shardings"][0]["activations"]
    # Four examples in one row have a mask of its length squared; without one there is none.
    assert found[True, "flash_attention_2"] < found[False, "sdpa"] < found[True, "sdpa"]


def test_what_does_not_fit_is_told_with_what_makes_it_fit(tmp_path: Path) -> None:
    base = tiny_qwen3vl(tmp_path / "base", hidden_size=256, layers=12, heads=8, max_position_embeddings=2**17)
    train = {"batch_size": 16, "max_length": 100_000, "accumulation": 1}
    manifest = support.write_manifest(tmp_path / "m", base, tuner={"type": "full"}, train=train)
    options = ("--tokens-per-example", "20000", "--gpu-memory", "24", "--reserve", "0", "--json")
    found = told(plan(manifest, *options))

    assert found["least"] is None
    setting = found["cure"]["setting"]
    assert setting["checkpointing"]
    assert setting["batch_size"] * setting["accumulation"] == 16
    assert found["cure"]["memory"]["total"] <= 24 * 2**30
    assert "cure     nothing with" in plan(manifest, *options[:-1]).stdout

    nothing = plan(manifest, *options[:2], "--gpu-memory", "1", "--reserve", "0.3")
    assert nothing.exit_code == 2
    assert "nothing fits 1 GiB on 1 GPU: with gradient_checkpointing = true, batch_size = 1" in nothing.stderr
    assert "train.max_pixels" in nothing.stderr


# --- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sections", "message"),
    [
        (["--gpus", "7"], {"launch": {"nproc_per_node": 8}}, "--gpus 7 are fewer than launch.nproc_per_node 8"),
        (
            [],
            {"train": {"optim": "galore_adamw"}},
            "train.optim: no figures are known for the memory of 'galore_adamw'",
        ),
        ([], {"train": {"optim": "adamw_fused"}}, "train.optim: no figures are known for the memory of 'adamw_fused'"),
        (["--gpu-memory", "nan"], {}, "--gpu-memory must be a number of GiB, got nan"),
        (["--gpu-memory", "inf"], {}, "--gpu-memory must be a number of GiB, got inf"),
        (["--gpu-memory", "0.5"], {}, "--gpu-memory must be at least 1 GiB, got 0.5"),
        (["--gpu-memory", "-80"], {}, "--gpu-memory must be a number of GiB, got -80.0"),
        (["--reserve", "90"], {}, "--reserve 90.0 leaves nothing of --gpu-memory 80.0"),
        (["--tokens-per-example", "9999"], {}, "--tokens-per-example 9999 are more than train.max_length 2048"),
        (["--image-tokens", "50"], {}, "--image-tokens 50 are more than --tokens-per-example 40"),
        (["--gpus", "0"], {}, "--gpus"),
        ([], {"tuner": {"target_modules": ["qq_proj"]}}, "tuner"),
        ([], {"model": {"type": "qwen3_vll"}}, "model.type"),
        ([], {"loss": {"text_ce": {}, "fake_bins": None}}, "coord"),
        ([], {"model": {"base": "no/such/folder"}}, "no such folder"),
        ([], {"model": {"base": "Qwen/Qwen3-VL-2B-Nothing"}}, "is not in the local hub cache; its config is enough"),
    ],
)
def test_wrong_input_is_told_with_its_cure(
    options: list[str], sections: dict[str, Any], message: str, config: Path, tmp_path: Path
) -> None:
    manifest = support.write_manifest(tmp_path / "m", config, **sections)
    result = plan(manifest, "--tokens-per-example", "40", *options)

    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_a_folder_without_a_config_is_no_base(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = plan(support.write_manifest(tmp_path / "m", tmp_path / "empty"), "--tokens-per-example", "40")

    assert result.exit_code == 2
    assert "config.json: no such file" in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must hold a JSON object"),
        ("{", "not readable as JSON"),
        ("{}", "names no model_type"),
        ('{"model_type": "no_such"}', "transformers knows none of a 'no_such' model"),
        ('{"model_type": ["qwen3_vl"]}', "names no model_type"),
        (
            '{"model_type": "qwen3_vl", "text_config": [1], "vision_config": {}}',
            "config.json of the base: says no vocab_size",
        ),
        (
            '{"model_type": "qwen3_vl", "text_config": {"vocab_size": "x"}, "vision_config": {}}',
            "{base}/config.json: vocab_size must be an integer, got 'x'",
        ),
        ('{"model_type": "qwen3_vl", "vision_config": {}}', "{base}/config.json: a qwen3_vl model has a text_config, "),
        ('{"model_type": "qwen3_vl", "text_config": {}}', "{base}/config.json: a qwen3_vl model has a vision_config, "),
        ('{"model_type": "bert", "architectures": ["BertModel"]}', "no vision-language model type"),
    ],
)
def test_a_config_of_another_thing_is_no_base(text: str, message: str, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(text)
    result = plan(support.write_manifest(tmp_path / "m", base), "--tokens-per-example", "40")

    assert result.exit_code == 2, result.output
    assert message.replace("{base}", str(base)) in result.stderr
    assert "coordcore-plan-" not in result.stderr  # a folder that is gone by then


def test_without_a_tokenizer_lengths_must_be_given(config: Path, tmp_path: Path) -> None:
    result = plan(support.write_manifest(tmp_path / "m", config))

    assert result.exit_code == 2
    assert "has no tokenizer.json, so no example can be encoded; give --tokens-per-example" in result.stderr


def test_a_base_without_coord_tokens_and_without_vocab_is_refused(plain_base: Path, tmp_path: Path) -> None:
    result = plan(support.write_manifest(tmp_path / "m", plain_base), "--tokens-per-example", "40")

    assert result.exit_code == 2
    assert "has no coord tokens; add a [vocab] section" in result.stderr


def test_memory_and_reserve_have_faults_of_their_own() -> None:
    assert Asked().fault() is None
    assert Asked(gpu_memory=24, reserve=0).reserved == 0
    assert Asked(gpu_memory=100).reserved == 6 * 2**30
