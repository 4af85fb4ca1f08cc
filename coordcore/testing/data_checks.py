"""Checks of data builders, on the first and last examples of each split."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordcore.components import COORD_TOKENS, LENGTHS, Component
from coordcore.coords import DEFAULT_COORDS, token_to_int
from coordcore.errors import InputError
from coordcore.protocols import ExampleSource
from coordcore.quantisation import DEFAULT_QUANTISATION, Quantisation
from coordcore.records.example import Example
from coordcore.records.geometry import KINDS, has_count
from coordcore.testing.building import build, config_or_default

if TYPE_CHECKING:
    from PIL import Image

_COORD = re.compile(DEFAULT_COORDS.pattern())
_ROLES = ("system", "user", "assistant")
_CLOSE = 2.0  # bins: rounding, plus the bin a collapsed box is widened by; a little stricter than the engine
_COARSE = Quantisation(name="coarse", encode_scale=500, rounding="nearest", decode_scale=500, decode_shift=0)
"""So far from the default that a bin of one is none of the other."""


def _sources(
    component: Component, config: Any, quantisation: Quantisation = DEFAULT_QUANTISATION
) -> list[ExampleSource]:
    builder = build(component, config, quantisation=quantisation)
    return [source for source in (builder.train(), builder.validation()) if source is not None]


def _examples(
    component: Component, config: Any, quantisation: Quantisation = DEFAULT_QUANTISATION
) -> Iterator[tuple[str, Example]]:
    """Some examples, each with a name for messages."""
    for source in _sources(component, config, quantisation):
        for index in sorted({*range(min(len(source), 4)), len(source) - 1} - {-1}):
            example = source[index]
            assert isinstance(example, Example), f"example {index} must be a coordcore.Example, got {example!r}"
            yield example.source or f"example {index}", example


def _tokens(example: Example) -> list[int]:
    """The bins of the coord tokens in the answers, in order."""
    answers = (message["content"] for message in example.messages if message["role"] == "assistant")
    return [token_to_int(token) for answer in answers for token in _COORD.findall(answer)]


def _picture(image: Any) -> Image.Image:
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    return Image.open(BytesIO(image) if isinstance(image, bytes) else Path(image))


def _comparable(example: Example) -> tuple[Any, ...]:
    """Everything about an example, with its pictures as pixels."""
    pixels = [(picture.size, picture.convert("RGB").tobytes()) for picture in map(_picture, example.images)]
    return (list(example.messages), pixels, example.geometries, example.source)


def check_data_splits(component: Component, config: Any = None) -> None:
    """There are training examples, and every one is an Example."""
    assert len(build(component, config).train()) > 0, "train() holds no example"
    for _ in _examples(component, config):
        pass


def check_data_named(component: Component, config: Any = None) -> None:
    """Every example says where it came from, which messages about it name."""
    for name, example in _examples(component, config):
        assert example.source, f"{name} has no source; say where it came from"


def check_data_deterministic(component: Component, config: Any = None) -> None:
    """The same index gives the same example, from a fresh build too: an interrupted run continues with it."""
    first, second, again = (list(_examples(component, config)) for _ in range(3))
    for (name, item), (_, two), (_, three) in zip(first, second, again, strict=True):
        assert _comparable(item) == _comparable(two) == _comparable(three), f"{name} differs when it is read again"


def check_data_pickles(component: Component, config: Any = None) -> None:
    """A source travels to a data-loader process and gives the same examples there."""
    for source in _sources(component, config):
        copied = pickle.loads(pickle.dumps(source))
        assert len(copied) == len(source), f"{len(source)} examples became {len(copied)} by pickling"
        if len(source):
            assert _comparable(copied[0]) == _comparable(source[0]), "a pickled source gives another example 0"


def check_data_messages(component: Component, config: Any = None) -> None:
    """Messages have a known role and text, end with an answer, and hold one `<image>` for each image."""
    for name, example in _examples(component, config):
        for message in example.messages:
            assert set(message) == {"role", "content"}, f"{name}: a message has the keys {sorted(message)}"
            assert message["role"] in _ROLES, f"{name}: role {message['role']!r}; use one of {', '.join(_ROLES)}"
            assert isinstance(message["content"], str), f"{name}: content must be text, got {message['content']!r}"
        roles = [message["role"] for message in example.messages]
        assert roles[-1:] == ["assistant"], f"{name} does not end with an answer; its roles are {roles}"
        places = sum(message["content"].count("<image>") for message in example.messages)
        assert places == len(example.images), f"{name} has {places} <image> for {len(example.images)} images"


def check_data_images_open(component: Component, config: Any = None) -> None:
    """Every image can be read."""
    for name, example in _examples(component, config):
        for image in example.images:
            picture = _picture(image)
            picture.load()
            assert min(picture.size) > 0, f"{name}: an image is {picture.width} x {picture.height}"


def check_data_geometries(component: Component, config: Any = None) -> None:
    """The geometries are those of the answer's coord tokens: as many values, in the same order, in bin units."""
    for name, example in _examples(component, config):
        _agree(name, example)


def _agree(name: str, example: Example) -> None:
    tokens = _tokens(example)
    values = [value for geometry in example.geometries for value in geometry.values]
    assert len(values) == len(tokens), (
        f"{name}: {len(tokens)} coord tokens in the answer, {len(values)} values in the geometries; give one each"
    )
    for token, value in zip(tokens, values, strict=True):
        last = DEFAULT_COORDS.bins - 1
        assert 0 <= value <= last, f"{name}: {value} is no bin unit (0..{last})"
        assert abs(value - token) <= _CLOSE, f"{name}: <|coord_{token}|> stands where the geometry has {value:.2f}"


def check_data_quantisation(component: Component, config: Any = None) -> None:
    """In a run of another quantisation answers and geometries agree as well, unless it refuses that quantisation."""
    try:
        for name, example in _examples(component, config, _COARSE):
            _agree(f"{name}, in a run of another quantisation (use context.quantisation for both)", example)
    except InputError:  # its data hold bins, which are right only under the convention they were made with
        return


def check_data_boxes(component: Component, config: Any = None) -> None:
    """Geometries are of a known kind and have its count of numbers; boxes have x1 <= x2 and y1 <= y2."""
    for name, example in _examples(component, config):
        for geometry in example.geometries:
            count = len(geometry.values)
            assert geometry.kind in KINDS, f"{name}: unknown geometry kind {geometry.kind!r}"
            assert has_count(geometry.kind, count), f"{name}: a {geometry.kind} has {count} values"
            if geometry.kind == "bbox_2d":
                in_order = geometry.values[0] <= geometry.values[2] and geometry.values[1] <= geometry.values[3]
                assert in_order, f"{name}: {geometry.values} is not x1 <= x2, y1 <= y2; is this x, y, width, height?"


def check_data_capabilities(component: Component, config: Any = None) -> None:
    """A builder whose answers hold coord tokens says so, and only then: the guard relies on it."""
    config = config_or_default(component, config)
    said = COORD_TOKENS in component.provides(config)
    found = any(_tokens(example) for _, example in _examples(component, config))
    assert said or not found, "answers hold coord tokens; say provides=lambda config: [coordcore.COORD_TOKENS]"
    assert found or not said, "it provides coord tokens, but no answer that was looked at holds one"


def check_data_lengths(component: Component, config: Any = None) -> None:
    """Of a builder that provides lengths, examples tell those of their texts, and their images with their sizes."""
    config = config_or_default(component, config)
    source: Any = build(component, config).train()
    tells = callable(getattr(source, "length", None))
    if LENGTHS not in component.provides(config):
        missing = "training examples have `length`; say provides=lambda config: [coordcore.components.LENGTHS]"
        assert not tells, missing
        return
    assert tells, "it provides lengths, and its training examples have no length(epoch, index)"
    texts, said = [], []
    for index in sorted({*range(min(len(source), 4)), len(source) - 1}):
        example = source.in_epoch(0, index) if hasattr(source, "in_epoch") else source[index]
        name, (tokens, sizes) = example.where, source.length(0, index)
        assert source.length(0, index) == (tokens, sizes), f"{name}: its length is another when it is asked again"
        assert isinstance(tokens, int), f"{name}: {tokens!r} is no number of tokens"
        true = [_picture(image).size for image in example.images]
        same = len(sizes) == len(true) if example.max_pixels else [tuple(size) for size in sizes] == true
        assert same, f"{name}: has images of {true}, and its length says {sizes}"
        texts.append(sum(len(message["content"]) for message in example.messages))
        said.append(tokens)
    longest, shortest = texts.index(max(texts)), texts.index(min(texts))
    if texts[longest] > 2 * texts[shortest]:
        assert said[longest] > said[shortest], f"the longest text has {said[longest]} tokens, the shortest as many"


CHECKS = (
    check_data_splits,
    check_data_named,
    check_data_deterministic,
    check_data_pickles,
    check_data_messages,
    check_data_images_open,
    check_data_geometries,
    check_data_quantisation,
    check_data_boxes,
    check_data_capabilities,
    check_data_lengths,
)
