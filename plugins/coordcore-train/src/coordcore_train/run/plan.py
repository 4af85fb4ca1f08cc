"""The plan of a run: everything it is made of, built. Importing this imports torch."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import attrs

from coordcore import kinds
from coordcore.assemble import Assembly, answer_format
from coordcore.components import BuildContext, Selected
from coordcore.coords import CoordFormat, CoordVocab, MissingCoordTokensError
from coordcore.errors import InputError, RunError
from coordcore.manifest import Manifest, load
from coordcore.protocols import DataBuilder, ExampleSource, LossTerm, ModelSurgery, OptimizerFactory, TemplateAdapter
from coordcore.quantisation import Quantisation, quantisation
from coordcore.records.answers import Format
from coordcore_train.checkpoint.base import base_checkpoint
from coordcore_train.checkpoint.code import require_no_code
from coordcore_train.checkpoint.folder import read_vocab
from coordcore_train.objective import Objective
from coordcore_train.run.built import asked, built, named, of_plugin
from coordcore_train.run.folder import STATE, RunDir
from coordcore_train.run.given import counted
from coordcore_train.run.launch import rank, world_size
from coordcore_train.surgery.rows import as_model_surgery


@attrs.frozen(kw_only=True, slots=False)
class Plan(Assembly):
    """A run's components and the checkpoint folder that is trained, `base`, already expanded."""

    base: Path

    @property
    def run_dir(self) -> Path:
        return self.context.run_dir

    @property
    def fingerprint(self) -> str:
        """Of the manifest that the run folder was made for."""
        return str(RunDir(self.run_dir).state()["fingerprint"])

    @property
    def vocab(self) -> CoordVocab | None:
        return self.context.vocab

    @property
    def coords(self) -> CoordFormat:
        return self.context.coords

    @property
    def format(self) -> Format:
        return self.context.format

    @property
    def quantisation(self) -> Quantisation:
        return self.context.quantisation

    @property
    def trusted(self) -> bool:
        """Whether Python that lies in the base may run."""
        return self.manifest.model.trust_remote_code

    def build(self, selected: Selected) -> Any:
        """What a component builds. Raises InputError and RunError, with the section's path, as `run.built` says."""
        return built(selected, super().build)

    @cached_property
    def data(self) -> DataBuilder:
        """The data builder. Raises InputError for data that is not there or not right."""
        return self.one(kinds.DATA)

    @cached_property
    def validation(self) -> ExampleSource | None:
        """The examples held out, None where there are none. Raises InputError as `data`."""
        source = asked(self.who(kinds.DATA), self.data.validation, "validation()")
        return source if source is not None and counted(self.who(kinds.DATA), source, "validation()") > 0 else None

    @property
    def training(self) -> ExampleSource:
        """The examples to train on. Raises InputError as `data`, RunError for what is no source."""
        source: ExampleSource = asked(self.who(kinds.DATA), self.data.train, "train()")
        counted(self.who(kinds.DATA), source, "train()")
        return source

    def who(self, kind: kinds.Kind) -> str:
        """What messages call the component of a kind of which there is one: its section and its plugin."""
        [selected] = self.manifest.of(kind)
        return named(selected)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The groups of examples that the data builder wants metrics to tell apart."""
        groups = getattr(self.data, "groups", ())
        if isinstance(groups, str) or not all(isinstance(group, str) for group in groups):
            raise RunError(
                f"{self.who(kinds.DATA)}: its groups must be a sequence of names, got {groups!r}; tell its authors"
            )
        return tuple(groups)

    @cached_property
    def template(self) -> TemplateAdapter:
        return self.one(kinds.TEMPLATE)

    @cached_property
    def surgeries(self) -> tuple[ModelSurgery, ...]:
        """The surgeries in manifest order, each in the form that the engine calls."""
        surgeries = []
        for selected in self.manifest.of(kinds.SURGERY):
            form = self.build(selected)
            with of_plugin(selected, path=f"{selected.path}: "):
                surgeries.append(as_model_surgery(form, seed=self.context.seed))
        return tuple(surgeries)

    @cached_property
    def optimizer(self) -> OptimizerFactory:
        return self.one(kinds.OPTIMIZER)

    @cached_property
    def terms(self) -> list[tuple[Selected, list[LossTerm]]]:
        """The terms of every [loss] section. Raises InputError, with the plugin's name, for what is no right term."""
        found: list[tuple[Selected, list[LossTerm]]] = []
        for selected in self.manifest.of(kinds.LOSS):
            offered = self.build(selected)
            terms = list(offered) if isinstance(offered, list | tuple) else [offered]
            with of_plugin(selected):
                Objective([(selected.component.name, term) for term in terms], self.vocab)
            found.append((selected, terms))
        return found

    @cached_property
    def objective(self) -> Objective:
        """The loss terms of every [loss] section. Raises InputError for terms that do not fit together."""
        named = [(selected.component.name, term) for selected, terms in self.terms for term in terms]
        return Objective(named, self.vocab)

    @property
    def modules_to_save(self) -> list[str]:
        """Modules the surgeries add, which the tuner trains and saves whole."""
        return [name for surgery in self.surgeries for name in surgery.modules_to_save]


def plan_of(manifest: Manifest, run_dir: Path, base: Path) -> Plan:
    """The plan of a prepared run, for this rank: every component is built but the data builder and the evaluators.

    Those are built at their first use. Raises InputError, with the section's path, for what a component refuses, and
    for Python in `base` that the manifest does not trust: whoever loads the base of a run comes by here.
    """
    require_no_code(base, trusted=manifest.model.trust_remote_code)
    try:
        vocab: CoordVocab | None = read_vocab(base, manifest.coords.format)
    except MissingCoordTokensError:
        vocab = None
    context = BuildContext(
        run_dir=run_dir,
        seed=manifest.train.seed,
        quantisation=quantisation(manifest.coords.quantisation),
        vocab=vocab,
        coords=manifest.coords.format,
        format=answer_format(manifest),
        rank=rank(),
        world_size=world_size(),
    )
    plan = Plan(manifest=manifest, context=context, base=base)
    for kind in (kinds.TEMPLATE, kinds.SURGERY, kinds.LOSS, kinds.OPTIMIZER):
        plan.all(kind)
    _ = plan.objective
    return plan


def load_run(run_dir: Path) -> Plan:
    """The plan of an existing run folder, from its resolved manifest. Raises InputError when it is none."""
    folder = RunDir(run_dir)
    state = folder.state()
    if not folder.manifest.is_file() or "base" not in state:
        lacks = STATE if folder.manifest.is_file() else folder.manifest.name
        raise InputError(f"{run_dir} is not a coordcore run folder: it has no {lacks}")
    manifest = load(folder.manifest).manifest
    base = Path(str(state["base"]))
    if not base.is_dir():  # the cache was emptied: the same expansion gives the same rows again
        base = base_checkpoint(manifest)
    return plan_of(manifest, run_dir, base)
