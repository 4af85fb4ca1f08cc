"""Every check in its order, and what becomes of one that cannot be made."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from coordcore.errors import InputError, RunError
from coordcore_doctor import (
    data_checks,
    head_checks,
    image_checks,
    manifest_checks,
    model_checks,
    prompt_checks,
    vocab_checks,
)
from coordcore_doctor.examined import ExaminedRun, NotAvailableError
from coordcore_doctor.findings import Finding, error

CHECKS: dict[str, Callable[[ExaminedRun, str], Iterator[Finding]]] = {
    "manifest": manifest_checks.check_manifest,
    "machine": manifest_checks.check_machine,
    "optimizer name": manifest_checks.check_optimizer_name,
    "base": vocab_checks.check_base,
    "coord tokens": vocab_checks.check_tokens,
    "coord ids": vocab_checks.check_ids,
    "coord rows": vocab_checks.check_coord_rows,
    "padding rows": vocab_checks.check_padding_rows,
    "tied head": vocab_checks.check_tie,
    "base weights": vocab_checks.check_weights,
    "quantisation": manifest_checks.check_quantisation,
    "data": data_checks.check_data,
    "data size": manifest_checks.check_size,
    "template": data_checks.check_encoding,
    "round trip": data_checks.check_round_trip,
    "supervision": data_checks.check_supervision,
    "answer format": data_checks.check_answers,
    "question": prompt_checks.check_question,
    "image sizes": image_checks.check_images,
    "served sizes": image_checks.check_served,
    "token lengths": data_checks.check_lengths,
    "target modules": model_checks.check_targets,
    "surgeries": model_checks.check_surgeries,
    "optimizer groups": model_checks.check_optimizer,
    "training step": model_checks.check_step,
    "gradients": model_checks.check_gradients,
    "output head": head_checks.check_head,
}
"""Name in the table -> check. A check yields one finding or more."""


def examine(run: ExaminedRun) -> Iterator[Finding]:
    """What every check finds. One that cannot be made is an error once, and "not checked" where others need it."""
    for name, check in CHECKS.items():
        try:
            yield from check(run, name)
        except NotAvailableError as missing:
            if missing.told:
                yield Finding(name=name, state="not checked", seen=f"needs the {missing.what}, see above")
            else:
                missing.told = True
                yield error(name, str(missing))
        except (InputError, RunError) as problem:
            yield error(name, str(problem))
