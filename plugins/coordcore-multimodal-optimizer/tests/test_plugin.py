"""The component: found by its entry point, torch-free, and checked against the rest of the manifest."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coordcore import BuildContext
from coordcore_multimodal_optimizer import MultimodalOptimizer, MultimodalOptimizerConfig, TagSettings, plugin

[COMPONENT] = plugin.coordcore_optimizers()


def _problems(config: Any, *, freeze_vision: bool, freeze_aligner: bool) -> list[str]:
    tuner = SimpleNamespace(freeze_vision=freeze_vision, freeze_aligner=freeze_aligner)
    run: Any = SimpleNamespace(tuner=tuner)
    return [str(problem) for problem in COMPONENT.check(config, run)]


def test_the_entry_point_names_the_module_of_the_hooks() -> None:
    [found] = entry_points(group="coordcore.v1", name="multimodal_optimizer")
    assert found.load() is plugin


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, coordcore_multimodal_optimizer.groups; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_settings_reach_the_factory() -> None:
    config = MultimodalOptimizerConfig(offset_lr=1e-2)
    context = BuildContext(run_dir=Path("run"), seed=0, quantisation=Any, vocab=None)
    factory = COMPONENT.build(config, context)
    assert isinstance(factory, MultimodalOptimizer)
    assert factory.config is config


@pytest.mark.parametrize("key", ["vision_lr", "aligner_lr", "llm_lr", "offset_lr"])
def test_a_learning_rate_is_positive(key: str) -> None:
    with pytest.raises(ValueError, match=f"'{key}' must be >= 1e-12: 0"):
        MultimodalOptimizerConfig(**{key: 0.0})


def test_a_tag_with_keys_of_its_own_has_no_second_place() -> None:
    with pytest.raises(ValueError, match="'offset' has keys of its own: offset_lr and offset_weight_decay"):
        MultimodalOptimizerConfig(tags={"offset": TagSettings(lr=1.0)})


def test_a_learning_rate_for_a_frozen_part_is_a_problem() -> None:
    config = MultimodalOptimizerConfig(vision_lr=1e-6, aligner_lr=1e-5)
    assert _problems(config, freeze_vision=True, freeze_aligner=False) == [
        "optimizer.multimodal_coord_offset.vision_lr: 1e-06 would train nothing: tuner.freeze_vision is true; "
        "set that to false or drop this"
    ]


def test_learning_rates_for_parts_that_train_are_fine() -> None:
    config = MultimodalOptimizerConfig(vision_lr=1e-6, aligner_lr=1e-5, llm_lr=1e-4, offset_lr=1e-2)
    assert _problems(config, freeze_vision=False, freeze_aligner=False) == []
