"""Where a command may write."""

from __future__ import annotations

from pathlib import Path

from coordcore import InputError


def require_writable(output: Path | None, *inputs: Path | None, overwrite: bool) -> None:
    """Raise InputError for an `output` that is there and not to be replaced, is a folder, or is one of the inputs."""
    if output is None or not output.exists():
        return
    if any(one is not None and one.exists() and output.samefile(one) for one in inputs):
        raise InputError(f"{output}: is read by this command; name another file to write")
    if output.is_dir():
        raise InputError(f"{output}: is a folder; name a file")
    if not overwrite:
        raise InputError(f"{output}: exists; replace it with --overwrite, or name another file")
