"""The proof of loss terms at the start of a run: on a sample, each trains what it weighs, and changes nothing else.

What would otherwise train nothing without a word stops the run here: no step pays for it. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from coordcore.coords import CoordVocab
from coordcore.errors import RunError
from coordcore.guard import told
from coordcore.protocols import LossTerm, Scope
from coordcore_train.objective.chunks import Batch, Settings, Terms, weights_key
from coordcore_train.objective.heads import LinearHead
from coordcore_train.objective.objective import Objective, Part, run
from coordcore_train.objective.streaming import Excluded
from coordcore_train.objective.targets import make_targets
from coordcore_train.objective.terms import changed_in_place, losses_of, tensors

_WIDTH = 8  # of the made-up hidden states
_WORDS = 32  # text tokens of a sample
_WORDS_LOOKED_AT = 512  # at a time, where weights are sought
_IMAGES = ((1920.0, 1080.0), (640.0, 480.0), (torch.nan, torch.nan))
"""Width and height in pixels of the examples of a sample; those of the last are unknown."""
_SIDES = (2, 5, 12, 24, 40, 64, 90, 110, 150, 240, 400, 700, 1000)
"""Widths in pixels of the objects of the first example, heights at most its own."""


def prove_term(
    owner: str,
    term: LossTerm,
    vocab: CoordVocab | None,
    *,
    vocabulary_size: int,
    steps: int,
    device: torch.device,
) -> None:
    """Give a term a sample, as training will, and look at what it makes of it.

    The sample: three examples with text and boxes of all sizes, random logits. vocabulary_size: rows of the head.
    steps: of the run, for weights that follow it. device: where the run trains. The random state is left alone.

    Raises RunError, with the section and the cure, when the term raises; returns what a `LossTerm` does not; has a part
    with a weight whose values do not depend on the logits, or whose position weights are 0 everywhere; reads a
    trainable tensor of its own; or changes what it is given. Raises InputError as `Objective` does.
    """
    objective = Objective([(owner, term)], vocab)
    weights = [max(now) for now in zip(*_weights(objective, steps), strict=True)]
    trained = [part for part, weight in zip(objective.parts, weights, strict=True) if weight > 0]
    size = max(vocabulary_size, 0 if vocab is None else max(vocab.ids) + 1)
    try:
        targets = objective.weigh(_sample(_words(vocab, size)[:_WORDS], vocab))
        _require_positions(owner, objective, [part for part in trained if part.weighed], vocab, size)
    except RunError:
        raise
    except Exception as error:
        raise _raised(owner, "position_weights", error) from error
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(0)
        head = nn.Linear(_WIDTH, size, bias=False).requires_grad_(False).to(device)
        hidden = torch.randn(targets["grid"].shape[:-1].numel(), _WIDTH).to(device)
        with torch.no_grad():
            run(
                _Proof(
                    settings=Settings(
                        terms=objective.terms,
                        scales={part.name: float(part in trained) for part in objective.parts},
                        ids=torch.tensor(() if vocab is None else vocab.ids, dtype=torch.int64, device=device),
                        excluded=Excluded(() if vocab is None else vocab.ids),
                        chunk_rows=len(hidden),
                        chunk_columns=None,
                        offset_bins=None,
                    ),
                    head=LinearHead(head),
                    targets={key: tensor.to(device) for key, tensor in targets.items()},
                    hidden=hidden,
                    wanted=[True, False],
                )
            )


def _weights(objective: Objective, steps: int) -> Iterator[Sequence[float]]:
    """The weight of each part as stated, and along the training."""
    yield [part.weight for part in objective.parts]
    for step in sorted({steps * tenth // 10 for tenth in range(11)}):
        yield objective.weights_at(step, steps)


class _Proof(Batch):
    """Looks at what a term returns, before it is charged."""

    def charge(
        self,
        terms: Terms,
        positions: Mapping[Scope, Any],
        rows: Mapping[Scope, slice],
        inputs: Sequence[Tensor],
    ) -> list[Tensor | None]:
        for owner, term in terms:
            seen = positions[term.scope]
            before = {name: tensor.detach().clone() for name, tensor in _everything(seen)}
            try:
                losses = losses_of(owner, term, seen)
            except RunError:
                raise
            except Exception as error:
                if "in-place operation" in str(error):  # torch forbids it on leaves
                    raise changed_in_place(owner, "the term", "positions") from error
                raise _raised(owner, "the term", error) from error
            for name, tensor in _everything(seen):
                if name in before and not _is_equal(before[name], tensor):
                    raise changed_in_place(owner, "the term", f"positions.{name}")
            for name, values in losses.items():
                if self.settings.scales[f"{owner}/{name}"] and _has_graph(values):
                    _require_trained(owner, name, values, inputs)
        gradients = super().charge(terms, positions, rows, inputs)
        if bool(self.sums.isfinite().all()) and not all(_is_finite(gradient) for gradient in gradients):
            names = " and ".join(f"loss.{owner}" for owner, _ in terms)
            raise RunError(
                f"{names}: the gradient has NaN or infinity, for a sample of text and boxes on which the values have "
                "none; keep roots, norms and quotients away from 0 before they are taken, not behind"
            )
        return gradients


def _require_trained(owner: str, part: str, values: Tensor, inputs: Sequence[Tensor]) -> None:
    """Raise RunError unless the graph of `values` ends in `inputs`, and nowhere else."""
    given, ends = {id(tensor) for tensor in inputs}, list(leaves(values))
    if not any(id(leaf) in given for leaf in ends):
        raise RunError(
            f"loss.{owner}: part {part!r} has a weight, but its values do not depend on the logits (their graph is one "
            "of its own), so it would train nothing; compute it from the positions' logits, without copies of them "
            "(detach, torch.tensor, numpy), or give it weight 0"
        )
    if own := [leaf for leaf in ends if id(leaf) not in given]:
        raise RunError(
            f"loss.{owner}: part {part!r} reads a trainable tensor of the term's own, of shape {tuple(own[0].shape)}, "
            "which no optimizer trains and no checkpoint holds; make it a plain tensor (requires_grad=False), or learn "
            "it in a surgery's module"
        )


def _is_finite(gradient: Tensor | None) -> bool:
    return gradient is None or bool(gradient.isfinite().all())


def _has_graph(values: Any) -> bool:
    return isinstance(values, Tensor) and values.numel() > 0 and values.requires_grad


def leaves(values: Tensor) -> Iterator[Tensor]:
    """The tensors in which the graph of `values` ends."""
    if values.grad_fn is None and values.requires_grad:
        yield values
    waiting, seen = [values.grad_fn], set()
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(leaf := getattr(node, "variable", None), Tensor):
            yield leaf
        waiting.extend(following for following, _ in node.next_functions)


def _everything(seen: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of positions, with those that are computed once and shared."""
    yield from tensors(seen)
    for name, member in vars(type(seen)).items():
        if isinstance(member, cached_property) and seen._logits is not None:
            yield name, getattr(seen, name)


def _is_equal(before: Tensor, after: Tensor) -> bool:
    same = (before == after) | (before.isnan() & after.isnan())
    return before.shape == after.shape and bool(same.all())


def _raised(owner: str, who: str, error: Exception) -> RunError:
    return RunError(
        f"loss.{owner}: {who} raised {told(error)}, for a sample of text and boxes; it must take any positions, in any "
        "number and order"
    )


# --- the sample -------------------------------------------------------------------------------------------------------


def _require_positions(
    owner: str, objective: Objective, parts: Sequence[Part], vocab: CoordVocab | None, size: int
) -> None:
    """Raise RunError for a part that leaves every position out, of whatever token, object and image."""
    words = _words(vocab, size)
    for first in range(0, len(words), _WORDS_LOOKED_AT):
        if not parts:
            return
        targets = objective.weigh(_sample(words[first : first + _WORDS_LOOKED_AT], vocab))
        parts = [part for part in parts if not targets[weights_key(part.name)].any()]
        if parts and parts[0].scope in ("coord", "box"):
            break  # other words make no other boxes
    if parts:
        raise RunError(
            f"loss.{owner}: position_weights gives {parts[0].name.removeprefix(f'{owner}/')!r} the weight 0 at every "
            f"position of a sample (objects of {_SIDES[0]} to {_SIDES[-1]} pixels, in images of any size), "
            "so it would train nothing; weigh some position, or give the part weight 0"
        )


def _words(vocab: CoordVocab | None, size: int) -> Tensor:
    """The ids that are no coord tokens, far ones side by side."""
    every = torch.ones(size, dtype=torch.bool)
    if vocab is not None:
        every[vocab.ids_tensor()] = False
    ids = every.nonzero().squeeze(1)
    return ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))]


def _sample(words: Tensor, vocab: CoordVocab | None) -> dict[str, Tensor]:
    """The targets of three examples: words, and boxes between them where there are coord tokens."""
    rows, ids = [], () if vocab is None else vocab.ids
    for image, some in zip(_IMAGES, words.tensor_split(len(_IMAGES)), strict=True):
        width, height = image if image[0] == image[0] else _IMAGES[1]
        objects = [(side, min(side, height)) for side in (_SIDES if image is _IMAGES[0] else _SIDES[2:9:5])]
        columns = [(int(word), torch.nan, -1, torch.nan, torch.nan) for word in some]
        for wide, high in objects if vocab is not None else ():
            left, top = (width - wide) / 3, (height - high) / 4
            corners = (left / width, top / height, (left + wide) / width, (top + high) / height)
            known = (wide, high) if image[0] == image[0] else (torch.nan, torch.nan)
            for corner, share in enumerate(corners):
                value = min(share * (len(ids) - 1), len(ids) - 1.0)
                columns.append((ids[round(value)], value, corner, *known))
        rows.append((image, columns))
    length = 1 + max(len(columns) for _, columns in rows)
    labels, corners_ = torch.full((len(rows), length), -100), torch.full((len(rows), length), -1)
    values, sizes = torch.full((len(rows), length), torch.nan), torch.full((len(rows), length, 4), torch.nan)
    for row, (image, columns) in enumerate(rows):
        if columns:
            table = torch.tensor(columns, dtype=torch.float64)
            last = 1 + len(columns)
            labels[row, 1:last], values[row, 1:last] = table[:, 0].long(), table[:, 1].float()
            corners_[row, 1:last], sizes[row, 1:last, 2:] = table[:, 2].long(), table[:, 3:].float()
        sizes[row, :, :2] = torch.tensor(image)
    return make_targets(labels, vocab, values=values, corners=corners_, sizes=sizes)
