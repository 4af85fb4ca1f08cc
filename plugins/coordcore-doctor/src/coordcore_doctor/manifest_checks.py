"""Checks of the manifest itself: problems, optimizer name, machine, how much data it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from coordcore import kinds
from coordcore.check import check as find_problems
from coordcore_doctor.examined import ExaminedRun
from coordcore_doctor.findings import Finding, error, not_applicable, ok, warning

MANY_PASSES = 1000
"""Passes over the examples from which on a run is more likely a slip of the pen."""


def check_manifest(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """What `coordcore check` reports."""
    problems = find_problems(run.loaded)
    yield from (error(name, str(problem)) for problem in problems)
    if not problems:
        yield ok(name, f"{run.loaded.file.name}: no problems found")


def check_machine(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether this machine has what `[train] device` asks for."""
    import torch

    device = run.manifest.train.device
    if device != "cuda":
        yield ok(name, f'train.device = "{device}"')
    elif torch.cuda.is_available():
        yield ok(name, f"{torch.cuda.device_count()} GPUs")
    else:
        cure = 'run it on a machine with one, or set train.device = "cpu"'
        yield warning(name, 'train.device = "cuda", and torch sees no GPU on this machine', cure)


def check_optimizer_name(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether transformers knows `[train] optim`."""
    from transformers.training_args import OptimizerNames

    optim, known = run.manifest.train.optim, [name.value for name in OptimizerNames]
    if optim in known:
        yield ok(name, f"{optim}")
        return
    close = get_close_matches(optim, known, n=1) or ["adamw_torch_fused"]
    yield error(name, f"train.optim = {optim!r}, which transformers does not know", f'set it to "{close[0]}"')


def check_size(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether the number of examples, `limit` and the length of the run belong together."""
    manifest, total = run.manifest, run.sample.total
    (data,) = manifest.of(kinds.DATA)
    limit = getattr(data.config, "limit", None)
    ranks = manifest.launch.nproc_per_node * manifest.launch.nnodes
    together = manifest.train.batch_size * manifest.train.accumulation * ranks
    cure = f"raise {data.path}.limit" if limit is not None else "give more records"
    if total == 0:
        yield error(name, "there is no example to train on", f"look at [{data.path}]")
        return
    if limit is not None and limit > total:
        seen = f"{data.path}.limit = {limit}, and there are {total} examples"
        yield warning(name, seen, "leave the limit out, or look for the records that are missing")
    elif total < together:
        seen = f"{total} examples are fewer than one step takes ({together})"
        yield warning(name, seen, f"{cure}, or lower train.batch_size or train.accumulation")
    elif (passes := _passes(run, together)) > MANY_PASSES:
        yield warning(name, f"each of {total} examples is seen {passes:.0f} times", f"{cure}, or lower train.steps")
    else:
        yield ok(name, f"{total} examples, {together} a step, {passes:.3g} passes")


def _passes(run: ExaminedRun, together: int) -> float:
    train = run.manifest.train
    return train.epochs if train.steps is None else train.steps * together / run.sample.total


def check_quantisation(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether the base says the same convention as the manifest; records that say another one cannot be read."""
    from coordcore.errors import InputError
    from coordcore.quantisation import require_same
    from coordcore_train.checkpoint.folder import read_checkpoint_info, require_same_coords

    ours = run.quantisation
    try:
        info = read_checkpoint_info(run.base)
        if info is not None:
            require_same(info.quantisation, ours, "the base", "the manifest")
            if info.vocab is not None:
                require_same_coords(info.vocab.format, run.manifest.coords.format, "the base", "the manifest")
    except InputError as problem:
        yield error(name, str(problem))
        return
    if run.vocab is None:
        yield not_applicable(name, "the run has no coord tokens")
    elif info is not None and info.vocab is not None and info.vocab.ids != run.vocab.ids:
        found = f"coordcore.json says ids {info.vocab!r}, the tokenizer {run.vocab!r}"
        yield error(name, found, "expand the original base again; the files are not of one checkpoint")
    else:
        yield ok(name, f"{ours} in the manifest, {'the same' if info is not None else 'nothing'} in the base")
