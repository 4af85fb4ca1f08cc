"""Checks of loss components: every term they build, on random positions of the term's scope."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from coordcore.components import COORD_SUPERVISION, COORD_TOKENS, Component
from coordcore.protocols import LossTerm
from coordcore.testing.building import build, config_or_default
from coordcore.testing.positions import Positions, make_logits, make_positions, make_targets_of, make_vocab, select

if TYPE_CHECKING:
    from torch import Tensor

COUNTS = (0, 1, 7)


def terms_of(component: Component, config: Any = None) -> list[LossTerm]:
    """The terms a loss component builds, always as a list."""
    built = build(component, config)
    return list(built) if isinstance(built, list | tuple) else [built]


def _positions(term: LossTerm, count: int, logits: Tensor | None = None) -> Positions:
    return make_positions(term.scope, count, needs=term.needs, logits=logits)


def _trained(term: LossTerm, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parts that are no diagnostics."""
    return {name: parts[name] for name, weight in term.weights.items() if weight}


def check_loss_terms(component: Component, config: Any = None) -> None:
    """It builds loss terms that an objective accepts: known scopes, parts of distinct names, finite weights."""
    from coordcore_train.objective import Objective

    terms = terms_of(component, config)
    assert terms, "build returned no term"
    for term in terms:
        assert isinstance(term, LossTerm), f"{term!r} is no LossTerm: it needs scope, weights, needs and __call__"
        for name, weight in term.weights.items():
            assert 0 <= weight < math.inf, f"the weight of part {name!r} is {weight}; use a finite one, 0 or more"
    Objective([(component.name, term) for term in terms], make_vocab())


def check_loss_weights_match(component: Component, config: Any = None) -> None:
    """A term returns exactly the parts its `weights` name."""
    for term in terms_of(component, config):
        returned, named = sorted(term(_positions(term, 3))), sorted(term.weights)
        assert returned == named, f"weights name the parts {named}, the term returned {returned}; make them the same"


def check_loss_one_value_per_position(component: Component, config: Any = None) -> None:
    """Every part has one value per position (per box), also for one position and for none."""
    for term in terms_of(component, config):
        for count in COUNTS:
            for name, values in term(_positions(term, count)).items():
                assert values.shape == (count,), (
                    f"part {name!r} has shape {tuple(values.shape)} for {count} positions; return one value for each"
                )


def check_loss_any_number_of_bins(component: Component, config: Any = None) -> None:
    """With 256 and with 1024 bins every part has one finite value per position, too."""
    for term in terms_of(component, config):
        for bins in (256, 1024):
            for name, values in term(_positions(term, 7, make_logits(term.scope, 7, bins=bins))).items():
                assert values.shape == (7,), f"part {name!r} has shape {tuple(values.shape)} with {bins} bins"
                assert values.isfinite().all(), f"part {name!r} is not finite with {bins} bins"


def check_loss_dtype(component: Component, config: Any = None) -> None:
    """Every part is float32."""
    import torch

    for term in terms_of(component, config):
        for name, values in term(_positions(term, 3)).items():
            assert values.dtype == torch.float32, f"part {name!r} is {values.dtype}; return float32"


def check_loss_finite(component: Component, config: Any = None) -> None:
    """Ordinary and extreme logits give finite values."""
    for term in terms_of(component, config):
        for scale in (0.0, 3.0, 300.0):
            logits = make_logits(term.scope, 7, scale=scale)
            for name, values in term(_positions(term, 7, logits)).items():
                assert values.isfinite().all(), (
                    f"part {name!r} is {values.tolist()} on logits of standard deviation {scale:g}; "
                    "work on logarithms (log_softmax, logsumexp) instead of taking the logarithm of a probability"
                )


def check_loss_gradients_finite(component: Component, config: Any = None) -> None:
    """Every part that is trained has finite gradients, on ordinary and extreme logits, and some on ordinary ones."""
    import torch

    for term in terms_of(component, config):
        for scale in (0.0, 3.0, 300.0):
            logits = make_logits(term.scope, 7, scale=scale)
            for name, values in _trained(term, term(_positions(term, 7, logits))).items():
                assert values.requires_grad, (
                    f"part {name!r} has weight {term.weights[name]} but is cut off the graph; compute it from the "
                    "logits, or give a diagnostic weight 0"
                )
                (gradient,) = torch.autograd.grad(values.sum(), logits, retain_graph=True)
                assert gradient.isfinite().all(), (
                    f"part {name!r} has a gradient that is not finite on logits of standard deviation {scale:g}"
                )
                assert scale != 3.0 or gradient.any(), (
                    f"part {name!r} has weight {term.weights[name]} but no gradient; give a diagnostic weight 0"
                )


def check_loss_gradient_without_positions(component: Component, config: Any = None) -> None:
    """A batch without a position still goes through the backward pass, as another rank may have some."""
    for term in terms_of(component, config):
        positions = _positions(term, 0)
        for name, values in _trained(term, term(positions)).items():
            assert values.requires_grad, f"part {name!r} of no positions is cut off the graph; compute it from logits"


def check_loss_independent_of_neighbours(component: Component, config: Any = None) -> None:
    """A position's values are the same in another order and in smaller chunks: no mean, no batch statistics."""
    import torch

    for term in terms_of(component, config):
        positions = _positions(term, 7)
        whole = term(positions)
        for index in (torch.arange(6, -1, -1), torch.tensor([2]), torch.tensor([5, 0, 3])):
            for name, values in term(select(positions, index)).items():
                # A distance is a difference of numbers as large as the largest distance, and rounded like them.
                rounding = 1e-5 + 1e-4 * float(whole[name].detach().abs().max())
                assert torch.allclose(values, whole[name][index], rtol=0, atol=rounding), (
                    f"part {name!r} of positions {index.tolist()} is {values.tolist()}, among all 7 it was "
                    f"{whole[name][index].tolist()}; a position's loss must not depend on the others"
                )


def check_loss_is_pure(component: Component, config: Any = None) -> None:
    """Two calls give the same values, and leave the positions as they were: other terms read them too."""
    import torch

    for term in terms_of(component, config):
        positions = _positions(term, 5)
        before = {
            field.name: value.detach().clone()
            for field in attrs.fields(type(positions))
            if isinstance(value := getattr(positions, field.name), torch.Tensor)
        }
        first, second = term(positions), term(positions)
        changed = [name for name, value in before.items() if not torch.equal(getattr(positions, name), value)]
        assert not changed, f"the term changed positions.{', '.join(changed)} in place"
        different = [name for name in first if not torch.equal(first[name], second[name])]
        assert not different, f"a second call gives other values of {', '.join(different)}"


def check_loss_propagates_nan(component: Component, config: Any = None) -> None:
    """NaN logits give NaN in every trained part, at that position only: the core must see it to stop the run."""
    import torch

    for term in terms_of(component, config):
        logits = make_logits(term.scope, 5).detach()
        logits[2] = torch.nan
        for name, values in _trained(term, term(_positions(term, 5, logits.requires_grad_()))).items():
            found = values.isnan().nonzero().squeeze(-1).tolist()
            assert found == [2], (
                f"part {name!r} is NaN at positions {found} where the logits are NaN at position 2; "
                "let NaN through, and only there"
            )


def check_loss_position_weights(component: Component, config: Any = None) -> None:
    """Weights of positions are finite, 0 or more, also where sizes are unknown, and an example's hang on no other's."""
    import torch

    for term in terms_of(component, config):
        weigh = getattr(term, "position_weights", None)
        if weigh is None:
            continue
        for count in COUNTS:
            targets = make_targets_of(term.scope, count)
            first = select(targets, torch.arange(min(count, 3)))  # of the first example
            alone = weigh(first)
            for name, weights in weigh(targets).items():
                assert name in term.weights, f"position_weights names {name!r}, the parts are {sorted(term.weights)}"
                assert weights.shape == (count,), (
                    f"the weights of part {name!r} have shape {tuple(weights.shape)} for {count} positions"
                )
                assert bool((weights.isfinite() & (weights >= 0)).all()), (
                    f"the weights of part {name!r} are {weights.tolist()}; give finite ones, 0 or more, also where the "
                    "image or the object is of unknown size (NaN)"
                )
                assert torch.allclose(weights[:3], alone[name], rtol=1e-5), (
                    f"part {name!r} weighs an example's positions {weights[:3].tolist()} beside other examples and "
                    f"{alone[name].tolist()} alone; a weight may depend on its own example only"
                )


def check_loss_schedule(component: Component, config: Any = None) -> None:
    """Weights that follow the step: the same parts, finite, 0 or more, and the same for the same step."""
    for term in terms_of(component, config):
        schedule = getattr(term, "weights_at", None)
        if schedule is None:
            continue
        for step in (0, 1, 50, 99):
            weights = schedule(step, 100)
            assert set(weights) == set(term.weights), (
                f"weights_at names the parts {sorted(weights)}, weights {sorted(term.weights)}; make them the same"
            )
            assert all(0 <= weight < math.inf for weight in weights.values()), (
                f"weights_at({step}, 100) is {dict(weights)}; give finite weights, 0 or more"
            )
            assert schedule(step, 100) == weights, f"weights_at({step}, 100) is another one when it is asked again"


def check_loss_capabilities(component: Component, config: Any = None) -> None:
    """A loss that reads coord positions requires coord tokens, and one that never sees them supervises none."""
    config = config_or_default(component, config)
    scopes = {term.scope for term in terms_of(component, config)}
    if scopes & {"coord", "box"}:
        assert COORD_TOKENS in component.requires(config), (
            f"scope {' and '.join(sorted(scopes))} reads coord positions; say requires=lambda config: "
            "[coordcore.COORD_TOKENS]"
        )
    if scopes == {"text"}:
        assert COORD_SUPERVISION not in component.provides(config), "scope text never sees a coord position"


CHECKS = (
    check_loss_terms,
    check_loss_weights_match,
    check_loss_one_value_per_position,
    check_loss_dtype,
    check_loss_finite,
    check_loss_gradients_finite,
    check_loss_gradient_without_positions,
    check_loss_independent_of_neighbours,
    check_loss_is_pure,
    check_loss_propagates_nan,
    check_loss_position_weights,
    check_loss_schedule,
    check_loss_capabilities,
)
