"""The conformance kit finds what is wrong: one broken component for each check."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch

from coordcore import (
    COORD_SUPERVISION,
    COORD_TOKENS,
    BuildContext,
    Component,
    Example,
    FunctionTerm,
    Geometry,
    hookimpl,
    kinds,
    option,
)
from coordcore.builtins import AdamW, PlainTemplate
from coordcore.components import LENGTHS
from coordcore.errors import RunError
from coordcore.quantisation import DEFAULT_QUANTISATION, require_same
from coordcore.testing import checks as common
from coordcore.testing import (
    checks_for,
    components_of,
    data_checks,
    loss_checks,
    optimizer_checks,
    parametrize_with_checks,
    plugin,
    surgery_checks,
    template_checks,
)
from coordcore.testing.plugin import TinyBoxes


@attrs.frozen(kw_only=True)
class Config:
    """No setting."""


def component(build: Callable[[], Any], **fields: Any) -> Component:
    return Component(**{
        "name": "mine", "config": Config, "build": lambda config, context: build(), "summary": "of a test", **fields
    })  # fmt: skip


# --- every kind -----------------------------------------------------------------------------------------------------


@attrs.define(kw_only=True)
class Changeable:
    pass


@attrs.frozen(kw_only=True)
class Silent:
    key: int = 1


@attrs.frozen(kw_only=True)
class Converting:
    """What is read is not what was written."""

    key: int = attrs.field(default=1, converter=lambda value: value + 1, metadata={"help": "a key"})


@attrs.frozen(kw_only=True)
class Required:
    key: int = option(help="a key without a default")


@attrs.frozen(kw_only=True)
class Heavy:
    __module__ = "coordcore_train.objective"  # as if it stood there, beside torch


@pytest.mark.parametrize(
    ("check", "fields", "message"),
    [
        (common.check_config, {"config": Changeable}, "can be changed after it was made"),
        (common.check_config, {"config": Silent}, "key has no help"),
        (common.check_config, {"config": Required}, "required keys; give the check a config"),
        (common.check_config_survives_a_manifest, {"config": Converting}, "a manifest gives back"),
        (common.check_summary, {"summary": " "}, "must be one line"),
        (common.check_capabilities, {"provides": lambda config: "coord-tokens"}, "returned the string 'coord-tokens'"),
        (common.check_found_by_name, {}, "no installed distribution offers 'mine'"),
        (common.check_imports_no_torch, {"config": Heavy}, "import them inside build"),
        (common.check_build, {}, "build returned None"),
    ],
)
def test_a_broken_component_is_found(check: Callable[..., None], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(component(lambda: None, **fields))


# --- losses ---------------------------------------------------------------------------------------------------------


def right(positions: Any) -> torch.Tensor:
    return positions.logits.logsumexp(-1) - positions.logits.gather(-1, positions.bins[:, None]).squeeze(-1)


def in_place(positions: Any) -> torch.Tensor:
    with torch.no_grad():
        positions.values.add_(1)
    return right(positions)


class WrongParts(FunctionTerm):
    def __call__(self, positions: Any) -> dict[str, torch.Tensor]:
        return {"another": right(positions)}


def test_a_right_loss_passes_every_check_of_losses() -> None:
    mine = component(lambda: FunctionTerm(fn=right), requires=lambda config: [COORD_TOKENS])
    for check in loss_checks.CHECKS:
        check(mine)


@pytest.mark.parametrize(
    ("check", "term", "message"),
    [
        (loss_checks.check_loss_terms, SimpleNamespace(scope="coord"), "is no LossTerm"),
        (loss_checks.check_loss_terms, FunctionTerm(fn=right, weight=-1.0), "the weight of part 'loss' is -1.0"),
        (loss_checks.check_loss_weights_match, WrongParts(fn=right), r"the term returned \['another'\]"),
        (loss_checks.check_loss_one_value_per_position, FunctionTerm(fn=lambda p: right(p).mean()), r"has shape \(\)"),
        (loss_checks.check_loss_dtype, FunctionTerm(fn=lambda p: right(p).double()), "is torch.float64"),
        (loss_checks.check_loss_finite, FunctionTerm(fn=lambda p: p.logits.exp().sum(-1)), "standard deviation 300"),
        (
            loss_checks.check_loss_gradients_finite,
            FunctionTerm(fn=lambda p: (p.logits - p.logits.mean(-1, keepdim=True)).norm(dim=-1).sqrt()),
            "gradient that is not finite",
        ),
        (loss_checks.check_loss_gradients_finite, FunctionTerm(fn=lambda p: 0 * right(p)), "but no gradient"),
        (
            loss_checks.check_loss_gradient_without_positions,
            FunctionTerm(fn=lambda p: right(p) if len(p.bins) else torch.zeros(0)),
            "cut off the graph",
        ),
        (
            loss_checks.check_loss_independent_of_neighbours,
            FunctionTerm(fn=lambda p: right(p) / right(p).mean()),
            "must not depend on the others",
        ),
        (loss_checks.check_loss_is_pure, FunctionTerm(fn=in_place), "changed positions.values in place"),
        (
            loss_checks.check_loss_is_pure,
            FunctionTerm(fn=lambda p: torch.nn.functional.dropout(right(p), 0.9) + torch.rand(len(p.bins))),
            "other values of loss",
        ),
        (loss_checks.check_loss_propagates_nan, FunctionTerm(fn=lambda p: right(p).nan_to_num()), "let NaN through"),
        (
            loss_checks.check_loss_gradients_finite,
            FunctionTerm(fn=lambda p: right(p).detach()),
            "is cut off the graph",
        ),
        (
            loss_checks.check_loss_position_weights,
            FunctionTerm(fn=right, weigh=lambda t: t.origin.object_size.prod(-1)),
            "where the image or the object is of unknown size",
        ),
        (
            loss_checks.check_loss_position_weights,
            FunctionTerm(fn=right, weigh=lambda t: torch.ones(len(t.bins)) / max(len(t.bins), 1)),
            "may depend on its own example only",
        ),
        (
            loss_checks.check_loss_position_weights,
            FunctionTerm(fn=right, weigh=lambda t: torch.ones(1)),
            r"have shape \(1,\) for 0 positions",
        ),
        (
            loss_checks.check_loss_schedule,
            FunctionTerm(fn=right, schedule=lambda step, total: step - 1),
            r"weights_at\(0, 100\) is {'loss': -1.0}",
        ),
        (
            loss_checks.check_loss_schedule,
            FunctionTerm(fn=right, schedule=lambda step, total: random.random()),
            "another one when it is asked again",
        ),
        (loss_checks.check_loss_capabilities, FunctionTerm(fn=right), "requires=lambda config"),
    ],
)
def test_a_broken_loss_is_found(check: Callable[..., None], term: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(component(lambda: term))


def test_a_loss_that_weighs_and_follows_the_step_passes() -> None:
    mine = component(
        lambda: FunctionTerm(
            fn=lambda p: right(p) * (1 + p.origin.image_size[:, 0].isnan()),
            needs=frozenset({"origin"}),
            weigh=lambda t: (t.origin.object_size.prod(-1) < 1024).float(),
            schedule=lambda step, total: min(step / (0.1 * total), 1.0),
        ),
        requires=lambda config: [COORD_TOKENS],
    )
    for check in loss_checks.CHECKS:
        check(mine)


def test_a_text_loss_that_reads_what_it_did_not_ask_for() -> None:
    mine = component(lambda: FunctionTerm(fn=lambda p: p.logits.logsumexp(-1), scope="text"))
    with pytest.raises(RunError, match='add "logits" to its needs'):
        loss_checks.check_loss_dtype(mine)


def test_a_text_loss_cannot_supervise_coord_positions() -> None:
    mine = component(
        lambda: FunctionTerm(fn=lambda p: p.lse, scope="text"), provides=lambda config: [COORD_SUPERVISION]
    )
    with pytest.raises(AssertionError, match="never sees a coord position"):
        loss_checks.check_loss_capabilities(mine)


# --- data -----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Changed(TinyBoxes):
    """The kit's boxes, each changed by a function."""

    count: int = 3
    change: Callable[[Example], Example]

    def __getitem__(self, index: int, /) -> Example:
        return self.change(super().__getitem__(index))

    def train(self) -> Changed:
        return self

    def validation(self) -> None:
        return None


def moved(shift: float, kind: str = "bbox_2d") -> Callable[[Example], Example]:
    def change(example: Example) -> Example:
        [box] = example.geometries
        return attrs.evolve(
            example, geometries=(Geometry(kind=kind, values=tuple(value + shift for value in box.values)),)
        )

    return change


def evolve(**fields: Any) -> Callable[[Example], Example]:
    return lambda example: attrs.evolve(example, **fields)


def flipped(example: Example) -> Example:
    x1, y1, x2, y2 = example.geometries[0].values
    return attrs.evolve(example, geometries=(Geometry(kind="bbox_2d", values=(x2, y1, x1, y2)),))


@pytest.mark.parametrize(
    ("check", "change", "message"),
    [
        (data_checks.check_data_splits, lambda example: "no example", "must be a coordcore.Example"),
        (data_checks.check_data_named, evolve(source=""), "has no source"),
        (
            data_checks.check_data_deterministic,
            lambda example: attrs.evolve(example, source=str(random.random())),
            "differs when it is read again",
        ),
        (data_checks.check_data_messages, evolve(messages=({"role": "user", "content": "?"},)), "end with an answer"),
        (data_checks.check_data_messages, evolve(images=()), "has 1 <image> for 0 images"),
        (data_checks.check_data_geometries, evolve(geometries=()), "4 coord tokens in the answer, 0 values"),
        (data_checks.check_data_geometries, moved(3.0), "stands where the geometry has"),
        (data_checks.check_data_geometries, moved(1000.0), "is no bin unit"),
        (data_checks.check_data_boxes, flipped, "is this x, y, width, height?"),
        (data_checks.check_data_boxes, moved(0.0, "circle"), "unknown geometry kind 'circle'"),
        (data_checks.check_data_boxes, moved(0.0, "poly"), "a poly has 4 values"),
        (data_checks.check_data_capabilities, lambda example: example, "say provides="),
    ],
)
def test_a_broken_data_builder_is_found(check: Callable[..., None], change: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(component(lambda: Changed(change=change)))


@attrs.frozen(kw_only=True)
class Told(Changed):
    """Boxes with answers of different lengths, and what they say of them."""

    count: int = 6
    change: Callable[[Example], Example] = lambda example: example
    told: Callable[[int], Any]

    def length(self, epoch: int, index: int) -> Any:
        return self.told(index)

    def __getitem__(self, index: int, /) -> Example:
        example = super().__getitem__(index)
        answer = {"role": "assistant", "content": "x" * 100 * index}
        return attrs.evolve(example, messages=(*example.messages[:-1], answer), geometries=())


IMAGE = [(64, 64)]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (lambda index: (20, IMAGE), "the longest text has 20 tokens, the shortest as many"),
        (lambda index: (20.5, IMAGE), "20.5 is no number of tokens"),
        (lambda index: (20 + index, []), r"has images of \[\(64, 64\)\], and its length says \[\]"),
        (lambda index: (20 + index, [(640, 64)]), r"and its length says \[\(640, 64\)\]"),
        (lambda index: (random.randrange(10**9), IMAGE), "its length is another when it is asked again"),
    ],
)
def test_lengths_that_are_none_are_found(told: Callable[[int], Any], message: str) -> None:
    mine = component(lambda: Told(told=told), provides=lambda config: [LENGTHS])
    with pytest.raises(AssertionError, match=message):
        data_checks.check_data_lengths(mine)


def test_lengths_that_are_told_and_promised_belong_together() -> None:
    told = Told(told=lambda index: (30 * index, IMAGE))
    data_checks.check_data_lengths(component(lambda: told, provides=lambda config: [LENGTHS]))
    with pytest.raises(AssertionError, match="training examples have `length`; say provides="):
        data_checks.check_data_lengths(component(lambda: told))
    silent = SimpleNamespace(train=lambda: [told[0]])
    data_checks.check_data_lengths(component(lambda: silent))
    with pytest.raises(AssertionError, match="it provides lengths, and its training examples have no length"):
        data_checks.check_data_lengths(component(lambda: silent, provides=lambda config: [LENGTHS]))


def test_geometries_of_the_default_beside_answers_of_the_run_are_found() -> None:
    def build(config: Config, context: BuildContext) -> Changed:
        default = TinyBoxes(count=1)[0].geometries
        return Changed(count=1, quantisation=context.quantisation, change=evolve(geometries=default))

    mine = attrs.evolve(component(lambda: None), build=build)
    data_checks.check_data_geometries(mine)
    with pytest.raises(AssertionError, match=r"stands where the geometry has .*"):
        data_checks.check_data_quantisation(mine)


def test_a_builder_may_refuse_a_quantisation() -> None:
    def build(config: Config, context: BuildContext) -> Changed:
        require_same(context.quantisation, DEFAULT_QUANTISATION, "the run", "boxes.jsonl")
        return Changed(count=1, change=lambda example: example)

    data_checks.check_data_quantisation(attrs.evolve(component(lambda: None), build=build))


def test_an_image_that_cannot_be_read_is_found(tmp_path: Any) -> None:
    (tmp_path / "picture.png").write_text("no picture")
    with pytest.raises(OSError, match="cannot identify image file"):
        data_checks.check_data_images_open(
            component(lambda: Changed(change=evolve(images=(tmp_path / "picture.png",))))
        )


def test_a_source_that_cannot_travel_is_found() -> None:
    with pytest.raises((AttributeError, pickle.PicklingError), match="pickle"):
        data_checks.check_data_pickles(component(lambda: Changed(change=lambda example: example)))


# --- optimizers and templates ---------------------------------------------------------------------------------------


def only_matrices(parameters: Any, settings: Any) -> Any:
    return AdamW()([parameter for parameter in parameters if parameter.decay], settings)


def one_name(parameters: Any, settings: Any) -> Any:
    return settings.create([{"name": "all", "params": [entry.parameter]} for entry in parameters])


def shuffled(parameters: Any, settings: Any) -> Any:
    return settings.create([{"params": random.sample([entry.parameter for entry in parameters], len(parameters))}])


def stuck(parameters: Any, settings: Any) -> Any:
    return settings.create([{"params": [entry.parameter for entry in parameters], "lr": 0.0}])


def forgetful(parameters: Any, settings: Any) -> Any:
    """Counts its steps where no checkpoint sees it."""

    class Counting(torch.optim.SGD):
        steps = 0

        def step(self, closure: Any = None) -> Any:
            self.steps += 1
            for group in self.param_groups:
                group["lr"] = 0.1 / self.steps
            return super().step(closure)

    return Counting([entry.parameter for entry in parameters], lr=0.1)


def test_an_optimizer_may_follow_a_schedule_of_its_own() -> None:
    def factory(parameters: Any, settings: Any) -> Any:
        class Following(torch.optim.SGD):
            def step(self, closure: Any = None) -> Any:
                for group in self.param_groups:
                    group["done"] = group.get("done", 0) + 1
                    group["lr"] = 0.1 * (1.5 - group["done"] / settings.total_steps)
                return super().step(closure)

        return Following([entry.parameter for entry in parameters], lr=0.1, momentum=settings.betas[0])

    for check in optimizer_checks.CHECKS:
        check(component(lambda: factory))


@pytest.mark.parametrize(
    ("check", "factory", "message"),
    [
        (optimizer_checks.check_optimizer_resumes, forgetful, "must be in its state_dict"),
        (optimizer_checks.check_optimizer_every_parameter_in_one_group, only_matrices, "second.bias 0 times"),
        (optimizer_checks.check_optimizer_repeatable, shuffled, "order the groups or their parameters differently"),
        (optimizer_checks.check_optimizer_names_differ, one_name, "two groups share a name"),
        (optimizer_checks.check_optimizer_steps, stuck, "is a learning rate 0"),
    ],
)
def test_a_broken_optimizer_is_found(check: Callable[..., None], factory: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(component(lambda: factory))


class Piling(PlainTemplate):
    """Wraps `encode` anew at every call."""

    def apply(self, template: Any) -> None:
        encode = template.encode

        def longer(row: Any) -> Any:
            encoded = encode(row)
            return {**encoded, "input_ids": [*encoded["input_ids"], 0], "labels": [*encoded["labels"], -100]}

        template.encode = longer


class Blind(PlainTemplate):
    """Supervises nothing."""

    def apply(self, template: Any) -> None:
        encode = template.encode
        template.encode = lambda row: {**encode(row), "labels": [-100]}


@pytest.mark.parametrize(
    ("check", "adapter", "message"),
    [
        (template_checks.check_template_encodes, Blind(), "the labels say ''"),
        (template_checks.check_template_applies_twice, Piling(), "applied twice, the template gives other ids"),
    ],
)
def test_a_broken_template_adapter_is_found(check: Callable[..., None], adapter: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(component(lambda: adapter))


# --- the tests themselves -------------------------------------------------------------------------------------------


def test_the_kit_s_own_builder_passes() -> None:
    [(kind, boxes)] = components_of(plugin)
    for check in checks_for(kind):
        if check is not common.check_found_by_name:  # only runs of the kit find it
            check(boxes)


class Plugin:
    """Offers one loss, which averages."""

    @hookimpl
    def coordcore_losses(self) -> list[Component]:
        return [component(lambda: FunctionTerm(fn=lambda positions: right(positions).mean()))]


def test_one_test_for_each_config_and_check() -> None:
    tests = parametrize_with_checks(Plugin(), configs=[Config(), Config()]).args[1]
    checks = [check.__name__ for check in checks_for(kinds.LOSS)]
    assert [test.id for test in tests] == [f"mine{number}-{check}" for number in (0, 1) for check in checks]


def test_an_expected_failure_must_happen() -> None:
    name = "mine-check_loss_one_value_per_position"
    tests = parametrize_with_checks(Plugin(), expected_failures={name: "it averages"}).args[1]
    [marked] = [test for test in tests if test.marks]
    assert (marked.id, marked.marks[0].kwargs) == (name, {"reason": "it averages", "strict": True})


def test_an_expected_failure_that_no_test_has_is_refused() -> None:
    with pytest.raises(ValueError, match="expected_failures names no test: mine-check_nothing"):
        parametrize_with_checks(Plugin(), expected_failures={"mine-check_nothing": "a slip"})


def test_a_module_without_components_is_refused() -> None:
    with pytest.raises(ValueError, match="offers no component"):
        components_of(surgery_checks)
