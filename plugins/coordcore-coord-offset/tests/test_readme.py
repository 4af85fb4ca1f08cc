"""The README's examples run, and its manifest section is one the component reads."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import tomli

from coordcore_coord_offset import CoordOffsetConfig

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def _block(language: str) -> str:
    [block] = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    return str(block)


def test_the_python_example_runs(tmp_path: Path) -> None:
    exec(compile(_block("python"), "README.md", "exec"), {"tmp": tmp_path})
    assert (tmp_path / "merged" / "model.safetensors").exists()


def test_the_manifest_section_shows_every_setting_at_its_default() -> None:
    section = tomli.loads(_block("toml"))["surgery"]["coord_offset"]
    assert CoordOffsetConfig(**section) == CoordOffsetConfig()
    assert list(section) == [field.name for field in attrs.fields(CoordOffsetConfig)]
