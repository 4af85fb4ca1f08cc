"""The file in a run folder by which ms-swift's own commands find the run. Torch-free."""

from __future__ import annotations

from pathlib import Path

from coordcore.files import write_whole

_PLUGIN_TEXT = '''"""Registers this run's model, template, optimizer and trainer with ms-swift.

Use it with the stock commands: `swift infer --adapters CHECKPOINT` finds it by itself (args.json names it),
`swift sft --external_plugins THIS_FILE --model_type coordcore_TYPE ...` trains with it; TYPE is ms-swift's own type.
"""

from pathlib import Path

from coordcore_train.swift.register import register_run

register_run(Path(__file__).resolve().parent)
'''


def plugin_file(run_dir: Path) -> Path:
    """The run's plugin for ms-swift's own commands."""
    return run_dir / "swift_plugin.py"


def write_plugin_file(run_dir: Path) -> None:
    """Write `plugin_file(run_dir)`."""
    write_whole(plugin_file(run_dir), _PLUGIN_TEXT)
