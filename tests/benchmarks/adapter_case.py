"""The offset adapter on a model's embedding and head, against the frozen model and against PEFT's token rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from measure import Case, Reach, Setting, Variant
from objective_data import IGNORE, Batch, make_batch, objective
from torch import Tensor

from coordcore_coord_offset import CoordOffsetSurgery
from coordcore_train.objective import loss_in_forward
from coordcore_train.surgery.rows import LiveRows

VOCABULARY = 152_670
FROZEN, OURS, PEFT = "frozen", "ours", "peft token rows"


def sized(setting: Setting) -> Batch:
    """1024 positions of which 256 are supervised (60 % coord), V = 152,670, H = 1024."""
    return make_batch(
        setting,
        tokens=setting.size(1024, 64),
        supervised=setting.size(256, 16),
        vocabulary=setting.size(VOCABULARY, 3000),
        width=setting.size(1024, 32),
    )


def input_ids(batch: Batch) -> Tensor:
    """[1, N]: the supervised labels, and before them a prompt that makes a quarter of all tokens coord tokens."""
    generator = torch.Generator().manual_seed(1)
    labels, first = batch.labels.cpu(), batch.vocab.ids[0]
    prompt = (labels == IGNORE).nonzero()[:, 1]
    missing = labels.numel() // 4 - int((labels >= first).sum())
    coord = prompt[torch.randperm(len(prompt), generator=generator)[:missing]]
    ids = torch.where(labels == IGNORE, torch.randint(first, labels.shape, generator=generator), labels)
    ids[0, coord] = torch.randint(first, batch.vocab.ids[-1] + 1, (missing,), generator=generator)
    return ids.to(batch.labels.device)


def bare_model(batch: Batch) -> Any:
    """A transformers model of embedding, norm and tied head without any layer between, its matrix the batch's own.

    The embeddings take a gradient, as in LoRA training with gradient checkpointing: without anything to train, the
    frozen model would have no backward pass to compare with.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    weight = batch.head.weight
    config = Qwen2Config(
        vocab_size=weight.shape[0],
        hidden_size=weight.shape[1],
        num_hidden_layers=0,
        num_attention_heads=1,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    with torch.device(weight.device):
        model = Qwen2ForCausalLM(config).to(weight.dtype)
    model.get_input_embeddings().weight = weight
    model.tie_weights()
    model.requires_grad_(False)
    model.enable_input_require_grads()
    return model


def models(batch: Batch) -> dict[str, tuple[Any, list[LiveRows]]]:
    """Name -> the model and the surgeries its objective has to know of."""
    from peft import TrainableTokensConfig, get_peft_model

    surgery, ours = LiveRows(CoordOffsetSurgery()), bare_model(batch)
    surgery.install(ours, batch.vocab)
    # What `LoraConfig(trainable_token_indices=...)` puts around the two matrices, on its own.
    token_rows = TrainableTokensConfig(target_modules=["embed_tokens"], token_indices=list(batch.vocab.ids))
    with warnings.catch_warnings():
        # It ties the head all the same.
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        rows = get_peft_model(bare_model(batch), token_rows)
    return {FROZEN: (bare_model(batch), []), OURS: (ours, [surgery]), PEFT: (rows, [])}


def training(setting: Setting) -> Mapping[str, Variant]:
    """Embedding, head and loss forward and backward, the loss taken by the objective within the model's forward.

    Without PEFT's rows: the objective calls their head once per chunk, and they build a matrix at every call. They are
    measured as people use them, on whole logits, in the next row.
    """
    batch = sized(setting)
    ids, compute = input_ids(batch), objective(batch)

    def variant(model: Any, surgeries: list[LiveRows]) -> Variant:
        def run() -> None:
            model.zero_grad(set_to_none=True)
            with loss_in_forward(model, compute, batch.targets, surgeries=surgeries) as outputs:
                model(input_ids=ids, use_cache=False)
            outputs[0].loss.backward()

        return run

    return {name: variant(*item) for name, item in models(batch).items() if name != PEFT}


def logits_both_ways(setting: Setting) -> Mapping[str, Variant]:
    """The logits of every position, and back from a gradient of all of them: training without the objective."""
    batch = sized(setting)
    ids = input_ids(batch)
    upstream = torch.ones(*ids.shape, batch.head.out_features, device=ids.device, dtype=batch.head.weight.dtype)

    def variant(model: Any) -> Variant:
        def run() -> None:
            model.zero_grad(set_to_none=True)
            model(input_ids=ids, use_cache=False).logits.backward(upstream)

        return run

    return {name: variant(model) for name, (model, _) in models(batch).items()}


def without_gradients(tokens: Callable[[Tensor], Tensor]) -> Callable[[Setting], Mapping[str, Variant]]:
    """A case's `build`: the logits of `tokens(input ids)`, forward only."""

    def build(setting: Setting) -> Mapping[str, Variant]:
        batch = sized(setting)
        ids = tokens(input_ids(batch))

        def variant(model: Any) -> Variant:
            model.eval()

            @torch.no_grad()
            def run() -> None:
                model(input_ids=ids, use_cache=False)

            return run

        return {name: variant(model) for name, (model, _) in models(batch).items()}

    return build


CASES = [
    Case(
        name="adapter",
        title="embedding and head in training through the objective, 1024 tokens of which a quarter coord tokens",
        build=training,
        rounds=9,  # to tell 3 % from noise
        reaches=[
            Reach(what="time", against=FROZEN, at_most=1.03, text="<= 1.03x the time"),
            Reach(what="memory", against=FROZEN, at_most=16, text="<= 16 MB more than frozen"),
        ],
    ),
    Case(
        name="adapter-logits",
        title="embedding and head in training with the logits of all 1024 tokens",
        build=logits_both_ways,
        rounds=3,
    ),
    Case(
        name="adapter-evaluation",
        title="embedding and head in evaluation, the logits of all 1024 tokens",
        build=without_gradients(lambda ids: ids),
        rounds=3,
    ),
    Case(
        name="adapter-generation",
        title="embedding and head in generation, one token",
        build=without_gradients(lambda ids: ids[:, -1:]),
        rounds=51,
    ),
]
