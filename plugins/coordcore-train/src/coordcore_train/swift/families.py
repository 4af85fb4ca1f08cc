"""Which model types of ms-swift there are, and which of them a checkpoint is. Torch-free.

ms-swift's registry is read from its source: importing it takes seconds, and `coordcore check` has to know a wrong base
before anything is loaded. A test compares what is read here with the registry itself.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import attrs

from coordcore.errors import InputError, did_you_mean
from coordcore_train.checkpoint.folder import read_json

if TYPE_CHECKING:
    from coordcore_train.run.plan import Plan

AUTO = "auto"
"""What `model.type` and `model.template` say where the checkpoint is to tell."""


class UnknownTemplateError(InputError):
    """A template that the model type, or ms-swift, does not have."""


@attrs.frozen(kw_only=True)
class ModelType:
    """A multimodal entry of ms-swift's registry.

    architectures: names in a `config.json`. templates: those that its checkpoints are used with, ms-swift's own choice
    first. requires: packages it needs, as in a requirements file. by_name: last part of a published checkpoint's name,
    in small letters -> its template.
    """

    name: str
    architectures: tuple[str, ...]
    templates: tuple[str, ...]
    requires: tuple[str, ...] = ()
    by_name: Mapping[str, str] = attrs.field(factory=dict, eq=False)


@attrs.frozen
class Family:
    """What ms-swift calls the model of a checkpoint and the template it is trained with."""

    type: str
    template: str


@lru_cache
def model_types() -> Mapping[str, ModelType]:
    """Every multimodal type that the installed ms-swift registers, by name. Empty where it is not installed."""
    try:  # the distribution, because others have a package of this name
        root = Path(str(metadata.distribution("ms-swift").locate_file("swift")))
    except metadata.PackageNotFoundError:
        return {}
    if not (root / "model" / "constant.py").is_file():
        return {}
    constants = {**_constants(root / "model" / "constant.py"), **_constants(root / "template" / "constant.py")}
    found = {}
    for file in sorted((root / "model" / "models").glob("*.py")):
        for statement in ast.parse(file.read_text(encoding="utf-8")).body:
            entry = _model_type(statement, constants)
            if entry is not None:
                found[entry.name] = entry
    return found


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


# --- ms-swift's source ------------------------------------------------------------------------------------------------


def _constants(file: Path) -> dict[str, str]:
    """`Class.attribute` -> the string it holds, for every class in `file`; a class has its bases' too."""
    values: dict[str, str] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        inherited = [base.id for base in node.bases if isinstance(base, ast.Name)]
        for name, value in list(values.items()):
            owner, _, attribute = name.partition(".")
            if owner in inherited:
                values[f"{node.name}.{attribute}"] = value
        for item in node.body:
            if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant):
                names = [target.id for target in item.targets if isinstance(target, ast.Name)]
                values |= {f"{node.name}.{name}": str(item.value.value) for name in names}
    return values


def _model_type(statement: ast.stmt, constants: Mapping[str, str]) -> ModelType | None:
    """The entry that `register_model(ModelMeta(...))` makes, None for another statement, and for a model of text alone
    or without a template."""
    registered = statement.value if isinstance(statement, ast.Expr) else None
    if not _calls(registered, "register_model") or not _calls(call := registered.args[0], "ModelMeta"):
        return None
    arguments = dict(zip(("model_type", "model_groups", "loader"), call.args, strict=False))
    arguments |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    name = _text(arguments.get("model_type"), constants)
    if name is None or f"MLLMModelType.{name}" not in constants:
        return None
    own = _text(arguments.get("template"), constants)
    templates = [own] if own else []
    by_name: dict[str, str] = {}
    for published, template in _groups(arguments.get("model_groups"), constants):
        if template := template or own:
            templates.append(template)
            by_name |= {one.rpartition("/")[2].lower(): template for one in published}
    if not templates:
        return None
    return ModelType(
        name=name,
        architectures=_texts(arguments.get("architectures"), constants),
        requires=_texts(arguments.get("requires"), constants),
        templates=tuple(dict.fromkeys(templates)),
        by_name=by_name,
    )


def _calls(node: ast.AST | None, name: str) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _groups(groups: ast.AST | None, constants: Mapping[str, str]) -> Iterator[tuple[list[str], str | None]]:
    """The names of published checkpoints, and their template, of every ModelGroup."""
    for call in ast.walk(groups) if groups is not None else ():
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "ModelGroup":
            template: Any = call.args[1] if len(call.args) > 1 else None
            template = next((one.value for one in call.keywords if one.arg == "template"), template)
            models = [one for one in ast.walk(call) if isinstance(one, ast.Call) and one is not call]
            names = [text for model in models for part in model.args if (text := _text(part, constants))]
            yield names, _text(template, constants)


def _texts(node: ast.AST | None, constants: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(text for one in getattr(node, "elts", ()) if (text := _text(one, constants)))


def _text(node: ast.AST | None, constants: Mapping[str, str]) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return constants.get(f"{node.value.id}.{node.attr}")
    return None
