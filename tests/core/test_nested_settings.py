"""Settings inside a component's own that are another component's: read, looked for and shown as any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import tomli
from fakes import BoxesConfig, EntryPoint, component, offering, usual

from coordcore import kinds, option
from coordcore.check import check
from coordcore.manifest import ManifestError, load
from coordcore.manifest.structure import Structurer
from coordcore.manifest.types import plain
from coordcore.schema import find, text


@attrs.frozen(kw_only=True)
class Part:
    builder: str = option(help="another builder")
    settings: Any = option(factory=dict, help="its keys")

    @classmethod
    def from_manifest(cls, table: dict[str, Any], structurer: Structurer) -> Any:
        values = structurer.values(table, cls)
        assert structurer.plugins is not None
        config = structurer.plugins.get(kinds.DATA, values["builder"]).config
        settings = structurer.structure(("settings",), values.get("settings", {}), config)
        return settings if settings is attrs.NOTHING else cls(builder=values["builder"], settings=settings)


@attrs.frozen(kw_only=True)
class Many:
    """Several of them."""

    parts: dict[str, Part] = option(help="by name")


PLUGINS = usual(EntryPoint(distribution="made-many", plugin=offering(kinds.DATA, component("many", Many))))
HEAD = '[model]\nbase = "base"\n[loss.fuzzy]\n'


def written(lines: str) -> Path:
    file = Path("runs/m.toml")
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'{HEAD}[data.many.parts.a]\nbuilder = "boxes"\n{lines}\n')
    return file


def test_nested_settings_are_structured_as_the_component_says() -> None:
    loaded = load(written('settings = { train = "a.jsonl", images = ["pictures"] }'), (), PLUGINS)
    [data] = loaded.manifest.of(kinds.DATA)
    train, pictures = Path("runs/a.jsonl").absolute(), Path("runs/pictures").absolute()

    assert data.config == Many(
        parts={"a": Part(builder="boxes", settings=BoxesConfig(train=train, images=(pictures,)))}
    )
    assert plain(data.config)["parts"]["a"]["settings"]["train"] == str(train)
    assert [str(problem) for problem in check(loaded) if "parts" in problem.path] == [
        f"runs/m.toml:6: data.many.parts.a.settings.images[0]: no such file: {pictures}",
        f"runs/m.toml:6: data.many.parts.a.settings.train: no such file: {train}",
    ]


def test_what_is_wrong_in_them_is_told_at_its_line() -> None:
    file = written("[data.many.parts.a.settings]\ntrain = 'a.jsonl'\nlimit = '3'\nmood = 'dense'")
    with pytest.raises(ManifestError) as caught:
        load(file, (), PLUGINS)

    assert str(caught.value) == (
        "runs/m.toml:8: data.many.parts.a.settings.limit: must be an integer, got '3'; write it without quotes\n"
        "runs/m.toml:9: data.many.parts.a.settings.mood: unknown key; did you mean 'mode'?"
    )


def test_schema_shows_a_table_of_any_name() -> None:
    [section] = find("data.many", PLUGINS)
    assert tomli.loads(text(section)) == {"data": {"many": {"parts": {"name": {"settings": {}}}}}}
