"""The types a config class may use: their names for messages, the keys they give, and their values as TOML has them."""

from __future__ import annotations

import collections.abc
import types
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from coordcore.errors import shortened

_SCALARS: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    Path: "a path",
    type(None): "nothing",
    Any: "any value",
}

ARRAYS: dict[Any, type] = {
    list: list,
    tuple: tuple,
    collections.abc.Sequence: tuple,
    set: set,
    frozenset: frozenset,
}
"""Array types, bare and as the origin of a generic one -> what is built for them."""


def is_array(wanted: Any) -> bool:
    """Whether a type is read from a TOML array."""
    return (get_origin(wanted) or wanted) in ARRAYS


def is_table(wanted: Any) -> bool:
    """Whether a type is read from a TOML table with keys of the user's choice."""
    return (get_origin(wanted) or wanted) in (dict, collections.abc.Mapping)


def is_union(wanted: Any) -> bool:
    """Whether a type is `A | B` or `Union[A, B]`."""
    return get_origin(wanted) in (Union, types.UnionType)


def choices(wanted: Any) -> list[Any] | None:
    """The TOML values that a Literal or Enum allows; None for any other type."""
    if get_origin(wanted) is Literal:
        return list(get_args(wanted))
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return [member.value for member in wanted]
    return None


def type_name(wanted: Any) -> str:
    """A type in the words of a message: "an integer", "one of 'lora', 'full'", "an array of strings"."""
    allowed = choices(wanted)
    if allowed is not None:
        return "one of " + ", ".join(show(choice) for choice in allowed)
    if is_union(wanted):
        return " or ".join(type_name(member) for member in get_args(wanted) if member is not type(None))
    origin = get_origin(wanted) or wanted
    inside = get_args(wanted)
    if is_array(wanted):
        if not inside:
            return "an array"
        if origin is tuple and inside[-1] is not Ellipsis:
            return f"an array of {len(inside)}: {', '.join(type_name(item) for item in inside)}"
        return f"an array, each {type_name(inside[0])}"
    if is_table(wanted):
        return f"a table, each value {type_name(inside[1])}" if inside else "a table"
    if isinstance(wanted, type) and attrs.has(wanted):
        return "a table"
    return _SCALARS.get(wanted, str(wanted))


def show(value: Any) -> str:
    """A value as messages show it: in TOML's words, and short."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    if type(value) is int and value.bit_length() > 10_000:  # Python refuses to write such a number out
        return f"an integer of {value.bit_length()} bits"
    text = f"[{', '.join(show(item) for item in value)}]" if isinstance(value, list | tuple) else repr(value)
    return shortened(text, 80)


def keys(cls: type[Any]) -> dict[str, attrs.Attribute[Any]]:
    """Manifest key -> the field of an attrs class that it fills, annotations resolved to types."""
    fields = attrs.fields(attrs.resolve_types(cls))
    return {field.alias or field.name: field for field in fields if field.init and field.metadata.get("key", True)}


def is_required(field: attrs.Attribute[Any]) -> bool:
    """Whether a manifest must give this key."""
    return field.default is attrs.NOTHING


def default(field: attrs.Attribute[Any]) -> Any:
    """The default of a key; `attrs.NOTHING` for one that is required, and for a factory that needs the instance."""
    factory: Any = field.default
    if isinstance(factory, attrs.Factory):  # type: ignore[arg-type]  # the stub calls the class a function
        return attrs.NOTHING if factory.takes_self else factory.factory()
    return factory


def plain(value: Any, *, added: bool = True) -> Any:
    """A structured value as TOML can hold it; a key that is None is left out.

    added: False leaves out keys that were added to their section later (`option`) and hold their `before`.
    """
    if attrs.has(type(value)):
        held = [(key, field, getattr(value, field.name)) for key, field in keys(type(value)).items()]
        value = {key: item for key, field, item in held if added or item != field.metadata.get("before", attrs.NOTHING)}
    if isinstance(value, dict):
        return {key: plain(item, added=added) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [plain(item, added=added) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item, added=added) for item in value)
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value
