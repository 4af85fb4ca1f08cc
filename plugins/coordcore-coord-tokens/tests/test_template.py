"""The template adapter on a stand-in for an ms-swift template, without torch."""

from __future__ import annotations

import copy
import pickle
import re
from types import SimpleNamespace
from typing import Any

import pytest

from coordcore import InputError
from coordcore.coords import ints_to_tokens
from coordcore_coord_tokens import CoordTemplate, apply_coord_template_adapter

MEDIA = ("<|image_pad|>", "<|video_pad|>")


class Tokenizer:
    """Added tokens are read whole, everything else byte by byte."""

    unk_token_id = None

    def __init__(self, added: list[str], split: str = "") -> None:
        self.ids = {token: 300 + index for index, token in enumerate(added)}
        self.split = split

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        return self.ids.get(tokens) if isinstance(tokens, str) else [self.ids.get(token) for token in tokens]

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        ids: list[int] = []
        for piece in re.split(r"(<\|[^|]*\|>)", text):
            whole = piece in self.ids and piece != self.split
            ids.extend([self.ids[piece]] if whole else piece.encode())
        return {"input_ids": ids}


class Template:
    """What the adapter touches of ms-swift 4.6's `Template`."""

    image_token_id = 151655
    video_token_id = 151656

    def __init__(self, tokenizer: Tokenizer, **config: int) -> None:
        self.tokenizer = tokenizer
        self.processor = SimpleNamespace(tokenizer=tokenizer)
        self.config = SimpleNamespace(**config)
        self.placeholder_tokens = [1, 2]

    def normalize_bbox(self, inputs: Any) -> None:
        inputs.objects["bbox"] = [[2 * value for value in box] for box in inputs.objects["bbox"]]


@pytest.fixture
def template() -> Template:
    return Template(Tokenizer([*MEDIA, *ints_to_tokens(range(1000))]))


def boxes_after_normalising(template: Any) -> list[list[int]]:
    inputs = SimpleNamespace(objects={"bbox": [[12, 40, 300, 412]]})
    template.normalize_bbox(inputs)
    return inputs.objects["bbox"]


@pytest.mark.parametrize(
    ("coord_tokens", "skip_bbox_norm", "boxes"),
    [
        (True, True, [[12, 40, 300, 412]]),
        (True, False, [[24, 80, 600, 824]]),
        (False, True, [[24, 80, 600, 824]]),
        (False, False, [[24, 80, 600, 824]]),
    ],
)
def test_boxes_are_left_alone_when_both_are_on(
    template: Template, coord_tokens: bool, skip_bbox_norm: bool, boxes: list[list[int]]
) -> None:
    CoordTemplate(coord_tokens=coord_tokens, skip_bbox_norm=skip_bbox_norm).apply(template)
    assert boxes_after_normalising(template) == boxes


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda template: pickle.loads(pickle.dumps(template))])
def test_a_copied_template_stays_adapted(template: Template, copied: Any) -> None:
    apply_coord_template_adapter(template, coord_tokens=True, skip_bbox_norm=True)
    item = copied(template)
    assert (boxes_after_normalising(item), item.image_token_id) == ([[12, 40, 300, 412]], 300)


def test_media_ids_come_from_the_tokenizer(template: Template) -> None:
    apply_coord_template_adapter(template, coord_tokens=True, skip_bbox_norm=True)
    assert (template.image_token_id, template.video_token_id, template.placeholder_tokens) == (300, 301, [300, 301])


def test_the_class_and_other_instances_stay_as_they_are(template: Template) -> None:
    other = Template(template.tokenizer)
    apply_coord_template_adapter(template, coord_tokens=True, skip_bbox_norm=True)
    assert (other.image_token_id, other.placeholder_tokens, boxes_after_normalising(other)) == (
        151655,
        [1, 2],
        [[24, 80, 600, 824]],
    )


def test_a_second_time_changes_nothing(template: Template) -> None:
    apply_coord_template_adapter(template, coord_tokens=True, skip_bbox_norm=True)
    before = dict(vars(template))
    apply_coord_template_adapter(template, coord_tokens=True, skip_bbox_norm=True)
    assert vars(template) == before


def test_a_template_without_fixed_ids_is_left_alone() -> None:
    template = SimpleNamespace(tokenizer=Tokenizer([]), placeholder_tokens=[1, 2])
    apply_coord_template_adapter(template, coord_tokens=False, skip_bbox_norm=False)
    assert vars(template).keys() == {"tokenizer", "placeholder_tokens"}


def test_a_tokenizer_of_another_model() -> None:
    template = Template(Tokenizer([*MEDIA]), image_token_id=300, video_token_id=151656)
    with pytest.raises(InputError) as caught:
        apply_coord_template_adapter(template, coord_tokens=False, skip_bbox_norm=False)
    assert str(caught.value) == (
        "<|video_pad|> is 301 in the tokenizer, but the model's config says video_token_id = 151656; "
        "tokenizer and weights do not belong together: copy both from one checkpoint"
    )


def test_a_tokenizer_without_image_tokens() -> None:
    with pytest.raises(InputError, match=r"^the tokenizer has no <\|image_pad\|>, which stands for an image"):
        apply_coord_template_adapter(Template(Tokenizer([])), coord_tokens=False, skip_bbox_norm=False)


def test_a_tokenizer_without_coord_tokens() -> None:
    with pytest.raises(InputError, match=r"^the tokenizer has no coord tokens"):
        apply_coord_template_adapter(Template(Tokenizer([*MEDIA])), coord_tokens=True, skip_bbox_norm=False)


def test_a_tokenizer_that_splits_a_coord_token() -> None:
    tokens = [*MEDIA, *ints_to_tokens(range(1000))]
    template = Template(Tokenizer(tokens, split="<|coord_7|>"))
    with pytest.raises(InputError, match=r"^the tokenizer reads 999 of 1000 coord tokens whole; they must be added"):
        apply_coord_template_adapter(template, coord_tokens=True, skip_bbox_norm=True)
