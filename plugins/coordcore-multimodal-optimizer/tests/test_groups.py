"""Which parameter goes into which group, with which settings, in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from coordcore import InputError
from coordcore.protocols import OptimizerSettings, TaggedParameter
from coordcore_multimodal_optimizer import (
    MultimodalOptimizer,
    MultimodalOptimizerConfig,
    TagSettings,
    parameter_groups,
)

Tagged = Callable[..., list[TaggedParameter]]
Settings = Callable[..., OptimizerSettings]


def _shown(
    parameters: list[TaggedParameter], groups: list[dict[str, Any]]
) -> list[tuple[str, list[str], float, float]]:
    """The groups with names in place of parameters."""
    names = {id(entry.parameter): entry.name for entry in parameters}
    return [
        (group["name"], [names[id(param)] for param in group["params"]], group["lr"], group["weight_decay"])
        for group in groups
    ]


def test_without_settings_every_tag_is_one_group_at_the_learning_rate_of_train(
    tagged: Tagged, settings: Settings
) -> None:
    parameters = tagged("offset.w", "llm.w", "llm.b", "vision.w", "aligner.w")
    assert _shown(parameters, parameter_groups(parameters, MultimodalOptimizerConfig(), settings())) == [
        ("vision", ["vision.w"], 1e-4, 0.0),
        ("aligner", ["aligner.w"], 1e-4, 0.0),
        ("llm", ["llm.w", "llm.b"], 1e-4, 0.0),
        ("offset", ["offset.w"], 1e-4, 0.0),
    ]


def test_each_tag_takes_its_own_learning_rate(tagged: Tagged, settings: Settings) -> None:
    parameters = tagged("vision.w", "aligner.w", "llm.w", "offset.w")
    config = MultimodalOptimizerConfig(vision_lr=1e-6, aligner_lr=1e-5, llm_lr=2e-4, offset_lr=1e-2)
    assert [group["lr"] for group in parameter_groups(parameters, config, settings())] == [1e-6, 1e-5, 2e-4, 1e-2]


def test_weight_decay_of_train_falls_on_matrices_but_not_on_offsets(tagged: Tagged, settings: Settings) -> None:
    parameters = tagged("llm.w", "llm.b", "llm.v", "offset.w")
    groups = parameter_groups(parameters, MultimodalOptimizerConfig(), settings(weight_decay=0.1))
    assert _shown(parameters, groups) == [
        ("llm/decay", ["llm.w", "llm.v"], 1e-4, 0.1),
        ("llm/no_decay", ["llm.b"], 1e-4, 0.0),
        ("offset", ["offset.w"], 1e-4, 0.0),
    ]


def test_each_tag_takes_its_own_weight_decay(tagged: Tagged, settings: Settings) -> None:
    parameters = tagged("vision.w", "aligner.w", "llm.w", "offset.w")
    config = MultimodalOptimizerConfig(
        vision_weight_decay=0.0, aligner_weight_decay=0.2, llm_weight_decay=0.3, offset_weight_decay=0.4
    )
    groups = parameter_groups(parameters, config, settings(weight_decay=0.1))
    assert [(group["name"], group["weight_decay"]) for group in groups] == [
        ("vision", 0.0),
        ("aligner/decay", 0.2),
        ("llm/decay", 0.3),
        ("offset/decay", 0.4),
    ]


def test_a_part_that_does_not_train_has_no_group(tagged: Tagged, settings: Settings) -> None:
    parameters = tagged("llm.w")
    groups = parameter_groups(parameters, MultimodalOptimizerConfig(offset_lr=1e-2), settings(weight_decay=0.1))
    assert [group["name"] for group in groups] == ["llm/decay"]


def test_a_tag_nobody_configured_is_a_group_of_its_own(tagged: Tagged, settings: Settings) -> None:
    parameters = tagged("zebra.w", "ant.w", "ant.b", "llm.w")
    groups = parameter_groups(parameters, MultimodalOptimizerConfig(llm_lr=1.0), settings(weight_decay=0.1))
    assert _shown(parameters, groups) == [
        ("llm/decay", ["llm.w"], 1.0, 0.1),
        ("ant/decay", ["ant.w"], 1e-4, 0.1),
        ("ant/no_decay", ["ant.b"], 1e-4, 0.0),
        ("zebra/decay", ["zebra.w"], 1e-4, 0.1),
    ]


def test_another_surgery_s_tag_can_be_configured(tagged: Tagged, settings: Settings) -> None:
    parameters = tagged("ant.w")
    config = MultimodalOptimizerConfig(tags={"ant": TagSettings(lr=3e-3, weight_decay=0.0)})
    groups = parameter_groups(parameters, config, settings(weight_decay=0.1))
    assert _shown(parameters, groups) == [("ant", ["ant.w"], 3e-3, 0.0)]


def test_the_order_of_groups_does_not_depend_on_the_order_of_parameters(tagged: Tagged, settings: Settings) -> None:
    parameters = tagged("b.w", "offset.w", "llm.w", "a.w", "vision.w")
    names = [
        [group["name"] for group in parameter_groups(order, MultimodalOptimizerConfig(), settings())]
        for order in (parameters, parameters[::-1])
    ]
    assert names == [["vision", "llm", "offset", "a", "b"]] * 2


def test_settings_of_a_tag_that_is_not_there_are_bad_input(tagged: Tagged, settings: Settings) -> None:
    config = MultimodalOptimizerConfig(tags={"ofset": TagSettings(lr=1e-2)})
    with pytest.raises(InputError) as error:
        parameter_groups(tagged("offset.w", "llm.w"), config, settings())
    assert str(error.value) == (
        "optimizer.multimodal_coord_offset.tags.ofset: no trainable parameter has this tag; "
        "tags of this model: llm, offset"
    )


def test_a_parameter_listed_twice_is_named(tagged: Tagged, settings: Settings) -> None:
    [head] = tagged("llm.head")
    again = TaggedParameter(name="offset.table", parameter=head.parameter, tag="offset", decay=True)
    with pytest.raises(RuntimeError, match=r"parameter offset.table is listed twice, first as llm.head"):
        parameter_groups([head, again], MultimodalOptimizerConfig(), settings())


def test_every_parameter_is_in_exactly_one_group(tagged: Tagged, settings: Settings) -> None:
    parameters = tagged("vision.w", "vision.b", "aligner.w", "llm.w", "llm.b", "offset.w", "ant.w", "ant.b")
    groups = parameter_groups(
        parameters, MultimodalOptimizerConfig(offset_weight_decay=0.5), settings(weight_decay=0.1)
    )
    held = [id(param) for group in groups for param in group["params"]]
    assert sorted(held) == sorted(id(entry.parameter) for entry in parameters)


def test_the_optimizer_steps_each_part_by_its_own_rate(tagged: Tagged, settings: Settings) -> None:
    parameters = tagged("llm.w", "offset.w")
    optimizer = MultimodalOptimizer(MultimodalOptimizerConfig(llm_lr=0.01, offset_lr=0.1))(parameters, settings())
    for entry in parameters:
        entry.parameter.grad = torch.ones(2)
    optimizer.step()
    # Adam's first step has the size of the learning rate.
    steps = [float(1 - entry.parameter.detach()[0]) for entry in parameters]
    assert steps == pytest.approx([0.01, 0.1], rel=1e-4)


def test_group_names_survive_save_and_load(tagged: Tagged, settings: Settings) -> None:
    factory = MultimodalOptimizer(MultimodalOptimizerConfig(offset_lr=1e-2))
    optimizer = factory(tagged("llm.w", "offset.w"), settings())
    resumed = factory(tagged("llm.w", "offset.w"), settings())
    resumed.load_state_dict(optimizer.state_dict())
    assert [(group["name"], group["lr"]) for group in resumed.param_groups] == [("llm", 1e-4), ("offset", 1e-2)]
