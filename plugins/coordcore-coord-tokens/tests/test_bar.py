"""The progress bar of long work."""

from __future__ import annotations

import io

import pytest

from coordcore_coord_tokens import bar as bar_module
from coordcore_coord_tokens.bar import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(stderr: io.StringIO, *, shown: bool = True, patience: float = -1) -> str:
    """What a quarter of some work draws."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", stderr)
        patch.setattr(bar_module, "PATIENCE", patience)
        patch.setenv("TERM", "xterm")
        with Bar("index train.jsonl", 4_000_000, shown=shown) as bar:
            bar.advance(1_000_000)
    return stderr.getvalue()


def test_long_work_is_shown() -> None:
    text = drawn(Terminal())
    assert ("index train.jsonl" in text, "1.0/4.0 MB" in text) == (True, True)


def test_other_ranks_are_silent() -> None:
    assert drawn(Terminal(), shown=False) == ""


def test_short_work_is_silent() -> None:
    assert drawn(Terminal(), patience=60) == ""


def test_a_log_file_gets_no_bar() -> None:
    assert drawn(io.StringIO()) == ""
