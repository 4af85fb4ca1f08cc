"""PEFT's adapters around the module of a row surgery: whose rows act, are merged, or are refused. Imports torch.

PEFT moves a surgery's module as one of its `modules_to_save`, and always takes the active adapter's, whatever adapters
a call names. Here the rows follow the adapter's other weights, or the call is refused before anything has changed. PEFT
leaves nobody a word in this, so that its methods are replaced, once a process (`follow_peft`); for models without
surgeries they do what they did.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import wraps
from typing import Any

from torch import nn

INSTALLED = "_coordcore_surgeries"
"""The attribute of a base model that holds the names of its surgeries' modules."""


def live_copy(wrapper: Any) -> nn.Module:
    """The module that acts in a forward of PEFT's `wrapper`: the active adapter's, or the one that was installed."""
    active = [adapter for adapter in wrapper.active_adapters if adapter in wrapper.modules_to_save]
    off = wrapper.disable_adapters or not active
    return wrapper.original_module if off else wrapper.modules_to_save[active[0]]


def copies_by_sample(wrapper: Any) -> list[tuple[list[int], nn.Module]] | None:
    """The modules that act on the samples of the forward under way, if it was called with `adapter_names`.

    PEFT leaves the names on each of its wrappers, in a hook, for as long as that forward takes. A sample whose adapter
    has no such module, or no adapter, gets what the base got.
    """
    for hook in wrapper._forward_pre_hooks.values():
        names = getattr(hook, "keywords", {}).get("adapter_names")
        if names is not None:
            copies = wrapper.modules_to_save
            return [
                (
                    [sample for sample, other in enumerate(names) if other == name],
                    copies[name] if name in copies else wrapper.original_module,  # noqa: SIM401 - no mapping
                )
                for name in dict.fromkeys(names)
            ]
    return None


def follow_peft() -> None:
    """Let what PEFT merges and unloads, in this process, take the rows of the same adapters along. Idempotent."""
    from peft import LoraModel
    from peft.tuners.tuners_utils import BaseTuner

    replace_method(BaseTuner, "merge_and_unload", _merge_and_unload)
    replace_method(BaseTuner, "unload", _unload)
    replace_method(BaseTuner, "merge_adapter", _merge_adapter)
    replace_method(LoraModel, "add_weighted_adapter", _add_weighted_adapter)


def replace_method(owner: type, name: str, ours: Callable[..., Any]) -> None:
    """Let `ours(method, self, ...)` answer for the method `name` of the class. Idempotent."""
    method = getattr(owner, name)
    if getattr(method, "coordcore", None) is ours:
        return

    @wraps(method)
    def replaced(self: Any, *args: Any, **kwargs: Any) -> Any:
        return ours(method, self, *args, **kwargs)

    replaced.coordcore = ours  # type: ignore[attr-defined]  # a mark, asked for above
    setattr(owner, name, replaced)


def wrappers_in(base: Any) -> dict[str, Any]:
    """Name -> PEFT's wrapper around a surgery's module, for those that it wraps."""
    modules = {name: base._modules.get(name) for name in getattr(base, INSTALLED, ())}
    return {name: module for name, module in modules.items() if hasattr(module, "original_module")}


def _merge_and_unload(
    method: Any,
    tuner: Any,
    progressbar: bool = False,
    safe_merge: bool = False,
    adapter_names: Sequence[str] | None = None,
) -> Any:
    adapters = _merged(tuner) | set(_asked(tuner, adapter_names))
    return _unwrap(tuner, adapters, method, progressbar=progressbar, safe_merge=safe_merge, adapter_names=adapter_names)


def _unload(method: Any, tuner: Any) -> Any:
    """The base as it was: with the rows it was installed with, which are zero, unless an adapter is merged."""
    return _unwrap(tuner, _merged(tuner), method)


def _merge_adapter(
    method: Any, tuner: Any, adapter_names: Sequence[str] | None = None, safe_merge: bool = False
) -> Any:
    adapters = _merged(tuner) | set(_asked(tuner, adapter_names))
    for name, wrapper in wrappers_in(tuner.model).items():
        owners = _owners(name, wrapper, adapters)
        active = [adapter for adapter in wrapper.active_adapters if adapter in wrapper.modules_to_save]
        if owners != active:
            raise ValueError(
                f"merging {', '.join(sorted(adapters))} in place would leave the {name} of "
                f"{', '.join(active) or 'no adapter'} at work; set_adapter({(owners or sorted(adapters))[0]!r}) first, "
                "or use merge_and_unload(adapter_names=...)"
            )
    return method(tuner, adapter_names=adapter_names, safe_merge=safe_merge)


def _add_weighted_adapter(method: Any, tuner: Any, adapters: Sequence[str], *rest: Any, **arguments: Any) -> Any:
    for name, wrapper in wrappers_in(tuner.model).items():
        owners = sorted(set(adapters) & set(wrapper.modules_to_save))
        if owners:
            raise ValueError(
                f"{', '.join(owners)} have a {name}, which PEFT leaves out of a weighted combination; merge one "
                "adapter with merge_and_unload(adapter_names=...)"
            )
    return method(tuner, adapters, *rest, **arguments)


def _merged(tuner: Any) -> set[str]:
    """The adapters that are merged into weights at this moment."""
    return {adapter for layer in tuner.model.modules() for adapter in getattr(layer, "merged_adapters", None) or ()}


def _asked(tuner: Any, names: Sequence[str] | None) -> list[str]:
    return list(tuner.active_adapters if names is None else names)


def _owners(name: str, wrapper: Any, adapters: Collection[str]) -> list[str]:
    """Those of the adapters that have rows. Raises ValueError when several have."""
    owners = sorted(set(adapters) & set(wrapper.modules_to_save))
    if len(owners) > 1:
        raise ValueError(
            f"{', '.join(owners)} each have a {name} of their own, and merging them together would keep the rows of "
            "one; merge one adapter, or give the others no modules_to_save"
        )
    return owners


def _unwrap(tuner: Any, adapters: Collection[str], method: Any, **arguments: Any) -> Any:
    """Put the modules of `adapters` in the place of PEFT's wrappers, then let `method` of PEFT do the rest."""
    modules, wrappers = tuner.model._modules, wrappers_in(tuner.model)
    chosen = {}
    for name, wrapper in wrappers.items():
        owners = _owners(name, wrapper, adapters)
        chosen[name] = wrapper.modules_to_save[owners[0]] if owners else wrapper.original_module
    modules.update(chosen)
    try:
        return method(tuner, **arguments)
    except BaseException:
        modules.update(wrappers)
        raise
