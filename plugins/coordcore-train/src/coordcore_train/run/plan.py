"""The plan of a run: everything it is made of, built. Importing this imports torch."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import attrs

from coordcore import kinds
from coordcore.assemble import Assembly
from coordcore.components import BuildContext
from coordcore.coords import CoordVocab, Quantisation
from coordcore.manifest.sections import Manifest
from coordcore.protocols import DataBuilder, LossTerm, ModelSurgery, OptimizerFactory, TemplateAdapter
from coordcore_train.objective import Objective
from coordcore_train.surgery.rows import as_model_surgery


@attrs.frozen(kw_only=True, slots=False)
class Plan(Assembly):
    """A run's components and the checkpoint folder that is trained, `base`, already expanded."""

    base: Path

    @property
    def run_dir(self) -> Path:
        return self.context.run_dir

    @property
    def vocab(self) -> CoordVocab | None:
        return self.context.vocab

    @property
    def quantisation(self) -> Quantisation:
        return self.context.quantisation

    @cached_property
    def data(self) -> DataBuilder:
        """The data builder. Raises InputError for data that is not there or not right."""
        return self.one(kinds.DATA)  # type: ignore[no-any-return]

    @cached_property
    def template(self) -> TemplateAdapter:
        return self.one(kinds.TEMPLATE)  # type: ignore[no-any-return]

    @cached_property
    def surgeries(self) -> tuple[ModelSurgery, ...]:
        """The surgeries in manifest order, each in the form that the engine calls."""
        return tuple(as_model_surgery(built, seed=self.context.seed) for built in self.all(kinds.SURGERY))

    @cached_property
    def optimizer(self) -> OptimizerFactory:
        return self.one(kinds.OPTIMIZER)  # type: ignore[no-any-return]

    @cached_property
    def objective(self) -> Objective:
        """The loss terms of every [loss] section. Raises InputError for terms that do not fit together."""
        terms: list[tuple[str, LossTerm]] = []
        for selected in self.manifest.of(kinds.LOSS):
            built = self.build(selected)
            terms += [
                (selected.component.name, term) for term in (built if isinstance(built, list | tuple) else [built])
            ]
        return Objective(terms, self.vocab)

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
    """Build every component but the data builder and the evaluators, which are built at their first use.

    Raises InputError, with the section's path, for what a component refuses.
    """
    context = BuildContext(
        run_dir=run_dir,
        seed=manifest.train.seed,
        quantisation=quantisation,
        vocab=vocab,
        rank=rank,
        world_size=world_size,
    )
    plan = Plan(manifest=manifest, context=context, base=base)
    for kind in (kinds.TEMPLATE, kinds.SURGERY, kinds.LOSS, kinds.OPTIMIZER):
        plan.all(kind)
    _ = plan.objective
    return plan
