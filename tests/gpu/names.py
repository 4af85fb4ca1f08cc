"""The sections: name -> module, function, seconds it may take on a GPU. In the order in which they run. Torch-free."""

from __future__ import annotations

SECTIONS: dict[str, tuple[str, str, float]] = {
    # What the figures are compared with comes first, then what proves most for its seconds.
    "floor": ("figures_floor", "floor", 20),
    "objective terms": ("checks_objective", "terms", 45),
    "soft-ce-w1 kernel": ("checks_losses", "kernel", 75),
    "objective in the forward": ("checks_objective", "in_forward", 30),
    "no synchronisation": ("checks_sync", "no_synchronisation", 40),
    "figures soft-ce-w1": ("figures_losses", "soft_ce_w1", 25),
    "figures objective 152670 2048": ("figures_objective", "v152670_h2048", 30),
    "figures objective 152670 4096": ("figures_objective", "v152670_h4096", 30),
    "figures objective 248320 2048": ("figures_objective", "v248320_h2048", 30),
    "figures objective 248320 4096": ("figures_objective", "v248320_h4096", 40),
    "figures objective trained head": ("figures_objective", "trained_head", 30),
    "figures objective chunks": ("figures_objective", "chunks", 30),
    "figures objective kernels": ("figures_objective", "kernels", 20),
    "figures offsets": ("figures_adapter", "offsets", 40),
    "figures decoding": ("figures_decoding", "decoding", 45),
    "expand, merge and predict": ("checks_checkpoint", "expand_merge_predict", 60),
    "DDP of one rank": ("checks_parallel", "ddp", 40),
    "FSDP2 of one rank": ("checks_parallel", "fsdp2", 40),
    "packing": ("checks_packing", "packing", 40),
    "torch.compile": ("checks_compile", "compiled", 90),
    "ms-swift": ("checks_swift", "training", 90),
}

RENEW = 75
"""The exit status of a worker whose GPU is in a state that only a new process leaves. It has told of its section."""
