"""Ranks that share weights, gradients or optimizer (FSDP2, DeepSpeed), as the trainer meets them. Imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy

from coordcore.errors import RunError
from coordcore.manifest import Manifest
from coordcore_train.run.launch import on_cpu
from coordcore_train.surgery.matrices import unwrapped


@contextmanager
def sharing(manifest: Manifest) -> Iterator[None]:
    """Within this context models are loaded and trained in shares, where `launch` says so; afterwards whole again.

    ms-swift and transformers set variables and a configuration for the whole process: the merge would be loaded by
    them too.
    """
    if manifest.launch.deepspeed:
        _meet(manifest)
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in ("ACCELERATE_USE_FSDP", "FSDP_VERSION", "FSDP_CPU_RAM_EFFICIENT_LOADING"):
            if name not in before:
                os.environ.pop(name, None)
        if manifest.launch.deepspeed:
            from transformers.integrations.deepspeed import unset_hf_deepspeed_config

            unset_hf_deepspeed_config()


def _meet(manifest: Manifest) -> None:
    """Let DeepSpeed find the ranks, which transformers only lets it do on GPUs; ZeRO-3 asks for them while it loads."""
    if not on_cpu(manifest):
        return
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed import comm

    if not comm.is_initialized():
        comm.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)


def shard_on_cpu(args: Any) -> None:
    """Let accelerate shard over CPU ranks by FSDP, which it does for ranks of every other kind. Before it is made."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    if args.fsdp_plugin_args is not None and PartialState().distributed_type == DistributedType.MULTI_CPU:
        # Read once, to be replaced by FSDP; the device is known by then.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def keep_precision(accelerator: Any, *, adapter: bool) -> None:
    """Let FSDP2 gather and reduce in the precision that training has without it.

    accelerate would cast all that it gathers to the model's dtype, coord offsets too, and sum up gradients in it.
    adapter: whether an adapter trains, whose float32 stands beside the frozen model's dtype; what is trained of a
    whole model is kept in float32 and computes in the model's.
    """
    plugin: Any = getattr(accelerator.state, "fsdp_plugin", None)
    policy = getattr(plugin, "mixed_precision_policy", None)
    if policy is not None:
        whole = MixedPrecisionPolicy(param_dtype=policy.param_dtype, reduce_dtype=torch.float32)
        plugin.mixed_precision_policy = MixedPrecisionPolicy() if adapter else whole


def require_same_inputs(batches: Sequence[Mapping[str, Any]], gather: Callable[[Tensor], Tensor]) -> None:
    """Raise RunError, on every rank, unless the batches of all ranks hold inputs of the same names.

    A rank without a picture would not ask for its share of the vision tower, and the others would wait for it for
    hours. gather: puts rows [1, n] of all ranks together. Under DeepSpeed ms-swift passes a picture of its own through.
    """
    own = torch.tensor([[crc32(" ".join(sorted(batch)).encode()) for batch in batches]], dtype=torch.int64)
    every = gather(own)
    if (every != every[0]).any():
        raise RunError(
            "under FSDP2 a batch of one rank has pictures and that of another has none: the ranks would wait for each "
            'other; give every example a picture, or take launch.deepspeed = "zero2", or no sharding'
        )


def without_ties(model: nn.Module, state: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
    """The tensors that ranks have put together, less those that are others' by another name.

    Put together, each is a tensor of its own, by which `save_pretrained` no longer tells.
    """
    if state is None:
        return None
    ties: Mapping[str, str] = getattr(unwrapped(model), "all_tied_weights_keys", None) or {}
    return {name: tensor for name, tensor in state.items() if ties.get(name) not in state}
