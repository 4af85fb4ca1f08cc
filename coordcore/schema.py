"""The manifest's sections and keys as text to read and to paste, and as JSON: `coordcore schema`. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs

from coordcore.errors import InputError, did_you_mean
from coordcore.guard import guarded, told
from coordcore.manifest.sections import Manifest
from coordcore.manifest.types import default, is_required, keys, plain, type_name
from coordcore.plugins import Plugins


@attrs.frozen
class Section:
    """One table of the manifest. path: "" for the keys above all tables. owner: distribution and version."""

    path: str
    summary: str
    config: type[Any]
    owner: str = ""


def sections(plugins: Plugins) -> list[Section]:
    """Every section a manifest can have with these plugins: the core's own first."""
    found = [Section("", "keys above all sections", Manifest)]
    for key, field in keys(Manifest).items():
        if config := _config_class(field.type):
            found.append(Section(key, (config.__doc__ or "").split(": ", 1)[-1].split(".")[0], config))
    for kind in plugins.kinds:
        for name in plugins.names(kind):
            component, distribution = plugins.get(kind, name), plugins.distribution(kind, name)
            owner = f"{distribution} {plugins.version(distribution)}"
            found.append(Section(f"{kind}.{name}", component.summary, component.config, owner))
    return found


def find(path: str, plugins: Plugins) -> list[Section]:
    """The section `path`, or all components of the kind `path`. Raises InputError for neither."""
    every = sections(plugins)
    found = [section for section in every if path and f"{section.path}.".startswith(f"{path}.")]
    if not found:
        names = [section.path for section in every if section.path] + list(plugins.kinds)
        raise InputError(f"there is no section {path!r}; {did_you_mean(path, names)}")
    return found


def overview(plugins: Plugins) -> str:
    """Every section with one line each, components under their kind."""
    every = sections(plugins)
    width = max(len(section.path) for section in every) + 4

    def listed(of: str) -> list[str]:
        return [
            f"{f'[{section.path}]':<{width}}{section.summary}{f' ({section.owner})' if section.owner else ''}"
            for section in every
            if section.path.rpartition(".")[0] == of and section.path
        ]

    own_keys = [key for key, field in keys(Manifest).items() if _config_class(field.type) is None]
    lines = [f"before any section: extends, drop, {', '.join(own_keys)}", "", *listed("")]
    for kind in plugins.kinds:
        lines += ["", f"{kind.noun}: {kind.amount}", *listed(kind)]
    return "\n".join(lines)


def text(section: Section) -> str:
    """A section as TOML with its defaults; keys without one are commented out."""
    owner = f" ({section.owner})" if section.owner else ""
    return "\n".join([f"# {section.summary}{owner}", *_lines(section.path, as_json(section)["keys"])])


def _lines(path: str, described: list[dict[str, Any]]) -> Iterator[str]:
    """A table of the manifest, and the tables inside it; of the keys above all tables only those that are no table."""
    if path:
        yield f"[{path}]"
    for key in described:
        if "keys" not in key and key["help"]:
            yield f"# {key['help']} ({key['type']})"
            state = "required" if key["required"] else "absent by default"
            absent = f"# {key['key']} = ...: {key['fault']}" if "fault" in key else f"# {key['key']} = ... is {state}"
            yield f"{key['key']} = {_toml(key['default'])}" if "default" in key else absent
    for key in described:
        if "keys" in key and path:
            yield ""
            of_any_name = ".name" if key["type"].startswith("a table, each") else ""
            yield from _lines(f"{path}.{key['key']}{of_any_name}", key["keys"])


def _toml(value: Any) -> str:
    """A value on one line."""
    import tomli_w

    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(tomli_w.dumps({key: 0})[:-2] + _toml(item) for key, item in value.items())}}}"
    return tomli_w.dumps({"key": value}).removeprefix("key = ").rstrip()


def _config_class(wanted: Any) -> type[Any] | None:
    """The attrs class in a type such as `Vocab | None`."""
    members = getattr(wanted, "__args__", (wanted,))
    return next((member for member in members if isinstance(member, type) and attrs.has(member)), None)


def as_json(section: Section) -> dict[str, Any]:
    """A section as plain values, for editors and scripts. `default` is left out where there is none."""
    described = [_key_json(key, field) for key, field in keys(section.config).items()]
    return {"section": section.path, "summary": section.summary, "owner": section.owner, "keys": described}


def _key_json(key: str, field: attrs.Attribute[Any]) -> dict[str, Any]:
    inner = _config_class(field.type)
    words = field.metadata.get("help", "")
    described = {"key": key, "type": type_name(field.type), "required": is_required(field), "help": words}
    if inner is not None:
        described["keys"] = [_key_json(name, inside) for name, inside in keys(inner).items()]
        return described
    with guarded() as watch:
        if (value := default(field)) is not None and value is not attrs.NOTHING:
            json.dumps(plain(value), allow_nan=False)
            described["default"] = plain(value)
    if watch.error is not None:
        described["fault"] = f"its default cannot be shown: {told(watch.error)}"
    return described
