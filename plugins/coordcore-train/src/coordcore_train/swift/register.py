"""Puts a run's classes into ms-swift's own registries, for its stock commands too. Torch-free to import."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING

from coordcore_train.swift.active import activate, active_plan, is_active
from coordcore_train.swift.families import Family, family_of_plan
from coordcore_train.swift.names import OPTIMIZER, ours
from coordcore_train.swift.plugin_file import write_plugin_file

if TYPE_CHECKING:
    from coordcore_train.run.plan import Plan


def enter(plan: Plan) -> None:
    """Make `plan` the run that ms-swift works on in this process, and write its plugin file."""
    register(family_of_plan(plan))
    _activate(plan)
    write_plugin_file(plan.run_dir)


def register(family: Family) -> None:
    """Register model, template, optimizer and trainer of a family under their coordcore names. Idempotent."""
    from swift.model import MODEL_MAPPING
    from swift.optimizers import optimizers_map
    from swift.template import TEMPLATE_MAPPING
    from swift.trainers import TrainerFactory

    from coordcore_train.swift.classes import loader_class, template_class
    from coordcore_train.swift.optimizer import CoordOptimizer

    template = copy(TEMPLATE_MAPPING[family.template])
    template.template_type = ours(family.template)
    template.template_cls = template_class(family.template)
    TEMPLATE_MAPPING[template.template_type] = template
    model = copy(MODEL_MAPPING[family.type])
    model.model_type = ours(family.type)
    model.loader = loader_class(family.type)
    model.template = template.template_type
    model.candidate_templates = [template.template_type]
    # No published names and no architectures: ms-swift must not pick this type for a checkpoint by itself.
    model.model_groups, model.architectures = [], []
    MODEL_MAPPING[model.model_type] = model
    optimizers_map[OPTIMIZER] = CoordOptimizer
    TrainerFactory.TRAINER_MAPPING["causal_lm"] = "coordcore_train.swift.trainer.CoordTrainer"


def register_run(run_dir: Path) -> None:
    """Register, and make the run in `run_dir` the active one, from its resolved manifest. For swift_plugin.py."""
    from coordcore_train.run.plan import load_run

    if not is_active(run_dir):
        _activate(load_run(run_dir))
    register(family_of_plan(active_plan()))


def _activate(plan: Plan) -> None:
    from coordcore_train.swift.trust import let_code_run

    let_code_run(trusted=plan.trusted)
    activate(plan)
