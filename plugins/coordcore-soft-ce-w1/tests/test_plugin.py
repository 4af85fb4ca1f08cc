"""The component as the core meets it: found by entry point, configured, built, and torch-free until then."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import coordcore_soft_ce_w1
from coordcore import COORD_SUPERVISION, COORD_TOKENS, BuildContext
from coordcore.hookspecs import GROUP
from coordcore.protocols import LossTerm
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_soft_ce_w1 import CoordSoftCEW1Config, plugin

WEIGHTS = ("ce_weight", "soft_ce_weight", "w1_weight", "gate_weight", "text_gate_weight")


@pytest.fixture
def component():
    (item,) = plugin.coordcore_losses()
    return item


def config_with(**weights):
    return CoordSoftCEW1Config(**{**dict.fromkeys(WEIGHTS, 0.0), **weights})


def test_the_entry_point_leads_to_the_hooks():
    (entry_point,) = metadata.entry_points(group=GROUP, name="soft_ce_w1")
    assert entry_point.load() is plugin


def test_the_component_has_its_manifest_name(component):
    assert (component.name, component.config) == ("coord_soft_ce_w1", CoordSoftCEW1Config)


def test_it_builds_loss_terms(component, tmp_path: Path):
    context = BuildContext(run_dir=tmp_path, seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None)
    terms = component.build(CoordSoftCEW1Config(text_gate_weight=1.0), context)
    assert [(term.scope, isinstance(term, LossTerm)) for term in terms] == [("coord", True), ("text", True)]


@pytest.mark.parametrize("weight", WEIGHTS[:3])
def test_a_part_that_knows_the_target_supervises(component, weight):
    assert list(component.provides(config_with(**{weight: 0.1}))) == [COORD_SUPERVISION]


@pytest.mark.parametrize("weight", WEIGHTS[3:])
def test_a_gate_alone_does_not_supervise(component, weight):
    assert list(component.provides(config_with(**{weight: 0.1}))) == []


def test_it_requires_coord_tokens(component):
    assert list(component.requires(CoordSoftCEW1Config())) == [COORD_TOKENS]


def test_all_weights_zero_is_an_error():
    with pytest.raises(ValueError, match="every weight is 0, so this loss trains nothing; set ce_weight"):
        config_with()


@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf")])
@pytest.mark.parametrize("key", WEIGHTS)
def test_a_weight_is_finite_and_not_negative(key, value):
    with pytest.raises(ValueError, match=key):
        CoordSoftCEW1Config(**{key: value})


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["sigma", "temperature"])
def test_sigma_and_temperature_are_finite_and_positive(key, value):
    with pytest.raises(ValueError, match=key):
        CoordSoftCEW1Config(**{key: value})


def test_a_negative_truncation_is_refused():
    with pytest.raises(ValueError, match="truncate"):
        CoordSoftCEW1Config(truncate=-1)


def test_the_hooks_do_not_import_torch():
    code = (
        "import sys, coordcore_soft_ce_w1.plugin as plugin\n"
        "(component,) = plugin.coordcore_losses()\n"
        "config = component.config()\n"
        "list(component.provides(config)), list(component.requires(config))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_public_name_can_be_imported():
    missing = [name for name in coordcore_soft_ce_w1.__all__ if not hasattr(coordcore_soft_ce_w1, name)]
    assert missing == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = coordcore_soft_ce_w1.nothing


def test_the_version_is_the_distribution_s():
    assert coordcore_soft_ce_w1.__version__ == metadata.version("coordcore-soft-ce-w1")
