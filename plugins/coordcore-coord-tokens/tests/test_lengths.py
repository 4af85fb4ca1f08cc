"""What the sources say of how long their examples are, before they are made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coordcore import BuildContext, Example, InputError
from coordcore.components import LENGTHS
from coordcore_coord_tokens import ChatJsonl, ChatJsonlConfig, CoordJsonl, CoordJsonlConfig, plugin
from coordcore_coord_tokens.augment.config import AugmentConfig

Build = Callable[..., CoordJsonl]
COORDS = 4


def record(count: int, **keys: Any) -> dict[str, Any]:
    objects = [{"desc": f"thing {number}", "bbox_2d": [number, 20, 300, 400]} for number in range(count)]
    return {"images": ["photo.png"], "width": 640, "height": 480, "objects": objects, **keys}


def texts(example: Example) -> str:
    return "".join(message["content"] for message in example.messages).replace("<image>", "")


def rough(example: Example) -> int:
    """What the texts come to: a coord token is one, three bytes of the rest another."""
    tokens = sum(len(geometry.values) for geometry in example.geometries)
    text = texts(example)
    for k in range(1000):
        text = text.replace(f"<|coord_{k}|>", "")
    return tokens + len(text.encode()) // 3


@pytest.mark.parametrize(
    "settings",
    [{}, {"system": "You see boxes, and name all of them."}, {"max_objects": 2}, {"object_order": "top_left"}],
)
def test_it_follows_the_text_of_the_example(build: Build, settings: dict[str, Any]) -> None:
    source = build(*map(record, (0, 1, 7, 40)), **settings).train()
    for index in range(4):
        assert source.length(0, index) == (rough(source[index]), [(640, 480)])


def test_a_coord_token_is_one_token_however_long_it_is_written(build: Build) -> None:
    [short, long] = [build(record(40), coord_tokens=tokens).train().length(0, 0)[0] for tokens in (True, False)]
    assert short == long + 40 * COORDS - sum(len(f"{k}") for n in range(40) for k in (n, 20, 300, 400)) // 3


def test_the_question_of_a_task_counts_too(build: Build) -> None:
    named = [record(3, task="named", categories=[f"thing {k}" for k in range(count)]) for count in (3, 80)]
    source = build(*named).train()
    assert source.length(0, 1)[0] - source.length(0, 0)[0] > 200


def test_an_epoch_counts_what_it_draws(build: Build) -> None:
    record_ = record(9, objects=[{"desc": "thing", "bbox_2d": [70 * k, 0, 70 * k + 60, 50]} for k in range(9)])
    augment = AugmentConfig(crop=(0.3, 0.6), resize=(0.5, 2.0), noise_objects=3)
    source: Any = build(record_, space="pixel", augment=augment).train()
    drawn = set()
    for epoch in range(8):
        example = source.in_epoch(epoch, 0)
        assert source.length(epoch, 0) == (rough(example), [example.images[0].size])
        tokens, [size] = source.length(epoch, 0)
        drawn.add((tokens, size))
    assert len(drawn) > 5
    assert len({tokens for tokens, _ in drawn}) > 1


def test_no_image_of_a_record_is_opened(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    source: Any = build(record(3), space="pixel", augment=AugmentConfig(flip=1.0)).train()
    Path("photo.png").unlink()
    assert source.length(0, 0)[1] == [(640, 480)]
    with pytest.raises(InputError, match="no image file at"):
        source.in_epoch(0, 0)


def test_a_wrong_record_is_told_with_its_line(build: Build) -> None:
    source = build(record(1), record(1, objects=[{"desc": "x", "bbox_2d": [9, 9, 1, 1]}]), validate=False).train()
    with pytest.raises(InputError, match=r"train\.jsonl:2: objects\[0\]\.bbox_2d: "):
        source.length(0, 1)


def test_records_with_bad_images_are_passed_over(build: Build) -> None:
    source = build(record(1), record(5, images=["gone.png"]), record(9), on_bad_image="skip").train()
    assert [source.length(0, index)[0] for index in range(2)] == [rough(source[index]) for index in range(2)]


def chat(write: Any, context: BuildContext, *rows: dict[str, Any], **settings: Any) -> Any:
    return ChatJsonl.open(ChatJsonlConfig(train=write(*rows), **settings), context).train()


def test_of_a_chat_row_all_turns_and_all_images_count(write: Any, context: BuildContext) -> None:
    Image.new("RGB", (100, 50)).save("small.png")
    messages = [
        {"role": "user", "content": "<image><image>Where is <ref-object>?"},
        {"role": "assistant", "content": "<bbox>"},
        {"role": "user", "content": "And 东西?"},
        {"role": "assistant", "content": "There is none, as far as I can see."},
    ]
    objects = {"ref": ["the dog"], "bbox": [[64, 48, 320, 240]], "image_id": [0]}
    with_images = {"messages": messages, "images": ["photo.png", "small.png"], "objects": objects}
    without = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello."}]}
    source = chat(write, context, with_images, without, system="Be brief.")

    assert source.length(0, 0)[1] == [(640, 480), (100, 50)]
    assert source.length(0, 0)[0] == rough(source[0]) + len("<image><image>") // 3
    assert source.length(3, 1) == (len("Be brief.HelloHello.") // 3, [])


def test_images_of_chat_rows_are_turned_as_they_are_shown(write: Any, context: BuildContext) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 20)).save("turned.jpg", exif=exif)
    row = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "images": ["turned.jpg"],
    }
    source = chat(write, context, row)
    assert source.length(0, 0)[1] == [source[0].images[0].size] == [(20, 60)]


def test_the_image_that_is_not_there_is_told_with_its_line(write: Any, context: BuildContext) -> None:
    row = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "images": ["gone.png"],
    }
    source = chat(write, context, row, validate=False)
    with pytest.raises(InputError, match=r"train\.jsonl:1: images\[0\]: "):
        source.length(0, 0)


def test_the_components_say_that_they_can() -> None:
    by_name = {component.name: component for component in plugin.coordcore_data_builders()}
    train = Path("train.jsonl")
    assert LENGTHS in by_name["coord_jsonl"].provides(CoordJsonlConfig(train=train, coord_tokens=False))
    assert LENGTHS in by_name["chat_jsonl"].provides(ChatJsonlConfig(train=train))
