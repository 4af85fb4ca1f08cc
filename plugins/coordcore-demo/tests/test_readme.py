"""README.md: its example runs and its table is the config class."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import tomli

from coordcore_demo import ShapesConfig, draw

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def block(language):
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return found


def test_the_python_example_runs(capsys):
    exec(compile(block("python"), "README.md", "exec"), {"__name__": "readme"})
    _, shapes = draw(0, 7, max_objects=3)
    assert capsys.readouterr().out == "".join(f"{desc} {' '.join(map(str, box))}\n" for desc, box in shapes)


def test_the_manifest_example_fits_the_config():
    assert ShapesConfig(**tomli.loads(block("toml"))["data"]["shapes"]) == ShapesConfig()


def test_the_table_is_the_config_class():
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (\S+) \| (.+) \|$", README, flags=re.MULTILINE)
    declared = [
        # Not field.type: structuring a manifest resolves that to a class.
        (field.name, ShapesConfig.__annotations__[field.name], str(field.default), field.metadata["help"])
        for field in attrs.fields(ShapesConfig)
    ]
    assert rows == declared
