"""A small text model whose last 1000 tokens are coord tokens, and a batch for it. Imports torch and transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from reference import BINS, default_terms
from setting import Setting
from torch import Tensor, nn

from coordcore.coords import CoordVocab
from coordcore_coord_offset import CoordOffsetAdapter, CoordOffsetSurgery
from coordcore_train.objective import Objective, loss_in_forward, make_targets
from coordcore_train.surgery.rows import LiveRows

ROWS = 4


@attrs.define(kw_only=True)
class Live:
    """A model with everything a step of it takes. ids: [B, T]. labels: the same, on the CPU, with -100.

    surgeries: with `adapter`, the offsets' module, or empty.
    """

    model: Any
    vocab: CoordVocab
    ids: Tensor
    labels: Tensor
    targets: Mapping[str, Tensor]
    surgeries: Sequence[LiveRows]
    adapter: CoordOffsetAdapter | None

    def step(self, compute: Objective, *, wrapped: nn.Module | None = None, **inputs: Any) -> Tensor:
        """Forward and backward through the objective; the loss. wrapped: the model inside DDP or the like.

        inputs: of the model, instead of `ids`, for targets of the same positions.
        """
        with loss_in_forward(self.model, compute, self.targets, surgeries=self.surgeries) as outputs:
            model = self.model if wrapped is None else wrapped
            loss = model(**(inputs or {"input_ids": self.ids}), use_cache=False).logits
        loss.sum().backward()
        return outputs[0].loss.detach()

    def objective(self) -> Objective:
        """With the two losses and no weight set."""
        return Objective(default_terms(), self.vocab)

    def gradients(self) -> dict[str, Tensor]:
        """Whole ones, also where they are sharded."""
        from torch.distributed.tensor import DTensor

        found = {name: item.grad for name, item in self.model.named_parameters() if item.grad is not None}
        return {name: item.full_tensor() if isinstance(item, DTensor) else item for name, item in found.items()}


def live(
    setting: Setting,
    *,
    tied: bool = True,
    offsets: bool = True,
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
) -> Live:
    """The same weights at every call, but for their rounding to `dtype`; offsets that are not zero."""
    model = qwen2(tied=tied, dtype=dtype, attention=attention).to(setting.device)
    size = model.config.vocab_size
    vocab = CoordVocab(ids=range(size - BINS, size))
    surgeries, adapter = [], None
    if offsets:
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        surgeries = [LiveRows(CoordOffsetSurgery(dtype=wide))]
        surgeries[0].install(model, vocab)
        adapter = model.coord_offset_adapter
        with torch.no_grad():
            noise = 0.05 * torch.randn(adapter.embed_offset.shape, generator=torch.Generator().manual_seed(5))
            adapter.embed_offset.copy_(noise)
    labels = labels_of(vocab, length=setting.size(256, 40))
    return Live(
        model=model,
        vocab=vocab,
        ids=inputs_of(labels).to(setting.device),
        labels=labels,
        targets={name: target.to(setting.device) for name, target in make_targets(labels, vocab).items()},
        surgeries=surgeries,
        adapter=adapter,
    )


def wide_qwen2(*, width: int, vocabulary: int, layers: int, device: str) -> Any:
    """A random Qwen2 with heads of 128 numbers, as published ones have, on `device` in float32."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 128, 1),
        num_key_value_heads=max(width // 512, 1),
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    with torch.device(device):
        return Qwen2ForCausalLM(config)


def qwen2(*, tied: bool, dtype: torch.dtype, attention: str) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=2048,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        attn_implementation=attention,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.1 if parameter.dim() > 1 else 0.02)
    return model.to(dtype).train()


def labels_of(vocab: CoordVocab, *, length: int) -> Tensor:
    """[ROWS, length]: answers of unequal length, of text and coord tokens; -100 before and behind them."""
    random = torch.Generator().manual_seed(3)
    first = vocab.ids[0]
    labels = torch.full((ROWS, length), -100)
    for row in range(ROWS):
        start, end = length // 4 + row, length - 2 * row
        coord = torch.randint(first, first + BINS, (end - start,), generator=random)
        text = torch.randint(10, first, (end - start,), generator=random)
        labels[row, start:end] = torch.where(torch.arange(end - start) % 5 < 3, coord, text)
    return labels


def inputs_of(labels: Tensor) -> Tensor:
    """Token ids: the labels, and one other token where there are none."""
    return torch.where(labels < 0, 7, labels)
