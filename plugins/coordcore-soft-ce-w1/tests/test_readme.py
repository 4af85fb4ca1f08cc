"""README.md: its examples run and its table is the config class."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import attrs
import pytest
import tomli
import torch

from coordcore_soft_ce_w1 import CoordSoftCEW1Config

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    assert found
    return found


@pytest.fixture(scope="module")
def after_the_examples():
    namespace = {"__name__": "readme"}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    return namespace


def test_the_function_examples_give_what_they_say(after_the_examples):
    assert after_the_examples["targets"].shape == (2, 4, 1000)
    # Uniform logits against targets near 12: the mean distance of a uniform bin from bin 12 is about 487.
    assert after_the_examples["distance_in_bins"][0, 0].item() == pytest.approx(487.4, abs=0.5)


def test_the_alternative_is_a_working_component(after_the_examples):
    (component,) = after_the_examples["coordcore_losses"]()
    term = component.build(component.config(weight=2.0), None)
    logits = torch.where(torch.arange(1000) == 7, 1e4, 0.0).expand(2, 1000)
    loss = term(SimpleNamespace(logits=logits, bins=torch.tensor([7, 10])))
    assert (term.weights, loss["loss"].tolist()) == ({"loss": 2.0}, [0.0, 3.0])


def test_the_manifest_example_fits_the_config():
    sections = tomli.loads("\n".join(blocks("toml")))["loss"]
    assert list(sections) == ["text_ce", "coord_soft_ce_w1"]
    assert CoordSoftCEW1Config(**sections["coord_soft_ce_w1"]) == CoordSoftCEW1Config()


def test_the_table_is_the_config_class():
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (\S+) \| (.+) \|$", README, flags=re.MULTILINE)
    documented = [(key, kind.replace("\\|", "|"), default, meaning) for key, kind, default, meaning in rows]
    hints = get_type_hints(CoordSoftCEW1Config)
    types = {key: hint.__name__ if isinstance(hint, type) else str(hint) for key, hint in hints.items()}
    declared = [
        (field.name, types[field.name], str(field.default), field.metadata["help"])
        for field in attrs.fields(CoordSoftCEW1Config)
    ]
    assert documented == declared
