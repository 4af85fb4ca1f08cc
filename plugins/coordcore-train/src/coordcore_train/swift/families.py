"""Which model type of ms-swift a checkpoint is, and which template it is trained with. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from coordcore.errors import InputError, did_you_mean
from coordcore_train.checkpoint.folder import read_json
from coordcore_train.swift.registry import ModelType, model_types

if TYPE_CHECKING:
    from coordcore_train.run.plan import Plan

AUTO = "auto"
"""What `model.type` and `model.template` say where the checkpoint is to tell."""


class UnknownTemplateError(InputError):
    """A template that the model type, or ms-swift, does not have."""


@attrs.frozen
class Family:
    """What ms-swift calls the model of a checkpoint and the template it is trained with."""

    type: str
    template: str


def family_of(base: Path, *, model_type: str = AUTO, template: str = AUTO, name: str | None = None) -> Family:
    """The family of the checkpoint in the folder `base`.

    model_type, template: the manifest's, AUTO to let the checkpoint tell. name: what the checkpoint is called, where
    the folder is a copy of it. Of several types with the architecture of the checkpoint, that which has the
    `model_type` of its `config.json` is taken; of several templates, that of the published checkpoint of this name,
    else that which is called as the type, else ms-swift's first. Raises InputError where none or more than one is left.
    """
    types = model_types()
    if not types:
        raise InputError("ms-swift is not installed; install coordcore-train with it: pip install coordcore-train")
    if model_type == AUTO:
        model_type = _type_of(base, types)
        require_names(model_type, template)
    else:
        require_names(model_type, template)
        _require_architecture(base, types[model_type])
    known = types[model_type]
    if template != AUTO:
        return Family(model_type, template)
    by_name = known.by_name.get(_last_part(name or str(base)))
    return Family(model_type, by_name or (model_type if model_type in known.templates else known.templates[0]))


def family_of_plan(plan: Plan) -> Family:
    """The family of a run's base, as its manifest says."""
    model = plan.manifest.model
    return family_of(plan.base, model_type=model.type, template=model.template, name=model.base)


def _type_of(base: Path, types: Mapping[str, ModelType]) -> str:
    config = read_json(base / "config.json")
    stated = config.get("model_type")
    stated = stated if isinstance(stated, str) else None
    architecture = _architecture(config)
    candidates = [entry.name for entry in types.values() if architecture in entry.architectures]
    if stated in candidates or (architecture is None and stated in types):
        return str(stated)
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise InputError(
            f"{base} is a {stated!r} model (architecture {architecture!r}), which no vision-language model type of "
            "ms-swift loads; take a base that it does, or set model.type to a type that fits"
        )
    raise InputError(
        f"{base} is a {architecture}, which {len(candidates)} model types of ms-swift load: {', '.join(candidates)}; "
        "set model.type to the one that fits"
    )


def require_names(model_type: str, template: str) -> None:
    """Raise InputError for names that ms-swift does not know, whatever the checkpoint."""
    types = model_types()
    if model_type != AUTO and model_type not in types:
        hint = did_you_mean(model_type.lower(), [AUTO, *types])
        raise InputError(f"ms-swift has no multimodal model type {model_type!r}; {hint}")
    entries = types.values() if model_type == AUTO else (types[model_type],)
    known = sorted({name for entry in entries for name in entry.templates})
    if template != AUTO and template not in known:
        who = "ms-swift" if model_type == AUTO else f"model type {model_type!r}"
        raise UnknownTemplateError(f"{who} has no template {template!r}; {did_you_mean(template, known)}")


def _architecture(config: Mapping[str, Any]) -> str | None:
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    return first if isinstance(first, str) else None


def _require_architecture(base: Path, known: ModelType) -> None:
    architecture = _architecture(read_json(base / "config.json"))
    if architecture is not None and known.architectures and architecture not in known.architectures:
        raise InputError(
            f"{base} is a {architecture!r}, which models of ms-swift's type {known.name!r} are not "
            f"({', '.join(known.architectures)}); leave model.type out, or take the base that belongs to it"
        )


def _last_part(name: str) -> str:
    """Of a hub id, a folder, or a snapshot in a hub's cache, the repository's name, in small letters.

    As ms-swift reads it, whose hub writes `___` for a dot.
    """
    cached = re.search(r"/(?:models--|models/)(?:.+?--)?([^/]+?)/snapshots/", name)
    return (cached[1] if cached else Path(name).name).replace("___", ".").lower()
