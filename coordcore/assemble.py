"""Builds the components a manifest selects, in order: the plan of a run. Imports torch through the components."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs

from coordcore.components import BuildContext, Kind, Selected
from coordcore.coords import CoordVocab, Quantisation
from coordcore.manifest.model import Manifest
from coordcore.objective import Objective
from coordcore.protocols import DataBuilder, LossTerm, ModelSurgery, OptimizerFactory, TemplateAdapter
from coordcore.records import InputError


@attrs.frozen(kw_only=True, slots=False)
class Plan:
    """Everything a run is made of, built. `base` is the checkpoint folder that is trained, already expanded.

    The data builder is built at its first use: merging and inference do without it, and without its files. `build`
    builds any other component of the manifest, such as an evaluator.
    """

    manifest: Manifest
    run_dir: Path
    base: Path
    vocab: CoordVocab | None
    quantisation: Quantisation
    build: Callable[[Selected], Any] = attrs.field(repr=False)
    template: TemplateAdapter
    surgeries: tuple[ModelSurgery, ...]
    objective: Objective
    optimizer: OptimizerFactory

    @cached_property
    def data(self) -> DataBuilder:
        """The data builder. Raises InputError for data that is not there or not right."""
        (selected,) = self.manifest.of(Kind.DATA)
        return self.build(selected)  # type: ignore[no-any-return]

    @property
    def modules_to_save(self) -> list[str]:
        """Modules the surgeries add, which the tuner trains and saves whole."""
        return [name for surgery in self.surgeries for name in surgery.modules_to_save]


def assemble(
    manifest: Manifest,
    *,
    run_dir: Path,
    base: Path,
    vocab: CoordVocab | None,
    quantisation: Quantisation,
    rank: int = 0,
    world_size: int = 1,
) -> Plan:
    """Build every selected component. Raises InputError, with the section's path, for what a component refuses."""
    context = BuildContext(
        run_dir=run_dir,
        seed=manifest.train.seed,
        quantisation=quantisation,
        vocab=vocab,
        rank=rank,
        world_size=world_size,
    )

    def build(selected: Selected) -> Any:
        try:
            return selected.component.build(selected.config, context)
        except InputError as error:
            raise InputError(f"{selected.path}: {error}") from error

    def only(kind: Kind) -> Any:
        (selected,) = manifest.of(kind)
        return build(selected)

    template = only(Kind.TEMPLATE)
    surgeries = tuple(build(selected) for selected in manifest.of(Kind.SURGERY))
    terms: list[tuple[str, LossTerm]] = []
    for selected in manifest.of(Kind.LOSS):
        built = build(selected)
        for term in built if isinstance(built, list | tuple) else [built]:
            terms.append((selected.component.name, term))
    return Plan(
        manifest=manifest,
        run_dir=run_dir,
        base=base,
        vocab=vocab,
        quantisation=quantisation,
        build=build,
        template=template,
        surgeries=surgeries,
        objective=Objective(terms, vocab),
        optimizer=only(Kind.OPTIMIZER),
    )
