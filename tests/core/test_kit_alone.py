"""The conformance kit where only the core is installed: what can run does, the rest says what to install."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from coordcore import builtins, kinds
from coordcore.kinds import Kind
from coordcore.testing import checks_for, components_of, train_briefly
from coordcore.testing.checks import COMMON
from coordcore.testing.missing import needs_train
from coordcore.testing.positions import make_logits

HEAVY = ("torch", "coordcore_train", "transformers", "swift")
OFFERED = dict(components_of(builtins))


def cure(package: str) -> str:
    return f'{package} is not installed, and this part of the kit needs it: pip install "coordcore[train,testing]"'


@pytest.fixture(autouse=True)
def _core_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*HEAVY, *(name for name in sys.modules if name.partition(".")[0] in HEAVY)}:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(
    ("kind", "can_run"),
    [
        (kinds.LOSS, {"check_loss_schedule", "check_loss_capabilities"}),
        (kinds.TEMPLATE, set()),
        (kinds.OPTIMIZER, set()),
    ],
    ids=["loss", "template", "optimizer"],
)
def test_a_check_runs_or_says_what_to_install(kind: Kind, can_run: set[str]) -> None:
    ran = set()
    for check in checks_for(kind):
        try:
            check(OFFERED[kind])
        except ModuleNotFoundError as error:
            assert str(error) in [cure(package) for package in HEAVY]  # noqa: PT017 - some checks run
        else:
            ran.add(check.__name__)

    assert ran == {check.__name__ for check in COMMON} | can_run


def test_so_does_a_real_run(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        train_briefly(tmp_path, loss="text_ce")

    assert str(caught.value) == cure("coordcore_train")


def test_so_do_positions_for_a_term() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        make_logits("coord", 3)

    assert str(caught.value) == cure("torch")


def test_a_module_of_the_plugin_itself_is_told_as_it_is() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'my_pluign'$"), needs_train():
        __import__("my_pluign")
