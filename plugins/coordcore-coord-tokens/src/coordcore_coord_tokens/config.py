"""The manifest keys of `[data.coord_jsonl]` and `[template.coord_template]`. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs.validators import and_, ge, gt, le, min_len, optional

from coordcore import option
from coordcore.errors import did_you_mean
from coordcore.tasks import ABSENT, TASKS
from coordcore_coord_tokens.augment.config import AugmentConfig
from coordcore_coord_tokens.texts import is_plain_text

DENSE_PROMPT = TASKS["detect"].prompt
SUMMARY_PROMPT = "Summarise what the image shows in one sentence."


def _are_prompts(_instance: Any, _attribute: Any, prompts: Mapping[str, Sequence[str]]) -> None:
    for name, wordings in prompts.items():
        if name not in TASKS:
            raise ValueError(f"{name!r} is no task; {did_you_mean(name, TASKS)}")
        if not TASKS[name].prompt:
            raise ValueError(f"{name} has no prompt, each of its records asks a question of its own; leave it out")
        if not wordings:
            raise ValueError(f"{name} must hold one wording at least, got none")
        for index, text in enumerate(wordings):
            _is_wording(f"{name}[{index}]", text, TASKS[name].placeholder)


def _is_wording(path: str, text: str, placeholder: str) -> None:
    if not text.strip():
        raise ValueError(f"{path} must not be empty")
    try:
        is_plain_text(None, None, text)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    needs = f"{{{placeholder}}}" if placeholder else "none"
    for found in re.findall(r"\{\w+\}", text):
        if found != needs:
            raise ValueError(f"{path} has the placeholder {found}, and its task fills {needs}; got {text!r}")
    if placeholder and needs not in text:
        raise ValueError(f"{path} must hold {needs}, which stands for what a record asks for; got {text!r}")


@attrs.frozen(kw_only=True)
class LinesConfig:
    """The keys of every builder that reads JSONL files: which files, where their images lie, and what is checked."""

    train: Path = option(exists=True, help="JSONL file of the training records")
    validation: Path | None = option(default=None, exists=True, help="JSONL file of the held-out records")
    image_root: Path | None = option(
        default=None, exists=True, help="folder that image paths start from; each JSONL file's own folder when absent"
    )
    images_within: Path | None = option(
        default=None,
        exists=True,
        help="folder that every image must lie below, for records with absolute paths or '..'; image_root, or the "
        "JSONL file's folder, when absent",
    )
    outside: Literal["error", "clip"] = option(
        default="error", help="a corner outside the image: report it, or move it to the edge (counted)"
    )
    system: str | None = option(
        default=None,
        validator=optional(and_(min_len(1), is_plain_text)),
        help="system message; the template's when absent",
    )
    limit: int | None = option(
        default=None, validator=optional(and_(gt(0), le(10**12))), help="use only the first records of each file"
    )
    validate: bool | Literal["images"] = option(
        default=True,
        help="read every record and look for its images before training; 'images' decodes every image, too; false "
        "leaves all of it to the first use of each",
    )
    on_bad_image: Literal["stop", "skip"] = option(
        default="stop",
        help="an image that is missing, cannot be decoded or is of another size than its record says: stop, or decode "
        "every image before training, leave out the records of bad ones, and say how many",
        before="stop",
    )
    max_aspect: float | None = option(
        default=200.0,
        validator=optional(and_(ge(1), le(10**6))),
        help="most that an image may be longer in one direction than in the other; processors of Qwen's models stop at "
        "images beyond 200",
        before=200.0,
    )

    @property
    def decodes(self) -> bool:
        """Whether every image is decoded before training."""
        return self.validate == "images" or self.on_bad_image == "skip"

    @property
    def arrays(self) -> bool:
        """Whether a file may also be one JSON array of its rows."""
        return False

    @property
    def weight(self) -> int:
        """How much longer the check of a record takes than that of one whose image need not be opened."""
        return 1


@attrs.frozen(kw_only=True)
class CoordJsonlConfig(LinesConfig):
    """`[data.coord_jsonl]`: one JSONL file of records, one image and one answer each."""

    mode: Literal["dense", "summary"] = option(
        default="dense", help="what the answer is: every object with its place, or the record's summary"
    )
    coord_tokens: bool = option(
        default=True, help="write coordinates as coord tokens; false writes the same bins as plain numbers"
    )
    space: Literal["bin", "pixel", "norm1"] = option(
        default="bin",
        help="what the numbers in the file are: bins, 0..999 unless [coords] says others (or coord tokens), pixels of "
        "the upright image, or 0..1",
    )
    geometry: tuple[Literal["bbox_2d", "poly", "point", "quad"], ...] = option(
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
        validator=optional(and_(gt(0), le(10**9))),
        help="longest answer, in objects; the rest is left out, so the model learns to stop there. Of a phrase, which "
        "refers to all of them, more are refused",
    )
    prompt: str | None = option(
        default=None,
        validator=optional(and_(min_len(1), is_plain_text)),
        help="the question; one per mode when absent",
    )
    prompts: dict[str, tuple[str, ...]] = option(
        factory=dict,
        validator=_are_prompts,
        help="by task, the wordings of its question, drawn anew in each epoch; {categories} in those of named, "
        "{phrase} of refer and {box} of region stand for what a record asks for. Each task has one of its own",
        before={},
    )
    absent_categories: int = option(
        default=ABSENT,
        validator=[ge(0), le(10**6)],
        help="how many categories a record of the task named asks for beside those that are there, drawn anew in each "
        "epoch: labels of the file's other such records, or those that the record says are absent",
        before=ABSENT,
    )
    augment: AugmentConfig | None = option(default=None, help="how training examples differ from epoch to epoch")

    def __attrs_post_init__(self) -> None:
        if self.prompts and self.mode == "summary":
            raise ValueError('prompts are for `mode = "dense"`; with "summary" write the question as `prompt`')
        if "detect" in self.prompts and self.prompt is not None:
            raise ValueError("prompt and prompts.detect ask the same; keep one of them")
        if self.prompt is not None:
            _is_wording("prompt", self.prompt, TASKS["detect"].placeholder)

    @property
    def question(self) -> str:
        """The prompt, or the mode's own."""
        if self.prompt is not None:
            return self.prompt
        return self.wordings("detect")[0] if self.mode == "dense" else SUMMARY_PROMPT

    def wordings(self, task: str) -> tuple[str, ...]:
        """The prompts of a task, of which the first is asked in evaluation."""
        if task == "detect" and self.prompt is not None:
            return (self.prompt,)
        return self.prompts.get(task) or (TASKS[task].prompt,)

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
