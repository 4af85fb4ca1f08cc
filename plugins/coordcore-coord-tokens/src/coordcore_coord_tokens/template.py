"""The template adapter `coord_template`: an ms-swift template instance made fit for coord tokens. Torch-free."""

from __future__ import annotations

from typing import Any

import attrs

from coordcore import InputError
from coordcore.coords import DEFAULT_COORDS, CoordFormat, CoordVocab


@attrs.frozen(kw_only=True)
class CoordTemplate:
    """The `TemplateAdapter` of `[template.coord_template]`."""

    coord_tokens: bool = True
    skip_bbox_norm: bool = True
    coords: CoordFormat = DEFAULT_COORDS

    def apply(self, template: Any) -> None:
        apply_coord_template_adapter(
            template, coord_tokens=self.coord_tokens, skip_bbox_norm=self.skip_bbox_norm, coords=self.coords
        )


def apply_coord_template_adapter(
    template: Any, *, coord_tokens: bool, skip_bbox_norm: bool, coords: CoordFormat = DEFAULT_COORDS
) -> None:
    """Change one ms-swift `Template` instance in place; its class and other instances stay as they are.

    Image and video token ids are resolved from the tokenizer, where the template's class holds fixed numbers (ms-swift
    4.6's Qwen2VLTemplate and its heirs: 151655 and 151656). With `coord_tokens`, every coord token is verified to
    be one token also within an answer. With `skip_bbox_norm` as well, boxes in ms-swift's own `objects` column are
    left as they are: its `normalize_bbox` would scale bins a second time, and `norm_bbox="none"` rescales them too.

    Applying it twice changes nothing more. The changed template can be pickled and copied.
    Raises InputError when the tokenizer lacks a token, splits a coord token, or disagrees with the model's config.
    """
    if coord_tokens:
        _check_whole(template.tokenizer, coords)
        if skip_bbox_norm:
            template.normalize_bbox = keep_boxes
    _resolve_media_tokens(template)


def keep_boxes(inputs: Any) -> None:
    """Stands in for `Template.normalize_bbox`. A module-level function, so that the template can be pickled."""


def _check_whole(tokenizer: Any, coords: CoordFormat) -> None:
    vocab = CoordVocab.from_tokenizer(tokenizer, coords)
    text = "[" + ", ".join(coords.written) + "]"
    coord_ids = set(vocab.ids)
    read = tuple(token for token in tokenizer(text, add_special_tokens=False)["input_ids"] if token in coord_ids)
    if read != vocab.ids:
        raise InputError(
            f"the tokenizer reads {len(read)} of {coords.bins} coord tokens whole; "
            "they must be added tokens (not normalised): add them with `coordcore expand BASE --output DIR`"
        )


def _resolve_media_tokens(template: Any) -> None:
    """Give the instance the ids that its class hard-codes, and a placeholder list of its own.

    ms-swift turns the class's `placeholder_tokens` into ids in place, so the list of a second model in the same
    process would hold the first one's ids.
    """
    ids = {}
    for medium in ("image", "video"):
        attribute = f"{medium}_token_id"
        if not hasattr(type(template), attribute):
            continue
        token = getattr(template.processor, f"{medium}_token", f"<|{medium}_pad|>")
        found = template.tokenizer.convert_tokens_to_ids(token)
        if found is None or found == template.tokenizer.unk_token_id:
            raise InputError(f"the tokenizer has no {token}, which stands for an {medium}; is it the model's own?")
        configured = getattr(template.config, attribute, found)
        if configured != found:
            raise InputError(
                f"{token} is {found} in the tokenizer, but the model's config says {attribute} = {configured}; "
                "tokenizer and weights do not belong together: copy both from one checkpoint"
            )
        ids[attribute] = found
    for attribute, found in ids.items():
        setattr(template, attribute, found)
    if ids:
        template.placeholder_tokens = list(ids.values())
