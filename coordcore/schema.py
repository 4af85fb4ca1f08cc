"""The manifest's sections and keys as text to read and to paste, and as JSON: `coordcore schema`. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from coordcore.errors import InputError, did_you_mean
from coordcore.manifest.resolve import plain
from coordcore.manifest.sections import Manifest
from coordcore.manifest.types import default, is_required, keys, type_name
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
    for key, config in _tables("", Manifest):
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
    found = [one for one in every if path and (one.path == path or one.path.startswith(f"{path}."))]
    if not found:
        names = [one.path for one in every if one.path] + list(plugins.kinds)
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

    lines = [f"before any section: extends, drop, {', '.join(_own_keys(Manifest))}", "", *listed("")]
    for kind in plugins.kinds:
        lines += ["", f"{kind.noun}: {kind.amount}", *listed(kind)]
    return "\n".join(lines)


def text(section: Section) -> str:
    """A section as TOML with its defaults; keys without one are commented out."""
    owner = f" ({section.owner})" if section.owner else ""
    lines = [f"# {section.summary}{owner}"] + ([f"[{section.path}]"] if section.path else [])
    lines += _key_lines(section.config)
    for path, config in _tables(section.path, section.config) if section.path else ():
        lines += ["", f"[{path}]", *_key_lines(config)]
    return "\n".join(lines)


def _key_lines(config: type[Any]) -> Iterator[str]:
    for key, field in _own_keys(config).items():
        words = f"{field.metadata.get('help', '')} ({type_name(field.type)})".strip()
        yield f"# {words}"
        value = default(field)
        if value is None or value is attrs.NOTHING:
            yield f"# {key} = ... is {'required' if is_required(field) else 'absent by default'}"
        else:
            yield f"{key} = {_toml(plain(value))}"


def _toml(value: Any) -> str:
    """A value on one line."""
    import tomli_w

    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(tomli_w.dumps({key: 0})[:-2] + _toml(item) for key, item in value.items())}}}"
    return tomli_w.dumps({"key": value}).removeprefix("key = ").rstrip()


def _own_keys(config: type[Any]) -> dict[str, attrs.Attribute[Any]]:
    """The keys that are no tables of their own."""
    fields = keys(config).items()
    return {key: field for key, field in fields if _config_class(field.type) is None and "help" in field.metadata}


def _tables(path: str, config: type[Any]) -> Iterator[tuple[str, type[Any]]]:
    """The tables inside a section, at any depth."""
    for key, field in keys(config).items():
        inner = _config_class(field.type)
        if inner is not None:
            here = f"{path}.{key}" if path else key
            yield here, inner
            yield from _tables(here, inner)


def _config_class(wanted: Any) -> type[Any] | None:
    """The attrs class in a type such as `Vocab | None`."""
    members = getattr(wanted, "__args__", (wanted,))
    return next((one for one in members if isinstance(one, type) and attrs.has(one)), None)


def as_json(section: Section) -> dict[str, Any]:
    """A section as plain values, for editors and scripts. `default` is left out where there is none."""
    described = [_key_json(key, field) for key, field in keys(section.config).items()]
    return {"section": section.path, "summary": section.summary, "owner": section.owner, "keys": described}


def _key_json(key: str, field: attrs.Attribute[Any]) -> dict[str, Any]:
    inner = _config_class(field.type)
    words = field.metadata.get("help", "")
    described = {"key": key, "type": type_name(field.type), "required": is_required(field), "help": words}
    if inner is not None:
        described["keys"] = [_key_json(name, one) for name, one in keys(inner).items()]
    elif default(field) not in (None, attrs.NOTHING):
        described["default"] = plain(default(field))
    return described
