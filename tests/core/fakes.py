"""Plugins made up inside a test: distributions, entry points and modules that are not installed."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import attrs
import pytest
from attrs.validators import ge, gt, in_, max_len, min_len

from coordcore import COORD_SUPERVISION, COORD_TOKENS, Component, Kind, hookimpl, kinds, option
from coordcore.discovery import discover
from coordcore.hookspecs import GROUP
from coordcore.manifest import ManifestError, load
from coordcore.plugins import Plugins


def module(**members: Any) -> ModuleType:
    """A module with these members."""
    made = ModuleType("made_up")
    vars(made).update(members)
    return made


def offering(kind: Kind, *components: Any) -> ModuleType:
    """A plugin module that offers `components`."""
    return module(**{kind.hook: hookimpl(lambda: components)})


@attrs.frozen(kw_only=True)
class EntryPoint:
    """Stands for `importlib.metadata.EntryPoint`. `plugin` is what it loads, or a function that loads it."""

    plugin: ModuleType | Callable[[], ModuleType] = attrs.field(factory=module)
    distribution: str = "coordcore-made-up"
    version: str = "1.0"
    requires: list[str] | None = attrs.field(factory=lambda: ["coordcore>=0.1"])
    name: str = "made_up"
    group: str = GROUP

    @property
    def dist(self) -> Any:
        return SimpleNamespace(name=self.distribution, version=self.version, requires=self.requires)

    def load(self) -> ModuleType:
        return self.plugin if isinstance(self.plugin, ModuleType) else self.plugin()


def found(*entry_points: EntryPoint, block: tuple[str, ...] = ()) -> Plugins:
    """What `discover` makes of these entry points."""
    return discover(block=block, entry_points=entry_points)


def component(name: str, config: type[Any] | None = None, **more: Any) -> Component:
    """A component that is never built."""
    return Component(name=name, config=config or Empty, build=lambda _config, _context: None, summary=name, **more)


@attrs.frozen(kw_only=True)
class Empty:
    """No settings."""


class Scale(Enum):
    LINEAR = "linear"
    LOG = "log"


@attrs.frozen(kw_only=True)
class Gate:
    """A table inside a component's own."""

    weight: float = option(default=1.0, validator=ge(0), help="weight of the gate")
    hard: bool = option(default=False, help="step instead of slope")


@attrs.frozen(kw_only=True)
class BoxesConfig:
    """Settings of the data builder `boxes`."""

    train: Path = option(exists=True, help="records to train on")
    images: tuple[Path, ...] = option(default=(), exists=True, help="image folders")
    mode: Literal["dense", "summary"] = option(default="dense", help="what is asked for")
    limit: int | None = option(default=None, help="records to read")


@attrs.frozen(kw_only=True)
class FuzzyConfig:
    """Settings of the loss `fuzzy`: every type a manifest can hold."""

    sigma: float = option(default=2.0, validator=gt(0), help="width, in bins")
    clip: bool = option(default=False, help="clip it")
    names: tuple[str, ...] = option(default=("a",), validator=[min_len(1), max_len(3)], help="names")
    pair: tuple[int, float] = option(default=(1, 0.5), help="two numbers")
    either: int | str = option(default=0, help="a number or a name")
    scale: Scale = option(default=Scale.LINEAR, help="scale")
    parts: dict[str, float] = option(factory=dict, help="weight of each part")
    gate: Gate = option(factory=Gate, help="the gate")
    steps: int = option(default=1, validator=in_(range(1, 10)), help="steps")
    low: int = option(default=0, help="lower end")
    high: int = option(default=9, help="upper end")

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low must be at most high ({self.high}), got {self.low}")


def usual(*more: EntryPoint) -> Plugins:
    """A data builder, a loss and a surgery, of one distribution each, and `more`."""
    return found(
        *more,
        EntryPoint(
            distribution="made-boxes",
            plugin=offering(
                kinds.DATA,
                component(
                    "boxes",
                    BoxesConfig,
                    provides=lambda _config: [COORD_TOKENS],
                    requires=lambda _config: [COORD_SUPERVISION],
                ),
                component("plain_text"),
            ),
        ),
        EntryPoint(
            distribution="made-losses",
            plugin=offering(kinds.LOSS, component("fuzzy", FuzzyConfig, provides=lambda _config: [COORD_SUPERVISION])),
        ),
        EntryPoint(
            distribution="made-surgery",
            plugin=offering(
                kinds.SURGERY,
                component("offset", claims=lambda _config: ["embed_tokens", "lm_head"]),
                component("adapter", claims=lambda _config: ["language_model.embed_tokens"]),
            ),
        ),
    )


def refusal(text: str, *overrides: str) -> str:
    """What the user reads of a wrong manifest, with the `usual` plugins."""
    Path("m.toml").write_text(text)
    with pytest.raises(ManifestError) as caught:
        load("m.toml", overrides, usual())
    return str(caught.value)
