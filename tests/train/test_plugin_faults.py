"""What optimizers, template adapters, losses and evaluators do wrongly in a run stops it, with section and cure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy
import pytest
import support
import torch
from torch import Tensor

from coordcore import FunctionTerm, kinds
from coordcore.components import Selected
from coordcore.coords import CoordVocab
from coordcore.errors import RunError
from coordcore.kinds import Kind
from coordcore.manifest import Loaded
from coordcore.protocols import EvaluationResult, TaggedParameter
from coordcore_train.objective import LinearHead, Objective, make_targets
from coordcore_train.objective.proof import prove_term
from coordcore_train.run.evaluate import _result
from coordcore_train.run.session import run
from coordcore_train.swift.optimizer import check_groups
from coordcore_train.swift.template import mislabelled


def with_built(loaded: Loaded, kind: Kind, thing: Any) -> Loaded:
    """The same run, whose component of a kind builds another thing."""

    def other(selected: Selected) -> Selected:
        component = attrs.evolve(selected.component, build=lambda _config, _context: thing)
        return attrs.evolve(selected, component=component)

    manifest = loaded.manifest
    selected = tuple(other(item) if item.kind == kind else item for item in manifest.selected)
    return attrs.evolve(loaded, manifest=attrs.evolve(manifest, selected=selected))


def fails(loaded: Loaded, folder: Path, message: str) -> None:
    with pytest.raises(RunError, match=message):
        run(loaded, output=folder)
    assert not list(folder.glob("checkpoints/checkpoint-*"))


# --- optimizers -------------------------------------------------------------------------------------------------------


def sgd(parameters: Any) -> torch.optim.SGD:
    return torch.optim.SGD([entry.parameter for entry in parameters], lr=0.1)


def negative(parameters: Any) -> torch.optim.SGD:
    optimizer = sgd(parameters)
    optimizer.param_groups[0]["lr"] = -1.0
    return optimizer


def without_rate(parameters: Any) -> torch.optim.SGD:
    optimizer = sgd(parameters)
    optimizer.param_groups[0]["lr"] = None  # as transformers' Adafactor, which finds its own
    return optimizer


def freezing(parameters: Any) -> torch.optim.SGD:
    parameters[0].parameter.requires_grad_(False)
    return sgd(parameters)


OPTIMIZERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "none": (lambda _: None, "the factory gave None, which is no torch.optim.Optimizer"),
    "a class": (lambda _: torch.optim.SGD, "which is no torch.optim.Optimizer"),
    "a closure": (
        lambda parameters: torch.optim.LBFGS([entry.parameter for entry in parameters]),
        "LBFGS.step needs closure, which training does not give",
    ),
    "a negative rate": (negative, "group 0 has the learning rate -1.0; it must be a finite number >= 0"),
    "no rate": (without_rate, "group 0 has the learning rate None; it must be a finite number >= 0"),
    "frozen": (freezing, "first was frozen by the factory"),
}


@pytest.mark.parametrize(("factory", "message"), OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_what_is_no_optimizer_is_told(factory: Callable[[Any], Any], message: str) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameters = [TaggedParameter(name="first", parameter=parameter, tag="llm", decay=True)]
    with pytest.raises(RunError, match=message):
        check_groups(parameters, factory(parameters))


def test_an_optimizer_passes() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameters = [TaggedParameter(name="first", parameter=parameter, tag="llm", decay=True)]
    check_groups(parameters, sgd(parameters))
    check_groups(parameters, torch.optim.AdamW([parameter], lr=torch.tensor(0.1)))


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda *_: {}["vision"], "the factory raised KeyError: 'vision'; tell"),
        (lambda *_: None, "the factory gave None"),
    ],
)
def test_a_run_names_the_optimizer(coord_base: Path, tmp_path: Path, factory: Any, message: str) -> None:
    loaded = with_built(support.loaded(tmp_path, coord_base), kinds.OPTIMIZER, factory)
    fails(loaded, tmp_path / "run", rf"^optimizer\.adamw of plugin coordcore: {message}")


# --- template adapters ------------------------------------------------------------------------------------------------


def raising(_template: Any) -> None:
    raise SystemExit(0)


def relabelling(template: Any) -> None:
    encode = template.encode

    def changed(*args: Any, **kwargs: Any) -> Any:
        row = encode(*args, **kwargs)
        return {**row, "labels": row["input_ids"]}

    template.encode = changed


def inside(template: Any) -> None:
    encode = template._encode

    def changed(inputs: Any) -> Any:
        row = encode(inputs)
        return {**row, "labels": row["input_ids"]}

    template._encode = changed


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (raising, "apply raised SystemExit: 0; tell its authors"),
        (relabelling, "it changed the labels that encode had made"),
        (inside, r"it makes the question a target, from its first token on \(.*\); leave labels alone"),
    ],
)
def test_a_run_names_the_template_adapter(coord_base: Path, tmp_path: Path, apply: Any, message: str) -> None:
    loaded = with_built(support.loaded(tmp_path, coord_base), kinds.TEMPLATE, SimpleNamespace(apply=apply))
    fails(loaded, tmp_path / "run", rf"^template\.plain of plugin coordcore: {message}")


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        ([-100, -100, 7], ""),
        ([-100, -100, -100], ""),
        ([-100, 5, 6], "the label 5 where the input has 6, at token 1"),
        ([5, 6, 7], "the question a target"),
    ],
)
def test_labels_are_those_of_the_input(labels: list[int], fault: str) -> None:
    assert mislabelled(labels, [5, 6, 7]).startswith(fault)
    assert bool(mislabelled(labels, [5, 6, 7])) == bool(fault)


# --- losses -----------------------------------------------------------------------------------------------------------

VOCAB = CoordVocab(ids=range(10, 1010))


@pytest.mark.parametrize("error", [KeyError("size"), SystemExit(0)], ids=repr)
def test_what_a_term_raises_in_training_names_its_section(error: BaseException) -> None:
    def fails_late(_seen: Any) -> Tensor:
        raise error

    objective = Objective([("mine", FunctionTerm(fn=fails_late))], VOCAB)
    targets = make_targets(torch.tensor([[-100, 12, 700]]), VOCAB)
    with pytest.raises(
        RunError, match=rf"^loss\.mine: the term raised {type(error).__name__}: .*; it must take any pos"
    ):
        objective(torch.randn(1, 3, 4), LinearHead(torch.nn.Linear(4, 1010, bias=False)), targets)


def test_a_gradient_that_is_no_number_stops_the_run_at_its_start() -> None:
    term = FunctionTerm(fn=lambda seen: (seen.logits[:, 0] * 0).square().sqrt())
    with pytest.raises(RunError, match=r"^loss\.mine: the gradient has NaN or infinity, .*; keep roots, norms"):
        prove_term("mine", term, VOCAB, vocabulary_size=1010, steps=3, device=torch.device("cpu"))


# --- evaluators -------------------------------------------------------------------------------------------------------

RESULTS: dict[str, tuple[Any, str]] = {
    "nothing": (None, "it gave None; return a coordcore.protocols.EvaluationResult"),
    "a dict": ({"ap": 1.0}, "it gave a table"),
    "no number": (EvaluationResult(metrics={"ap": None}), "metric 'ap' must be a number, got None"),
    "a word": (EvaluationResult(metrics={"ap": "good"}), "metric 'ap' must be a number"),
    "another name": (EvaluationResult(metrics={"ap": 1.0}, shown=["AP"]), r"names of its metrics \(ap\), got \['AP'\]"),
    "one name": (EvaluationResult(metrics={"ap": 1.0}, shown="ap"), "shown must be a list"),
    "one file": (EvaluationResult(metrics={}, files="a.html"), "files must be a list of paths"),
}


@pytest.mark.parametrize(("found", "message"), RESULTS.values(), ids=RESULTS.keys())
def test_what_is_no_result_is_told(found: Any, message: str) -> None:
    with pytest.raises(RunError, match=rf"^eval\.mine of plugin strange: .*{message}"):
        _result("eval.mine of plugin strange", found)


def test_metrics_become_plain_numbers() -> None:
    found = EvaluationResult(metrics={"ap": numpy.float32(0.5), "w": torch.tensor(0.25), "n": 3}, shown=["ap"])
    assert json.dumps(dict(_result("eval.mine", found).metrics)) == '{"ap": 0.5, "w": 0.25, "n": 3}'
