"""Puts a run's classes into ms-swift's own registries, for its stock commands too. Torch-free to import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coordcore_train.swift.active import activate, is_active
from coordcore_train.swift.names import FAMILY, MODEL_TYPE, OPTIMIZER, TEMPLATE_TYPE
from coordcore_train.swift.plugin_file import write_plugin_file

if TYPE_CHECKING:
    from coordcore_train.run.plan import Plan


def enter(plan: Plan) -> None:
    """Make `plan` the run that ms-swift works on in this process, and write its plugin file."""
    register()
    _activate(plan)
    write_plugin_file(plan.run_dir)


def register() -> None:
    """Register model, template, optimizer and trainer under their coordcore names. Idempotent."""
    from swift.model import ModelMeta, register_model
    from swift.optimizers import optimizers_map
    from swift.template import register_template
    from swift.template.templates.qwen import QwenTemplateMeta
    from swift.trainers import TrainerFactory

    from coordcore_train.swift.loader import CoordQwen3VLLoader
    from coordcore_train.swift.optimizer import CoordOptimizer
    from coordcore_train.swift.template import CoordQwen3VLTemplate

    register_template(
        QwenTemplateMeta(
            TEMPLATE_TYPE, template_cls=CoordQwen3VLTemplate, default_system=None, thinking_prefix="<think>\n"
        ),
        exist_ok=True,
    )
    # No architectures: ms-swift must not pick this type for a checkpoint by itself.
    register_model(
        ModelMeta(
            MODEL_TYPE,
            [],
            CoordQwen3VLLoader,
            template=TEMPLATE_TYPE,
            model_arch=FAMILY,
            architectures=[],
            is_multimodal=True,
        ),
        exist_ok=True,
    )
    optimizers_map[OPTIMIZER] = CoordOptimizer
    TrainerFactory.TRAINER_MAPPING["causal_lm"] = "coordcore_train.swift.trainer.CoordTrainer"


def register_run(run_dir: Path) -> None:
    """Register, and make the run in `run_dir` the active one, from its resolved manifest. For swift_plugin.py."""
    from coordcore_train.run.plan import load_run

    register()
    if not is_active(run_dir):
        _activate(load_run(run_dir))


def _activate(plan: Plan) -> None:
    from coordcore_train.swift.trust import let_code_run

    let_code_run(trusted=plan.trusted)
    activate(plan)
