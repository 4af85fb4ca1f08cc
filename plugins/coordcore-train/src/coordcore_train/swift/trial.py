"""Whether ms-swift takes the arguments of a run, tried before it in a process of its own. Torch-free to import.

ms-swift refuses some values, and some together, only while it builds its arguments, and that takes importing torch.
`python -m coordcore_train.swift.trial` reads {"values": {...}, "added": [...]}, and prints what `refusals` returns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Collection, Mapping
from contextlib import suppress
from copy import deepcopy
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs

from coordcore.errors import InputError
from coordcore.files import own_cache_folder, write_whole
from coordcore.manifest import Manifest
from coordcore.manifest.sections import Launch, Train, Tuner
from coordcore_train.swift.arguments import REFUSALS, Setup, argument_values
from coordcore_train.swift.families import family_of

_OF_A_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_OF_THE_DEVICE = ("tf32",)
"""What ms-swift takes or refuses by the GPU, which this machine may lack."""

_OVER_THE_NETWORK = ("hub_token", "swanlab_token")
"""What ms-swift logs in with as soon as it sees it."""


@attrs.frozen(kw_only=True)
class _Unbuilt:
    """What the table of arguments asks of a plan, where nothing has been built."""

    manifest: Manifest
    base: Path
    run_dir: Path
    modules_to_save: tuple[str, ...] = ()


def refused(manifest: Manifest, base: Path, names: Collection[str]) -> Mapping[str, str]:
    """Of `[train.swift]`'s arguments `names`, those that ms-swift refuses, as `refusals` gives them.

    Asked once for the same values, files and versions: what is taken is kept in the cache folder. base: a checkpoint
    whose Python, if it has any, is trusted to run. Raises InputError when ms-swift ends without an answer.
    """
    skipped = (*_OVER_THE_NETWORK, *(() if manifest.train.device == "cpu" else _OF_THE_DEVICE))
    added = {name: value for name, value in manifest.train.swift.items() if name in names and name not in skipped}
    if not added:
        return {}
    question = json.dumps({"values": _values(manifest, base, added), "added": [*added]}, sort_keys=True)
    file = _kept(question, base)
    if file is not None and file.is_file():
        return {}
    environment = {name: value for name, value in os.environ.items() if name not in _OF_A_LAUNCHER}
    environment |= {"LOG_LEVEL": "ERROR", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", __name__]
    answer = subprocess.run(command, input=question, capture_output=True, text=True, env=environment, check=False)
    if answer.returncode:
        last = (answer.stderr.strip() or "no message").splitlines()[-1]
        raise InputError(f"ms-swift could not be asked about these arguments: {last}")
    found: Mapping[str, str] = json.loads(answer.stdout.strip().splitlines()[-1])
    if file is not None and not found:
        with suppress(OSError):  # it only costs the question again
            write_whole(file, question)
    return found


def _values(manifest: Manifest, base: Path, added: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a run on the CPU, in one process and with ms-swift's own classes in place of ours.

    Of the manifest only what could make a difference to `added`, so that another number of steps is not asked anew.
    """
    model = manifest.model
    alone = attrs.evolve(
        manifest,
        tuner=Tuner(type=manifest.tuner.type),
        train=Train(steps=1, workers=manifest.train.workers, device="cpu", swift=dict(added)),
        launch=Launch(),
    )
    family = family_of(base, model_type=model.type, template=model.template, name=model.base)
    plan: Any = _Unbuilt(manifest=alone, base=base, run_dir=Path("run"))
    values = argument_values(Setup(plan=plan, has_validation=True, resume=None))
    return values | {"model_type": family.type, "template": family.template, "external_plugins": []}


def _kept(question: str, base: Path) -> Path | None:
    """The file that stands for the answer that all of it is taken, None where no cache can be used."""
    try:
        folder = own_cache_folder()
    except InputError:
        return None
    versions = [metadata.version(name) for name in ("ms-swift", "transformers")]
    text = json.dumps([question, (base / "config.json").read_text(encoding="utf-8"), *versions])
    return folder / f"swift-takes-{sha256(text.encode()).hexdigest()[:16]}.json"


def refusals(values: Mapping[str, Any], added: Collection[str]) -> dict[str, str]:
    """Name -> the reason, for each of the arguments `added` that ms-swift refuses; under "" for them together.

    Nothing where it refuses the other arguments as well: then what is `added` is not what is wrong.
    """
    reason = _refusal(values)
    others = {name: value for name, value in values.items() if name not in added}
    if reason is None or _refusal(others) is not None:
        return {}
    alone = {name: _refusal({**others, name: values[name]}) for name in added}
    return {name: found for name, found in alone.items() if found is not None} or {"": reason}


def _refusal(values: Mapping[str, Any]) -> str | None:
    from swift.arguments import SftArguments

    with TemporaryDirectory() as folder:
        try:
            SftArguments(**deepcopy({**values, "output_dir": folder}))
        except REFUSALS as error:
            said = str(error) or traceback.extract_tb(error.__traceback__)[-1].line  # of a bare assert
            return f"{type(error).__name__}: {' '.join(said.split())}" if said else type(error).__name__
    return None


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    print(json.dumps(refusals(asked["values"], asked["added"])))
