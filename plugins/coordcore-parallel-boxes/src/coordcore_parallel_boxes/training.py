"""Training the heads of a frozen model on the examples of its run. Imports torch.

A batch of examples is read by the model with their true answers. At the places where it predicts a corner of a box its
hidden states are taken, and further on what it says of the next corners: the heads learn to say the same beforehand.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from coordcore.coords import CoordVocab
from coordcore.errors import InputError
from coordcore.protocols import ExampleSource
from coordcore.records.example import Example
from coordcore.records.images import open_example_image
from coordcore_parallel_boxes.heads import CORNERS, Heads, coord_rows, layers_of
from coordcore_train.chat import question_text
from coordcore_train.checkpoint.image_size import reduced

BOXES = 64
"""Of an optimizer step."""

KEPT = 128
"""The latest boxes, from which a step draws."""

STEPS = 3
"""For every `BOXES` new boxes."""

_WARMUP = 20


@attrs.frozen(kw_only=True)
class Seen:
    """What a model made of m boxes. hidden: [m, 3, L, H] at the places of the first three corners. said: [m, 3, K]
    float32, its distributions of the corners behind the first."""

    hidden: Tensor
    said: Tensor

    def __len__(self) -> int:
        return len(self.hidden)


@attrs.frozen(kw_only=True)
class Report:
    """examples, boxes: that were looked at. within: bins that the proposals of the last boxes are off, the median."""

    examples: int
    boxes: int
    within: float


def train(
    model: Any,
    processor: Any,
    vocab: CoordVocab,
    source: ExampleSource,
    *,
    examples: int,
    batch_size: int,
    rank: int,
    seed: int,
    max_pixels: int | None,
    told: Callable[[Iterator[Any], int], Iterator[Any]],
) -> tuple[Heads, Report]:
    """New heads for `model`, and how well they do.

    source: examples as the model was trained on. max_pixels: to which their images are reduced first, None where the
    processor does it. told: shows how far it has come, of how many batches.
    Raises InputError where the examples hold no boxes, or too few for a step.
    """
    generator = torch.Generator().manual_seed(seed)
    order = random.Random(seed).sample(range(len(source)), min(examples, len(source)))
    batches = [order[begin : begin + batch_size] for begin in range(0, len(order), batch_size)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rows = coord_rows(model, vocab)
        heads = Heads(layers_of(model), rows.shape[1], rank, rows).to(rows.device)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=0.0, weight_decay=0.01)
    ids = vocab.ids_tensor(rows.device)
    latest: list[Seen] = []
    boxes = done = 0
    for number, batch in enumerate(told(iter(batches), len(batches))):
        seen = look(model, processor, ids, heads.layers, [source[index] for index in batch], max_pixels)
        if seen is None:
            continue
        latest.append(seen)
        boxes += len(seen)
        while len(latest) > 1 and sum(map(len, latest)) - len(latest[0]) >= KEPT:
            latest.pop(0)
        while done < STEPS * (boxes // BOXES):
            done += 1
            rate = 3e-3 * min(1, done / _WARMUP) * (1 - number / len(batches))
            step(heads, optimizer, rate, drawn(latest, generator))
    if not boxes:
        raise InputError(f"{len(order)} examples hold no boxes in coord tokens that heads could learn from")
    if not done:
        raise InputError(
            f"{len(order)} examples hold {boxes} boxes in coord tokens that heads could learn from, and a step takes "
            f"{BOXES}; give more with --examples"
        )
    heads.eval().requires_grad_(False)
    return heads, Report(examples=len(order), boxes=boxes, within=_off(heads, latest[-1]))


def drawn(latest: Sequence[Seen], generator: torch.Generator) -> Seen:
    """`BOXES` of the latest."""
    every = _joined(latest)
    picked = torch.randperm(len(every), generator=generator)[:BOXES].to(every.hidden.device)
    return Seen(hidden=every.hidden[picked], said=every.said[picked])


def _joined(parts: Sequence[Seen]) -> Seen:
    return Seen(hidden=torch.cat([seen.hidden for seen in parts]), said=torch.cat([seen.said for seen in parts]))


def step(heads: Heads, optimizer: torch.optim.Optimizer, rate: float, seen: Seen) -> float:
    """One step at a learning rate: the cross-entropy of what is proposed against what the model says; returns it."""
    places, corners = torch.triu_indices(CORNERS, CORNERS, device=seen.hidden.device)  # those not written yet
    logits = heads.logits(seen.hidden.flatten(0, 1)).view(len(seen), CORNERS, CORNERS, -1)[:, places, corners]
    loss = F.cross_entropy(logits.flatten(0, 1), seen.said[:, corners].flatten(0, 1))
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def _off(heads: Heads, seen: Seen) -> float:
    with torch.inference_mode():
        return float((heads(seen.hidden[:, 0]) - seen.said.argmax(-1)).abs().float().median())


def look(
    model: Any,
    processor: Any,
    ids: Tensor,
    layers: Sequence[int],
    examples: Sequence[Example],
    max_pixels: int | None,
) -> Seen | None:
    """Let the model read examples with their answers. None where they hold no boxes. ids: [K], of the coord tokens."""
    asked = [example for example in examples if _has_box(example)]
    if not asked:
        return None
    images = [[_opened(image, item, max_pixels) for image in item.images] for item in asked]
    texts = [question_text(processor, item.messages[:-1]) + item.messages[-1]["content"] for item in asked]
    try:
        inputs = processor(text=texts, images=images, padding=True, padding_side="left", return_tensors="pt").to(
            model.device
        )
    except ValueError:  # an image that is no picture to the processor, such as one of 1 x 5000 pixels
        if len(asked) == 1:
            return None
        parts = [part for item in asked if (part := look(model, processor, ids, layers, [item], max_pixels))]
        return _joined(parts) if parts else None
    found = [
        (row, start)
        for row, (item, tokens) in enumerate(zip(asked, inputs["input_ids"], strict=True))
        for start in _boxes(item, torch.isin(tokens, ids).nonzero()[:, 0].tolist())
    ]
    if not found:
        return None
    rows = torch.tensor([row for row, _ in found], device=model.device)[:, None]
    written = torch.tensor([places for _, places in found], device=model.device)  # [m, 4]
    with torch.inference_mode():
        output = model(**inputs, output_hidden_states=True)
        if output.hidden_states is None:
            raise InputError(f"{type(model).__name__} does not tell its hidden states, which the heads need")
        before = written - 1  # from where a token is predicted
        hidden = torch.stack([output.hidden_states[layer][rows, before[:, :CORNERS]] for layer in layers], dim=2)
        said = output.logits[rows, before[:, 1:]][..., ids].float().softmax(-1)
    return Seen(hidden=hidden.clone(), said=said.clone())


def _has_box(example: Example) -> bool:
    answered = bool(example.messages) and example.messages[-1]["role"] == "assistant"
    return answered and bool(example.images) and any(item.kind == "bbox_2d" for item in example.geometries)


def _opened(image: Any, example: Example, max_pixels: int | None) -> Any:
    limits = [limit for limit in (max_pixels, example.max_pixels) if limit is not None]
    return reduced(open_example_image(image), min(limits, default=None))


def _boxes(example: Example, places: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The places of the tokens of each box; none where a question holds some as well. places: of all coord tokens."""
    if len(places) != sum(len(item.values) for item in example.geometries):
        return
    begin = 0
    for item in example.geometries:
        if item.kind == "bbox_2d":
            yield tuple(places[begin : begin + 4])
        begin += len(item.values)
