"""How much is tried: a little, or with `--long` the whole."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "train")]
os.environ["HF_HUB_OFFLINE"] = "1"

from amounts import LONG, SMALL, Amounts  # noqa: E402 - found by the line above


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the whole: thousands of cases, 38 kills; an hour")


def pytest_configure(config: pytest.Config) -> None:
    amounts = LONG if config.getoption("--long") else SMALL
    # The same examples every time: what one person sees, the next one can see as well.
    settings.register_profile(
        "faults", max_examples=amounts.answers, derandomize=True, deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    settings.load_profile("faults")


@pytest.fixture(scope="session")
def amounts(pytestconfig: pytest.Config) -> Amounts:
    return LONG if pytestconfig.getoption("--long") else SMALL


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COORDCORE_CACHE of every command here: which arguments ms-swift has takes 15 s to find out, once."""
    folder = tmp_path_factory.mktemp("cache")
    folder.chmod(0o700)
    os.environ["COORDCORE_CACHE"] = str(folder)
    return folder
