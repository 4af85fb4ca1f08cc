"""A batch of random values, and what the objective must give for it: dense logits in float64 under autograd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from setting import Setting
from torch import Tensor, nn

from coordcore import builtins
from coordcore.builtins import FunctionTerm
from coordcore.coords import CoordVocab
from coordcore.protocols import AddedRows
from coordcore_soft_ce_w1 import CoordSoftCEW1Config, gaussian_soft_targets, soft_cross_entropy, wasserstein_1
from coordcore_soft_ce_w1 import plugin as soft_ce_w1
from coordcore_train.objective import LinearHead, Objective, make_targets

BINS = 1000
SIGMA = 2.0
Terms = list[tuple[str, Any]]


@attrs.frozen(kw_only=True)
class Batch:
    """hidden: [N, H] leaf. head: V rows, the last 1000 of them coord tokens. rows: [K, H] float32 leaf.

    targets: on the device. offset: made once: the objective looks the bins of its ids up only when they are new.
    """

    hidden: Tensor
    head: nn.Linear
    offset: AddedRows
    vocab: CoordVocab
    targets: Mapping[str, Tensor]

    @property
    def rows(self) -> Tensor:
        return self.offset.rows

    @property
    def leaves(self) -> dict[str, Tensor]:
        own = {"hidden states": self.hidden, "offsets": self.rows, "head": self.head.weight}
        return {name: leaf for name, leaf in own.items() if leaf.requires_grad}

    @property
    def linear(self) -> LinearHead:
        return LinearHead(self.head, self.offset)

    def forget_gradients(self) -> None:
        for leaf in (self.hidden, self.rows, self.head.weight):
            leaf.grad = None


def make_batch(
    setting: Setting,
    *,
    tokens: int,
    supervised: int,
    vocabulary: int,
    width: int,
    dtype: torch.dtype,
    trainable_head: bool = False,
    boxes: bool = False,
) -> Batch:
    """Random values. The last `supervised` labels count, 60 % of them coord tokens; in fours of one box if `boxes`."""
    first = vocabulary - BINS
    vocab = CoordVocab(ids=range(first, vocabulary))
    random = torch.Generator().manual_seed(0)
    coord = torch.arange(supervised) % 10 < 6 if not boxes else torch.arange(supervised) % 8 < 4
    text_labels = torch.randint(first, (supervised,), generator=random)
    coord_labels = torch.randint(first, vocabulary, (supervised,), generator=random)
    labels = torch.full((1, tokens), -100)
    labels[0, tokens - supervised :] = torch.where(coord, coord_labels, text_labels)
    corners = None
    if boxes:
        corners = torch.full((1, tokens), -1)
        corners[0, tokens - supervised :] = torch.where(coord, torch.arange(supervised) % 8, -1)
    head = nn.Linear(width, vocabulary, bias=False, device=setting.device, dtype=dtype)
    # Logits of a few units, as a trained model has them.
    with torch.no_grad():
        head.weight.copy_(setting.randn(vocabulary, width, seed=1, dtype=dtype)).mul_(2.0 / width**0.5)
    head.requires_grad_(trainable_head)
    rows = (0.05 * setting.randn(BINS, width, seed=3)).requires_grad_()
    targets = make_targets(labels, vocab, corners=corners)
    return Batch(
        hidden=setting.randn(tokens, width, seed=2, dtype=dtype).requires_grad_(),
        head=head,
        offset=AddedRows(ids=vocab.ids_tensor(setting.device), rows=rows),
        vocab=vocab,
        targets={name: tensor.to(setting.device) for name, tensor in targets.items()},
    )


def text_terms(*, coord_positions: bool = False, weight: float = 1.0) -> Terms:
    (component,) = builtins.coordcore_losses()
    config: Any = component.config(weight=weight, coord_positions=coord_positions)
    return [(component.name, component.build(config, None))]


def coord_terms(config: CoordSoftCEW1Config) -> Terms:
    (component,) = soft_ce_w1.coordcore_losses()
    return [(component.name, term) for term in component.build(config, None)]


def objective(batch: Batch, terms: Terms, **options: Any) -> Objective:
    return Objective(terms, batch.vocab, **options)


def default_terms() -> Terms:
    """What a manifest gets that names the two losses and no weight."""
    return [*text_terms(), *coord_terms(CoordSoftCEW1Config(sigma=SIGMA))]


# --- every term, and its formula on dense logits ---------------------------------------------------------------------


def z_loss(seen: Any) -> Tensor:
    """A term that reads whole logits."""
    return seen.logits.logsumexp(-1).square()


def box_loss(seen: Any) -> Tensor:
    """A term on boxes: how far the expected corners are from the true ones, in bins."""
    at = torch.arange(seen.logits.shape[-1], device=seen.logits.device, dtype=seen.logits.dtype)
    return (seen.logits.softmax(-1) @ at - seen.values).abs().sum(-1) / BINS


def dense(batch: Batch, hidden: Tensor, weight: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """[c, V] and [t, V], the logits of the coord and of the text positions, offsets added."""
    ids, targets = batch.offset.ids, batch.targets

    def logits(index: Tensor) -> Tensor:
        chosen = hidden[index]
        return (chosen @ weight.T).index_add(-1, ids, chosen @ rows.T)

    return logits(targets["coord_index"]), logits(targets["text_index"])


def expected_parts(ids: Tensor, targets: Mapping[str, Tensor], on_coord: Tensor, on_text: Tensor) -> dict[str, Tensor]:
    """The mean of each part, from dense logits [c, V] and [t, V]. ids: [K] the coord tokens."""
    bins, labels = targets["bins"], targets["text_labels"]
    inside = on_coord[:, ids]
    soft = gaussian_soft_targets(bins, sigma=SIGMA, dtype=inside.dtype)
    cross_entropy = nn.functional.cross_entropy
    text = cross_entropy(on_text, labels, reduction="none")
    token = torch.cat([cross_entropy(on_coord, ids[bins], reduction="none"), text])
    every = torch.cat([on_coord, on_text])
    without = on_text.index_fill(-1, ids, -torch.inf)
    parts = {
        "text ce": text.mean(),
        "token ce": token.mean(),
        "ce": cross_entropy(inside, bins),
        "soft ce": soft_cross_entropy(inside, soft).mean(),
        "w1": wasserstein_1(inside.softmax(-1), soft).mean(),
        "gate": (on_coord.logsumexp(-1) - inside.logsumexp(-1)).mean(),
        "text gate": (on_text.logsumexp(-1) - without.logsumexp(-1)).mean(),
        "whole logits": every.logsumexp(-1).square().mean(),
    }
    if len(targets["boxes"]):
        boxes = targets["boxes"]
        at = torch.arange(BINS, device=inside.device, dtype=inside.dtype)
        expected = inside.softmax(-1) @ at
        distance = (expected[boxes] - targets["values"][boxes].to(inside.dtype)).abs().sum(-1)
        parts["box"] = distance.mean() / BINS
    return parts


def default_loss(parts: Mapping[str, Tensor]) -> Tensor:
    """What `default_terms` add up to."""
    return parts["text ce"] + parts["ce"] + parts["soft ce"] + parts["w1"] + parts["gate"]


def only(**weights: float) -> CoordSoftCEW1Config:
    """The coord loss with these weights and no other."""
    none = dict.fromkeys(("ce_weight", "soft_ce_weight", "w1_weight", "gate_weight", "text_gate_weight"), 0.0)
    return CoordSoftCEW1Config(**{**none, **weights}, sigma=SIGMA)


TERMS: dict[str, Terms] = {
    "text ce": text_terms(),
    "token ce": text_terms(coord_positions=True),
    "ce": coord_terms(only(ce_weight=1.0)),
    "soft ce": coord_terms(only(soft_ce_weight=1.0)),
    "w1": coord_terms(only(w1_weight=1.0)),
    "gate": coord_terms(only(gate_weight=1.0)),
    "text gate": coord_terms(only(text_gate_weight=1.0)),
    "whole logits": [("z", FunctionTerm(fn=z_loss, scope="token", needs={"logits"}))],
    "box": [("box", FunctionTerm(fn=box_loss, scope="box"))],
}
"""By the name of the part in `expected_parts`."""
