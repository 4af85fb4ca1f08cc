"""The components `coord_jsonl` and `coord_template`, their manifest keys and checks. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs.validators import and_, gt, min_len, optional

from coordcore import COORD_SUPERVISION, COORD_TOKENS, BuildContext, Component, Problem, hookimpl, kinds, option
from coordcore.manifest import Manifest

if TYPE_CHECKING:
    from coordcore_coord_tokens.jsonl import CoordJsonl
    from coordcore_coord_tokens.template import CoordTemplate

DENSE_PROMPT = "Locate every object in the image. Answer in JSON: a list of objects with description and place."
SUMMARY_PROMPT = "Summarise what the image shows in one sentence."


def _is_plain_text(_instance: Any, _attribute: Any, text: str) -> None:
    from coordcore.records.answers import reserved

    found = reserved(text)
    if found:
        raise ValueError(
            f"contains {found!r}, which the model's template reads as a control token; "
            "write plain text (the image is put before the prompt by itself)"
        )


@attrs.frozen(kw_only=True)
class CoordJsonlConfig:
    """`[data.coord_jsonl]`: one JSONL file of records, one image and one answer each."""

    train: Path = option(exists=True, help="JSONL file of the training records")
    validation: Path | None = option(default=None, exists=True, help="JSONL file of the held-out records")
    image_root: Path | None = option(
        default=None, exists=True, help="folder that image paths start from; each JSONL file's own folder when absent"
    )
    mode: Literal["dense", "summary"] = option(
        default="dense", help="what the answer is: every object with its place, or the record's summary"
    )
    coord_tokens: bool = option(
        default=True, help="write coordinates as coord tokens; false writes the same bins as plain numbers"
    )
    space: Literal["bin", "pixel", "norm1"] = option(
        default="bin",
        help="what the numbers in the file are: bins 0..999 (or coord tokens), pixels of the upright image, or 0..1",
    )
    outside: Literal["error", "clip"] = option(
        default="error", help="a pixel or norm1 corner outside the image: report it, or move it to the edge (counted)"
    )
    geometry: tuple[Literal["bbox_2d", "poly"], ...] = option(
        default=("bbox_2d", "poly"), validator=min_len(1), help="geometry kinds that may occur"
    )
    field_order: Literal["desc_first", "geometry_first"] = option(
        default="desc_first", help="order of description and geometry within an object of the answer"
    )
    object_order: Literal["as_given", "top_left"] = option(
        default="as_given", help="order of the objects in the answer; top_left sorts by top edge, then left edge"
    )
    max_objects: int | None = option(
        default=None,
        validator=optional(gt(0)),
        help="longest answer, in objects; the rest is left out, so the model learns to stop there",
    )
    prompt: str | None = option(
        default=None,
        validator=optional(and_(min_len(1), _is_plain_text)),
        help="the question; one per mode when absent",
    )
    system: str | None = option(
        default=None,
        validator=optional(and_(min_len(1), _is_plain_text)),
        help="system message; the template's when absent",
    )
    limit: int | None = option(default=None, validator=optional(gt(0)), help="use only the first records of each file")
    validate: bool = option(
        default=True,
        help="read every record and look for its image before training; false leaves that to the first use of each",
    )

    @property
    def question(self) -> str:
        """The prompt, or the mode's own."""
        if self.prompt is not None:
            return self.prompt
        return DENSE_PROMPT if self.mode == "dense" else SUMMARY_PROMPT

    @property
    def emits_coord_tokens(self) -> bool:
        """Whether answers hold coord tokens."""
        return self.coord_tokens and self.mode == "dense"


@attrs.frozen(kw_only=True)
class CoordTemplateConfig:
    """`[template.coord_template]`: the ms-swift template of the model family, made fit for coord tokens."""

    coord_tokens: bool = option(default=True, help="verify that the tokenizer keeps every coord token whole")
    skip_bbox_norm: bool = option(
        default=True, help="with coord_tokens: leave boxes of ms-swift's own `objects` column unscaled, they are bins"
    )


def _build_jsonl(config: CoordJsonlConfig, context: BuildContext) -> CoordJsonl:
    from coordcore_coord_tokens.jsonl import CoordJsonl

    return CoordJsonl.open(config, context)


def _build_template(config: CoordTemplateConfig, _context: BuildContext) -> CoordTemplate:
    from coordcore_coord_tokens.template import CoordTemplate

    return CoordTemplate(coord_tokens=config.coord_tokens, skip_bbox_norm=config.skip_bbox_norm)


@hookimpl
def coordcore_data_builders() -> Iterable[Component]:
    return [
        Component(
            name="coord_jsonl",
            config=CoordJsonlConfig,
            build=_build_jsonl,
            summary="JSONL records of boxes, polygons or summaries, with the places as coord tokens or numbers",
            provides=lambda config: [COORD_TOKENS] if config.emits_coord_tokens else [],
            requires=lambda config: [COORD_SUPERVISION] if config.emits_coord_tokens else [],
        )
    ]


@hookimpl
def coordcore_template_adapters() -> Iterable[Component]:
    return [
        Component(
            name="coord_template",
            config=CoordTemplateConfig,
            build=_build_template,
            summary="image token ids from the tokenizer, coord tokens verified, box rescaling off",
        )
    ]


@hookimpl
def coordcore_check(run: Manifest) -> Iterable[Problem]:
    data = [chosen.config for chosen in run.of(kinds.DATA) if isinstance(chosen.config, CoordJsonlConfig)]
    templates = [chosen.config for chosen in run.of(kinds.TEMPLATE) if isinstance(chosen.config, CoordTemplateConfig)]
    for config in data:
        if config.emits_coord_tokens and any(not template.coord_tokens for template in templates):
            yield Problem(
                path="template.coord_template.coord_tokens",
                message="false, but data.coord_jsonl writes coord tokens; set both alike",
            )
        if config.validate:
            from coordcore.coords import quantisation
            from coordcore_coord_tokens.jsonl import record_problems

            yield from record_problems(config, quantisation(run.coords.quantisation))
