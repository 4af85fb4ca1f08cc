"""The manifest keys of `[data.mixture]`, and how the settings of its sources are read. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs
from attrs.validators import gt, le, optional

from coordcore import kinds, option
from coordcore.components import Selected
from coordcore.discovery import discover
from coordcore.guard import guarded, told
from coordcore.lifecycle import Hooks
from coordcore.manifest.loading import unknown
from coordcore.manifest.structure import Structurer

MOST_RECORDS = 10**9
"""In an epoch."""

NAME = "mixture"
"""The component, which is no source of itself."""


def _is_alone(instance: Source, _attribute: Any, records: int | None) -> None:
    if records is not None and instance.weight is not None:
        raise ValueError(f"a source has a weight or a number of records, got {instance.weight} and {records}; keep one")


@attrs.frozen(kw_only=True)
class Source:
    """`[data.mixture.sources.<name>]`: a data builder with its settings, and how much of it an epoch holds.

    settings: as the manifest's table they are structured as what the builder's component declares.
    chosen: that component, with them. hooks: of the plugin that offers it.
    """

    builder: str = option(help="the data builder, as it stands in [data.<builder>]")
    weight: float | None = option(
        default=None,
        validator=optional([gt(0), le(1e9)]),
        help="share of the epoch among the sources with a weight, which in all give as many records as they hold",
    )
    records: int | None = option(
        default=None,
        validator=[optional([gt(0), le(MOST_RECORDS)]), _is_alone],
        help="records in an epoch; without this and without a weight, each of them once",
    )
    max_pixels: int | None = option(
        default=None,
        validator=optional([gt(0), le(10**12)]),
        help="resize this source's images to at most so many pixels; train.max_pixels holds for all of them",
    )
    settings: Any = option(factory=dict, help="the keys of [data.<builder>]")
    chosen: Selected = attrs.field(metadata={"key": False}, eq=False, repr=False)
    hooks: Hooks = attrs.field(metadata={"key": False}, eq=False, repr=False)

    @classmethod
    def from_manifest(cls, table: dict[str, Any], structurer: Structurer) -> Any:
        """The source that a table of the manifest describes; `attrs.NOTHING` where something is wrong in it."""
        before = len(structurer.problems)
        given = structurer.values(table, cls)
        if "builder" not in given:
            return attrs.NOTHING
        plugins, name = structurer.plugins or discover(), given["builder"]
        if name == NAME or name not in plugins.names(kinds.DATA):
            own = "a mixture is no source of a mixture; name its sources here, beside the others"
            structurer.report(("builder",), own if name == NAME else unknown(kinds.DATA, name, plugins))
            return attrs.NOTHING
        component, distribution = plugins.get(kinds.DATA, name), plugins.distribution(kinds.DATA, name)
        with guarded() as watch:  # as the core does with a section of the builder's own
            settings = structurer.structure(("settings",), given.get("settings", {}), component.config)
            if len(structurer.problems) == before:
                chosen = Selected.asked(kinds.DATA, component, settings, distribution)
        if watch.error is not None:
            fault = f"plugin {distribution} cannot take these settings: {told(watch.error)}"
            structurer.report(("settings",), f"{fault}; tell its authors, or leave the source out")
        if len(structurer.problems) > before:
            return attrs.NOTHING
        return cls(**{**given, "settings": settings}, chosen=chosen, hooks=plugins.hooks([distribution]))


def _are_sources(_instance: MixtureConfig, _attribute: Any, sources: Mapping[str, Source]) -> None:
    if not sources:
        raise ValueError("a mixture needs a source, got none; add [data.mixture.sources.<name>] with a builder")
    for name in sources:
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
            raise ValueError(f"a source's name is a letter, then letters, digits and underscores, got {name!r}")
    weights = {name: source.weight for name, source in sources.items() if source.weight is not None}
    if len(weights) == 1 < len(sources):
        (alone,) = weights
        why = f"a weight is a share among sources that have one, got one for {alone} alone"
        raise ValueError(f"{why}; give others one too, or write {alone}'s records in an epoch")
    for name, weight in weights.items():
        if weight < sum(weights.values()) / MOST_RECORDS:
            share = f"less than one record in {MOST_RECORDS:,}, got a weight of {weight} of {sum(weights.values()):g}"
            raise ValueError(f"{name} would give {share}; give it more, or leave the source out")


@attrs.frozen(kw_only=True)
class MixtureConfig:
    """`[data.mixture]`: several data builders in one run."""

    sources: dict[str, Source] = option(validator=_are_sources, help="a table for each source, by its name")
