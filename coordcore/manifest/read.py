"""Reads manifest files: `extends`, `drop`, `--set`, and for every key the file and line it came from. Torch-free."""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import attrs
import tomli

from coordcore.errors import Problem, did_you_mean, shortened
from coordcore.files import require_regular
from coordcore.kinds import KINDS, Kind
from coordcore.manifest.lines import KeyPath, dotted, key_path, locate
from coordcore.manifest.sections import MANIFEST_VERSION
from coordcore.manifest.types import show

Table = dict[str, Any]

_LEVELS = 50
"""Tables and arrays inside each other; what reads a manifest calls itself for each level."""

_LONG_KEY = re.compile(rf"^[ \t\[]*(?:[\w\"'-]+[ \t]*\.[ \t]*){{{_LEVELS}}}", re.MULTILINE)
_TOO_DEEP = f"more than {_LEVELS} tables or arrays inside each other; write it flatter"

_CHAIN, _FILES = 32, 500
"""Files of which each extends the next, and files that a manifest may read in all."""


@attrs.frozen
class Origin:
    """Where a value came from.

    file: as messages show it, "shapes.toml" or "--set train.steps=3". line: from 1; None where there is none.
    folder: what a relative path in this value is relative to.
    """

    file: str
    line: int | None
    folder: Path

    def absolute(self, text: str) -> Path:
        """The file that a value from here names; it need not be there. Raises ValueError for what no file can be."""
        return Path(os.path.normpath(_path(self.folder, text)))


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
        known = {dotted(path): origin for path, origin in self.origins.items()}
        around = [path for path in known if f"{problem.path}.".startswith((f"{path}.", f"{path}["))]
        origin = known[max(around, key=len, default="")]
        return attrs.evolve(problem, file=origin.file, line=origin.line)


def read(file: Path, overrides: Iterable[str], problems: list[Problem], kinds: Iterable[Kind] = KINDS) -> Document:
    """The document in `file` on top of what it extends, and the `--set` overrides on top of that.

    Appends to `problems`; the document is worth looking at only when nothing was appended.
    """
    reader = _Reader(problems, [kind for kind in kinds if kind.single])
    document = reader.with_bases(file, ())
    return reader.merge(document, reader.overrides(overrides, document.origin(())))


@attrs.frozen
class _Reader:
    """Reads layers of a manifest and lays them over each other.

    problems: where what is wrong goes. single: the kinds of which a run has one component.
    read: the files, each as often as it was read.
    """

    problems: list[Problem]
    single: list[Kind]
    read: list[Path] = attrs.field(factory=list, init=False)

    # --- files ------------------------------------------------------------------------------------------------------

    def with_bases(self, file: Path, chain: tuple[Path, ...], led: Problem | None = None) -> Document:
        """`file` on top of its bases. `chain` holds the files that led here, `led` says where in the last."""
        own = self.alone(file, led)
        chain = (*chain, file)
        below = Document(data={}, origins={(): own.origin(())})
        for path, name in self.entries(own, "extends"):
            try:
                base = _path(file.parent, name)
            except ValueError as error:
                self.problems.append(own.problem(path, str(error)))
                continue
            if len(chain) >= _CHAIN or len(self.read) >= _FILES:
                most = _CHAIN if len(chain) >= _CHAIN else _FILES
                self.problems.append(own.problem(path, f"more than {most} files extend each other; put some into one"))
            elif not base.exists():
                self.problems.append(own.problem(path, f"no such file: {_shown(base)}"))
            elif base.resolve() in [earlier.resolve() for earlier in chain]:
                circle = " -> ".join(_shown(file) for file in (*chain, base))
                self.problems.append(own.problem(path, f"the files extend each other in a circle: {circle}"))
            else:
                below = self.merge(below, self.with_bases(base, chain, own.problem(path, "")))
        own.data.pop("extends", None)
        for of_that_file_alone in ("name", "resolved"):
            below.data.pop(of_that_file_alone, None)
        return self.merge(below, own)

    def alone(self, file: Path, led: Problem | None = None) -> Document:
        """The document in `file` by itself; an empty one when it cannot be read."""
        whole = Origin(_shown(file), None, Path(os.path.abspath(file)).parent)
        empty = Document(data={}, origins={(): whole})
        line = None
        try:
            self.read.append(file)
            require_regular(file, 2**24)
            raw = file.read_bytes()
            text = raw.decode().removeprefix("\ufeff").replace("\r\n", "\n")
            data, lines = _parsed(text)
        except OSError as error:
            message = f"cannot be read: {(error.strerror or str(error)).lower()}"
        except UnicodeDecodeError as error:
            message = f"not UTF-8: byte 0x{raw[error.start]:02x}"
            line = raw.count(b"\n", 0, error.start) + 1
        except tomli.TOMLDecodeError as error:
            said = error.msg.replace("Cannot overwrite a value", "a key that is there already; keep one of the two")
            message = f"not valid TOML: {said[:1].lower()}{said[1:]} (column {error.colno})"
            line = error.lineno
        except ValueError:  # Python's, about integers
            message, digits = "a number has more than 4300 digits", re.search(r"\d{4000}", text)
            line = digits and text.count("\n", 0, digits.start()) + 1
        except RecursionError:
            message, rows = _TOO_DEEP, text.splitlines()
            line = bisect_left(range(1, len(rows)), True, key=lambda n: _is_too_deep("\n".join(rows[:n]))) + 1
        else:
            origins = {path: Origin(whole.file, line, whole.folder) for path, line in lines.items()}
            document = Document(data=data, origins={(): whole, **origins})
            return document if self.is_our_version(document) else empty
        told = Problem(path="", message=message, file=whole.file, line=line)
        self.problems.append(told if led is None or line else attrs.evolve(led, message=f"{whole.file}: {message}"))
        return empty

    def is_our_version(self, document: Document) -> bool:
        version = document.data.get("manifest_version", MANIFEST_VERSION)
        if type(version) is not int or version == MANIFEST_VERSION:
            return True  # what is no integer is reported like any other value of a wrong type
        cure = "update coordcore" if version > MANIFEST_VERSION else f"write {MANIFEST_VERSION}"
        message = f"this coordcore reads version {MANIFEST_VERSION}, got {show(version)}; {cure}"
        self.problems.append(document.problem(("manifest_version",), message))
        return False

    def entries(self, document: Document, key: str) -> Iterator[tuple[KeyPath, str]]:
        """The strings under a top-level key that holds one string or an array of them, and where they stand."""
        value = document.data.get(key, [])
        places: Iterable[tuple[KeyPath, Any]] = [((key,), value)]
        if isinstance(value, list):
            places = (((key, index), item) for index, item in enumerate(value))
        for path, name in places:
            if isinstance(name, str) and name:
                yield path, name
            else:
                message = f"must be a string or an array of strings, got {show(name)}"
                self.problems.append(document.problem(path, message))

    # --- overrides --------------------------------------------------------------------------------------------------

    def overrides(self, overrides: Iterable[str], whole: Origin) -> Document:
        """All `--set KEY=VALUE` as one document, a later one over an earlier one. whole: of the manifest below."""
        data: Table = {}
        origins: dict[KeyPath, Origin] = {}
        for override in overrides:
            origin = Origin(f"--set {shortened(override, 200)}".replace("\n", "\\n"), None, Path.cwd())
            key, equals, text = override.partition("=")
            too_deep = _is_too_deep(f"{key}={text}") or _is_too_deep(f"{key}=0")
            path = None if too_deep else key_path(key)
            if not equals or path is None:
                message = _TOO_DEEP if too_deep else "must be KEY=VALUE, as in --set train.steps=10"
                self.problems.append(Problem(path="", message=message, file=origin.file))
            elif path[0] in ("extends", "manifest_version"):
                self.problems.append(Problem(path=key, message="can only be set in a file", file=origin.file))
            else:
                value = _override_value(text)
                for name in reversed(path):
                    value = {name: value}
                origins |= dict.fromkeys(_paths(value), origin)
                _merge_tables(data, value)
        return Document(data=data, origins={**origins, (): whole})

    # --- merging ----------------------------------------------------------------------------------------------------

    def merge(self, below: Document, above: Document) -> Document:
        """`above` laid over `below`: tables merge key by key, anything else is replaced whole.

        First what `above` drops is taken out of `below`. Of a kind in `single`, which allows one component, the one
        named above replaces the one named below.
        """
        data, top = deepcopy(below.data), deepcopy(above.data)
        for path, text in self.entries(above, "drop"):
            if not _remove(data, key_path(text)):
                hint = did_you_mean(text, map(dotted, _paths(below.data)), known=False)
                message = f"there is no {text!r} to drop below this manifest; {hint}".removesuffix("; ")
                self.problems.append(above.problem(path, message))
        top.pop("drop", None)
        for kind in self.single:
            chosen, earlier = top.get(kind), data.get(kind)
            if chosen and isinstance(chosen, dict) and isinstance(earlier, dict):
                data[kind] = {name: section for name, section in earlier.items() if name in chosen}
        _merge_tables(data, top)
        origins = {**below.origins, **above.origins}
        present = set(_paths(data))
        return Document(data=data, origins={path: origin for path, origin in origins.items() if path in present})


def _path(folder: Path, text: str) -> Path:
    """The file that `text` names, from `folder`. Raises ValueError where no file can have that path."""
    try:
        path = folder / Path(text).expanduser()
        os.lstat(path)
    except RuntimeError as error:
        raise ValueError(f"{text.partition('/')[0]}: there is no such home folder; write the path out") from error
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise ValueError(f"{shortened(text, 80)}: {(error.strerror or str(error)).lower()}") from error
    return path


def _shown(file: Path) -> str:
    """The name messages use: as the user typed it, relative to the working directory when inside it."""
    shown = os.path.normpath(file)
    if os.path.isabs(shown) and Path(shown).is_relative_to(Path.cwd()):
        return os.path.relpath(shown)
    return shown


def _parsed(text: str) -> tuple[Table, dict[KeyPath, int]]:
    """The tables of a document, and the line of each key. Raises ValueError, RecursionError for too many levels."""
    if _LONG_KEY.search(text):  # before tomli, which takes 30 ms for each of them
        raise RecursionError
    data, lines = tomli.loads(text), locate(text)
    if max(map(len, lines), default=0) > _LEVELS:
        raise RecursionError
    return data, lines


def _is_too_deep(text: str) -> bool:
    try:
        _parsed(text)
    except ValueError:
        return False
    except RecursionError:
        return True
    return False


def _override_value(text: str) -> Any:
    """`text` as a TOML value, or as it stands where it is none."""
    try:
        document = tomli.loads(f"value = {text}")
    except ValueError:  # TOML's, or Python's about a number of thousands of digits
        return text
    return document["value"] if len(document) == 1 else text


def _paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """The path of a value and every path inside it."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths(inner, (*path, key))


def _merge_tables(below: Table, above: Table) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge_tables(below[key], value)
        else:
            below[key] = value


def _remove(table: Any, path: tuple[str, ...] | None) -> bool:
    """Take the key at `path` out of `table`. False where there is none."""
    if not path or not isinstance(table, dict) or path[0] not in table:
        return False
    if path[1:]:
        return _remove(table[path[0]], path[1:])
    del table[path[0]]
    return True
