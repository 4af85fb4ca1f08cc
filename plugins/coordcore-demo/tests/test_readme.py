"""README.md: its example runs and its table is the config class."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import tomli

from coordcore_demo import ShapesConfig

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def block(language):
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return found


def test_the_python_example_runs(capsys):
    exec(compile(block("python"), "README.md", "exec"), {"__name__": "readme"})
    colour, shape, *edges = capsys.readouterr().out.splitlines()[0].split()
    assert (colour in README, shape in README, len(edges)) == (True, True, 4)


def test_the_manifest_example_fits_the_config():
    assert ShapesConfig(**tomli.loads(block("toml"))["data"]["shapes"]) == ShapesConfig()


def test_the_table_is_the_config_class():
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (\S+) \| (.+) \|$", README, flags=re.MULTILINE)
    declared = [
        (field.name, field.type, str(field.default), field.metadata["help"]) for field in attrs.fields(ShapesConfig)
    ]
    assert rows == declared
