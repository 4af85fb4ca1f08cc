"""The run of this process, as a global: for the two classes that ms-swift builds from a name and nothing else.

1. `classes.CoordLoader`: `--model_type coordcore_TYPE` in training, `swift infer` and `swift export` alike;
   ms-swift makes it from a model folder and its own settings, and the surgeries must be in what it loads.
2. `template.CoordTemplate` (its property `plan`): `--template coordcore_NAME`, made from a processor. It is asked
   every time and not kept, because ms-swift copies templates and sends them to data-loader processes.

All others get the run from what they are given: the trainer from its template, the optimizer from its trainer, the
pipeline as an argument. A run is made active by `pipeline.train`, `rehearse`, and, under ms-swift's own commands, by
the run's swift_plugin.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordcore_train.run.plan import Plan

_active: Plan | None = None


def activate(plan: Plan) -> None:
    """Make `plan` the run of this process."""
    global _active
    _active = plan


def active_plan() -> Plan:
    """The run of this process. Raises RuntimeError when none was activated."""
    if _active is None:
        raise RuntimeError(
            "no coordcore run is active; start with `coordcore run`, or give ms-swift the run's swift_plugin.py "
            "as --external_plugins"
        )
    return _active


def is_active(run_dir: object) -> bool:
    """Whether the run of this process lives in `run_dir`."""
    return _active is not None and _active.run_dir == run_dir
