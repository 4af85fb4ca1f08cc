"""The component as the core meets it: found by entry point, configured, built, and torch-free until then."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import coordcore_demo
from coordcore import COORD_SUPERVISION, COORD_TOKENS, BuildContext
from coordcore.components import LENGTHS, PLAIN_NUMBERS
from coordcore.hookspecs import GROUP
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_demo import ShapesConfig, plugin


@pytest.fixture
def component():
    (item,) = plugin.coordcore_data_builders()
    return item


def test_the_entry_point_leads_to_the_hooks():
    (entry_point,) = metadata.entry_points(group=GROUP, name="demo")
    assert entry_point.load() is plugin


def test_the_component_has_its_manifest_name(component):
    assert (component.name, component.config) == ("shapes", ShapesConfig)


@pytest.mark.parametrize(("coord_tokens", "needed"), [(True, [COORD_SUPERVISION]), (False, [])])
def test_coord_tokens_need_supervision(component, coord_tokens, needed):
    assert list(component.requires(ShapesConfig(coord_tokens=coord_tokens))) == needed


@pytest.mark.parametrize(
    ("coord_tokens", "provided"), [(True, [LENGTHS, COORD_TOKENS]), (False, [LENGTHS, PLAIN_NUMBERS])]
)
def test_it_says_whether_it_emits_coord_tokens(component, coord_tokens, provided):
    assert list(component.provides(ShapesConfig(coord_tokens=coord_tokens))) == provided


def test_it_builds_sources_of_the_configured_length(component, tmp_path: Path):
    context = BuildContext(run_dir=tmp_path, seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None)
    builder = component.build(ShapesConfig(train_images=7, validation_images=3), context)
    assert (len(builder.train()), len(builder.validation())) == (7, 3)


def test_no_validation_pictures_means_no_evaluation(component, tmp_path: Path):
    context = BuildContext(run_dir=tmp_path, seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None)
    assert component.build(ShapesConfig(validation_images=0), context).validation() is None


def test_object_counts_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="min_objects is 3, more than max_objects, which is 2; set both"):
        ShapesConfig(min_objects=3, max_objects=2)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train_images", 0),
        ("validation_images", -1),
        ("seed", -1),
        ("image_size", 31),
        ("image_size", 1025),
        ("min_objects", 0),
        ("max_objects", 10),
    ],
)
def test_a_value_out_of_range_is_refused(key, value):
    with pytest.raises(ValueError, match=key):
        ShapesConfig(**{key: value})


def test_the_hooks_do_not_import_torch():
    code = (
        "import sys, coordcore_demo.plugin as plugin\n"
        "(component,) = plugin.coordcore_data_builders()\n"
        "config = component.config()\n"
        "list(component.provides(config)), list(component.requires(config))\n"
        "print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_drawing_does_not_import_torch():
    code = "import sys, coordcore_demo; coordcore_demo.draw(0, 0); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_public_name_can_be_imported():
    missing = [name for name in coordcore_demo.__all__ if not hasattr(coordcore_demo, name)]
    assert missing == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = coordcore_demo.nothing


def test_the_version_is_the_distribution_s():
    assert coordcore_demo.__version__ == metadata.version("coordcore-demo")
