"""ms-swift's registry of multimodal models, read from its source: importing it takes seconds. Torch-free.

A test compares what is read here with the registry itself.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeGuard

import attrs

from coordcore.errors import InputError
from coordcore.files import own_cache_folder, write_whole


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


@lru_cache
def model_types() -> Mapping[str, ModelType]:
    """Every multimodal type that the installed ms-swift registers, by name. Empty where it is not installed.

    What was read is kept in the cache folder for as long as the files are the same.
    """
    try:  # the distribution, because others have a package of this name
        distribution = metadata.distribution("ms-swift")
    except metadata.PackageNotFoundError:
        return {}
    root = Path(str(distribution.locate_file("swift")))
    constants = [root / "model" / "constant.py", root / "template" / "constant.py"]
    if not constants[0].is_file():
        return {}
    files = [*constants, *sorted((root / "model" / "models").glob("*.py"))]
    state = [[str(file), status.st_size, status.st_mtime_ns] for file in files for status in (file.stat(),)]
    kept = None
    with suppress(InputError):  # a cache that cannot be used only costs reading them again
        kept = own_cache_folder() / f"swift-models-{distribution.version}.json"
        if (known := _kept(kept, state)) is not None:
            return known
    found = _read(constants, files[len(constants) :])
    if kept is not None:
        with suppress(OSError):
            types = [attrs.asdict(entry) for entry in found.values()]
            write_whole(kept, json.dumps({"files": state, "types": types}))
    return found


def _kept(file: Path, state: list[list[Any]]) -> Mapping[str, ModelType] | None:
    """What `file` holds of source files in this state, None where it holds nothing of them."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["files"] != state:
            return None
        return {entry["name"]: ModelType(**_tuples(entry)) for entry in content["types"]}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def _read(constant_files: list[Path], files: list[Path]) -> Mapping[str, ModelType]:
    constants = {name: value for file in constant_files for name, value in _constants(file).items()}
    found = {}
    for file in files:
        for statement in ast.parse(file.read_text(encoding="utf-8")).body:
            entry = _model_type(statement, constants)
            if entry is not None:
                found[entry.name] = entry
    return found


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
            by_name |= {item.rpartition("/")[2].lower(): template for item in published}
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
            template = next((keyword.value for keyword in call.keywords if keyword.arg == "template"), template)
            models = [item for item in ast.walk(call) if isinstance(item, ast.Call) and item is not call]
            names = [text for model in models for part in model.args if (text := _text(part, constants))]
            yield names, _text(template, constants)


def _texts(node: ast.AST | None, constants: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(text for item in getattr(node, "elts", ()) if (text := _text(item, constants)))


def _text(node: ast.AST | None, constants: Mapping[str, str]) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return constants.get(f"{node.value.id}.{node.attr}")
    return None
