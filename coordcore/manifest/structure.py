"""Turns plain tables into attrs config classes, strictly, with every problem found at once. Torch-free.

cattrs dispatches on the types; the hooks are ours, because its own turn "false" into True and 1000.9 into 1000.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

import attrs
import tomli
from cattrs import Converter
from cattrs.errors import StructureHandlerNotFoundError

from coordcore.errors import Problem
from coordcore.manifest.lines import KeyPath
from coordcore.manifest.read import Document
from coordcore.manifest.types import (
    ARRAYS,
    choices,
    default,
    is_array,
    is_required,
    is_table,
    is_union,
    keys,
    show,
    type_name,
)

_SCALARS = (bool, int, float, str, Path)


class _WrongValueError(Exception):
    """What is wrong with the value at the current path; an empty text when it has been recorded already."""


class Structurer:
    """Structures parts of one document.

    problems: what is wrong with the values. missing: files named by `exists` keys that are not there.
    """

    def __init__(self, document: Document) -> None:
        self.problems: list[Problem] = []
        self.missing: list[Problem] = []
        self._document = document
        self._path: KeyPath = ()
        self._converter = Converter(detailed_validation=False)
        for scalar in _SCALARS:
            self._converter.register_structure_hook(scalar, self._scalar)
        self._converter.register_structure_hook_func(lambda wanted: choices(wanted) is not None, self._choice)
        self._converter.register_structure_hook_func(is_union, self._union)
        self._converter.register_structure_hook_func(is_array, self._array)
        self._converter.register_structure_hook_func(is_table, self._mapping)
        self._converter.register_structure_hook_func(attrs.has, self._config)

    def structure(self, path: KeyPath, value: Any, wanted: Any) -> Any:
        """`value`, which stands at `path`, as `wanted`; `attrs.NOTHING` when something was wrong with it."""
        with self._at(path):
            return self._value(value, wanted)

    def _value(self, value: Any, wanted: Any) -> Any:
        try:
            return self._converter.structure(value, wanted)
        except _WrongValueError as error:
            if str(error):
                self._report(str(error))
        except StructureHandlerNotFoundError:
            self._report(f"the plugin declares this key as {wanted!r}, which no manifest value can be")
        return attrs.NOTHING

    def _report(self, message: str) -> None:
        self.problems.append(self._document.problem(self._path, message))

    @contextmanager
    def _at(self, path: KeyPath) -> Iterator[None]:
        outside, self._path = self._path, (*self._path, *path)
        try:
            yield
        finally:
            self._path = outside

    # --- tables -----------------------------------------------------------------------------------------------------

    def _config(self, table: Any, cls: type[Any]) -> Any:
        """An instance of the attrs class `cls`."""
        if not isinstance(table, dict):
            _refuse(table, cls)
        before = len(self.problems)
        fields = keys(cls)
        for key in table.keys() - fields.keys():
            with self._at((key,)):
                self._report(f"unknown key; {did_you_mean(key, fields)}")
        values = {key: self.structure((key,), table[key], field.type) for key, field in fields.items() if key in table}
        for key, field in fields.items():
            if key not in table and is_required(field):
                explained = f": {field.metadata['help']}" if field.metadata.get("help") else ""
                with self._at((key,)):
                    self._report(f"required key is missing{explained}")
        self.validate(cls, fields, values)
        if len(self.problems) > before:
            raise _WrongValueError
        try:
            return cls(**values)
        except ValueError as error:  # of the class's own rules across keys
            raise _WrongValueError(str(error) or f"{cls.__name__} refuses these values") from error

    def validate(self, cls: type[Any], fields: dict[str, attrs.Attribute[Any]], values: dict[str, Any]) -> None:
        """Run the validator of every key given, so that each failure has its own line. attrs stops at the first."""
        right = {key: value for key, value in values.items() if value is not attrs.NOTHING}
        draft = object.__new__(cls)
        complete = True
        for key, field in fields.items():
            value = right.get(key, attrs.NOTHING) if key in values else default(field)
            if value is attrs.NOTHING:
                complete = False
            else:
                object.__setattr__(draft, field.name, value)
        for key, value in right.items():
            field = fields[key]
            if field.validator is None or field.converter is not None:
                continue  # with a converter only the class itself knows what the validator is to see
            try:
                field.validator(draft, field, value)
            except (ValueError, TypeError) as error:
                with self._at((key,)):
                    self._report(_validator_message(error, field.name, value))
            except AttributeError:
                # A validator that looks at a neighbour which is itself wrong, and reported, has nothing to say.
                if complete:
                    raise

    def _mapping(self, table: Any, wanted: Any) -> dict[str, Any]:
        if not isinstance(table, dict):
            _refuse(table, wanted)
        _, inside = get_args(wanted) or (str, Any)
        return self._all({key: self.structure((key,), value, inside) for key, value in table.items()})

    def _all(self, found: dict[Any, Any]) -> dict[Any, Any]:
        if any(value is attrs.NOTHING for value in found.values()):
            raise _WrongValueError
        return found

    # --- arrays and single values -----------------------------------------------------------------------------------

    def _array(self, value: Any, wanted: Any) -> Any:
        if not isinstance(value, list):
            _refuse(value, wanted)
        origin, inside = get_origin(wanted) or wanted, get_args(wanted) or (Any, ...)
        types = inside if origin is tuple and inside[-1] is not Ellipsis else inside[:1] * len(value)
        if len(types) != len(value):
            _refuse(value, wanted)
        found = {index: self.structure((index,), one, types[index]) for index, one in enumerate(value)}
        build: Any = ARRAYS[origin]
        return build(self._all(found).values())

    def _union(self, value: Any, wanted: Any) -> Any:
        members = [one for one in get_args(wanted) if one is not type(None)]
        if len(members) == 1:
            return self._converter.structure(value, members[0])
        before, missing_before = len(self.problems), len(self.missing)
        # The type the value already has comes first, so that 3 stays an integer in `float | int`.
        for member in sorted(members, key=lambda one: one is not type(value)):
            result = self._value(value, member)
            if result is not attrs.NOTHING:
                return result
            del self.problems[before:], self.missing[missing_before:]
        _refuse(value, wanted)

    def _choice(self, value: Any, wanted: Any) -> Any:
        allowed = choices(wanted) or []
        if not any(type(one) is type(value) and one == value for one in allowed):
            _refuse(value, wanted)
        return wanted(value) if isinstance(wanted, type) else value

    def _scalar(self, value: Any, wanted: type[Any]) -> Any:
        if issubclass(wanted, Enum):  # cattrs takes a StrEnum for a str
            return self._choice(value, wanted)
        if wanted not in _SCALARS:
            raise StructureHandlerNotFoundError(f"no hook for {wanted!r}", wanted)
        if not _fits(value, wanted):
            _refuse(value, wanted)
        if wanted is float:
            if not math.isfinite(value):
                raise _WrongValueError(f"must be finite, got {value}")
            return float(value)
        return self._file(value) if wanted is Path else value

    def _file(self, value: str) -> Path:
        """An absolute path: relative ones start from the folder of the file that holds them."""
        if not value:
            raise _WrongValueError("must not be empty")
        folder = self._document.origin(self._path).folder
        return Path(os.path.normpath(folder / Path(value).expanduser()))

    # --- files ------------------------------------------------------------------------------------------------------

    def look_for_files(self, path: KeyPath, config: Any) -> None:
        """Append to `missing` what the `exists` keys of a structured config name and is not there."""
        for key, field in keys(type(config)).items():
            value = getattr(config, field.name)
            here = (*path, key)
            if attrs.has(type(value)):
                self.look_for_files(here, value)
            elif field.metadata.get("exists"):
                several = isinstance(value, Iterable) and not isinstance(value, str)
                for place, one in [((*here, i), one) for i, one in enumerate(value)] if several else [(here, value)]:
                    if isinstance(one, Path) and not one.exists():
                        self.missing.append(self._document.problem(place, f"no such file: {one}"))


def _fits(value: Any, wanted: type[Any]) -> bool:
    if wanted is float:
        return type(value) in (int, float)
    return type(value) is (str if wanted is Path else wanted)


def _refuse(value: Any, wanted: Any) -> NoReturn:
    cure = ""
    if isinstance(value, str) and wanted in _SCALARS and _fits(_unquoted(value), wanted):
        cure = "; write it without quotes"
    elif wanted in (str, Path) and isinstance(value, bool | int | float):
        cure = "; write it in quotes"
    raise _WrongValueError(f"must be {type_name(wanted)}, got {show(value)}{cure}")


def _unquoted(text: str) -> Any:
    try:
        return tomli.loads(f"value = {text}")["value"]
    except tomli.TOMLDecodeError:
        return None


def did_you_mean(name: Any, names: Iterable[str], *, known: bool = True) -> str:
    """The name that was meant, or else (if `known`) all of them."""
    every = sorted(str(one) for one in names)
    close = get_close_matches(name, every, n=1) if isinstance(name, str) else []
    if close:
        return f"did you mean {close[0]!r}?"
    return (f"known: {', '.join(every)}" if every else "there are none here") if known else ""


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
    return message if "got " in message else f"{message}, got {show(value)}"
