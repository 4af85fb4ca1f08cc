"""Turns plain tables into attrs config classes, strictly, with every problem found at once. Torch-free.

cattrs dispatches on the types; the hooks are ours, because its own turn "false" into True and 1000.9 into 1000.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, get_args, get_origin

import attrs
import tomli
from cattrs import Converter
from cattrs.errors import StructureHandlerNotFoundError

from coordcore.errors import Problem, did_you_mean, shortened
from coordcore.manifest import types
from coordcore.manifest.lines import KeyPath
from coordcore.manifest.read import Document
from coordcore.manifest.types import keys, show
from coordcore.plugins import Plugins

_SCALARS: dict[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float), str: (str,), Path: (str,)}
"""The type of a key -> the types of the TOML values it takes. To Python True is an int; to a manifest it is not."""


class _WrongValueError(Exception):
    """What is wrong with the value at the current path; an empty text when it has been recorded already."""


class Structurer:
    """Structures parts of one document.

    problems: what is wrong with the values. missing: files named by `exists` keys that are not there. plugins: for
    `from_manifest`, what components are looked up in; None where it has to discover them.

    An attrs class with a classmethod `from_manifest(table, structurer)` is what that returns: for keys whose types
    depend on others, such as the settings of a component that a neighbour names. It goes on with `values` and
    `structure`, tells what is wrong by `report`, and returns `attrs.NOTHING` then. Provisional, as this class is.
    """

    def __init__(self, document: Document, plugins: Plugins | None = None) -> None:
        self.problems: list[Problem] = []
        self.missing: list[Problem] = []
        self.document, self.plugins = document, plugins
        self._path: KeyPath = ()
        self._converter = Converter(detailed_validation=False)
        for scalar in _SCALARS:
            self._converter.register_structure_hook(scalar, self._scalar)
        self._converter.register_structure_hook_func(lambda wanted: types.choices(wanted) is not None, self._choice)
        self._converter.register_structure_hook_func(types.is_union, self._union)
        self._converter.register_structure_hook_func(types.is_array, self._array)
        self._converter.register_structure_hook_func(types.is_table, self._mapping)
        self._converter.register_structure_hook_func(attrs.has, self._config)

    def structure(self, path: KeyPath, value: Any, wanted: Any) -> Any:
        """`value`, which stands at `path` below the current one, as `wanted`; `attrs.NOTHING` when it is wrong."""
        outside, self._path = self._path, (*self._path, *path)
        try:
            return self._converter.structure(value, wanted)
        except _WrongValueError as error:
            if str(error):
                self.report((), str(error))
        except StructureHandlerNotFoundError:
            self.report((), f"the plugin declares this key as {wanted!r}, which no manifest value can be")
        finally:
            self._path = outside
        return attrs.NOTHING

    def report(self, path: KeyPath, message: str) -> None:
        """Add a problem with what stands at `path` below the current value."""
        self.problems.append(self.document.problem((*self._path, *path), message))

    # --- tables -----------------------------------------------------------------------------------------------------

    def _config(self, table: Any, cls: type[Any]) -> Any:
        """An instance of the attrs class `cls`."""
        if not isinstance(table, dict):
            _refuse(table, cls)
        if hasattr(cls, "from_manifest"):
            return cls.from_manifest(table, self)
        before = len(self.problems)
        values = self.values(table, cls)
        if len(self.problems) > before:
            raise _WrongValueError
        try:
            return cls(**values)
        except ValueError as error:  # of the class's own rules across keys
            raise _WrongValueError(str(error) or f"{cls.__name__} refuses these values") from error

    def values(self, table: dict[str, Any], cls: type[Any], sections: Iterable[str] = ()) -> dict[str, Any]:
        """What `table` gives for the keys of `cls`, less what is wrong. `sections`: what else may stand there."""
        fields = keys(cls)
        known = [*fields, *sections]
        for key in table.keys() - set(known):
            what = "section" if sections and isinstance(table[key], dict) else "key"
            self.report((key,), f"unknown {what}; {did_you_mean(key, known)}")
        for key, field in fields.items():
            if key not in table and types.is_required(field):
                self.report((key,), f"required key is missing: {field.metadata.get('help', '')}".removesuffix(": "))
        given = {key: self.structure((key,), table[key], field.type) for key, field in fields.items() if key in table}
        self._validate(cls, fields, given)
        return {key: value for key, value in given.items() if value is not attrs.NOTHING}

    def _validate(self, cls: type[Any], fields: dict[str, attrs.Attribute[Any]], given: dict[str, Any]) -> None:
        """Run the validator of every key given, so that each failure has its own line. attrs stops at the first."""
        every = {key: given[key] if key in given else types.default(field) for key, field in fields.items()}
        right = {key: value for key, value in every.items() if value is not attrs.NOTHING}
        draft = object.__new__(cls)
        for key, value in right.items():
            object.__setattr__(draft, fields[key].name, value)
        for key, value in given.items():
            field = fields[key]
            if value is attrs.NOTHING or field.validator is None or field.converter is not None:
                continue  # with a converter only the class itself knows what the validator is to see
            try:
                field.validator(draft, field, value)
            except (ValueError, TypeError) as error:
                self.report((key,), _validator_message(error, field.name, value))
            except AttributeError:
                # A validator that looks at a neighbour which is itself wrong, and reported, has nothing to say.
                if len(right) == len(fields):
                    raise

    def _mapping(self, table: Any, wanted: Any) -> dict[str, Any]:
        if not isinstance(table, dict):
            _refuse(table, wanted)
        _, inside = get_args(wanted) or (str, Any)
        return _all_right({key: self.structure((key,), value, inside) for key, value in table.items()})

    # --- arrays and single values -----------------------------------------------------------------------------------

    def _array(self, array: Any, wanted: Any) -> Any:
        origin, inside = get_origin(wanted) or wanted, get_args(wanted) or (Any, ...)
        if not isinstance(array, list):
            _refuse(array, wanted)
        wanted_items = inside if origin is tuple and inside[-1] is not Ellipsis else inside[:1] * len(array)
        if len(wanted_items) != len(array):
            _refuse(array, wanted)
        items = {index: self.structure((index,), item, wanted_items[index]) for index, item in enumerate(array)}
        build: Any = types.ARRAYS[origin]
        return build(_all_right(items).values())

    def _union(self, value: Any, wanted: Any) -> Any:
        members = [member for member in get_args(wanted) if member is not NoneType]
        if len(members) == 1:
            return self._converter.structure(value, members[0])
        before = len(self.problems)
        # The type the value already has comes first, so that 3 stays an integer in `float | int`.
        for member in sorted(members, key=lambda member: member is not type(value)):
            result = self.structure((), value, member)
            if result is not attrs.NOTHING:
                return result
            del self.problems[before:]
        _refuse(value, wanted)

    def _choice(self, value: Any, wanted: Any) -> Any:
        allowed = types.choices(wanted) or []
        if not any(type(choice) is type(value) and choice == value for choice in allowed):
            _refuse(value, wanted)
        return wanted(value) if isinstance(wanted, type) else value

    def _scalar(self, value: Any, wanted: type[Any]) -> Any:
        if issubclass(wanted, Enum):  # cattrs takes a StrEnum for a str
            return self._choice(value, wanted)
        if wanted not in _SCALARS:
            raise StructureHandlerNotFoundError(f"no hook for {wanted!r}", wanted)
        if type(value) not in _SCALARS[wanted]:
            _refuse(value, wanted)
        if type(value) is int and not -(2**63) <= value < 2**63:
            raise _WrongValueError(f"must be an integer of 64 bits, as TOML's are, got {show(value)}")
        if wanted is float and not math.isfinite(value):
            raise _WrongValueError(f"must be finite, got {value}")
        if wanted is Path and not value:
            raise _WrongValueError("must not be empty")
        found = self.absolute((), value) if wanted is Path else wanted(value)
        if found is None:
            raise _WrongValueError
        return found

    def absolute(self, path: KeyPath, text: str) -> Path | None:
        """The file that `text`, which stands at `path`, names; None, and a problem, for what no file can be."""
        try:
            return self.document.origin((*self._path, *path)).absolute(text)
        except ValueError as error:
            self.report(path, str(error))
            return None

    # --- files ------------------------------------------------------------------------------------------------------

    def look_for_files(self, path: KeyPath, value: Any, *, exists: bool = False) -> None:
        """Append to `missing` what the `exists` keys inside a structured value name and is not there."""
        if attrs.has(type(value)):
            for key, field in keys(type(value)).items():
                must_exist = bool(field.metadata.get("exists"))
                self.look_for_files((*path, key), getattr(value, field.name), exists=must_exist)
        elif isinstance(value, dict | list | tuple | set | frozenset):
            for place, item in value.items() if isinstance(value, dict) else enumerate(value):
                self.look_for_files((*path, place), item, exists=exists)
        elif exists and isinstance(value, Path) and not value.exists():
            self.missing.append(self.document.problem(path, f"no such file: {value}"))


def _all_right(found: dict[Any, Any]) -> dict[Any, Any]:
    if any(value is attrs.NOTHING for value in found.values()):
        raise _WrongValueError
    return found


def _refuse(value: Any, wanted: Any) -> NoReturn:
    cure = ""
    if isinstance(value, str) and wanted in _SCALARS and type(_unquoted(value)) in _SCALARS[wanted]:
        cure = "; write it without quotes"
    elif wanted in (str, Path) and isinstance(value, bool | int | float):
        cure = "; write it in quotes"
    raise _WrongValueError(f"must be {types.type_name(wanted)}, got {show(value)}{cure}")


def _unquoted(text: str) -> Any:
    try:
        return tomli.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return None


def _validator_message(error: Exception, name: str, value: Any) -> str:
    """The message of an attrs validator without the field's name, which the path already gives, and with the value."""
    message = str(error.args[0]) if error.args else str(error)
    message = message.strip().removesuffix(".")
    if match := re.fullmatch(rf"Length of '{name}' must be (\S+ \d+): (\d+)", message):
        limit, length = match.groups()
        return "must not be empty" if (limit, length) == (">= 1", "0") else f"length must be {limit}, got {length}"
    message = message.removeprefix(f"'{name}' ").removeprefix(f"{name} ").removeprefix(f"{name}: ")
    for ending in (r"(must be [<>]=? \S+): (.+)", r"(.+) \(got (.+)\)", r"(.+) \((.+) doesn't\)"):
        message = re.sub(f"^{ending}$", r"\1, got \2", message)
    return shortened(message, 400) if "got " in message else f"{message}, got {show(value)}"
