"""Nothing of ours inside a micro-batch makes the host wait for the GPU: torch says where something would."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from models import live
from reference import coord_terms, make_batch, objective, only, text_terms
from setting import NotApplicableError, Setting, check


def no_synchronisation(setting: Setting) -> dict[str, Any]:
    """The objective alone, and a whole micro-batch of a model with offsets, in torch's sync debug mode.

    Each runs once before: what is kept from call to call is copied to the GPU then. elsewhere: where other libraries
    wait in the model's forward, if they do.
    """
    if not setting.cuda:
        raise NotApplicableError("torch tells of synchronisations on CUDA only")
    weights = dict.fromkeys(("ce_weight", "soft_ce_weight", "w1_weight", "gate_weight", "text_gate_weight"), 1.0)
    every = [*text_terms(), *coord_terms(only(**weights))]
    checks = []
    for trained in (False, True):
        batch = make_batch(
            setting,
            tokens=2048,
            supervised=1500,
            vocabulary=20_480,
            width=512,
            dtype=torch.bfloat16,
            trainable_head=trained,
        )
        compute = objective(batch, every)

        def micro_batch(batch: Any = batch, compute: Any = compute) -> None:
            compute(batch.hidden, batch.linear, batch.targets).loss.backward()

        checks.append(_silent(f"objective, {'trained' if trained else 'frozen'} head: waits", micro_batch))
    made = live(setting, dtype=torch.bfloat16)
    compute = made.objective()
    own, elsewhere = _waits(lambda: made.step(compute))
    checks.append({**check("a micro-batch of a text model with offsets: waits", len(own), 0), "where": own})
    return {"checks": checks, "elsewhere": elsewhere}


def _silent(what: str, run: Callable[[], Any]) -> dict[str, Any]:
    """One more call, in which torch raises where the host would wait."""
    run()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    except RuntimeError as error:
        where = [line.strip() for line in traceback.format_exc().splitlines() if line.strip().startswith("File")]
        return {**check(what, 1, 0), "where": where[-4:], "message": str(error)[:300]}
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return check(what, 0, 0)


def _waits(run: Callable[[], Any]) -> tuple[list[str], list[str]]:
    """Where the host waits in one more call: in what transformers calls by itself, and anywhere else."""
    run()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = [f"{item.filename}:{item.lineno}" for item in told if "synchroniz" in str(item.message)]
    others = [place for place in places if "transformers" in Path(place).parts]
    return [place for place in places if place not in others], others
