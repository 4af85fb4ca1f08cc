"""The conformance kit finds what is wrong with a surgery: one broken surgery for each check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import support  # noqa: F401 - puts the fakes on the path
import torch
from engine_fakes import RowsConfig, RowsSurgery

from coordcore import Component
from coordcore.testing import surgery_checks


class Right(RowsSurgery):  # type: ignore[misc]
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


def component(surgery: type[RowsSurgery], config: RowsConfig) -> Component:
    return Component(name="rows", config=RowsConfig, build=lambda _config, _context: surgery(config), summary="rows")


@pytest.mark.parametrize("check", surgery_checks.CHECKS, ids=lambda check: check.__name__)
def test_a_right_surgery_passes(check: Callable[..., None]) -> None:
    check(component(Right, RowsConfig()))


@pytest.mark.parametrize(
    ("check", "surgery", "changes", "message"),
    [
        (surgery_checks.check_surgery_protocol, Unsaved, {}, "install put no such module"),
        (surgery_checks.check_surgery_identity_at_start, Loud, {}, "start from a change of zero"),
        (surgery_checks.check_surgery_only_its_parameters_train, Secretive, {}, "`parameters` does not declare them"),
        (surgery_checks.check_surgery_only_its_parameters_train, Detached, {}, "do not train"),
        (surgery_checks.check_surgery_verify, RowsSurgery, {}, "never installed"),
        (surgery_checks.check_surgery_acts, Idle, {}, "get no gradient"),
        (surgery_checks.check_surgery_rebinds_twice, Piling, {}, "a second rebind changes the logits"),
        (surgery_checks.check_surgery_head_offset, Right, {"declared": False}, "declare in head_offset"),
        (surgery_checks.check_surgery_merges_plain, Right, {"merging": "nothing"}, "merged checkpoint's logits differ"),
        (surgery_checks.check_surgery_merges_plain, Right, {"merging": "leftover"}, "merge left row_offset"),
    ],
)
def test_a_broken_surgery_is_found(
    check: Callable[..., None], surgery: type[RowsSurgery], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        check(component(surgery, attrs.evolve(RowsConfig(), **changes)))
