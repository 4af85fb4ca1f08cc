"""What the card itself does: bytes copied and matrix products a second. Every floor is by these."""

from __future__ import annotations

from typing import Any

import torch
from setting import Setting, timed


def floor(setting: Setting) -> dict[str, Any]:
    """bytes_per_second: of a copy, bytes read and written. flops: of a square matrix product, by dtype."""
    elements = setting.size(2**30, 2**22)
    source = torch.zeros(elements // 4, dtype=torch.float32, device=setting.device)
    target = torch.empty_like(source)
    copy = timed(lambda: target.copy_(source), setting, 9)
    flops = {}
    side = setting.size(8192, 256)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        left, right = (setting.randn(side, side, seed=seed, dtype=dtype) for seed in (1, 2))
        product = timed(lambda left=left, right=right: left @ right, setting, 9)
        flops[str(dtype).removeprefix("torch.")] = 2 * side**3 / (product["ms"] / 1e3)
    return {"bytes_per_second": 2 * elements / (copy["ms"] / 1e3), "flops": flops}
