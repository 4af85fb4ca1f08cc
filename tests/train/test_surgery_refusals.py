"""What a row surgery states or gives wrongly stops it at its installation, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import support
import torch
from engine_fakes import FakeRows
from torch import nn
from transformers import AutoModelForImageTextToText

from coordcore import kinds
from coordcore.errors import InputError, RunError
from coordcore.manifest import Manifest
from coordcore.protocols import AddedRows
from coordcore_train.checkpoint.folder import read_vocab
from coordcore_train.run.plan import plan_of
from coordcore_train.surgery.bind import bind_for_training
from coordcore_train.surgery.rows import LiveRows, as_model_surgery
from coordcore_train.surgery.saved import install


class Rows(FakeRows):
    """Whose head rows a test may change."""

    change: Callable[[AddedRows], Any] = staticmethod(lambda added: added)

    def head_rows(self, module: Any) -> Any:
        return type(self).change(super().head_rows(module))


def changed(change: Callable[[AddedRows], Any]) -> Any:
    return type("Changed", (Rows,), {"change": staticmethod(change)})()


def model_of(base: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(base)


WHERE = "row_offset: the rows for the output head"
GIVEN: dict[str, tuple[Callable[[AddedRows], Any], str]] = {
    "int32 ids": (
        lambda added: attrs.evolve(added, ids=added.ids.int()),
        r"ids must be int64, got torch\.int32; make it",
    ),
    "float64 ids": (
        lambda added: attrs.evolve(added, ids=added.ids.double()),
        r"ids must be int64, got torch\.float64",
    ),
    "bool ids": (lambda added: attrs.evolve(added, ids=added.ids > 3), r"ids must be int64, got torch\.bool"),
    "ids in a list": (lambda added: attrs.evolve(added, ids=added.ids.tolist()), "ids must be a tensor, got list"),
    "ids in a table": (
        lambda added: attrs.evolve(added, ids=added.ids[None]),
        r"ids must have one dimension, .* \(1, 1000\)",
    ),
    "rows in a list": (lambda added: attrs.evolve(added, rows=[1.0]), "rows must be a tensor, got list"),
    "rows of integers": (
        lambda added: attrs.evolve(added, rows=added.rows.long()),
        r"rows must be floating-point, got",
    ),
    "rows elsewhere": (
        lambda added: attrs.evolve(added, rows=added.rows.to("meta")),
        "rows are on meta, the matrix on cpu",
    ),
    "too few rows": (lambda added: attrs.evolve(added, rows=added.rows[1:]), "a row for each id"),
    "a pair": (
        lambda added: (added.ids, added.rows),
        r"must be coordcore\.protocols\.AddedRows\(ids=\.\.\., .* got tuple",
    ),
}


@pytest.mark.parametrize(("change", "message"), GIVEN.values(), ids=GIVEN.keys())
def test_rows_that_do_not_fit_are_refused(change: Callable[[AddedRows], Any], message: str, coord_base: Path) -> None:
    model = model_of(coord_base)
    with pytest.raises(InputError, match=rf"^{WHERE}.* {message}"):
        LiveRows(changed(change)).install(model, read_vocab(coord_base))
    assert not hasattr(model, "row_offset")


def test_rows_that_cannot_be_had_are_told(coord_base: Path) -> None:
    with pytest.raises(InputError, match=r"^row_offset: head_rows raised ZeroDivisionError: division by zero$"):
        LiveRows(changed(lambda added: 1 / 0)).install(model_of(coord_base), read_vocab(coord_base))


@pytest.mark.parametrize("made", [None, torch.ones(2), {"rows": 1}, nn.Linear])
def test_what_is_no_module_is_refused(made: Any, coord_base: Path) -> None:
    surgery = type("NoModule", (FakeRows,), {"module": lambda self, facts: made})()
    with pytest.raises(
        InputError, match=rf"^row_offset: module must give a torch\.nn\.Module, got {type(made).__name__}$"
    ):
        LiveRows(surgery).install(model_of(coord_base), read_vocab(coord_base))


@pytest.mark.parametrize("name", ["config", "model", "lm_head", "forward", "generate"])
def test_a_name_that_the_model_has_is_refused(name: str, coord_base: Path) -> None:
    with pytest.raises(RuntimeError, match=rf"already has a {name}; .* give the surgery another$"):
        LiveRows(FakeRows(name=name)).install(model_of(coord_base), read_vocab(coord_base))


@pytest.mark.parametrize("name", ["q_proj", "proj", "embed_tokens"])
def test_a_name_that_peft_would_find_elsewhere_is_refused(name: str, coord_base: Path) -> None:
    with pytest.raises(RuntimeError, match=rf"has a module \S*{name}, which PEFT would train and save"):
        LiveRows(FakeRows(name=name)).install(model_of(coord_base), read_vocab(coord_base))


@pytest.mark.parametrize("name", ["", "two words", "a.b", 3, None])
def test_a_name_is_a_python_name(name: Any) -> None:
    with pytest.raises(InputError, match=r"^the surgery's name must be a Python name"):
        as_model_surgery(FakeRows(name=name))


@pytest.mark.parametrize("tag", ["", None, 3, "llm", "vision", "aligner"])
def test_a_tag_names_parameters_of_its_own(tag: Any) -> None:
    with pytest.raises(InputError, match=r"^the tag "):
        as_model_surgery(FakeRows(tag=tag))


# --- by the manifest, with the section and the plugin -----------------------------------------------------------------


def with_builds(manifest: Manifest, kind: kinds.Kind, *builds: Callable[[Any, Any], Any]) -> Manifest:
    """The manifest with a component of `kind` for each of `builds`, of the distribution "strange"."""
    [first, *_] = manifest.of(kind)
    components = [
        attrs.evolve(
            first, distribution="strange", component=attrs.evolve(first.component, name=f"mine_{i}", build=build)
        )
        for i, build in enumerate(builds)
    ]
    others = [selected for selected in manifest.selected if selected.kind != kind]
    return attrs.evolve(manifest, selected=(*others, *components))


def manifest_of(folder: Path, base: Path) -> Manifest:
    return support.loaded(folder, base, surgery={"fake_rows": {}}).manifest


def test_what_cannot_be_installed_is_told_with_section_and_plugin(coord_base: Path, tmp_path: Path) -> None:
    run = with_builds(
        manifest_of(tmp_path, coord_base), kinds.SURGERY, lambda _config, _context: FakeRows(name="model")
    )
    model = model_of(coord_base)

    class Processor:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(coord_base)

    with pytest.raises(RunError, match=r"^surgery\.mine_0: .* already has a model; .* \(built by plugin strange\)$"):
        install(model, Processor(), plan_of(run, tmp_path, coord_base), coord_base)


def test_two_surgeries_of_the_head_are_both_named(coord_base: Path, tmp_path: Path) -> None:
    run = with_builds(
        manifest_of(tmp_path, coord_base),
        kinds.SURGERY,
        lambda _config, _context: FakeRows(name="first_rows"),
        lambda _config, _context: FakeRows(name="other_table"),
    )
    plan, model = plan_of(run, tmp_path, coord_base), model_of(coord_base)
    for surgery in plan.surgeries:
        surgery.install(model, plan.vocab)
    with pytest.raises(RunError, match=r"^surgery\.mine_0 and surgery\.mine_1 all add rows to the output head"):
        bind_for_training(model, plan, torch.device("cpu"))


BUILT: dict[str, tuple[kinds.Kind, Any, str]] = {
    "no surgery": (kinds.SURGERY, 3, "returned 3, which is no RowSurgery and no ModelSurgery: it has no name, no tag"),
    "no loss": (kinds.LOSS, None, "returned None, which is no LossTerm: it has no scope, no weights, no needs"),
    "half a loss": (kinds.LOSS, [FakeRows()], "is no LossTerm: it has no scope"),
    "no loss at all": (kinds.LOSS, [], "returned no loss term at all"),
    "a class": (kinds.SURGERY, FakeRows, "which is no RowSurgery and no ModelSurgery: it has no name"),
    "no optimizer": (kinds.OPTIMIZER, "adam", "returned 'adam', which is no OptimizerFactory: it has no __call__"),
    "no template": (kinds.TEMPLATE, {}, "which is no TemplateAdapter: it has no apply"),
}


@pytest.mark.parametrize(("kind", "built", "message"), BUILT.values(), ids=BUILT.keys())
def test_what_a_component_builds_wrongly_is_told(
    kind: kinds.Kind, built: Any, message: str, coord_base: Path, tmp_path: Path
) -> None:
    run = with_builds(manifest_of(tmp_path, coord_base), kind, lambda _config, _context: built)
    with pytest.raises(RunError, match=rf"^{kind}\.mine_0: build of plugin strange .*{message}.*; tell its authors$"):
        plan_of(run, tmp_path, coord_base)


def test_a_data_builder_is_looked_at_too(coord_base: Path, tmp_path: Path) -> None:
    run = with_builds(manifest_of(tmp_path, coord_base), kinds.DATA, lambda _config, _context: [1, 2])
    with pytest.raises(RunError, match=r"^data\.mine_0: build of plugin strange .*no DataBuilder: it has no train"):
        _ = plan_of(run, tmp_path, coord_base).data


def test_what_a_build_raises_is_told(coord_base: Path, tmp_path: Path) -> None:
    run = with_builds(manifest_of(tmp_path, coord_base), kinds.LOSS, lambda _config, _context: {}["x"])
    with pytest.raises(
        RunError, match=r"^loss\.mine_0: build of plugin strange raised KeyError: 'x'; tell its authors$"
    ):
        plan_of(run, tmp_path, coord_base)


def test_a_term_that_is_stated_wrongly_is_told_with_its_plugin(coord_base: Path, tmp_path: Path) -> None:
    from coordcore import FunctionTerm

    term = FunctionTerm(fn=lambda seen: seen.logits[:, 0], needs={"lse"})
    run = with_builds(manifest_of(tmp_path, coord_base), kinds.LOSS, lambda _config, _context: term)
    with pytest.raises(InputError, match=r"^loss\.mine_0: .* got 'lse' \(built by plugin strange\)$"):
        plan_of(run, tmp_path, coord_base)


def test_a_loss_that_trains_nothing_is_told_with_its_plugin(coord_base: Path, tmp_path: Path) -> None:
    from coordcore import FunctionTerm

    term = FunctionTerm(fn=lambda seen: seen.logits[:, 0].detach())
    run = with_builds(manifest_of(tmp_path, coord_base), kinds.LOSS, lambda _config, _context: term)
    plan, model = plan_of(run, tmp_path, coord_base), model_of(coord_base)
    for surgery in plan.surgeries:
        surgery.install(model, plan.vocab)
    with pytest.raises(RunError, match=r"^loss\.mine_0: .* no gradient, .* \(built by plugin strange\)$"):
        bind_for_training(model, plan, torch.device("cpu"))
