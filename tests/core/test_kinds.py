"""A new kind of component is one row of the table."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
from fakes import EntryPoint, component, module

from coordcore import hookimpl, kinds, schema
from coordcore.check import check
from coordcore.discovery import discover
from coordcore.errors import ManifestError
from coordcore.kinds import KINDS, Kind
from coordcore.manifest import load
from coordcore.plugins import Plugins

REWARD = Kind(
    "reward",
    noun="reward",
    plural="rewards",
    protocol="Reward",
    how_many="some",
    order="summed in the order of the file",
)
TABLE = (*KINDS, REWARD)
TEXT = '[model]\nbase = "base"\n[data.text]\n[loss.text_ce]\n'


def plugins() -> Plugins:
    """A plugin that offers data and a reward, over the table with one row more."""
    plugin = module(
        coordcore_data_builders=hookimpl(lambda: [component("text")]),
        coordcore_rewards=hookimpl(lambda: [component("iou"), component("length")]),
    )
    return discover(entry_points=[EntryPoint(plugin=plugin)], kinds=TABLE)


def test_a_row_makes_a_hook_and_a_section() -> None:
    Path("m.toml").write_text(TEXT + "[reward.length]\n[reward.iou]\n")
    loaded = load("m.toml", (), plugins())

    assert [selected.path for selected in loaded.manifest.of(REWARD)] == ["reward.length", "reward.iou"]
    assert check(loaded) == []


def test_a_row_says_how_many_there_must_be() -> None:
    Path("m.toml").write_text(TEXT)

    with pytest.raises(
        ManifestError, match=r"reward: the run needs a reward: add \[reward.<name>\]; available: iou, length$"
    ):
        load("m.toml", (), plugins())


def test_a_row_shows_in_schema_and_in_plugins() -> None:
    found = plugins()

    assert "reward: at least one, summed in the order of the file\n[reward.iou]" in schema.overview(found)
    assert json.dumps([str(kind) for kind, _ in found.infos[1].components]) == '["data", "reward", "reward"]'


def test_the_table_of_every_run_lacks_it() -> None:
    Path("m.toml").write_text(TEXT.replace("[data.text]", "[data.plain]") + "[reward.iou]\n")
    (_, info) = discover(entry_points=[EntryPoint(plugin=module(coordcore_rewards=hookimpl(lambda: [])))]).infos

    assert info.reason.startswith("unknown hook 'coordcore_rewards'; did you mean ")
    with pytest.raises(ManifestError, match="reward: unknown section"):
        load("m.toml")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_its_section_whoever_carries_it(kind: Kind) -> None:
    for same in (copy.copy(kind), copy.deepcopy(kind), pickle.loads(pickle.dumps(kind))):
        assert (same, same.hook, same.how_many) == (str(kind), kind.hook, kind.how_many)


def test_hooks_are_named_after_several_of_a_kind() -> None:
    assert [kind.hook for kind in KINDS] == [
        "coordcore_data_builders",
        "coordcore_answer_formats",
        "coordcore_template_adapters",
        "coordcore_surgeries",
        "coordcore_losses",
        "coordcore_optimizers",
        "coordcore_evaluators",
    ]


def test_only_evaluators_leave_the_weights_alone() -> None:
    assert [kind for kind in KINDS if not kind.changes_weights] == [kinds.EVAL]


def test_a_column_that_the_table_has_not_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^the table of kinds has no column colour, size$"):
        Kind("probe", noun="probe", protocol="Probe", how_many="any", size=3, colour="red")
