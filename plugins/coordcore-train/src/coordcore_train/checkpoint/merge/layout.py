"""Which tensor of a merged checkpoint comes from where and goes where: the base's own layout. Imports torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from coordcore.errors import InputError, RunError
from coordcore_train.checkpoint.merge import NotStreamedError
from coordcore_train.checkpoint.tensorfile import Stored, TensorSpec, read_bytes
from coordcore_train.checkpoint.weights import is_sharded, stored_tensors

DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@attrs.frozen(kw_only=True)
class Place:
    """source: where the trained-from value of a parameter lies. file, spec: where it goes, in which dtype."""

    source: Stored
    file: str
    spec: TensorSpec

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.spec.dtype]

    @property
    def is_copy(self) -> bool:
        """Whether the bytes of `source` are those of the target."""
        return self.source.dtype == self.spec.dtype


def layout(model: Any, base: Path, source: Path) -> dict[str, Place]:
    """Parameter -> its place, for a skeleton `model` of `base`, with the values of the checkpoint `source`.

    A tensor of the base that the model does not know keeps its place and its own name.
    Raises InputError when the base lacks a tensor or has one of another kind, RunError when `source` does.
    """
    wanted: dict[str, Tensor] = model.state_dict()
    targets = _by_parameter(model, base, wanted, InputError)
    values = targets if source == base else _by_parameter(model, source, wanted, RunError)
    places = {}
    for parameter, target in targets.items():
        value = values.get(parameter, target)
        dtype = _dtype_name(wanted[parameter].dtype, value.dtype) if parameter in wanted else value.dtype
        places[parameter] = Place(source=value, file=target.file.name, spec=_spec(target.name, dtype, value))
    return places


def untied(places: dict[str, Place], head: str, embedding: str, base: Path) -> Place:
    """A place for a head that leaves the embedding it was tied to: a shard of its own where there are shards."""
    tied = places[embedding]
    file = "model-lm_head.safetensors" if is_sharded(base) else tied.file
    return attrs.evolve(tied, file=file, spec=attrs.evolve(tied.spec, name=head))


def parameter_names(model: Any, stored: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Name in a checkpoint -> name in the model, by the rules of transformers' own loader."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, rename_source_key

    known = dict.fromkeys(wanted, True)
    transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if not isinstance(transform, WeightConverter)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    names = {}
    for name in stored:
        renamed, converter = rename_source_key(name, renamings, converters, model.base_model_prefix, known)
        if converter is not None:
            raise NotStreamedError(f"transformers stores {name} in another form than it computes with")
        names[name] = name if renamed not in known and name in known else renamed
    if len(set(names.values())) < len(names):
        raise NotStreamedError("several tensors of the checkpoint belong to one parameter")
    return names


def _by_parameter(model: Any, folder: Path, wanted: dict[str, Tensor], error: type[Exception]) -> dict[str, Stored]:
    """The tensors of a checkpoint by the model's names, all that it wants."""
    stored = stored_tensors(folder)
    names = parameter_names(model, stored, wanted)
    found, tied = {names[name]: item for name, item in stored.items()}, model.all_tied_weights_keys
    if both := tied.keys() & found.keys():
        raise NotStreamedError(f"{folder} stores {', '.join(both)}, which its config ties to another tensor")
    if missing := wanted.keys() - found.keys() - tied.keys():
        some = ", ".join(sorted(missing)[:3])
        raise error(f"{folder}: lacks {some} ({len(missing)} tensors of the model); download or save it again")
    for name, tensor in wanted.items():
        if name in found and found[name].shape != tuple(tensor.shape):
            raise error(f"{found[name].file}: {name} is {list(found[name].shape)}, the model's {list(tensor.shape)}")
        if name in found and tensor.is_floating_point() and found[name].dtype not in DTYPES:
            raise error(
                f"{found[name].file}: {name} is quantised ({found[name].dtype}); merge into the original weights"
            )
    return found


def _dtype_name(dtype: torch.dtype, stored: str) -> str:
    """What transformers makes of a stored dtype: float tensors take the model's, others keep theirs."""
    if stored not in DTYPES or dtype not in DTYPES.values():
        return stored
    return next(name for name, item in DTYPES.items() if item == dtype)


def _spec(name: str, dtype: str, value: Stored) -> TensorSpec:
    size = value.size
    if dtype != value.dtype:
        size = size // DTYPES[value.dtype].itemsize * DTYPES[dtype].itemsize
    return TensorSpec(name=name, dtype=dtype, shape=value.shape, size=size)


def read(stored: Stored, dtype: torch.dtype) -> Tensor:
    """A stored tensor in memory, as `dtype`."""
    tensor = torch.empty(stored.shape, dtype=DTYPES[stored.dtype])
    read_bytes(stored, as_bytes(tensor))
    return tensor.to(dtype)


def as_bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor."""
    array: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)
