"""The how-to of the objective without ms-swift does what it says, in a process that cannot import ms-swift."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/how-to/plain-transformers.md"

BEFORE = """
import sys
import torch
sys.modules["swift"] = None
torch.set_num_threads(1)
checkpoint = sys.argv[1]
from coordcore_train.checkpoint.folder import read_vocab
ids = read_vocab(checkpoint).ids
row = torch.tensor([[65, 66, 67, ids[10], ids[500], 68, ids[990], 69]])
labels = row.index_fill(1, torch.arange(2), -100)
batches = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": labels}] * 8
losses = []
"""
AFTER = """
    losses.append(output.loss.item())
assert losses[-1] < 0.9 * losses[0], losses
assert sorted(sums) == ["coord/loss", "text/loss"]
"""


def test_the_page_trains_a_plain_model(coord_base: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    found = subprocess.run(
        [sys.executable, "-c", BEFORE + code + AFTER, str(coord_base)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
