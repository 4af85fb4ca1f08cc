"""Runs sections one after another and tells of each through a pipe; `run.py` starts it, and again when it dies."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import time
import traceback
from importlib import import_module
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from names import RENEW


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on."""
    import torch

    found: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    if device == "cpu":
        return {**found, "card": None, "cuda": None}
    facts = torch.cuda.get_device_properties(0)
    return {
        **found,
        "card": facts.name,
        "cuda": torch.version.cuda,
        "memory_gb": round(facts.total_memory / 1e9, 1),
        "multiprocessors": facts.multi_processor_count,
        "capability": f"{facts.major}.{facts.minor}",
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--tell", type=int, required=True)
    parser.add_argument("sections", nargs="*", metavar="NAME=MODULE.FUNCTION")
    options = parser.parse_args()

    def tell(what: dict[str, Any]) -> None:
        os.write(options.tell, (json.dumps(what) + "\n").encode())

    import torch
    from setting import NotApplicableError, Setting, SkippedError

    if options.device == "cpu":
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    setting = Setting(device=options.device, small=options.small)
    tell({"machine": machine(options.device)})
    for section in options.sections:
        name, _, place = section.partition("=")
        module, _, function = place.partition(".")
        print(f"--- {name}", flush=True)
        tell({"begins": name})
        started = time.perf_counter()
        result: dict[str, Any] = {"name": name}
        try:
            found = getattr(import_module(module), function)(setting)
            checks = found.get("checks", [])
            result |= {"status": "ok" if all(check["ok"] for check in checks) else "failed", **found}
        except SkippedError as reason:
            result |= {"status": "skipped", "reason": str(reason)}
        except NotApplicableError as reason:
            result |= {"status": "not applicable", "reason": str(reason)}
        # Whatever a section raises is its result; the others go on.
        except Exception as error:
            traceback.print_exc()
            result |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
            result["traceback"] = traceback.format_exc()
        result["seconds"] = round(time.perf_counter() - started, 2)
        usable = cleared(options.device)
        if not usable and result["status"] == "ok":
            result |= {"status": "failed", "reason": "the GPU told of an error behind it; see the log"}
        tell(result)
        if not usable:
            os._exit(RENEW)


def cleared(device: str) -> bool:
    """Leave nothing to the next section. Whether the GPU can still be used: after some errors it cannot."""
    import torch

    gc.collect()
    if device == "cpu":
        return True
    try:
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        traceback.print_exc()
        return False
    return True


if __name__ == "__main__":
    main()
    sys.exit(0)
