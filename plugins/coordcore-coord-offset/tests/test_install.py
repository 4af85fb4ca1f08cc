"""Installing: nothing changes at the start, only the offsets train, what cannot work is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from coordcore import InputError
from coordcore.testing.closeness import assert_close_to_scale
from coordcore_coord_offset import (
    install_coord_offset_adapter,
    live_coord_offset_adapter,
    merge_coord_offsets,
    reattach_coord_offset_hooks,
    verify_coord_offsets,
)

Load = Callable[..., Any]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("tie_head", [True, False])
@torch.no_grad()
def test_installing_changes_no_bit_of_the_logits(
    load: Load, coord_ids: list[int], tokens: torch.Tensor, dtype: torch.dtype, tied: bool, tie_head: bool
) -> None:
    model = load(tied=tied, dtype=dtype)
    expected = model(input_ids=tokens).logits
    install_coord_offset_adapter(model, coord_ids, tie_head=tie_head)
    assert torch.equal(model(input_ids=tokens).logits, expected)


def test_offsets_are_float32_on_a_bfloat16_base(load: Load, coord_ids: list[int]) -> None:
    adapter = install_coord_offset_adapter(load(dtype=torch.bfloat16), coord_ids, tie_head=False)
    assert {parameter.dtype for parameter in adapter.parameters()} == {torch.float32}


def test_offsets_take_the_dtype_that_is_asked_for(load: Load, coord_ids: list[int]) -> None:
    adapter = install_coord_offset_adapter(load(), coord_ids, dtype=torch.bfloat16)
    assert adapter.embed_offset.dtype == torch.bfloat16


@pytest.mark.parametrize(("tie_head", "names"), [(True, ["embed_offset"]), (False, ["embed_offset", "head_offset"])])
def test_the_state_dict_holds_the_offset_tables_alone(
    load: Load, coord_ids: list[int], tie_head: bool, names: list[str]
) -> None:
    adapter = install_coord_offset_adapter(load(), coord_ids, tie_head=tie_head)
    assert [(name, tuple(value.shape)) for name, value in adapter.state_dict().items()] == [
        (name, (20, 16)) for name in names
    ]


@pytest.mark.parametrize("tied", [True, False])
def test_both_matrices_are_frozen(load: Load, coord_ids: list[int], tied: bool) -> None:
    model = load(tied=tied)
    install_coord_offset_adapter(model, coord_ids)
    assert not model.get_input_embeddings().weight.requires_grad
    assert not model.get_output_embeddings().weight.requires_grad


def test_only_the_offsets_change_when_nothing_else_trains(
    load: Load, coord_ids: list[int], tokens: torch.Tensor
) -> None:
    model = load()
    model.requires_grad_(False)
    adapter = install_coord_offset_adapter(model, coord_ids)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1.0)
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    changed = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
    assert changed == ["coord_offset_adapter.embed_offset"]
    # Through the softmax every coord column gets a gradient, seen in the text or not.
    assert bool((adapter.embed_offset != 0).any(-1).all())


def test_embeddings_passed_directly_get_no_offset_twice(
    load: Load, coord_ids: list[int], tokens: torch.Tensor, randomise: Callable[[nn.Module], None]
) -> None:
    model = load()
    install_coord_offset_adapter(model, coord_ids)
    randomise(model)
    embeddings = model.get_input_embeddings()(tokens)
    assert torch.equal(model(inputs_embeds=embeddings).logits, model(input_ids=tokens).logits)


def test_an_adapter_is_installed_once(load: Load, coord_ids: list[int]) -> None:
    model = load()
    install_coord_offset_adapter(model, coord_ids)
    with pytest.raises(RuntimeError, match="already has a coord_offset_adapter; install it once per loaded model"):
        install_coord_offset_adapter(model, coord_ids)


def test_it_is_installed_before_peft_wraps(load: Load, coord_ids: list[int]) -> None:
    wrapped = get_peft_model(load(), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(RuntimeError, match=r"install first, then wrap with modules_to_save=\['coord_offset_adapter'\]"):
        install_coord_offset_adapter(wrapped, coord_ids)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([94, 95, 96], "id 96 lies outside the vocabulary \\(96 matrix rows, config.vocab_size 96\\)"),
        ([-1, 0, 1], "id -1 lies outside the vocabulary"),
        ([7, 8, 7], "got 3 of which 2 distinct"),
        ([], "got 0 of which 0 distinct"),
    ],
)
def test_ids_must_be_distinct_rows_of_the_matrix(load: Load, ids: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        install_coord_offset_adapter(load(), ids)


def test_ids_must_lie_within_the_configured_vocabulary(load: Load) -> None:
    model = load()
    model.config.get_text_config().vocab_size = 90
    with pytest.raises(InputError, match=r"id 90 .* config\.vocab_size 90\); expand the checkpoint"):
        install_coord_offset_adapter(model, [88, 89, 90])


def test_a_refused_model_is_left_as_it_was(load: Load) -> None:
    model = load()
    with pytest.raises(InputError):
        install_coord_offset_adapter(model, [96])
    assert "coord_offset_adapter" not in model._modules
    assert model.get_input_embeddings().weight.requires_grad


def test_a_quantised_embedding_is_refused(load: Load, coord_ids: list[int]) -> None:
    class Embedding4bit(nn.Embedding):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
            return super().forward(input)

    model = load()
    model.set_input_embeddings(Embedding4bit(96, 16))
    with pytest.raises(InputError, match=r"the input embedding is a .*Embedding4bit: .* without quantising it"):
        install_coord_offset_adapter(model, coord_ids)


def scaling(*, cap: float | None = None) -> Any:
    """A model as Gemma 3 is: its embedding multiplies by the root of the hidden size. cap: of its logits."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=96,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=cap,
    )
    return Gemma3ForCausalLM(config).eval()


@pytest.mark.parametrize("cap", [None, 2.0])
def test_offsets_in_a_scaling_embedding_are_those_that_are_merged(cap: float | None) -> None:
    model, ids = scaling(cap=cap), torch.tensor([[60, 1, 61]])
    base = model(ids).logits.detach()
    adapter = install_coord_offset_adapter(model, [60, 61])
    verify_coord_offsets(model)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        live = model(ids).logits
        merge_coord_offsets(model)
        merged = model(ids).logits
    assert not torch.allclose(base, live, atol=1e-3)
    assert_close_to_scale(live, merged, ulps=64.0, what="the logits")


def test_an_embedding_that_does_more_than_scale_is_refused() -> None:
    class Doubling(nn.Embedding):
        embed_scale = 3.0

        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
            return super().forward(input) * 2

    model = scaling()
    model.set_input_embeddings(Doubling(96, 16))
    with pytest.raises(InputError, match=r"Doubling: rows are added to a torch.nn.Embedding that gives its rows as"):
        install_coord_offset_adapter(model, [60, 61])


@pytest.mark.parametrize("family", ["T5", "Bart"])
def test_encoder_decoders_are_refused(family: str) -> None:
    import transformers

    sizes: dict[str, Any] = {"vocab_size": 96, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    if family == "T5":
        sizes = {"vocab_size": 96, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    config = getattr(transformers, f"{family}Config")(**sizes)
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config)
    before = list(model.state_dict())
    with pytest.raises(InputError, match=rf"{family}ForConditionalGeneration is an encoder-decoder: .* decoder-only"):
        install_coord_offset_adapter(model, [60, 61])
    assert list(model.state_dict()) == before


@pytest.mark.parametrize("method", ["get_input_embeddings", "get_output_embeddings"])
def test_a_model_that_names_no_matrix_is_refused(load: Load, coord_ids: list[int], method: str) -> None:
    model = load()
    setattr(model, method, lambda: None)
    with pytest.raises(InputError, match=rf"{method}\(\) is None: .*AutoModelForImageTextToText"):
        install_coord_offset_adapter(model, coord_ids)

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model
            self.config = model.config

    bare = Module()
    if method == "get_output_embeddings":
        bare.get_input_embeddings = load().get_input_embeddings
    with pytest.raises(InputError, match=rf"Module does not say which module is .* \({method}\(\) is missing\)"):
        install_coord_offset_adapter(bare, coord_ids)


def test_a_model_without_a_head_is_refused(load: Load, coord_ids: list[int]) -> None:
    with pytest.raises(InputError, match=r"get_output_embeddings\(\) is None: it has no output head"):
        install_coord_offset_adapter(load().model, coord_ids)


def test_integer_weights_are_refused(load: Load, coord_ids: list[int]) -> None:
    model = load(tied=False)
    weight = torch.zeros(96, 16, dtype=torch.int8)
    model.get_output_embeddings().weight = nn.Parameter(weight, requires_grad=False)
    with pytest.raises(InputError, match=r"the output head is quantised \(torch.int8\)"):
        install_coord_offset_adapter(model, coord_ids)


def test_weights_in_parts_are_refused(load: Load, coord_ids: list[int]) -> None:
    model = load()
    model.get_input_embeddings().weight = nn.Parameter(torch.empty(0))
    with pytest.raises(InputError, match=r"input embedding is in parts \(DeepSpeed ZeRO-3\); .*zero3.whole"):
        install_coord_offset_adapter(model, coord_ids)


@pytest.mark.parametrize(("target", "role"), [("lm_head", "output head"), ("embed_tokens", "input embedding")])
def test_lora_on_a_matrix_with_offsets_is_refused(load: Load, coord_ids: list[int], target: str, role: str) -> None:
    model = load(tied=False)
    install_coord_offset_adapter(model, coord_ids)
    wrapped = get_peft_model(
        model, LoraConfig(target_modules=["q_proj", target], modules_to_save=["coord_offset_adapter"])
    )
    with pytest.raises(InputError, match=f"the {role} is a peft.*take it out of target_modules"):
        reattach_coord_offset_hooks(wrapped)


@pytest.mark.parametrize("use", [live_coord_offset_adapter, reattach_coord_offset_hooks, merge_coord_offsets])
def test_a_model_without_offsets_says_so(load: Load, use: Callable[[nn.Module], object]) -> None:
    with pytest.raises(RuntimeError, match=r"has no coord_offset_adapter; install it on the freshly loaded model"):
        use(load())


def test_verify_passes_and_leaves_every_bit(
    load: Load, coord_ids: list[int], randomise: Callable[[nn.Module], None]
) -> None:
    model = load(tied=False, dtype=torch.bfloat16)
    install_coord_offset_adapter(model, coord_ids, tie_head=False)
    randomise(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    verify_coord_offsets(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_verify_finds_an_embedding_that_was_replaced(load: Load, coord_ids: list[int]) -> None:
    model = load(tied=False)
    install_coord_offset_adapter(model, coord_ids)
    model.set_input_embeddings(nn.Embedding(96, 16).requires_grad_(False))
    with pytest.raises(RuntimeError, match=r"moves the embedding of token \d+ by 0; bind it again"):
        verify_coord_offsets(model)
    reattach_coord_offset_hooks(model)
    verify_coord_offsets(model)


def test_verify_finds_a_head_without_its_hook(load: Load, coord_ids: list[int]) -> None:
    model = load()
    install_coord_offset_adapter(model, coord_ids)
    model.get_output_embeddings()._forward_hooks.clear()
    with pytest.raises(RuntimeError, match=r"moves the logit of token \d+ by 0"):
        verify_coord_offsets(model)


def test_verify_finds_a_hook_that_was_bound_twice(load: Load, coord_ids: list[int]) -> None:
    model = load()
    install_coord_offset_adapter(model, coord_ids)
    head = model.get_output_embeddings()
    head.register_forward_hook(next(iter(head._forward_hooks.values())))
    with pytest.raises(RuntimeError, match=r"moves the logit of token \d+ by 2"):
        verify_coord_offsets(model)
    reattach_coord_offset_hooks(model)
    verify_coord_offsets(model)


def test_verify_finds_a_matrix_that_trains_beside_its_offsets(load: Load, coord_ids: list[int]) -> None:
    model = load()
    install_coord_offset_adapter(model, coord_ids)
    model.requires_grad_(True)
    with pytest.raises(
        RuntimeError, match="embedding's own weight is trainable beside the rows of coord_offset_adapter; freeze it"
    ):
        verify_coord_offsets(model)


def test_a_head_whose_forward_was_replaced_keeps_its_output(load: Load, coord_ids: list[int]) -> None:
    model = load()
    install_coord_offset_adapter(model, coord_ids)
    head = model.get_output_embeddings()
    for output in (torch.tensor(3.0), torch.ones(2, 5)):
        head.forward = lambda _hidden, output=output: output
        assert head(torch.ones(2, 16)) is output
