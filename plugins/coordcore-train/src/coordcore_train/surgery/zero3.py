"""What DeepSpeed ZeRO-3 parts over the ranks while a model loads, whole for the moments that a surgery needs it.

The hooks of a surgery read its parameters beside a module that is not theirs, of which DeepSpeed knows nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from coordcore_train.surgery.matrices import unwrapped


def is_parted(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 keeps this parameter in parts, whole or not at this moment."""
    return hasattr(parameter, "ds_id")


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Within this context every rank holds embedding and head whole. All ranks enter it, and none changes them."""
    base = unwrapped(model)
    if not any(is_parted(parameter) for parameter in base.parameters()):
        yield
        return
    import deepspeed

    matrices = [base.get_input_embeddings(), base.get_output_embeddings()]
    found = {id(item): item for matrix in matrices if matrix is not None for item in matrix.parameters()}
    with deepspeed.zero.GatheredParameters(list(found.values())):
        yield


def fetched_with(matrix: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
    """Let ZeRO-3 fetch `parameters` whenever it fetches those of `matrix`, beside which hooks read them.

    Does nothing where it has not parted the matrix.
    """
    if any(is_parted(parameter) for parameter in matrix.parameters(recurse=False)):
        import deepspeed

        for parameter in parameters:
            deepspeed.zero.register_external_parameter(matrix, parameter)
