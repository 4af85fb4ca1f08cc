"""The classes that ms-swift makes for a family: its own loader and template, each with ours before it.

They are made when they are asked for by name, `Loader_qwen3_vl` or `Template_qwen3_vl`, so that processes that
unpickle them and ms-swift's own commands find them here, for every family that ms-swift knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coordcore.errors import InputError
from coordcore_train.run import launch
from coordcore_train.surgery.saved import install
from coordcore_train.surgery.zero3 import whole
from coordcore_train.swift.active import active_plan
from coordcore_train.swift.needs import STOCK_FORWARD
from coordcore_train.swift.template import CoordTemplate


class CoordLoader:
    """Loads a model, checks the coord ids against it, and installs the surgeries of the active run.

    Goes before a family's own loader among the bases of a class.
    """

    def load(self: Any) -> tuple[Any, Any]:
        with _whole_weights():
            model, processor = super().load()  # type: ignore[misc]  # as mixed in
        if model is not None and self.model_info.config.model_type in STOCK_FORWARD:
            vars(model.model).pop("forward", None)
        if model is not None and not self.return_dummy_model:
            with whole(model):
                install(model, processor, active_plan(), Path(self.model_info.model_dir))
        return model, processor


@contextmanager
def _whole_weights() -> Iterator[None]:
    """Raise InputError for weights that lack a tensor of the model, or hold one of another shape.

    transformers only reports the first and starts such a tensor at random, which a merge finds when all is trained.
    """
    from transformers import modeling_utils

    report = modeling_utils.log_state_dict_report

    def require_whole(*, loading_info: Any, pretrained_model_name_or_path: str, **rest: Any) -> None:
        faults = [f"lacks {name}" for name in sorted(loading_info.missing_keys)]
        for name, stored, wanted in sorted(loading_info.mismatched_keys):
            faults.append(f"{name} is {list(stored)}, the model's {list(wanted)}")
        # The other ranks of FSDP2 read no file.
        if faults and launch.is_first():
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            raise InputError(f"{pretrained_model_name_or_path}: {faults[0]}{more}; download or save it again")
        report(loading_info=loading_info, pretrained_model_name_or_path=pretrained_model_name_or_path, **rest)

    modeling_utils.log_state_dict_report = require_whole
    try:
        yield
    finally:
        modeling_utils.log_state_dict_report = report


def loader_class(model_type: str) -> Any:
    """The class that loads models of ms-swift's `model_type` for coordcore runs."""
    return __getattr__(f"Loader_{model_type}")


def template_class(template: str) -> Any:
    """The class of ms-swift's `template` for coordcore runs."""
    return __getattr__(f"Template_{template}")


def __getattr__(name: str) -> Any:
    if name in globals():
        return globals()[name]
    kind, _, family = name.partition("_")
    bases: tuple[type, ...] | None = None
    if kind == "Loader":
        from swift.model import MODEL_MAPPING

        bases = (CoordLoader, MODEL_MAPPING[family].loader) if family in MODEL_MAPPING else None
    elif kind == "Template":
        from swift.template import TEMPLATE_MAPPING

        bases = (CoordTemplate, TEMPLATE_MAPPING[family].template_cls) if family in TEMPLATE_MAPPING else None
    if bases is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, type(name, bases, {"__module__": __name__}))
