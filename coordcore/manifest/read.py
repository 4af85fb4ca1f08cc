"""Reads manifest files: `extends`, `drop`, `--set`, and for every key the file and line it came from. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import attrs
import tomli

from coordcore.errors import Problem
from coordcore.kinds import KINDS, Kind
from coordcore.manifest.lines import KeyPath, dotted, locate
from coordcore.manifest.sections import MANIFEST_VERSION
from coordcore.manifest.types import show

Table = dict[str, Any]


@attrs.frozen
class Origin:
    """Where a value came from.

    file: as messages show it, "shapes.toml" or "--set train.steps=3". line: from 1; None where there is none.
    folder: what a relative path in this value is relative to.
    """

    file: str
    line: int | None
    folder: Path


@attrs.frozen(kw_only=True)
class Document:
    """A manifest as plain tables, its bases and overrides merged in. `origins` always has the empty path."""

    data: Table
    origins: Mapping[KeyPath, Origin]

    def origin(self, path: KeyPath) -> Origin:
        """Where the key at `path` came from; for one that is not there, its nearest table that is."""
        while path not in self.origins:
            path = path[:-1]
        return self.origins[path]

    def problem(self, path: KeyPath, message: str) -> Problem:
        """A problem with the key at `path`."""
        origin = self.origin(path)
        return Problem(path=dotted(path), message=message, file=origin.file, line=origin.line)

    def placed(self, problem: Problem) -> Problem:
        """`problem` with the file and line of its dotted path, unless it names a file itself."""
        if problem.file is not None:
            return problem
        known = {dotted(path): path for path in self.origins}
        inside = [text for text in known if text == problem.path or problem.path.startswith((f"{text}.", f"{text}["))]
        origin = self.origins[known[max(inside, key=len, default="")]]
        return attrs.evolve(problem, file=origin.file, line=origin.line)


def read(file: Path, overrides: Iterable[str], problems: list[Problem], kinds: Iterable[Kind] = KINDS) -> Document:
    """The document in `file` on top of what it extends, and the `--set` overrides on top of that.

    Appends to `problems`; the document is worth looking at only when nothing was appended.
    """
    reader = _Reader(problems, [kind for kind in kinds if kind.single])
    document = reader.with_bases(file, ()) or _empty(file)
    return merge(document, _read_overrides(overrides, document, problems), problems, reader.single)


def _empty(file: Path) -> Document:
    return Document(data={}, origins={(): Origin(_shown(file), None, _folder(file))})


# --- files ----------------------------------------------------------------------------------------------------------


def _shown(file: Path) -> str:
    """The name messages use: as the user typed it, relative to the working directory when inside it."""
    shown = os.path.normpath(file)
    if os.path.isabs(shown) and Path(shown).is_relative_to(Path.cwd()):
        return os.path.relpath(shown)
    return shown


def _folder(file: Path) -> Path:
    return Path(os.path.abspath(file)).parent


@attrs.frozen
class _Reader:
    """Reads manifest files. problems: where what is wrong goes. single: the kinds of which a run has one component."""

    problems: list[Problem]
    single: list[Kind]

    def with_bases(self, file: Path, chain: tuple[Path, ...]) -> Document | None:
        """`file` on top of its bases; None when it cannot be read. `chain` holds the files that led here."""
        own = self.alone(file)
        if own is None:
            return None
        base = _empty(file)
        for path, name in _names(own, "extends", self.problems):
            document = self._base(own, path, file.parent / Path(name).expanduser(), (*chain, file))
            base = merge(base, document, self.problems, self.single) if document is not None else base
        own.data.pop("extends", None)
        for of_that_file_alone in ("name", "resolved"):
            base.data.pop(of_that_file_alone, None)
        return merge(base, own, self.problems, self.single)

    def _base(self, own: Document, path: KeyPath, parent: Path, chain: tuple[Path, ...]) -> Document | None:
        """What the key at `path` of `own` extends."""
        if parent.resolve() in [file.resolve() for file in chain]:
            names = " -> ".join(_shown(file) for file in (*chain, parent))
            self.problems.append(own.problem(path, f"the files extend each other in a circle: {names}"))
        elif not parent.exists():
            self.problems.append(own.problem(path, f"no such file: {_shown(parent)}"))
        else:
            return self.with_bases(parent, chain)
        return None

    def alone(self, file: Path) -> Document | None:
        """The document in `file` by itself; None when it cannot be read."""
        line = None
        try:
            raw = file.read_bytes()
            text = raw.decode().removeprefix("\ufeff").replace("\r\n", "\n")
            document = _empty(file)
            document.data.update(tomli.loads(text))
        except OSError as error:
            message = f"cannot be read: {(error.strerror or str(error)).lower()}"
        except UnicodeDecodeError as error:
            message = f"not UTF-8: byte 0x{raw[error.start]:02x}"
            line = raw.count(b"\n", 0, error.start) + 1
        except tomli.TOMLDecodeError as error:
            message = f"not valid TOML: {error.msg[:1].lower()}{error.msg[1:]} (column {error.colno})"
            line = error.lineno
        else:
            whole = document.origins[()]
            origins = {path: attrs.evolve(whole, line=line) for path, line in locate(text).items()}
            document = attrs.evolve(document, origins={(): whole, **origins})
            return document if _is_our_version(document, self.problems) else None
        self.problems.append(Problem(path="", message=message, file=_shown(file), line=line))
        return None


def _is_our_version(document: Document, problems: list[Problem]) -> bool:
    version = document.data.get("manifest_version", MANIFEST_VERSION)
    if type(version) is not int or version == MANIFEST_VERSION:
        return True  # what is no integer is reported like any other value of a wrong type
    cure = "update coordcore" if version > MANIFEST_VERSION else f"write {MANIFEST_VERSION}"
    message = f"this coordcore reads version {MANIFEST_VERSION}, got {version}; {cure}"
    problems.append(document.problem(("manifest_version",), message))
    return False


def _names(document: Document, key: str, problems: list[Problem]) -> Iterator[tuple[KeyPath, str]]:
    """The strings under a top-level key that holds one string or an array of them."""
    value = document.data.get(key, [])
    for path, name in [((key,), value)] if isinstance(value, str) else _indexed((key,), value):
        if isinstance(name, str) and name:
            yield path, name
        else:
            problems.append(document.problem(path, f"must be a string or an array of strings, got {show(name)}"))


def _indexed(path: KeyPath, value: Any) -> list[tuple[KeyPath, Any]]:
    return [((*path, index), one) for index, one in enumerate(value)] if isinstance(value, list) else [(path, value)]


# --- overrides ------------------------------------------------------------------------------------------------------


def _read_overrides(overrides: Iterable[str], below: Document, problems: list[Problem]) -> Document:
    """All `--set KEY=VALUE` as one document, a later one over an earlier one."""
    data: Table = {}
    origins: dict[KeyPath, Origin] = {(): below.origins[()]}
    for override in overrides:
        origin = Origin(f"--set {override}", None, Path.cwd())
        key, equals, text = override.partition("=")
        path = key_path(key)
        if not equals or path is None:
            problems.append(Problem(path="", message="must be KEY=VALUE, as in --set train.steps=10", file=origin.file))
        elif path[0] in ("extends", "manifest_version"):
            problems.append(Problem(path=key, message="can only be set in a file", file=origin.file))
        else:
            value = _override_value(text)
            for name in reversed(path):
                value = {name: value}
            origins |= dict.fromkeys(_paths(value), origin)
            _merge_tables(data, value)
    return Document(data=data, origins=origins)


def _override_value(text: str) -> Any:
    """`text` as a TOML value, or as it stands where it is none."""
    try:
        document = tomli.loads(f"value = {text}")
    except tomli.TOMLDecodeError:
        return text
    return document["value"] if len(document) == 1 else text


def key_path(text: str) -> tuple[str, ...] | None:
    """The names in a dotted TOML key, or None where `text` is no such key."""
    try:
        table: Any = tomli.loads(f"{text} = 0")
    except tomli.TOMLDecodeError:
        return None
    names = []
    while isinstance(table, dict) and len(table) == 1:
        ((name, table),) = table.items()
        names.append(name)
    return tuple(names) if table == 0 and "\n" not in text else None


def _paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Every path inside `value`."""
    if path:
        yield path
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, one in items:
        yield from _paths(one, (*path, key))


# --- merging --------------------------------------------------------------------------------------------------------


def merge(below: Document, above: Document, problems: list[Problem], single: Iterable[str] = ()) -> Document:
    """`above` laid over `below`: tables merge key by key, anything else is replaced whole.

    First what `above` drops is taken out of `below`. Of a kind in `single`, which allows one component, the one named
    above replaces the one named below.
    """
    data = deepcopy(below.data)
    top = deepcopy(above.data)
    for path, text in _names(above, "drop", problems):
        if not _remove(data, key_path(text)):
            close = get_close_matches(text, [dotted(one) for one in _paths(below.data)], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            problems.append(above.problem(path, f"there is no {text!r} to drop below this manifest{hint}"))
    top.pop("drop", None)
    for kind in single:
        chosen, earlier = top.get(kind), data.get(kind)
        if chosen and isinstance(chosen, dict) and isinstance(earlier, dict):
            data[kind] = {name: section for name, section in earlier.items() if name in chosen}
    _merge_tables(data, top)
    present = {(), *_paths(data)}
    origins = {path: origin for path, origin in {**below.origins, **above.origins}.items() if path in present}
    return Document(data=data, origins=origins)


def _merge_tables(below: Table, above: Table) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge_tables(below[key], value)
        else:
            below[key] = value


def _remove(data: Table, path: tuple[str, ...] | None) -> bool:
    """Take the key at `path` out of `data`. False where there is none."""
    table: Any = data
    for name in (path or ())[:-1]:
        table = table.get(name) if isinstance(table, dict) else None
    if not path or not isinstance(table, dict) or path[-1] not in table:
        return False
    del table[path[-1]]
    return True
