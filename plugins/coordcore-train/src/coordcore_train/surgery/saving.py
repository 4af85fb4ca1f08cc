"""What others save of a model with row surgeries: merged weights, adapters that stock PEFT refuses. Imports torch.

transformers and PEFT save a surgery's module as tensors that they drop without a word when they load them again. So

- `save_pretrained` of a model that no PEFT wraps (after `merge_and_unload`, from `swift export`, `push_to_hub` or a
  trainer) writes the rows into the matrices: the folder holds an ordinary model. The model itself stays as it is.
- `save_pretrained` of a `PeftModel` writes what PEFT would, and two things by which a loader without the surgery stops:
  a `peft_type` that says what is missing, and, for a process in which coordcore has made that type known, the ids of
  the rows in the place of the embedding matrix, whose shape they do not have.
- Our trainer saves a full tuner's model as it is (`as_it_is`), to go on from.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coordcore.errors import InputError
from coordcore.protocols import RowSurgery
from coordcore_train.checkpoint.origin import GUARD, SIGNATURE
from coordcore_train.checkpoint.tensorfile import order_metadata
from coordcore_train.surgery.adapters import INSTALLED, follow_peft, replace_method, wrappers_in
from coordcore_train.surgery.arithmetic import add_to_weight, is_same
from coordcore_train.surgery.hooks import bind_hooks, live_module, remove_hooks, rows_by_role, surgeries_in
from coordcore_train.surgery.matrices import matrices_of, untie, unwrapped

_AS_IT_IS = "_coordcore_saves_as_it_is"


def guard_saving(base: Any, name: str) -> None:
    """Guard what is saved of the transformers model `base`, in which a surgery's module `name` is. Idempotent."""
    names = base.__dict__.setdefault(INSTALLED, [])
    if name not in names:
        names.append(name)
    if hasattr(base, "save_pretrained") and "save_pretrained" not in base.__dict__:
        base.save_pretrained = _SaveMerged(base)
        base.register_load_state_dict_pre_hook(_load)
    _know_types(names)
    follow_peft()
    from peft import PeftModel

    replace_method(PeftModel, "save_pretrained", _save_adapter)


def _unguard(base: Any, name: str) -> None:
    base.__dict__[INSTALLED].remove(name)
    if not base.__dict__[INSTALLED]:
        del base.__dict__[INSTALLED]
        base.__dict__.pop("save_pretrained", None)
        hooks = base._load_state_dict_pre_hooks
        for key in [key for key, hook in hooks.items() if getattr(hook, "hook", None) is _load]:
            del hooks[key]


@contextmanager
def as_it_is(model: nn.Module) -> Iterator[None]:
    """Within this context, saving `model` writes the surgeries' modules beside the base's own rows."""
    base = unwrapped(model)
    base.__dict__[_AS_IT_IS] = True
    try:
        yield
    finally:
        del base.__dict__[_AS_IT_IS]


@contextmanager
def signed(fingerprint: str) -> Iterator[None]:
    """Within this context the files of adapters that PEFT saves say which run made them."""
    from peft import peft_model

    save = peft_model.safe_save_file

    def save_signed(tensors: Any, file: Any, metadata: dict[str, str]) -> None:
        save(tensors, file, metadata={**metadata, SIGNATURE: fingerprint})
        order_metadata(Path(file))

    peft_model.safe_save_file = save_signed
    try:
        yield
    finally:
        peft_model.safe_save_file = save


@torch.no_grad()
def merge_rows(model: nn.Module, surgery: RowSurgery) -> None:
    """See `coordcore_train.surgery.rows.LiveRows.merge`."""
    base = unwrapped(model)
    module = _require_unwrapped(base, surgery)
    matrices, found = matrices_of(base), rows_by_role(surgery, module)
    if matrices.tied and not is_same(found.get("embedding"), found.get("head")):
        matrices.head.weight = nn.Parameter(matrices.head.weight.detach().clone(), requires_grad=False)
    tied = matrices.tied
    for role, added in found.items():
        if not (tied and role == "head"):
            add_to_weight(matrices.module(role).weight, added)
    if not tied:
        untie(base)
    remove_hooks(base, surgery.name)
    delattr(base, surgery.name)
    _unguard(base, surgery.name)


def _require_unwrapped(base: Any, surgery: RowSurgery) -> nn.Module:
    module = live_module(base, surgery.name)
    if hasattr(base._modules[surgery.name], "original_module"):
        raise RuntimeError(
            f"{surgery.name} is still wrapped by PEFT; call merge_and_unload() and merge the model it returns"
        )
    return module


@contextmanager
def _merged(model: Any, surgeries: Sequence[RowSurgery]) -> Iterator[None]:
    """Within this context the surgeries are merged into `model`. Afterwards it is as it was, to the bit."""
    for surgery in surgeries:
        _require_unwrapped(model, surgery)
    matrices = matrices_of(model)
    embedding, head = matrices.embedding.weight, matrices.head.weight
    configs = [model.config, model.config.get_text_config()]
    ties = [config.tie_word_embeddings for config in configs]
    keys = model.all_tied_weights_keys
    modules = {surgery.name: model._modules[surgery.name] for surgery in surgeries}
    try:
        matrices.embedding.weight = nn.Parameter(embedding.detach().clone(), requires_grad=False)
        matrices.head.weight = (
            matrices.embedding.weight if head is embedding else nn.Parameter(head.detach().clone(), requires_grad=False)
        )
        for surgery in surgeries:
            merge_rows(model, surgery)
        yield
    finally:
        matrices.embedding.weight, matrices.head.weight = embedding, head
        for config, tied in zip(configs, ties, strict=True):
            config.tie_word_embeddings = tied
        model.all_tied_weights_keys = keys
        for surgery in surgeries:
            model._modules[surgery.name] = modules[surgery.name]
            bind_hooks(model, matrices, surgery, list(rows_by_role(surgery, modules[surgery.name])))
            guard_saving(model, surgery.name)


class _SaveMerged:
    """Saves a transformers model with the rows in its matrices: `save_pretrained` of this one model.

    It goes where the model goes. The reference is weak: model -> method -> model would be a cycle, which keeps GPU
    memory until a collection.
    """

    def __init__(self, model: Any) -> None:
        self._model = weakref.ref(model)

    @property
    def model(self) -> Any:
        model = self._model()
        if model is None:
            raise RuntimeError("the model that this would save is gone; keep a reference to it")
        return model

    def __deepcopy__(self, memo: dict[int, Any]) -> _SaveMerged:
        return type(self)(memo.get(id(self.model), self.model))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model,)

    def __call__(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        model = self.model
        save = type(model).save_pretrained
        if _AS_IT_IS in model.__dict__:
            return save(model, save_directory, *args, **kwargs)
        names = ", ".join(model.__dict__[INSTALLED])
        surgeries = surgeries_in(model)
        others = {name for name in model.__dict__[INSTALLED] if name in model._modules} - {
            surgery.name for surgery in surgeries
        }
        if others:
            raise RuntimeError(
                f"{save_directory}: {', '.join(sorted(others))} is still in the model, and whoever loads the weights "
                "would not have it; call the surgery's merge(model) first, or use coordcore merge RUN --output DIR"
            )
        if kwargs.get("state_dict") is not None:
            raise RuntimeError(
                f"{save_directory}: these weights were gathered without the rows of {names}, and whoever loads them "
                "would not have them; merge them into the model first, or save from a model that is whole"
            )
        if any(matrix.weight.is_meta for matrix in (matrices_of(model).embedding, matrices_of(model).head)):
            raise RuntimeError(
                f"{save_directory}: embedding or head is offloaded, so that the rows of {names} cannot be added; load "
                "the model whole (device_map='cpu') and save again"
            )
        with _merged(model, surgeries):
            return save(model, save_directory, *args, **kwargs)


# --- adapters ---------------------------------------------------------------------------------------------------------


def _save_adapter(
    method: Any,
    model: Any,
    save_directory: Any,
    safe_serialization: bool = True,
    selected_adapters: Sequence[str] | None = None,
    **kwargs: Any,
) -> None:
    """Save a `PeftModel` so that no loader can drop the rows and go on."""
    base = model.get_base_model()
    wrappers = wrappers_in(base)
    if not wrappers:
        method(model, save_directory, safe_serialization, selected_adapters, **kwargs)
        return
    with_rows = {adapter for wrapper in wrappers.values() for adapter in wrapper.modules_to_save}
    for adapter in model.peft_config if selected_adapters is None else selected_adapters:
        if adapter not in with_rows:
            method(model, save_directory, safe_serialization, [adapter], **kwargs)
            continue
        guarded: dict[str, Any] = {}
        if surgeries_in(base):  # those of the free form say nothing of rows
            guarded = {"state_dict": _guarded(model, kwargs.get("state_dict")), "save_embedding_layers": True}
        method(model, save_directory, safe_serialization, [adapter], **{**kwargs, **guarded})
        folder = Path(save_directory) if adapter == "default" else Path(save_directory) / adapter
        if kwargs.get("is_main_process", True):
            _mark(folder / "adapter_config.json", list(wrappers))


def _guarded(model: Any, state: Any) -> dict[str, Tensor]:
    """The tensors of a `PeftModel`, with the ids of the rows in the place of the embedding matrix."""
    base = model.get_base_model()
    prefix = next(name for name, module in model.named_modules() if module is base)
    guarded = dict(model.state_dict() if state is None else state)
    # Not `matrices_of`, which asks for matrices that are whole: of them only the names are needed.
    guarded.pop(f"{prefix}.{_path(base, base.get_output_embeddings())}.weight", None)
    guarded[f"{prefix}.{_path(base, base.get_input_embeddings())}.weight"] = _ids(base)
    return guarded


def is_guard(dtype: str) -> bool:
    """Whether a tensor of an adapter's file is no weight, but the ids that stand in the embedding's place.

    dtype: in the words of safetensors.
    """
    return dtype == GUARD


def _path(base: nn.Module, wanted: nn.Module) -> str:
    found: str = next(path for path, module in base.named_modules() if module is wanted)
    return found


def _ids(base: Any) -> Tensor:
    """The ids of the rows of every surgery, for the embedding and for the head; none of those of the free form."""
    ids = [
        added.ids.cpu()
        for surgery in surgeries_in(base)
        for added in rows_by_role(surgery, live_module(base, surgery.name)).values()
    ]
    return torch.cat(ids) if ids else torch.empty(0, dtype=torch.int64)


def _load(base: Any, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Before weights are loaded into a model with surgeries: take the guard of an adapter out, and compare its ids.

    An ordinary model's weights hold all rows, so that what a surgery adds becomes zero with them.
    Raises InputError for the ids of another vocabulary.
    """
    key = f"{prefix}{_path(base, base.get_input_embeddings())}.weight"
    if key not in state:
        return
    if state[key].dtype == torch.int64:
        saved, live = state.pop(key), _ids(base)
        if len(live) and not torch.equal(saved.cpu(), live):
            raise InputError(
                f"the adapter's rows belong to the token ids {_span(saved)}, the model's to {_span(live)}; load the "
                "adapter onto the base it was trained on"
            )
        return
    for surgery in surgeries_in(base):
        if not any(name.startswith(f"{prefix}{surgery.name}.") for name in state):
            with torch.no_grad():
                for parameter in live_module(base, surgery.name).parameters():
                    parameter.zero_()


def _span(ids: Tensor) -> str:
    return f"{int(ids.min())}..{int(ids.max())} ({len(ids)})"


def _type(kind: str, names: Sequence[str]) -> str:
    return (
        f"{kind} with {', '.join(sorted(names))}, which this program would lose: it knows no coordcore. Use the merged "
        "model (coordcore merge RUN --output DIR), or install the surgery on the base before the adapter is loaded"
    )


def _know_types(names: Sequence[str]) -> None:
    """Let PEFT read the types of `_mark` in this process, where the surgeries are installed."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

    for kind in PeftType:
        if kind in PEFT_TYPE_TO_CONFIG_MAPPING:
            PEFT_TYPE_TO_CONFIG_MAPPING[_type(kind.value, names)] = PEFT_TYPE_TO_CONFIG_MAPPING[kind]


def _mark(path: Path, names: Sequence[str]) -> None:
    """Give an adapter's config a type that says what PEFT alone would lose of it."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["peft_type"] = _type(config["peft_type"], names)
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
