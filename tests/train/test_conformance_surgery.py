"""The conformance kit finds what is wrong with a surgery: one broken surgery for each check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import support  # noqa: F401 - puts the fakes on the path
import torch
from engine_fakes import FakeRows, FreeRows, RowsConfig

from coordcore import Component
from coordcore.testing import surgery_checks


class Right(FreeRows):
    """The fake surgery, which also notices that it was not installed."""

    def verify(self, model: Any) -> None:
        if not hasattr(model, "row_offset"):
            raise RuntimeError("there are no rows; call install")


class Unsaved(Right):
    """Wants a module saved that is not there."""

    modules_to_save = ("rows_of_another_name",)


class Loud(Right):
    """Does not start at zero."""

    def install(self, model: Any, vocab: Any) -> None:
        super().install(model, vocab)
        torch.nn.init.ones_(model.row_offset.rows)


class Secretive(Right):
    """Trains what it does not declare."""

    def parameters(self, model: Any) -> Any:
        return {}


class Detached(Right):
    """Declares the table that PEFT put aside."""

    def parameters(self, model: Any) -> Any:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        return {"rows": [getattr(base.row_offset, "original_module", base.row_offset).rows]}


class Idle(Right):
    """Declares a table that nothing reads."""

    def rebind(self, model: Any) -> None:
        return None


class Piling(Right):
    """Adds hooks without taking the old ones away."""

    def rebind(self, model: Any) -> None:
        self.handles = []
        super().rebind(model)


@attrs.frozen(kw_only=True)
class NotZero(FakeRows):
    """A row surgery whose rows start with ones."""

    def module(self, facts: Any) -> Any:
        module = super().module(facts)
        torch.nn.init.ones_(module.rows)
        return module


@attrs.frozen(kw_only=True)
class Keeping(FakeRows):
    """A row surgery that goes on with the module it made, whatever it is given."""

    kept: list[Any] = attrs.field(factory=list)

    def module(self, facts: Any) -> Any:
        self.kept.append(super().module(facts))
        return self.kept[-1]

    def head_rows(self, module: Any) -> Any:
        return super().head_rows(self.kept[-1])


@attrs.frozen(kw_only=True)
class Noisy(FakeRows):
    """A row surgery with rows that are drawn anew at each call, once they are not zero."""

    def embedding_rows(self, module: Any) -> Any:
        added = super().embedding_rows(module)
        return attrs.evolve(added, rows=added.rows + 0 * added.rows + self._noise(added.rows))

    def _noise(self, rows: Any) -> Any:
        _draws.append(0.0 if len(_draws) < 8 else float(len(_draws)))
        return torch.zeros_like(rows) + _draws[-1]


_draws: list[float] = []


@attrs.frozen(kw_only=True)
class Unused(FakeRows):
    """A row surgery with a parameter that no row depends on."""

    def module(self, facts: Any) -> Any:
        module = super().module(facts)
        module.register_parameter("idle", torch.nn.Parameter(torch.zeros(3)))
        return module


@attrs.frozen(kw_only=True)
class Detaching(FakeRows):
    """A row surgery whose rows carry no gradient to the head."""

    def head_rows(self, module: Any) -> Any:
        added = super().head_rows(module)
        return attrs.evolve(added, rows=added.rows.detach())


class Neither:
    """Is of neither form."""

    def __init__(self, config: RowsConfig) -> None:
        """As the free form is built."""


def rows_component(surgery: type[FakeRows], **settings: Any) -> Component:
    return Component(
        name="rows", config=RowsConfig, build=lambda _config, _context: surgery(**settings), summary="rows"
    )


def component(surgery: type[FreeRows], config: RowsConfig) -> Component:
    return Component(name="rows", config=RowsConfig, build=lambda _config, _context: surgery(config), summary="rows")


@pytest.mark.parametrize("check", surgery_checks.CHECKS, ids=lambda check: check.__name__)
def test_a_right_surgery_passes(check: Callable[..., None]) -> None:
    check(component(Right, RowsConfig()))


@pytest.mark.parametrize("own_head", [False, True])
@pytest.mark.parametrize("check", surgery_checks.CHECKS, ids=lambda check: check.__name__)
def test_a_right_row_surgery_passes(check: Callable[..., None], own_head: bool) -> None:
    check(rows_component(FakeRows, own_head=own_head))


@pytest.mark.parametrize(
    ("check", "surgery", "changes", "message"),
    [
        (surgery_checks.check_surgery_protocol, Neither, {}, "neither a coordcore.protocols.RowSurgery nor"),
        (surgery_checks.check_surgery_protocol, Unsaved, {}, "install put no such module"),
        (surgery_checks.check_surgery_identity_at_start, Loud, {}, "start from a change of zero"),
        (surgery_checks.check_surgery_only_its_parameters_train, Secretive, {}, "`parameters` does not declare them"),
        (surgery_checks.check_surgery_only_its_parameters_train, Detached, {}, "do not train"),
        (surgery_checks.check_surgery_verify, FreeRows, {}, "never installed"),
        (surgery_checks.check_surgery_acts, Idle, {}, "get no gradient"),
        (surgery_checks.check_surgery_rebinds_twice, Piling, {}, "a second rebind changes the logits"),
        (surgery_checks.check_surgery_objective, Right, {"declared": False}, "no surgery declares with head_offset"),
        (surgery_checks.check_surgery_merges_plain, Right, {"merging": "nothing"}, "merged model's logits differ"),
        (surgery_checks.check_surgery_merges_plain, Right, {"merging": "leftover"}, "merge left row_offset"),
    ],
)
def test_a_broken_surgery_is_found(
    check: Callable[..., None], surgery: type[FreeRows], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        check(component(surgery, attrs.evolve(RowsConfig(), **changes)))


@pytest.mark.parametrize(
    ("check", "surgery", "message"),
    [
        (surgery_checks.check_surgery_identity_at_start, NotZero, "start with values up to 1; start at zero"),
        (surgery_checks.check_surgery_rows_are_pure, Keeping, "head_rows gives the same rows for a copy of the module"),
        (surgery_checks.check_surgery_rows_are_pure, Noisy, "embedding_rows gives other rows at the second call"),
        (surgery_checks.check_surgery_objective, Unused, "its parameter .*idle gets no gradient"),
        (surgery_checks.check_surgery_objective, Detaching, "rows it adds to the head carry no gradient"),
    ],
)
def test_a_broken_row_surgery_is_found(check: Callable[..., None], surgery: type[FakeRows], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(rows_component(surgery))
