"""Checks of optimizer factories, on a handful of tagged parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs

from coordcore.components import Component
from coordcore.protocols import RESERVED_TAGS, TaggedParameter
from coordcore.testing.building import build

if TYPE_CHECKING:
    import torch

TAG_SETS = ((*RESERVED_TAGS, "offset"), ("llm",), ("llm", "a_tag_of_another_surgery"))
"""The tags of the trainable parameters, in several runs."""


@attrs.frozen(kw_only=True)
class Settings:
    """`[train]` as an optimizer factory sees it."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    total_steps: int = 100

    def create(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """AdamW over `groups`."""
        import torch

        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay)


def make_parameters(tags: Sequence[str]) -> list[TaggedParameter]:
    """Two matrices and a bias for each tag."""
    import torch

    return [
        TaggedParameter(
            name=f"{tag}.{name}",
            parameter=torch.nn.Parameter(torch.ones(2, 2) if decay else torch.ones(2)),
            tag=tag,
            decay=decay,
        )
        for tag in tags
        for name, decay in (("first.weight", True), ("second.weight", True), ("second.bias", False))
    ]


def check_optimizer_every_parameter_in_one_group(component: Component, config: Any = None) -> None:
    """Each parameter is in exactly one group, whatever its tag, and nothing else is."""
    for tags in TAG_SETS:
        parameters = make_parameters(tags)
        optimizer = build(component, config)(parameters, Settings())
        times = Counter(id(parameter) for group in optimizer.param_groups for parameter in group["params"])
        wrong = [
            f"{entry.name} {times[id(entry.parameter)]} times"
            for entry in parameters
            if times[id(entry.parameter)] != 1
        ]
        assert not wrong, f"the groups must hold every parameter once, but hold {', '.join(wrong)}"
        strangers = times.keys() - {id(entry.parameter) for entry in parameters}
        assert not strangers, f"the groups hold {len(strangers)} parameters that were not given"


def check_optimizer_repeatable(component: Component, config: Any = None) -> None:
    """A second call gives the same groups in the same order: an interrupted run resumes by position."""
    parameters = make_parameters(TAG_SETS[0])

    def layout() -> list[list[int]]:
        optimizer = build(component, config)(parameters, Settings())
        return [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups]

    assert layout() == layout(), "two calls order the groups or their parameters differently"


def check_optimizer_resumes(component: Component, config: Any = None) -> None:
    """Saved in the middle and loaded into a new one, it goes on as if it had not been interrupted, bit for bit."""
    import copy

    import torch

    def taught(parameters: list[TaggedParameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            for entry in parameters:
                entry.parameter.grad = torch.full_like(entry.parameter, 0.1 + step)
            optimizer.step()

    whole = make_parameters(TAG_SETS[0])
    optimizer = build(component, config)(whole, Settings(total_steps=4))
    taught(whole, optimizer, range(2))
    resumed = [attrs.evolve(item, parameter=torch.nn.Parameter(item.parameter.detach().clone())) for item in whole]
    saved = copy.deepcopy(optimizer.state_dict())
    taught(whole, optimizer, range(2, 4))
    again = build(component, config)(resumed, Settings(total_steps=4))
    again.load_state_dict(saved)
    taught(resumed, again, range(2, 4))
    pairs = zip(whole, resumed, strict=True)
    different = [item.name for item, other in pairs if not torch.equal(item.parameter, other.parameter)]
    assert not different, (
        f"{', '.join(different)} differ after a resume; what an optimizer counts must be in its state_dict"
    )


def check_optimizer_names_differ(component: Component, config: Any = None) -> None:
    """Groups with a "name" have distinct ones: the learning rate of each is logged as lr/<name>."""
    groups = build(component, config)(make_parameters(TAG_SETS[0]), Settings()).param_groups
    names = [group["name"] for group in groups if "name" in group]
    assert len(names) == len(set(names)), f"two groups share a name: {names}"


def check_optimizer_steps(component: Component, config: Any = None) -> None:
    """A step changes every parameter that has a gradient, and keeps it finite."""
    import torch

    parameters = make_parameters(TAG_SETS[0])
    optimizer = build(component, config)(parameters, Settings())
    before = [entry.parameter.detach().clone() for entry in parameters]
    for entry in parameters:
        entry.parameter.grad = torch.ones_like(entry.parameter)
    optimizer.step()
    still = [entry.name for entry, old in zip(parameters, before, strict=True) if torch.equal(entry.parameter, old)]
    assert not still, f"a step leaves {', '.join(still)} as they were; is a learning rate 0?"
    bad = [entry.name for entry in parameters if not entry.parameter.isfinite().all()]
    assert not bad, f"a step makes {', '.join(bad)} infinite or NaN"


CHECKS = (
    check_optimizer_every_parameter_in_one_group,
    check_optimizer_repeatable,
    check_optimizer_resumes,
    check_optimizer_names_differ,
    check_optimizer_steps,
)
