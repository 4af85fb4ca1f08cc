"""A merge file by file gives what the merge in memory gives, bit for bit, and refuses what it cannot prove."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import support
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from coordcore.errors import InputError, RunError
from coordcore.protocols import AddedRows
from coordcore_train.checkpoint.merge import layers
from coordcore_train.checkpoint.merge.in_memory import compare_logits, load_live, merge_in_memory
from coordcore_train.checkpoint.merge.rows import Rows, write_rows
from coordcore_train.checkpoint.merge.run import MergeReport, merge_run
from coordcore_train.run.folder import RunDir
from coordcore_train.run.plan import load_run
from coordcore_train.run.session import prepared_folder
from coordcore_train.surgery.saving import as_it_is
from coordcore_train.testing.tiny import tiny_qwen3vl

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

LINEARS = r".*language_model.*(q_proj|k_proj|v_proj|o_proj|up_proj|gate_proj|down_proj)"


def base_of(folder: Path, **settings: Any) -> Path:
    return tiny_qwen3vl(folder / "base", layers=1, vision_layers=1, **settings)


def learned(parameters: Any) -> None:
    """Move every parameter as far as its own size, as long training would."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator).to(parameter))


def run_of(folder: Path, base: Path, *, lora: dict[str, Any] | None, dtype: str = "float32", **rows: Any) -> RunDir:
    """A run folder with one checkpoint, of an adapter or (lora None) of all weights, that no training has made."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    sections: dict[str, Any] = {
        "model": {"dtype": dtype},
        "tuner": {"type": "full" if lora is None else "lora"},
        "surgery": {"fake_rows": rows} if rows.pop("surgery", True) else None,
    }
    loaded = support.loaded(folder, base, **sections)
    run = RunDir(folder / "run")
    with prepared_folder(loaded, run, overwrite=False):
        pass
    plan = load_run(run.path)
    model: Any = AutoModelForImageTextToText.from_pretrained(base, dtype=getattr(torch, dtype))
    for surgery in plan.surgeries:
        surgery.install(model, plan.vocab)
    if lora is None:
        learned(model.parameters())
    else:
        settings = {"r": 4, "target_modules": LINEARS, "init_lora_weights": False, **lora}
        settings["modules_to_save"] = [*plan.modules_to_save, *settings.get("modules_to_save", ())] or None
        model = get_peft_model(model, LoraConfig(**settings))
        learned(parameter for parameter in model.parameters() if parameter.requires_grad)
    checkpoint = run.checkpoints / "checkpoint-1"
    with as_it_is(model):  # as the trainer saves
        model.save_pretrained(checkpoint)
    (checkpoint / "trainer_state.json").write_text("{}")
    return run


def checkpoint_of(run: RunDir) -> Path:
    return run.checkpoints / "checkpoint-1"


def tensors(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def facts(folder: Path) -> list[Any]:
    """What the config says of ties and dtype."""
    config = json.loads((folder / "config.json").read_text())
    parts = (config, config["text_config"])
    return [*(part["tie_word_embeddings"] for part in parts), config["dtype"]]


def assert_same(run: RunDir, folder: Path) -> MergeReport:
    """The streamed merge of a run has the bits of the one in memory. Leaves it in `folder`/merged."""
    report = merge_run(run.path, folder / "merged")
    assert report.in_memory is None
    reference = folder / "reference"
    merge_in_memory(load_run(run.path), checkpoint_of(run), reference)
    expected, actual = tensors(reference), tensors(report.output)
    assert actual.keys() == expected.keys()
    assert [name for name in expected if actual[name].dtype != expected[name].dtype] == []
    assert [name for name in expected if not torch.equal(actual[name], expected[name])] == []
    assert facts(report.output) == facts(reference)
    return report


CASES = list(product(("tied", "untied"), ("lora", "full"), ("one", "sharded"), ("one table", "two"), ("bf16", "f32")))


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_the_bits_of_the_merge_in_memory(tmp_path: Path, case: tuple[str, ...]) -> None:
    tied, tuner, files, tables, dtype = case
    name = {"bf16": "bfloat16", "f32": "float32"}[dtype]
    size = "60KB" if files == "sharded" else None
    base = base_of(tmp_path, tie_word_embeddings=tied == "tied", max_shard_size=size, dtype=name)
    run = run_of(tmp_path, base, lora={} if tuner == "lora" else None, dtype=name, own_head=tables == "two")
    report = assert_same(run, tmp_path)
    names = {file.name for file in base.glob("*.safetensors")}
    new = {"model-lm_head.safetensors"} if (tied, files, tables) == ("tied", "sharded", "two") else set()
    assert {file.name for file in report.output.glob("*.safetensors")} == names | new


ADAPTERS: dict[str, dict[str, Any]] = {
    "DoRA": {"use_dora": True},
    "rsLoRA": {"use_rslora": True},
    "ranks": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"k_proj": 3}},
    "vision": {"target_modules": r".*visual.*(qkv|proj|linear_fc1|linear_fc2)"},
    "patches": {"target_modules": ["patch_embed.proj", "q_proj"]},
    "biases": {"target_modules": ["qkv", "linear_fc1"], "bias": "all"},
    "own biases": {"target_modules": ["qkv", "linear_fc1"], "lora_bias": True},
    "whole modules": {"modules_to_save": ["norm", "patch_embed"]},
    "whole head": {"modules_to_save": ["lm_head"], "surgery": False},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"], "surgery": False},
    "head": {"target_modules": ["lm_head", "q_proj"], "surgery": False},
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_every_kind_of_adapter(tmp_path: Path, name: str, dtype: str) -> None:
    lora = dict(ADAPTERS[name])
    base = base_of(tmp_path, tie_word_embeddings=False, dtype=dtype)
    run = run_of(tmp_path, base, surgery=lora.pop("surgery", True), lora=lora, dtype=dtype)
    assert_same(run, tmp_path)


@pytest.mark.parametrize("tuner", ["lora", "full"])
@pytest.mark.parametrize(
    ("stored", "dtype"), [("float32", "bfloat16"), ("bfloat16", "float32"), ("float32", "float16")]
)
def test_the_merged_folder_has_the_run_s_dtype(tmp_path: Path, stored: str, dtype: str, tuner: str) -> None:
    base = base_of(tmp_path, dtype=stored, max_shard_size="60KB")
    assert_same(run_of(tmp_path, base, lora={} if tuner == "lora" else None, dtype=dtype), tmp_path)


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_a_tied_matrix_that_changes_alone_is_untied(tmp_path: Path, target: str) -> None:
    # PEFT's own merge would change the other one too.
    base = base_of(tmp_path)
    run = run_of(tmp_path, base, lora={"target_modules": [target, "q_proj"]}, surgery=False)
    report = merge_run(run.path, tmp_path / "merged", compare_logits=True)
    assert (report.in_memory, facts(report.output)[:2]) == (None, [False, False])
    assert report.logits is not None


def test_a_run_without_surgeries_keeps_its_ties(tmp_path: Path) -> None:
    base = base_of(tmp_path)
    assert_same(run_of(tmp_path, base, lora={}, surgery=False), tmp_path)


def test_what_did_not_change_is_a_copy(tmp_path: Path) -> None:
    base = base_of(tmp_path, max_shard_size="60KB")
    (base / "LICENSE").write_text("mine")
    (base / "pytorch_model.bin").write_text("stale beside merged weights")
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tool_use.jinja").write_text("template")
    run = run_of(tmp_path, base, lora={"target_modules": ["q_proj"]}, surgery=False)
    merged = merge_run(run.path, tmp_path / "merged").output
    before, after = tensors(base), tensors(merged)
    assert list(after) == list(before)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["model.language_model.layers.0.self_attn.q_proj.weight"]
    copied = {str(file.relative_to(base)) for file in base.rglob("*")} - {"config.json", "pytorch_model.bin"}
    adopted = {"processor_config.json"}  # has the image sizes of training: test_image_size.py
    for file in copied - {path.name for path in base.glob("*.safetensors*")} - {"additional_chat_templates"} - adopted:
        assert (merged / file).read_bytes() == (base / file).read_bytes()
    assert {str(file.relative_to(merged)) for file in merged.rglob("*")} == copied | {"config.json", "coordcore.json"}


def test_the_weights_that_transformers_loads_are_merged(tmp_path: Path) -> None:
    # A newer single file beside shards that nobody removed: what trained is the single file.
    base = base_of(tmp_path, max_shard_size="60KB")
    single = {name: tensor + 1 for name, tensor in tensors(base).items()}
    save_file(single, base / "model.safetensors", {"format": "pt"})
    run = run_of(tmp_path, base, lora={"target_modules": ["q_proj"]}, surgery=False)
    merged = assert_same(run, tmp_path).output
    assert [file.name for file in merged.glob("model*")] == ["model.safetensors"]
    name = "model.language_model.norm.weight"
    assert torch.equal(tensors(merged)[name], single[name])


def test_one_file_for_a_head_of_its_own_is_the_only_file(tmp_path: Path) -> None:
    run = run_of(tmp_path, base_of(tmp_path), lora={}, own_head=True)
    merged = merge_run(run.path, tmp_path / "merged").output
    assert [file.name for file in merged.glob("model*")] == ["model.safetensors"]
    assert "lm_head.weight" in load_file(merged / "model.safetensors")


def test_whole_models_are_compared_on_request(tmp_path: Path) -> None:
    run = run_of(tmp_path, base_of(tmp_path), lora={})
    report = merge_run(run.path, tmp_path / "merged", compare_logits=True)
    assert report.proof is not None
    assert report.proof.changed == 8  # seven linears and the tied matrix
    assert 0 < report.proof.difference < 5e-6
    assert report.logits is not None
    assert report.logits < 1e-5
    assert [line.split(" (")[0] for line in str(report).splitlines()[1:]] == [
        "checked 8 changed layers against the live ones",
        "checked the folder's logits against the live model's",
    ]


# --- row blocks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 7), (2, 1000), (130, 33), (257, 64)])
def test_row_blocks_have_the_bits_of_peft_s_merge(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    from peft import LoraConfig
    from peft.tuners.lora.layer import Linear

    def layer() -> Any:
        torch.manual_seed(0)
        base = nn.Linear(shape[1], shape[0]).to(dtype)
        made = Linear(base, "default", LoraConfig(init_lora_weights=False), r=5, lora_alpha=3)
        for matrix in (made.lora_A, made.lora_B):
            # Few enough digits that a product is exact in any order: blocks of other shapes may sum in another one.
            matrix.float()["default"].weight.data.mul_(256).round_().div_(256)
        return made.requires_grad_(False)

    expected, actual = layer(), layer()
    expected.merge()
    monkeypatch.setattr(layers, "_BLOCK", 1000)
    weight = actual.base_layer.weight.detach()
    merged = torch.empty_like(weight)
    layers.merge_plain_layer(
        "layer", actual, weight, write=lambda first, rows: merged[first : first + len(rows)].copy_(rows)
    )
    assert torch.equal(merged, expected.base_layer.weight)
    # And float64 agrees: one rounding of the sum, one of the product's scaling in float32.
    up, down = actual.lora_B["default"].weight.double(), actual.lora_A["default"].weight.double()
    exact = layer().base_layer.weight.double() + 0.6 * up @ down
    assert (merged.double() - exact).abs().max() <= torch.finfo(dtype).eps * exact.abs().max()


def test_rows_of_two_surgeries_at_scattered_ids(tmp_path: Path) -> None:
    from coordcore_train.checkpoint.merge.layout import Place
    from coordcore_train.checkpoint.tensorfile import WeightFile, tensors_in

    matrix = torch.arange(60.0).reshape(10, 6).bfloat16()
    save_file({"matrix": matrix}, tmp_path / "base.safetensors")
    (source,) = tensors_in(tmp_path / "base.safetensors")
    first = AddedRows(ids=torch.tensor([9, 2, 3]), rows=torch.full((3, 6), 0.3))
    second = AddedRows(ids=torch.tensor([3, 0]), rows=torch.full((2, 6), 5.0))
    rows = Rows(ids=torch.tensor([0, 2, 3, 9]), offsets=(first, second))
    file = WeightFile(tmp_path / "merged.safetensors", [source])
    file.copy("matrix", source)
    write_rows(file, Place(source=source, file="merged.safetensors", spec=source), rows)
    file.close()
    expected = matrix.clone()
    for item in (first, second):
        expected[item.ids] = (expected[item.ids] + item.rows).bfloat16()
    assert torch.equal(load_file(tmp_path / "merged.safetensors")["matrix"], expected)


# --- a merge that is wrong is caught ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "alpha"), [("float32", 8), ("bfloat16", 8), ("bfloat16", 7)])
def test_a_layer_that_merges_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, alpha: int) -> None:
    run = run_of(tmp_path, base_of(tmp_path, dtype=dtype), lora={"lora_alpha": alpha}, dtype=dtype)
    mm, addmm_ = torch.mm, torch.Tensor.addmm_
    if alpha == 8:  # scaled by a power of two
        monkeypatch.setattr(torch.Tensor, "addmm_", lambda own, up, down, alpha: addmm_(own, up / 2, down, alpha=alpha))
    else:
        monkeypatch.setattr(layers.torch, "mm", lambda up, down, out: mm(up / 2, down, out=out))
    with pytest.raises(RunError, match=r"\.\w+_proj merged gives outputs that differ from the live model's by 0\.\d+"):
        merge_run(run.path, tmp_path / "merged")
    assert {path.name for path in tmp_path.iterdir()} == {"base", "manifest.toml", "run"}


def half(merge: Callable[[Any], None]) -> Callable[[Any], None]:
    """A merge that loses half of what the adapter adds."""

    def wrong(layer: Any, *_: Any) -> None:
        before = layer.get_base_layer().weight.data.clone()
        merge(layer)
        layer.get_base_layer().weight.data.lerp_(before, 0.5)

    return wrong


def test_a_vision_layer_that_peft_merges_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.lora.layer import Linear

    run = run_of(tmp_path, base_of(tmp_path), lora={"target_modules": ["qkv"], "use_dora": True})
    monkeypatch.setattr(Linear, "merge", half(Linear.merge))
    with pytest.raises(RunError, match=r"visual\.blocks\.0\.attn\.qkv merged gives outputs that differ"):
        merge_run(run.path, tmp_path / "merged")


@pytest.mark.parametrize("matrix", ["embedding", "head"])
def test_rows_that_are_written_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matrix: str) -> None:
    run = run_of(tmp_path, base_of(tmp_path), lora={}, own_head=True)
    added = Rows.added
    monkeypatch.setattr(
        Rows,
        "added",
        lambda self, rows: rows.lerp(added(self, rows), 0.5 if (torch.equal(self.offsets[0].rows, wrong)) else 1),
    )
    wrong = load_file(checkpoint_of(run) / "adapter_model.safetensors")[
        f"base_model.model.row_offset.{'rows' if matrix == 'embedding' else 'head_rows'}"
    ]
    with pytest.raises(
        RunError, match=f"the {matrix} with the surgeries' rows gives outputs that differ from the live"
    ):
        merge_run(run.path, tmp_path / "merged")


def test_a_weight_that_is_not_finite(tmp_path: Path) -> None:
    run = run_of(tmp_path, base_of(tmp_path), lora={})
    file = checkpoint_of(run) / "adapter_model.safetensors"
    save_file(
        {name: tensor / 0 if "up_proj.lora_B" in name else tensor for name, tensor in load_file(file).items()}, file
    )
    with pytest.raises(RunError, match=r"up_proj merged gives outputs that differ from the live model's by nan"):
        merge_run(run.path, tmp_path / "merged")


# --- what is missing or does not fit ----------------------------------------------------------------------------------


def without(folder: Path, part: str) -> None:
    for file in folder.glob("*.safetensors"):
        save_file(
            {name: tensor for name, tensor in load_file(file).items() if part not in name}, file, {"format": "pt"}
        )


def test_a_base_that_lacks_a_tensor(tmp_path: Path) -> None:
    run = run_of(tmp_path, base := base_of(tmp_path), lora={})
    without(base, "layers.0.input_layernorm")
    run.write_state(content={})  # as a run of before the base was looked at
    with pytest.raises(InputError, match=r"base: lacks model\.language_model\.layers\.0\.input_layernorm\.weight"):
        merge_run(run.path, tmp_path / "merged")


def test_an_adapter_that_lacks_a_tensor(tmp_path: Path) -> None:
    run = run_of(tmp_path, base_of(tmp_path), lora={})
    without(checkpoint_of(run), "q_proj.lora_B")
    with pytest.raises(RunError, match=r"checkpoint-1: lacks .*q_proj\.lora_B.* \(1 tensors\); it is not whole"):
        merge_run(run.path, tmp_path / "merged")


def test_an_adapter_with_a_tensor_of_another_run(tmp_path: Path) -> None:
    run = run_of(tmp_path, base_of(tmp_path), lora={})
    path = run.checkpoints / "checkpoint-1" / "adapter_model.safetensors"
    tensors = load_file(path)
    key = next(name for name in tensors if "q_proj.lora_B" in name)
    save_file({**tensors, key.replace("layers.0", "layers.7"): tensors[key].clone()}, path, metadata={"format": "pt"})
    with pytest.raises(RunError, match=r"knows no place for: .*layers\.7.* \(1 tensors\)"):
        merge_run(run.path, tmp_path / "merged")


def test_a_full_checkpoint_that_lacks_a_tensor(tmp_path: Path) -> None:
    run = run_of(tmp_path, base_of(tmp_path), lora=None)
    without(checkpoint_of(run), "q_proj")
    with pytest.raises(RunError, match=r"checkpoint-1: lacks .*q_proj\.weight \(1 tensors of the model\)"):
        merge_run(run.path, tmp_path / "merged")


def test_an_adapter_of_another_base(tmp_path: Path) -> None:
    run = run_of(tmp_path, base := base_of(tmp_path), lora={})
    shutil.rmtree(base)
    base_of(tmp_path, hidden_size=48)
    run.write_state(content={})
    with pytest.raises(RunError, match=r"does not fit the base: RuntimeError: size mismatch for .*row_offset"):
        merge_run(run.path, tmp_path / "merged")


def test_a_base_with_other_weights_than_the_adapter_was_trained_on(tmp_path: Path) -> None:
    run = run_of(tmp_path, base := base_of(tmp_path), lora={})
    weights = load_file(base / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError) as caught:
        merge_run(run.path, tmp_path / "merged")
    assert str(caught.value) == (
        f"model.base: {base} is not what this run was started with, and its adapter belongs to those weights: put them "
        "back"
    )


def test_a_live_model_of_a_base_with_other_weights(tmp_path: Path) -> None:
    run = run_of(tmp_path, base := base_of(tmp_path), lora={})
    weights = load_file(base / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="base is not what this run was started with"):
        load_live(load_run(run.path), checkpoint_of(run))


def test_checkpoints_that_lie_behind_a_link(tmp_path: Path) -> None:
    run = run_of(tmp_path, base_of(tmp_path), lora={})
    run.checkpoints.rename(tmp_path / "elsewhere")
    run.checkpoints.symlink_to(tmp_path / "elsewhere")
    report = merge_run(run.path, tmp_path / "merged", checkpoint=checkpoint_of(run))
    assert report.checkpoint == checkpoint_of(run)


def test_no_merge_into_the_base(tmp_path: Path) -> None:
    run = run_of(tmp_path, base := base_of(tmp_path), lora={})
    with pytest.raises(InputError) as caught:
        merge_run(run.path, base / "merged")
    assert str(caught.value) == f"{base / 'merged'}: lies in the base {base}; choose a folder beside it"


def test_a_run_folder_without_its_state(tmp_path: Path) -> None:
    run = run_of(tmp_path, base_of(tmp_path), lora={})
    (run.path / "state.json").unlink()
    with pytest.raises(InputError) as caught:
        merge_run(run.path, tmp_path / "merged")
    assert str(caught.value) == f"{run.path} is not a coordcore run folder: it has no state.json"


def test_a_quantised_base(tmp_path: Path) -> None:
    run = run_of(tmp_path, base := base_of(tmp_path), lora={})
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(InputError, match="base: holds quantised weights; merge into the original"):
        merge_run(run.path, tmp_path / "merged")


def test_a_full_disk(tmp_path: Path) -> None:
    run = run_of(tmp_path, base_of(tmp_path), lora={})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(RunError, match="merged: cannot be written: file too large; make room there"):
            merge_run(run.path, tmp_path / "merged")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name for path in tmp_path.iterdir()} == {"base", "manifest.toml", "run"}


# --- what needs the model in memory -----------------------------------------------------------------------------------


def test_a_base_in_another_format_is_merged_in_memory(tmp_path: Path) -> None:
    run = run_of(tmp_path, base := base_of(tmp_path), lora={})
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    run.write_state(content={})
    report = merge_run(run.path, tmp_path / "merged")
    assert report.in_memory == f"{base} has no safetensors weights"
    assert report.logits is not None
    assert report.checks[0] == f"merged in memory: {report.in_memory}"


@pytest.mark.parametrize(
    ("lora", "rows", "reason"),
    [
        ({}, {"free": True}, "FreeRows is no RowSurgery"),
        ({"init_lora_weights": "pissa"}, {}, "init_lora_weights 'pissa' changes the base's weights"),
        ({"trainable_token_indices": [1, 2]}, {"surgery": False}, "embed_tokens is a TrainableTokensWrapper"),
    ],
)
def test_parts_that_are_merged_in_memory(
    tmp_path: Path, lora: dict[str, Any], rows: dict[str, Any], reason: str
) -> None:
    run = run_of(tmp_path, base_of(tmp_path), lora=lora, **rows)
    report = merge_run(run.path, tmp_path / "merged")
    assert report.in_memory is not None
    assert report.in_memory.endswith(reason)
    assert (report.proof, report.logits is None) == (None, False)
    assert compare_logits(load_run(run.path), checkpoint_of(run), report.output) == report.logits


def test_the_live_model_is_what_trained(tmp_path: Path) -> None:
    run = run_of(tmp_path, base_of(tmp_path), lora={})
    live: Any = load_live(load_run(run.path), checkpoint_of(run))
    assert float(live.get_base_model().row_offset.modules_to_save["default"].rows.abs().min()) > 0
