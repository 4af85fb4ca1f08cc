"""The ms-swift template of a run: the stock template, the run's adapter, and targets made beside the collator."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from PIL.Image import Image
from swift.template.base import MaxLengthError

from coordcore import kinds
from coordcore.coords import DEFAULT_COORDS, CoordVocab
from coordcore.errors import InputError, RunError
from coordcore.quantisation import Quantisation
from coordcore.records.example import Example
from coordcore_train.hidden import stand_in
from coordcore_train.objective import IGNORE, make_targets
from coordcore_train.run.built import asked
from coordcore_train.run.plan import Plan
from coordcore_train.surgery.bind import bind
from coordcore_train.swift.active import active_plan
from coordcore_train.swift.needs import MEDIA_TOKENS

_EXAMPLE = "coordcore_example"
_PLACES = "coordcore_places"
_SIZES = "coordcore_sizes"
_GROUP = "coordcore_group"
_LABELS = "coordcore_labels"


def plain_row(example: Example) -> dict[str, Any]:
    """The row of an example that any ms-swift template takes."""
    images = [os.fspath(image) if isinstance(image, os.PathLike) else image for image in example.images]
    row: dict[str, Any] = {"messages": [dict(message) for message in example.messages]}
    if images:
        row["images"] = images
    return row


def to_row(
    example: Example, *, padding: bool = False, groups: Sequence[str] = (), hidden: Set[int] = frozenset()
) -> dict[str, Any]:
    """The row for a run's template. `padding` rows fill up the last batch of several ranks and are not charged.

    groups: those that the run's metrics tell apart. hidden: the boxes, by number among the geometries, whose corners
    the model does not read. Raises InputError for an example of another group.
    """
    if groups and example.group not in groups:
        raise InputError(
            f"{example.where}: its group is {example.group!r}, and its builder names {', '.join(groups)}; name it too"
        )
    return {**plain_row(example), _EXAMPLE: (example, padding, groups, hidden)}


class CoordTemplate:
    """Carries an example's real-valued targets to the loss, and names the example when encoding fails.

    Goes before a model family's own template among the bases of a class.
    """

    @property
    def plan(self) -> Plan:
        """The run of this process."""
        return active_plan()

    def init_processor(self: Any, processor: Any) -> None:
        fresh = processor is not None and not self._processor_inited
        super().init_processor(processor)  # type: ignore[misc]  # as mixed in
        if fresh:
            self.__dict__.update(media_token_ids(type(self), self.config, self.tokenizer))
            asked(self.plan.who(kinds.TEMPLATE), lambda: self.plan.template.apply(self), "apply")

    def encode(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(inputs, dict) or _EXAMPLE not in inputs:
            return super().encode(inputs, *args, **kwargs)  # type: ignore[misc]  # as mixed in
        inputs = dict(inputs)
        example, padding, groups, hidden = inputs.pop(_EXAMPLE)
        if few := _too_few_pixels(self, example, failed=False):
            raise InputError(f"{example.where}: {few}")
        try:
            with _at_most(self, example.max_pixels):
                encoded = super().encode(inputs, *args, **kwargs)  # type: ignore[misc]  # as mixed in
        except MaxLengthError as error:
            raise InputError(
                f"{example.where}: {error}; raise train.max_length, lower train.max_pixels, or shorten the record"
            ) from error
        except OSError as error:  # Pillow's errors are among them, and name no file
            images = ", ".join(str(image) for image in example.images if isinstance(image, str | Path))
            raise InputError(f"{example.where}: cannot read its image {images or 'in memory'}: {error}") from error
        except ValueError as error:
            told = [str(error), _too_few_pixels(self, example, failed=True)]
            raise InputError(f"{example.where}: {'; '.join(filter(None, told))}") from error
        if fault := mislabelled(encoded["labels"], encoded.get("input_ids")):
            raise RunError(f"{self.plan.who(kinds.TEMPLATE)}: it makes {fault} ({example.where}); leave labels alone")
        if padding:
            encoded["labels"] = [IGNORE] * len(encoded["labels"])
        else:
            encoded[_PLACES] = align(encoded["labels"], example, self.plan.vocab)
            if hidden and self.plan.vocab is not None:
                other, numbers = stand_in(self.plan.vocab), encoded[_PLACES].geometries
                read = zip(encoded["input_ids"], numbers, strict=True)
                encoded["input_ids"] = [other if number in hidden else token for token, number in read]
            if self.plan.objective.reads_origin:
                encoded[_SIZES] = sizes_of(example, encoded[_PLACES], self.plan.quantisation)
            if example.uncharged:
                numbers = encoded[_PLACES].geometries
                charged = zip(encoded["labels"], numbers, strict=True)
                encoded["labels"] = [IGNORE if number in example.uncharged else label for label, number in charged]
        if groups:
            encoded[_GROUP] = torch.tensor([example.group == group for group in groups])
        encoded[_LABELS] = tuple(encoded["labels"])
        return encoded

    def generate(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Bind the surgeries first: ms-swift's own inference wraps the model without asking anybody."""
        if not getattr(model, "coordcore_bound", False):
            bind(model, self.plan)
            model.coordcore_bound = True
        return super().generate(model, *args, **kwargs)  # type: ignore[misc]  # as mixed in

    def _data_collator(self: Any, batch: list[dict[str, Any]], *, padding_to: int | None = None) -> dict[str, Any]:
        places = [row.pop(_PLACES, None) for row in batch]
        sizes = [row.pop(_SIZES, None) for row in batch]
        groups = [row.pop(_GROUP, None) for row in batch]
        for encoded in batch:
            made = encoded.pop(_LABELS, None)
            if made is not None and made != tuple(encoded["labels"]):
                who = self.plan.who(kinds.TEMPLATE)
                raise RunError(f"{who}: it changed the labels that encode had made; leave them alone")
        lengths = [len(row["input_ids"]) for row in batch]
        result: dict[str, Any] = super()._data_collator(batch, padding_to=padding_to)  # type: ignore[misc]  # as mixed in
        if "labels" not in result:
            return result
        labels = result["labels"]
        objective = self.plan.objective
        values = torch.full(labels.shape, torch.nan)
        corners = torch.full(labels.shape, -1, dtype=torch.int64)
        further: dict[str, torch.Tensor] = {}
        if objective.reads_origin:
            further["examples"] = torch.full(labels.shape, -1, dtype=torch.int64)
            further["sizes"] = torch.full((*labels.shape, 4), torch.nan)
        if groups[0] is not None:
            further["groups"] = torch.zeros(len(groups[0]), *labels.shape, dtype=torch.bool)
        start = 0
        for row, (row_places, row_sizes, group, length) in enumerate(zip(places, sizes, groups, lengths, strict=True)):
            if self.padding_free:
                where = (0, slice(start, start + length))
                start += length
            elif self.padding_side == "left":
                where = (row, slice(labels.shape[1] - length, None))
            else:
                where = (row, slice(0, length))
            if row_places is not None:
                values[where], corners[where] = torch.tensor(row_places.values), torch.tensor(row_places.corners)
            if row_sizes is not None:
                further["examples"][where], further["sizes"][where] = row, row_sizes
            if group is not None:
                further["groups"][:, *where] = group[:, None]
        targets = make_targets(labels, self.plan.vocab, values=values, corners=corners, **further)
        result["targets"] = objective.weigh(targets)
        result["counts"] = objective.count(result["targets"])
        result["group_counts"] = objective.count_groups(result["targets"]).flatten().tolist()
        return result


def mislabelled(labels: Sequence[int], ids: Sequence[int] | None) -> str:
    """What is wrong with the labels of a conversation that ends in an answer, empty where nothing is."""
    if not labels or ids is None or len(ids) != len(labels):
        return ""
    if labels[0] != IGNORE:
        return "the question a target, from its first token on"
    for place, (label, token) in enumerate(zip(labels, ids, strict=True)):
        if label not in (IGNORE, token):
            return f"the label {label} where the input has {token}, at token {place}"
    return ""


@contextmanager
def _at_most(template: Any, max_pixels: int | None) -> Iterator[None]:
    """Within this context the template resizes images to at most `max_pixels`, too."""
    before = template.max_pixels
    if max_pixels is not None:
        template.max_pixels = max_pixels if before is None else min(before, max_pixels)
    try:
        yield
    finally:
        template.max_pixels = before


def _too_few_pixels(template: Any, example: Example, *, failed: bool) -> str:
    """What is to be said of an example whose images are reduced to almost nothing.

    failed: it could not be encoded, as where a long image is left no visual token each way; else it is said of those
    that are left none at all, which the processor would blow up again.
    """
    images = getattr(template.processor, "image_processor", None)
    patch, merge = (getattr(images, name, None) for name in ("patch_size", "merge_size"))
    limits = [limit for limit in (template.max_pixels, example.max_pixels) if limit is not None]
    if not limits or not isinstance(patch, int) or not isinstance(merge, int):
        return ""
    sizes = [example.image_size, *(image.size for image in example.images if isinstance(image, Image))]
    # Of an image that is reduced each side is rounded down to whole tokens.
    longest = max((max(size) / min(size) for size in sizes if size is not None), default=1)
    limit, least = min(limits), math.ceil((patch * merge) ** 2 * longest)
    whose = f"source {example.group!r}" if limit == example.max_pixels and example.group else "the run"
    told = f"its images are reduced to max_pixels = {limit} of {whose}, too few for a visual token each way"
    wrong = example.images and limit < (least if failed else (patch * merge) ** 2)
    return f"{told}: set {least} at least" if wrong else ""


def media_token_ids(template: type, config: Any, tokenizer: Any) -> dict[str, int]:
    """The ids that a template class holds as numbers, as the checkpoint has them: attribute -> id.

    ms-swift writes the ids of the published tokenizer into some templates; with another tokenizer images would get no
    tokens, without an error. Raises InputError where the model's config names an id that is no token, or is another
    than the tokenizer's for the text that stands for it.
    """
    found = {}
    for attribute, told in MEDIA_TOKENS.items():
        if not isinstance(getattr(template, attribute, None), int):
            continue
        ids = {tokenizer.convert_tokens_to_ids(text): text for text in told.texts}
        by_text = {index: text for index, text in ids.items() if index not in (None, tokenizer.unk_token_id)}
        configured = next((value for name in told.config if (value := getattr(config, name, None)) is not None), None)
        if configured is None and not by_text:
            raise InputError(
                f"neither the model's config ({', '.join(told.config)}) nor the tokenizer ({', '.join(told.texts)}) "
                f"tells the {attribute}; use the tokenizer that belongs to the model"
            )
        index = next(iter(by_text)) if configured is None else int(configured)
        if by_text and index not in by_text:
            other, text = next(iter(by_text.items()))
            raise InputError(
                f"the tokenizer's {text} is id {other}, but the model's config.{told.config[0]} is {index}; "
                "use the tokenizer that belongs to the model"
            )
        if index < 0 or tokenizer.convert_ids_to_tokens(index) is None:
            raise InputError(
                f"the model's config.{told.config[0]} is {index}, and the tokenizer has no such token; "
                "use the tokenizer that belongs to the model"
            )
        found[attribute] = index
    return found


@attrs.frozen
class Places:
    """What the labels of an example stand for, one entry per label.

    values: the real-valued target in bin units, NaN where the label is no coord token of a geometry. corners: 0..3 in a
    box, -1 elsewhere. geometries: which one of the example's, -1 for none.
    """

    values: list[float]
    corners: list[int]
    geometries: list[int]


def align(labels: list[int], example: Example, vocab: CoordVocab | None) -> Places:
    """Real-valued targets and box corners from the geometries of the example.

    Raises InputError when the answer's coord tokens are not those of the geometries.
    """
    found = Places([float("nan")] * len(labels), [-1] * len(labels), [-1] * len(labels))
    bins = vocab.bins(torch.tensor(labels)).tolist() if vocab is not None else []
    places = [place for place, item in enumerate(bins) if item >= 0]
    coords = vocab.format if vocab is not None else DEFAULT_COORDS
    wanted = [
        (value, corner if geometry.kind == "bbox_2d" else -1, number)
        for number, geometry in enumerate(example.geometries)
        for corner, value in coords.arranged([*enumerate(geometry.values)])
    ]
    if vocab is None or (not example.geometries and not places):
        return found
    if len(places) != len(wanted):
        raise InputError(
            f"{example.where}: the encoded answer has {len(places)} coord tokens, its geometries have {len(wanted)} "
            "values; give one Geometry value per coord token, in the order of the text"
        )
    for place, (value, corner, number) in zip(places, wanted, strict=True):
        if abs(value - bins[place]) > 2.5:  # rounding, plus the bin a collapsed box is widened by
            raise InputError(
                f"{example.where}: coord token {bins[place]} stands where the geometry has {value:.2f}; "
                "give the values in bin units, in the order of the text"
            )
        found.values[place], found.corners[place], found.geometries[place] = value, corner, number
    return found


def sizes_of(example: Example, places: Places, quantisation: Quantisation) -> torch.Tensor:
    """[T, 4] float32 per label: width and height in pixels of the example's image and of the object, NaN where unknown.

    An object's size is that of the box around its geometry.
    """
    sizes = torch.full((len(places.values), 4), torch.nan)
    if example.image_size is None:
        return sizes
    sizes[:, :2] = torch.tensor(example.image_size, dtype=torch.float32)
    if example.geometries:
        objects = []
        for geometry in example.geometries:
            pixels = quantisation.decode(
                [*zip(geometry.values[::2], geometry.values[1::2], strict=True)], example.image_size
            )
            objects.append(pixels.max(0) - pixels.min(0))
        numbers = torch.tensor(places.geometries)
        inside = numbers >= 0
        sizes[inside, 2:] = torch.tensor(np.array(objects), dtype=torch.float32)[numbers[inside]]
    return sizes
