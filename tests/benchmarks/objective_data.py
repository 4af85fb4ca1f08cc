"""A batch as an objective sees it, and the ways coord-token trainers compute its loss today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from measure import Setting
from torch import Tensor, nn

from coordcore import builtins
from coordcore.coords import CoordVocab
from coordcore.protocols import AddedRows
from coordcore.quantisation import NUM_BINS
from coordcore_soft_ce_w1 import CoordSoftCEW1Config, gaussian_soft_targets, soft_cross_entropy, wasserstein_1
from coordcore_soft_ce_w1 import plugin as soft_ce_w1
from coordcore_train.objective import LinearHead, Objective, make_targets

CONFIG = CoordSoftCEW1Config()
COORD_SHARE = 0.6
IGNORE = -100


@attrs.frozen(kw_only=True)
class Batch:
    """N positions, the last of which are supervised; their hidden states, a head of V rows, offsets on its coord rows.

    hidden: [N, H] leaf. head: frozen unless asked otherwise. rows: [K, H] float32 leaf. labels: [1, N], unshifted.
    """

    hidden: Tensor
    head: nn.Linear
    rows: Tensor
    labels: Tensor
    vocab: CoordVocab
    targets: Mapping[str, Tensor]

    @property
    def ids(self) -> Tensor:
        return self.vocab.ids_tensor(self.hidden.device)

    @property
    def suffix(self) -> Tensor:
        """The supervised positions: text first, then coord."""
        return torch.cat([self.targets["text_index"], self.targets["coord_index"]])

    def forget_gradients(self) -> None:
        for leaf in (self.hidden, self.rows, *self.head.parameters()):
            leaf.grad = None


def make_batch(
    setting: Setting, *, tokens: int, supervised: int, vocabulary: int, width: int, trainable_head: bool = False
) -> Batch:
    """Random values; 60 % of the supervised labels are coord tokens, the last 1000 rows of the vocabulary."""
    generator = torch.Generator().manual_seed(0)
    first = vocabulary - NUM_BINS
    vocab = CoordVocab(ids=range(first, vocabulary))
    is_coord = torch.rand(supervised, generator=generator) < COORD_SHARE
    text = torch.randint(first, (supervised,), generator=generator)
    coord = torch.randint(first, vocabulary, (supervised,), generator=generator)
    labels = torch.full((1, tokens), IGNORE)
    labels[0, tokens - supervised :] = torch.where(is_coord, coord, text)
    head = nn.Linear(width, vocabulary, bias=False, device=setting.device, dtype=setting.dtype)
    head.requires_grad_(trainable_head)
    return Batch(
        hidden=torch.randn(tokens, width, generator=generator).to(setting.device, setting.dtype).requires_grad_(),
        head=head,
        rows=torch.zeros(NUM_BINS, width, device=setting.device).requires_grad_(),
        labels=labels.to(setting.device),
        vocab=vocab,
        targets={name: tensor.to(setting.device) for name, tensor in make_targets(labels, vocab).items()},
    )


def objective(batch: Batch, *, gate: bool = True, **options: Any) -> Objective:
    """Ours, with the default mix of losses."""
    config = CONFIG if gate else attrs.evolve(CONFIG, gate_weight=0.0)
    (text,), (coord,) = builtins.coordcore_losses(), soft_ce_w1.coordcore_losses()
    terms = [(coord.name, term) for term in coord.build(config, None)]
    return Objective([(text.name, text.build(text.config(), None)), *terms], batch.vocab, **options)


def ours(batch: Batch, compute: Objective) -> Tensor:
    return compute(batch.hidden, LinearHead(batch.head, AddedRows(ids=batch.ids, rows=batch.rows)), batch.targets).loss


def logits_of(batch: Batch, hidden: Tensor) -> Tensor:
    """[n, V] in the head's dtype: the projection, and the offsets by a hook on it."""
    delta = hidden.float() @ batch.rows.T
    return batch.head(hidden).index_add(-1, batch.ids, delta.to(hidden.dtype))


def coord_losses(batch: Batch, coord_logits: Tensor) -> Tensor:
    """The mean loss of the coord positions, from their full logits, by the reference functions one after the other."""
    bins = batch.targets["bins"]
    full = coord_logits.float()
    logits = full[:, batch.ids]
    targets = gaussian_soft_targets(bins, sigma=CONFIG.sigma)
    ce = nn.functional.cross_entropy(logits, bins)
    soft_ce = soft_cross_entropy(logits, targets).mean()
    w1 = wasserstein_1(logits.softmax(-1), targets).mean()
    gate = (full.logsumexp(-1) - logits.logsumexp(-1)).mean()
    return ce + soft_ce + w1 + gate


def causal_lm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """What a transformers model does with its logits [N, V] and labels [1, N]."""
    from transformers.loss.loss_utils import ForCausalLMLoss  # takes longer to import than most rows to measure

    return ForCausalLMLoss(logits[None], labels, logits.shape[-1])


def full_logits(batch: Batch) -> Tensor:
    """All positions projected; the model's own loss on the text labels, coord losses on rows picked afterwards."""
    logits = logits_of(batch, batch.hidden)
    is_coord = (batch.labels >= batch.vocab.ids[0]) & (batch.labels <= batch.vocab.ids[-1])
    text_ce = causal_lm_loss(logits, batch.labels.masked_fill(is_coord, IGNORE))
    return text_ce + coord_losses(batch, logits[batch.targets["coord_index"]])


def suffix_logits(batch: Batch) -> Tensor:
    """Supervised positions projected, otherwise the same."""
    labels = batch.targets["text_labels"]
    logits = logits_of(batch, batch.hidden[batch.suffix])
    text_ce = nn.functional.cross_entropy(logits[: len(labels)].float(), labels)
    return text_ce + coord_losses(batch, logits[len(labels) :])


def plain_full_logits(batch: Batch) -> Tensor:
    """transformers' own path: every position projected, plain cross-entropy on every supervised label, no offsets."""
    return causal_lm_loss(batch.head(batch.hidden), batch.labels)


def plain_labels(batch: Batch) -> Tensor:
    """The labels of `suffix`."""
    return torch.cat([batch.targets["text_labels"], batch.ids[batch.targets["bins"]]])


def linear_cross_entropy(batch: Batch, **options: Any) -> Tensor:
    """torch's chunked cross-entropy, plain, on the supervised positions, no offsets."""
    chunks = torch.nn.LinearCrossEntropyOptions(**options)
    hidden = batch.hidden[batch.suffix]
    return nn.functional.linear_cross_entropy(hidden, batch.head.weight, plain_labels(batch), options=chunks)


def liger_cross_entropy(batch: Batch) -> Tensor:
    """Liger's fused cross-entropy, plain, on the supervised positions, no offsets. CUDA."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    fused = LigerFusedLinearCrossEntropyLoss()
    return fused(batch.head.weight, batch.hidden[batch.suffix], plain_labels(batch))
