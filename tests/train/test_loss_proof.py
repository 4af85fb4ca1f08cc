"""What a loss would do wrong without a word stops the run at its start, with the loss's name and the cure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

from coordcore import FunctionTerm
from coordcore.coords import CoordVocab
from coordcore.errors import InputError, RunError
from coordcore.protocols import Scope
from coordcore_train.objective.proof import prove_term

VOCAB = CoordVocab(ids=tuple(range(40, 1040)))
SCOPES: tuple[Scope, ...] = ("coord", "text", "token", "box")


def prove(term: Any, vocab: CoordVocab | None = VOCAB) -> None:
    prove_term("mine", term, vocab, vocabulary_size=1100, steps=30, device=torch.device("cpu"))


def plain(seen: Any) -> Tensor:
    """A right loss for any scope."""
    if not hasattr(seen, "bins"):
        return seen.lse - seen.label_logits
    losses = -seen.logits.log_softmax(-1).gather(-1, seen.bins[..., None]).squeeze(-1)
    return losses.mean(-1) if losses.dim() == 2 else losses


def whole(seen: Any) -> Tensor:
    """A right loss that reads whole logits."""
    return nn.functional.cross_entropy(seen.logits, seen.labels, reduction="none")


@pytest.mark.parametrize("scope", SCOPES)
def test_a_right_term_passes_and_leaves_the_random_state_alone(scope: Scope) -> None:
    before = torch.random.get_rng_state()
    prove(
        FunctionTerm(fn=plain, scope=scope, weigh=lambda targets: (targets.origin.object_size[:, 0] < 12).float())
        if scope in ("coord", "box")
        else FunctionTerm(fn=plain, scope=scope)
    )
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("scope", ["text", "token"])
@pytest.mark.parametrize("vocab", [VOCAB, None])
def test_a_right_term_of_whole_logits_passes(scope: Scope, vocab: CoordVocab | None) -> None:
    prove(FunctionTerm(fn=whole, scope=scope, needs={"logits"}), vocab)


def test_a_weight_for_one_token_alone_is_found() -> None:
    prove(FunctionTerm(fn=plain, scope="text", weigh=lambda targets: (targets.labels == 1077).float()))


def test_a_part_without_weight_may_do_without_a_gradient() -> None:
    prove(FunctionTerm(fn=lambda seen: plain(seen).detach(), scope="coord", weight=0.0))


# --- losses that would train nothing, or something else ---------------------------------------------------------------


@attrs.frozen
class Learned:
    """A term with a parameter of its own."""

    temperature: nn.Parameter = attrs.field(factory=lambda: nn.Parameter(torch.ones(1)))
    scope: Scope = "coord"
    weights: Mapping[str, float] = attrs.field(factory=lambda: {"loss": 1.0})
    needs: frozenset[Any] = frozenset()

    def __call__(self, seen: Any) -> dict[str, Tensor]:
        return {"loss": plain(seen) * self.temperature}


def own_graph(seen: Any) -> Tensor:
    logits = torch.tensor(seen.logits.tolist(), requires_grad=True)
    return -logits.log_softmax(-1)[..., 0].flatten(1).mean(-1) if logits.dim() == 3 else -logits.log_softmax(-1)[:, 0]


def around_autograd(seen: Any) -> Tensor:
    losses = plain(seen)
    seen.bins.data.clamp_(max=3)
    return losses


def in_place(seen: Any) -> Tensor:
    losses = plain(seen)
    seen.values.clamp_(min=800)
    return losses


def in_place_on_logits(seen: Any) -> Tensor:
    seen.logits.clamp_(max=1)
    return plain(seen)


def in_place_on_shared(seen: Any) -> Tensor:
    losses = whole(seen)
    seen.lse.data.zero_()
    return losses


def in_place_on_origin(seen: Any) -> Tensor:
    seen.origin.image_size.nan_to_num_(1.0)
    return plain(seen)


def no_weight(targets: Any) -> Tensor:
    return torch.zeros(len(targets.labels))


def changes_targets(targets: Any) -> Tensor:
    targets.bins.clamp_(max=3)
    return torch.ones(len(targets.bins))


WRONG: dict[str, tuple[Any, str]] = {
    "detached": (lambda seen: plain(seen).detach(), "part 'loss' has a weight but no gradient"),
    "a graph of its own": (own_graph, "do not depend on the logits .* would train nothing; compute it from"),
    "around autograd": (around_autograd, r"the term changed positions\.bins in place; other terms read it too"),
    "in place": (in_place, r"the term changed positions\.values in place; other terms read it too: copy it"),
    "in place on logits": (in_place_on_logits, "the term changed positions in place; other terms read it too: copy it"),
    "raises": (lambda seen: {}["x"], "the term raised KeyError: 'x', for a sample of text and boxes"),
    "one value": (lambda seen: plain(seen).mean(), "one value per position"),
    "a number": (lambda seen: 3.0, "part 'loss' must be a floating-point tensor, got float"),
}


@pytest.mark.parametrize(("fn", "message"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("scope", ["coord", "box"])
def test_a_wrong_loss_stops_the_run_at_its_start(fn: Callable[[Any], Any], message: str, scope: Scope) -> None:
    with pytest.raises(RunError, match=rf"^loss\.mine: .*{message}"):
        prove(FunctionTerm(fn=fn, scope=scope))


def test_a_parameter_of_the_terms_own_is_told() -> None:
    with pytest.raises(RunError, match=r"^loss\.mine: .*trainable tensor of the term's own, of shape \(1,\), which no"):
        prove(Learned())


def test_a_frozen_parameter_is_none() -> None:
    prove(Learned(nn.Parameter(torch.ones(1), requires_grad=False)))


def test_what_the_terms_share_is_not_written_into() -> None:
    with pytest.raises(RunError, match=r"^loss\.mine: the term changed positions\.lse in place"):
        prove(FunctionTerm(fn=in_place_on_shared, scope="text", needs={"logits"}))


def test_the_origin_is_not_written_into() -> None:
    with pytest.raises(RunError, match=r"^loss\.mine: the term changed positions\.origin\.image_size in place"):
        prove(FunctionTerm(fn=in_place_on_origin, scope="coord", needs={"origin"}))


@pytest.mark.parametrize("scope", SCOPES)
def test_weights_of_zero_everywhere_train_nothing(scope: Scope) -> None:
    with pytest.raises(RunError, match=r"^loss\.mine: position_weights gives 'loss' the weight 0 at every position"):
        prove(FunctionTerm(fn=plain, scope=scope, weigh=no_weight))


def test_weights_do_not_change_the_targets() -> None:
    with pytest.raises(RunError, match=r"^loss\.mine: position_weights changed targets\.bins in place"):
        prove(FunctionTerm(fn=plain, scope="coord", weigh=changes_targets))


# --- what is no term, or returns what none may ------------------------------------------------------------------------


@attrs.define
class Loose:
    """A term whose every member a test may replace."""

    scope: Any = "coord"
    weights: Any = attrs.field(factory=lambda: {"loss": 1.0})
    needs: Any = frozenset()
    position_weights: Any = None
    weights_at: Any = None
    call: Any = None

    def __call__(self, seen: Any) -> Any:
        return {"loss": plain(seen)} if self.call is None else self.call(seen)


STATED: dict[str, tuple[Any, str]] = {
    "no term": (3, r"a term must be a LossTerm, got 3 \(it has no scope, no weights"),
    "a class": (Loose, r"a term must be a LossTerm, got the class Loose \(call it\)"),
    "a list as scope": (Loose(scope=["coord"]), r"scope must be one of .*, got \['coord'\]"),
    "a string as needs": (
        Loose(needs="full_lse"),
        r"needs must be a set of names \(full_lse, origin\), got 'full_lse'",
    ),
    "None as needs": (Loose(needs=None), r"needs must be a set of names .*, got None"),
    "unknown needs": (Loose(needs={"lse"}), r"a term of scope 'coord' may need full_lse, origin, got 'lse'"),
    "odd needs": (Loose(needs=[3]), r"a term of scope 'coord' may need full_lse, origin, got 3"),
    "weights in a list": (Loose(weights=["loss"]), r"weights must be a mapping of part to weight, got \['loss'\]"),
    "a weight in words": (
        Loose(weights={"loss": "much"}),
        r"the weight of part 'loss' must be a finite number >= 0, got",
    ),
    "a weight below 0": (
        Loose(weights={"loss": -1}),
        r"the weight of part 'loss' must be a finite number >= 0, got -1",
    ),
    "no function": (Loose(position_weights=[1.0]), r"position_weights must be a function or None, got \[1\.0\]"),
}


@pytest.mark.parametrize(("term", "message"), STATED.values(), ids=STATED.keys())
def test_what_a_term_states_wrongly_is_refused(term: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"^loss\.mine: {message}"):
        prove(term)


RETURNED: dict[str, tuple[Loose, str]] = {
    "None": (Loose(call=lambda seen: None), "the term must return a mapping of part to .* losses, got NoneType"),
    "a tensor": (Loose(call=plain), "the term must return a mapping of part to .* losses, got Tensor"),
    "other parts": (
        Loose(call=lambda seen: {3: plain(seen)}),
        r"weights name the parts \['loss'\], but it returned \['3'\]",
    ),
    "weights of None": (
        Loose(position_weights=lambda targets: None),
        "position_weights must return a mapping .* got None",
    ),
    "weights in a list": (
        Loose(position_weights=lambda targets: {"loss": [1.0]}),
        r"position_weights must give part 'loss' one finite number .* as a tensor; got \[1\.0\]",
    ),
    "too few weights": (Loose(position_weights=lambda targets: {"loss": torch.ones(2)}), r"got shape \(2,\)"),
    "weights of none": (Loose(position_weights=lambda targets: {"x": torch.ones(2)}), "names a part 'x'"),
    "raising weights": (Loose(position_weights=lambda targets: 1 / 0), "position_weights raised ZeroDivisionError"),
    "schedule of None": (Loose(weights_at=lambda step, total: None), r"weights_at\(0, 30\) must give .* got None"),
    "schedule in words": (Loose(weights_at=lambda step, total: {"loss": "x"}), r"weights_at\(0, 30\) must give"),
    "schedule of a number": (Loose(weights_at=lambda step, total: 1.0), r"weights_at\(0, 30\) must give .* got 1\.0"),
}


@pytest.mark.parametrize(("term", "message"), RETURNED.values(), ids=RETURNED.keys())
def test_what_a_term_returns_wrongly_is_told(term: Loose, message: str) -> None:
    with pytest.raises(RunError, match=rf"^loss\.mine: .*{message}"):
        prove(term)
