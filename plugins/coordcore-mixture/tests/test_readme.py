"""README.md: its table is the config class. Its manifest is tested where its builder is, in tests/together."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from coordcore_mixture import Source

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_table_is_the_config_class() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (\S+) \| (.+) \|$", README, flags=re.MULTILINE)
    fields = [field for field in attrs.fields(Source) if "help" in field.metadata]
    assert [(name, text) for name, _, _, text in rows] == [(field.name, field.metadata["help"]) for field in fields]
    defaults = {"required": attrs.NOTHING, "None": None, "empty": attrs.Factory(dict)}
    assert [defaults[default] for _, _, default, _ in rows] == [field.default for field in fields]
