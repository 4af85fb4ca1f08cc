"""The answer formats `compact`, `grouped`, `qwen` and `qwen_numbers`. Torch-free.

Tokens a box with Qwen3's tokenizer, 20 boxes of 5 labels: CoordJSON 24.2, qwen 24.1, compact 6.0, grouped 4.1.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import attrs

from coordcore import BuildContext, Component, Problem, option
from coordcore.manifest import Manifest
from coordcore.records.answers import Format
from coordcore.records.answers.format import Coords, Label

_log = logging.getLogger(__name__)

QWEN_SCALE = "qwen_1000"
"""The quantisation of the numbers that Qwen3-VL writes: 0..1000."""

# All but boxes are marked: where the next box may follow at once, four coordinates could be two points or half a quad.
_BARE: dict[str, tuple[str | Coords, ...]] = {
    "bbox_2d": (Coords("bbox_2d", between=""),),
    "poly": ("|", Coords("poly", between="")),
    "point": ("|.", Coords("point", between="")),
    "quad": ("|#", Coords("quad", between="")),
}

COMPACT = Format(name="compact", label=(Label(without="<|"),), places=_BARE, between="\n", nothing="none")
"""An object a line: `red ring<|coord_12|><|coord_40|><|coord_500|><|coord_999|>`."""

GROUPED = attrs.evolve(COMPACT, name="grouped", again="")
"""A label a line, with all its boxes behind it."""

TAGGED = Format(
    name="grouped_tags",
    before="<|object_ref_start|>",
    label=(Label(without="<"),),
    amid="<|object_ref_end|><|box_start|>",
    places={
        "bbox_2d": (Coords("bbox_2d", between=""),),
        "poly": ("|", Coords("poly", between="")),  # Qwen has no token for it; four corners could be a quad's
        "point": (Coords("point", between=""),),
        "quad": ("<|quad_start|>", Coords("quad", between=""), "<|quad_end|>"),
    },
    after="<|box_end|>",
    between=", ",
    again=",",
    nothing="none",
    geometry_first=False,
)
"""The same between the tokens that Qwen's vocabulary has for it, as Rex-Omni answers."""

_QWEN_KEYS = {"point": "point_2d"}

QWEN = Format(
    name="qwen",
    opening="[",
    before="{",
    label=('"label": ', Label()),
    amid=", ",
    places={
        kind: (f'"{_QWEN_KEYS.get(kind, kind)}": [', Coords(kind, between=", "), "]")
        for kind in ("bbox_2d", "poly", "point", "quad")
    },
    after="}",
    between=", ",
    closing="]",
    geometry_first=True,
    json=True,
)
"""Qwen's own list, `[{"bbox_2d": [<|coord_12|>, ...], "label": "red ring"}]`."""

QWEN_NUMBERS = attrs.evolve(QWEN, name="qwen_numbers", numbers=True)
"""The same as Qwen3-VL itself writes it: plain numbers, in thousandths under the quantisation qwen_1000."""


@attrs.frozen(kw_only=True)
class PlainFormatConfig:
    """A format without settings."""


@attrs.frozen(kw_only=True)
class GroupedConfig:
    """`[format.grouped]`: a label, then all its boxes."""

    tags: bool = option(
        default=False, help="put labels and boxes between Qwen's <|object_ref_start|> ... <|box_end|>, as Rex-Omni does"
    )


def _grouped(config: GroupedConfig, _context: BuildContext) -> Format:
    return TAGGED if config.tags else GROUPED


def _told_scale(_config: PlainFormatConfig, run: Manifest) -> Iterable[Problem]:
    """A warning where numbers are on another scale than a stock Qwen3-VL's, which may be meant."""
    if run.coords.quantisation != QWEN_SCALE:
        _log.warning(
            "format.qwen_numbers: answers count as coords.quantisation = %r does, and a stock Qwen3-VL as %r; set that "
            "to train or score what it writes",
            run.coords.quantisation,
            QWEN_SCALE,
        )
    return ()


def components() -> Iterable[Component]:
    """The formats as components."""
    yield Component(
        name="compact",
        config=PlainFormatConfig,
        build=lambda _config, _context: COMPACT,
        summary="an object a line: its label, then its coord tokens",
    )
    yield Component(
        name="grouped",
        config=GroupedConfig,
        build=_grouped,
        summary="a label a line, then the coord tokens of all its boxes",
    )
    yield Component(
        name="qwen",
        config=PlainFormatConfig,
        build=lambda _config, _context: QWEN,
        summary="Qwen's own list in JSON, with coord tokens for numbers",
    )
    yield Component(
        name="qwen_numbers",
        config=PlainFormatConfig,
        build=lambda _config, _context: QWEN_NUMBERS,
        summary="Qwen's own list in JSON, with plain numbers and without coord tokens",
        check=_told_scale,
    )
