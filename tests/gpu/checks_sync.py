"""Nothing inside a micro-batch makes the host wait for the GPU: torch raises where something would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from models import live
from reference import default_terms, make_batch, objective, only, coord_terms, text_terms
from setting import NotApplicableError, Setting, check


def no_synchronisation(setting: Setting) -> dict[str, Any]:
    """The objective alone, and a whole micro-batch of a model with offsets, in torch's sync debug mode."""
    if not setting.cuda:
        raise NotApplicableError("torch tells of synchronisations on CUDA only")
    every = [*text_terms(), *coord_terms(only(ce_weight=1.0, soft_ce_weight=1.0, w1_weight=1.0, gate_weight=1.0,
                                               text_gate_weight=1.0))]  # fmt: skip
    checks = []
    for trained in (False, True):
        batch = make_batch(
            setting, tokens=2048, supervised=1500, vocabulary=20_480, width=512, dtype=torch.bfloat16,
            trainable_head=trained,
        )  # fmt: skip
        compute = objective(batch, every)

        def micro_batch(batch: Any = batch, compute: Any = compute) -> None:
            compute(batch.hidden, batch.linear, batch.targets).loss.backward()

        checks.append(_silent(f"objective, {'trained' if trained else 'frozen'} head", micro_batch))
    made = live(setting, dtype=torch.bfloat16)
    checks.append(_silent("a micro-batch of a text model with offsets", lambda: made.step(default_terms())))
    return {"checks": checks}


def _silent(what: str, run: Callable[[], Any]) -> dict[str, Any]:
    """The first call fills what is kept from call to call, and may wait; the second must not."""
    run()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    except RuntimeError as error:
        import traceback

        where = [one for one in traceback.format_exc().splitlines() if one.strip().startswith("File")]
        return {**check(f"{what}: waits", 1, 0), "where": where[-3:], "message": str(error)[:300]}
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return check(f"{what}: waits", 0, 0)
