"""What the libraries underneath log while coordcore runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from coordcore_train.run.quiet import quiet


@pytest.fixture(autouse=True)
def _the_factory_as_it_was() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


def test_nothing_that_a_library_logs_steers_the_terminal(caplog: pytest.LogCaptureFixture) -> None:
    quiet()
    logging.getLogger("a_library").error("no file %s", "a\x1b[31m\x9b2J\u202eb")
    assert caplog.messages == [r"no file a\x1b[31m\x9b2J\u202eb"]
    assert "\x1b" not in caplog.text
