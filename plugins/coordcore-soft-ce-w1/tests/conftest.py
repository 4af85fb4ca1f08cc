"""One thread and no network for every test, and Triton's kernels interpreted."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported, which torch may do

import torch

torch.set_num_threads(1)
