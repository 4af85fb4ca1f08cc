"""The run this process works on. ms-swift builds our classes by name, so they find their run here."""

from __future__ import annotations

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
