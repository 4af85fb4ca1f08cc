"""The ms-swift template of a run: the stock template, the run's adapter, and targets made beside the collator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from swift.template.base import MaxLengthError
from swift.template.templates.qwen import Qwen3VLTemplate

from coordcore.coords import CoordVocab
from coordcore.errors import InputError
from coordcore.records.example import Example
from coordcore_train.objective import IGNORE, make_targets
from coordcore_train.run.plan import Plan
from coordcore_train.surgery.bind import bind
from coordcore_train.swift.active import active_plan

_EXAMPLE = "coordcore_example"


def plain_row(example: Example) -> dict[str, Any]:
    """The row of an example that any ms-swift template takes."""
    images = [
        image if isinstance(image, str | bytes) or not hasattr(image, "__fspath__") else str(image)
        for image in example.images
    ]
    row: dict[str, Any] = {"messages": [dict(message) for message in example.messages]}
    if images:
        row["images"] = images
    return row


def to_row(example: Example, *, padding: bool = False) -> dict[str, Any]:
    """The row for a run's template. `padding` rows fill up the last evaluation batch and are not charged."""
    return {**plain_row(example), _EXAMPLE: (example, padding)}


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
        super().init_processor(processor)  # type: ignore[misc]
        if fresh:
            for kind in ("image", "video"):
                self.__dict__[f"{kind}_token_id"] = _media_token_id(self, kind)
            self.plan.template.apply(self)

    def encode(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        example, padding = None, False
        if isinstance(inputs, dict) and _EXAMPLE in inputs:
            inputs = dict(inputs)
            example, padding = inputs.pop(_EXAMPLE)
        if example is None:
            return super().encode(inputs, *args, **kwargs)  # type: ignore[misc]
        try:
            encoded = super().encode(inputs, *args, **kwargs)  # type: ignore[misc]
        except MaxLengthError as error:
            raise InputError(
                f"{_name(example)}: {error}; raise train.max_length, lower train.max_pixels, or shorten the record"
            ) from error
        except OSError as error:  # Pillow's errors are among them, and name no file
            images = ", ".join(str(image) for image in example.images if isinstance(image, str | Path))
            raise InputError(f"{_name(example)}: cannot read its image {images or 'in memory'}: {error}") from error
        except ValueError as error:
            raise InputError(f"{_name(example)}: {error}") from error
        if padding:
            encoded["labels"] = [IGNORE] * len(encoded["labels"])
        else:
            values, corners = align(encoded["labels"], example, self.plan.vocab)
            encoded["coord_values"], encoded["coord_corners"] = values, corners
        return encoded

    def generate(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Bind the surgeries first: ms-swift's own inference wraps the model without asking anybody."""
        if not getattr(model, "coordcore_bound", False):
            bind(model, self.plan)
            model.coordcore_bound = True
        return super().generate(model, *args, **kwargs)  # type: ignore[misc]

    def _data_collator(self: Any, batch: list[dict[str, Any]], *, padding_to: int | None = None) -> dict[str, Any]:
        extras = [(row.pop("coord_values", None), row.pop("coord_corners", None)) for row in batch]
        lengths = [len(row["input_ids"]) for row in batch]
        result: dict[str, Any] = super()._data_collator(batch, padding_to=padding_to)  # type: ignore[misc]
        if "labels" not in result:
            return result
        labels = result["labels"]
        values = torch.full(labels.shape, torch.nan)
        corners = torch.full(labels.shape, -1, dtype=torch.int64)
        start = 0
        for row, ((row_values, row_corners), length) in enumerate(zip(extras, lengths, strict=True)):
            if self.padding_free:
                where = (0, slice(start, start + length))
                start += length
            elif self.padding_side == "left":
                where = (row, slice(labels.shape[1] - length, None))
            else:
                where = (row, slice(0, length))
            if row_values is not None:
                values[where] = torch.tensor(row_values)
                corners[where] = torch.tensor(row_corners)
        result["targets"] = make_targets(labels, self.plan.vocab, values=values, corners=corners)
        return result


class CoordQwen3VLTemplate(CoordTemplate, Qwen3VLTemplate):  # type: ignore[misc]
    """Qwen3-VL's template for coordcore runs."""


def _name(example: Example) -> str:
    return example.source or "an example without a source"


def _media_token_id(template: Any, kind: str) -> int:
    """The id of `<|image_pad|>` or `<|video_pad|>` from the tokenizer, checked against the model's config.

    ms-swift hard-codes Qwen's own ids; another tokenizer would then get no image tokens, without an error.
    """
    token = f"<|{kind}_pad|>"
    token_id = template.tokenizer.convert_tokens_to_ids(token)
    if token_id is None or token_id == template.tokenizer.unk_token_id:
        raise InputError(f"the tokenizer has no {token}; use the tokenizer that belongs to the model")
    configured = getattr(template.config, f"{kind}_token_id", token_id)
    if configured != token_id:
        raise InputError(
            f"the tokenizer's {token} is id {token_id}, but the model's config.{kind}_token_id is {configured}; "
            "use the tokenizer that belongs to the model"
        )
    return int(token_id)


def align(labels: list[int], example: Example, vocab: CoordVocab | None) -> tuple[list[float], list[int]]:
    """Real-valued targets and box corners, one per label, from the geometries of the example.

    Raises InputError when the answer's coord tokens are not those of the geometries.
    """
    values = [float("nan")] * len(labels)
    corners = [-1] * len(labels)
    bins = vocab.bins(torch.tensor(labels)).tolist() if vocab is not None else []
    places = [place for place, one in enumerate(bins) if one >= 0]
    wanted = [
        (value, corner if geometry.kind == "bbox_2d" else -1)
        for geometry in example.geometries
        for corner, value in enumerate(geometry.values)
    ]
    if vocab is None or (not example.geometries and not places):
        return values, corners
    if len(places) != len(wanted):
        raise InputError(
            f"{_name(example)}: the encoded answer has {len(places)} coord tokens, its geometries have {len(wanted)} "
            "values; give one Geometry value per coord token, in the order of the text"
        )
    for place, (value, corner) in zip(places, wanted, strict=True):
        if abs(value - bins[place]) > 2.5:  # rounding, plus the bin a collapsed box is widened by
            raise InputError(
                f"{_name(example)}: coord token {bins[place]} stands where the geometry has {value:.2f}; "
                "give the values in bin units, in the order of the text"
            )
        values[place], corners[place] = value, corner
    return values, corners
